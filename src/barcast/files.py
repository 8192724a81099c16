"""Writes that are whole or absent: to a temporary name beside the target, then renamed over it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield a temporary path to write; on success it becomes `target`, on failure it is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_dir(target: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; on success it replaces `target` whole, on failure it is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    retired = target.with_name(f".{target.name}.{os.getpid()}.old")
    _sweep(target)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if target.exists():
            os.replace(target, retired)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)


def _sweep(target: Path) -> None:
    """Remove what processes that were killed left beside `target`: it would be taken for part of its folder."""
    for left in target.parent.glob(f".{target.name}.*"):
        owner = re.fullmatch(r"\.(\d+)\.(tmp|old)", left.name.removeprefix(f".{target.name}"))
        if owner and not _alive(int(owner[1])):
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def _alive(pid: int) -> bool:
    """Whether a process of this number runs, be it another user's."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return True


def write_json(target: Path, content: Mapping[str, Any]) -> None:
    """Write JSON with sorted keys and a last newline; NaN and infinity are refused (they are no JSON)."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    with atomic_file(target) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
