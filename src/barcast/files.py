"""Writes that are whole or absent: to a temporary name beside the target, then renamed over it; and who writes."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from barcast.errors import DataError

_CLOCK_SECONDS = 60.0  # tolerance of the time at which a process was created
_RESTORE = "restore it with `dvc checkout -f`, or delete it and run again what wrote it"


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield a temporary path to write; on success it becomes `target`, on failure it is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    recover(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_dir(target: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; on success it replaces `target` whole, on failure it is removed.

    A process that is killed between the two renames leaves the former folder beside `target`: `recover` puts it back.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    retired = target.with_name(f".{target.name}.{os.getpid()}.old")
    recover(target)
    temporary.mkdir()
    try:
        yield temporary
        if target.exists():
            os.replace(target, retired)
        os.replace(temporary, target)
    finally:
        if retired.exists() and not target.exists():  # stopped between the two
            os.replace(retired, target)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)


def recover(target: Path) -> None:
    """Clean up what killed processes left beside `target`; a former `target` comes back where none has followed it."""
    for left in sorted(target.parent.glob(f".{target.name}.*")):
        owner = re.fullmatch(r"\.(\d+)\.(tmp|old)", left.name.removeprefix(f".{target.name}"))
        if owner is None or (int(owner[1]) != os.getpid() and psutil.pid_exists(int(owner[1]))):
            continue
        if owner[2] == "old" and not target.exists():
            os.replace(left, target)
        else:
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def this_process() -> str:
    """`host:number:time of creation`, since numbers are used again."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def still_runs(process: str) -> bool | None:
    """Whether a process, as `this_process` named itself, still runs; None for one of another machine."""
    host, number, created = process.rsplit(":", 2)
    if host != socket.gethostname():
        return None
    try:
        found = psutil.Process(int(number))
        same = abs(found.create_time() - float(created)) < _CLOCK_SECONDS
        return bool(same and found.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def write_json(target: Path, content: Mapping[str, Any]) -> None:
    """Write JSON with sorted keys and a last newline; NaN and infinity are refused (they are no JSON)."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    with atomic_file(target) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises DataError: the file holds none, as after a power cut or a change by hand."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: no valid JSON ({error}); {_RESTORE}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, got {type(content).__name__}; {_RESTORE}")
    return content
