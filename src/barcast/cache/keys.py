"""The key of a cell: a hash of all that went into its training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from barcast.errors import ConfigError, DataError
from barcast.paths import Paths, cell_name


def cell_key(paths: Paths, model: str, horizon: int) -> str:
    """SHA-256 over the cell's spec file and over the window files that its training reads.

    The test split is not among them, since no training sees it. Files are hashed once per process.
    Raises a ConfigError for a cell without a spec, a DataError for a missing window file.
    """
    spec = paths.spec(cell_name(model, horizon))
    if not spec.is_file():
        raise ConfigError(f"{spec}: no such file; run `dvc repro spec` first")
    return _key(f"spec {hash_file(spec)}", paths, _inputs(horizon, ("train", "val")))


def train_key(spec: str, paths: Paths, horizon: int) -> str:
    """SHA-256 over the text of a spec and over the window files of train at one horizon.
    Raises DataError: a window file is missing."""
    files = [*_inputs(horizon, ("train",)), "train/clipped.npy"]
    return _key(f"spec {hashlib.sha256(spec.encode()).hexdigest()}", paths, files)


def _key(spec: str, paths: Paths, files: Sequence[str]) -> str:
    digest = hashlib.sha256(f"{spec}\n".encode())
    for name in files:
        path = paths.windows / name
        if not path.is_file():
            raise DataError(f"{path}: no such window file; run `dvc repro window` first")
        digest.update(f"{name} {hash_file(path)}\n".encode())
    return digest.hexdigest()


def _inputs(horizon: int, splits: Sequence[str]) -> list[str]:
    files = ("rows.npy", "ends.npy", "index.parquet", "columns.json")
    return [f"{s}/{f}" for s in splits for f in files] + [f"labels/{s}_h{horizon}.npy" for s in splits]


def hash_file(path: Path) -> str:
    """SHA-256 of a file, read once per process while it stays as it is."""
    stat = path.stat()
    return _hash_of(str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=4096)
def _hash_of(path: str, size: int, modified: int, inode: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
