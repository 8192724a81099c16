"""Is this repository fit to run? Each finding says what was looked at, and how to mend it."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from barcast.errors import BarcastError
from barcast.params import Params, load_params
from barcast.paths import SPLITS, Paths
from barcast.pins import read_pins, unmet

_FREE_GB = 2.0  # windows, cache and tracker of the default matrix with room to spare


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    subject: str
    ok: bool
    text: str


def examine(paths: Paths) -> list[Finding]:
    """Look at Python, libraries, disk, parameters, data and lock, in the order in which to mend them."""
    findings = [_python(), _libraries(paths.root / "requirements.lock"), _disk(paths.root)]
    try:
        params = load_params(paths.params)
    except BarcastError as error:
        return [*findings, Finding("params", False, str(error))]
    findings.append(Finding("params", True, f"{len(list(params.cells()))} cells, every key known and in range"))
    return [*findings, _threads(params), _data(params, paths), _lock(paths.root)]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info >= (3, 11)
    return Finding("python", ok, version if ok else f"{version}; install Python 3.11 or newer")


def _libraries(lock: Path) -> Finding:
    if not lock.is_file():
        return Finding("libraries", False, f"{lock.name} is missing; restore it with `git checkout {lock.name}`")
    wrong = unmet(lock)
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        return Finding("libraries", False, f"{', '.join(wrong[:3])}{more}; run `pip install --no-deps -r {lock.name}`")
    return Finding("libraries", True, f"{len(read_pins(lock))} pins of {lock.name} are what is installed")


def _disk(root: Path) -> Finding:
    free = shutil.disk_usage(root).free / 1e9
    advice = "" if free >= _FREE_GB else f"; free at least {_FREE_GB:.0f} GB (`dvc gc -w` drops old results)"
    return Finding("disk", free >= _FREE_GB, f"{free:.1f} GB free{advice}")


def _threads(params: Params) -> Finding:
    asked, cores = params.model.get("threads"), os.cpu_count() or 1
    if isinstance(asked, int) and asked > cores:
        return Finding("threads", False, f"model.threads = {asked} on {cores} cores; lower it to {cores}")
    return Finding("threads", True, f"model.threads = {asked} on {cores} cores")


def _data(params: Params, paths: Paths) -> Finding:
    path = paths.root / params.data.path
    if not path.exists():
        return Finding("data", False, f"{params.data.path} is missing; set data.path in params.yaml to your bars")
    if params.data.source == "splits":
        missing = [s for s in SPLITS if not (path / f"{s}_scaled.parquet").is_file()]
        text = f"{params.data.path} lacks {', '.join(f'{s}_scaled.parquet' for s in missing)}; add it"
        return Finding("data", not missing, text if missing else f"{params.data.path} has all three splits")
    from barcast.data.bars import find_gaps, load_bars

    try:
        bars = load_bars(path, params.symbols)
        gaps = len(find_gaps(bars))
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
    if changed:
        return Finding("lock", False, f"{len(changed)} stages are out of date ({changed[0]}, …); run `dvc repro`")
    return Finding("lock", True, "every stage is up to date with dvc.lock")
