"""Checks whether this repository is ready to run. Each finding names what was checked, and the fix."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from barcast.cache.fingerprint import mismatched_pins, read_pins
from barcast.data.frames import SPLITS
from barcast.errors import BarcastError
from barcast.params import Params, load_params
from barcast.paths import Paths

_FREE_GB = 2.0  # enough for windows, cache and tracker of the default matrix


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    subject: str
    ok: bool
    text: str


def check_repository(paths: Paths) -> list[Finding]:
    """Check Python, libraries, disk, parameters, data and lock, in the order in which to fix them."""
    version, recent = ".".join(map(str, sys.version_info[:3])), sys.version_info >= (3, 11)
    findings = [
        Finding("python", recent, version if recent else f"{version}; install Python 3.11 or newer"),
        _libraries(paths.root / "requirements.lock"),
        _disk(paths.root),
    ]
    try:
        params = load_params(paths.params)
    except BarcastError as error:
        return [*findings, Finding("params", False, str(error))]
    findings.append(Finding("params", True, f"{len(list(params.cells()))} cells; every key is known and in range"))
    return [*findings, _threads(params), _data(params, paths), _lock(paths.root)]


def _libraries(lock: Path) -> Finding:
    if not lock.is_file():
        return Finding("libraries", False, f"{lock.name} is missing; restore it with `git checkout {lock.name}`")
    if wrong := mismatched_pins(lock):
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        return Finding("libraries", False, f"{', '.join(wrong[:3])}{more}; run `pip install --no-deps -r {lock.name}`")
    return Finding("libraries", True, f"{len(read_pins(lock))} libraries match {lock.name}")


def _disk(root: Path) -> Finding:
    free = shutil.disk_usage(root).free / 1e9
    advice = "" if free >= _FREE_GB else f"; free at least {_FREE_GB:.0f} GB (`dvc gc -w` drops old results)"
    return Finding("disk", free >= _FREE_GB, f"{free:.1f} GB free{advice}")


def _threads(params: Params) -> Finding:
    asked, cores = params.model.get("threads"), os.cpu_count() or 1
    wrong = isinstance(asked, int) and asked > cores
    advice = f"; lower it to {cores}" if wrong else ""
    return Finding("threads", not wrong, f"model.threads = {asked} on {cores} cores{advice}")


def _data(params: Params, paths: Paths) -> Finding:
    path = paths.root / params.data.path
    if not path.exists():
        return Finding("data", False, f"{params.data.path} is missing; set data.path in params.yaml to your bars")
    if not params.data.from_bars:
        missing = [name for name in (f"{s}_scaled.parquet" for s in SPLITS) if not (path / name).is_file()]
        text = f"{params.data.path} lacks {', '.join(missing)}; add what is missing"
        return Finding("data", not missing, text if missing else f"{params.data.path} has all three splits")
    from barcast.data.bars import find_gaps, load_bars

    try:
        gaps = len(find_gaps(bars := load_bars(path, params.symbols)))
    except BarcastError as error:
        return Finding("data", False, str(error))
    return Finding("data", True, f"{len(bars):,} bars of {', '.join(params.symbols)}, {gaps} gaps")


def _lock(root: Path) -> Finding:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            changed = sorted(repo.status())
    except DvcException as error:
        return Finding("lock", False, f"{' '.join(str(error).split())}; run `dvc repro`")
    stale = f"{len(changed)} stages are out of date ({changed[0]}, …); run `dvc repro`" if changed else ""
    return Finding("lock", not changed, stale or "every stage is up to date")
