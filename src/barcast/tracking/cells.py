"""What the files of a cell say: which inputs it was made from, and whether it is finished."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from barcast.config import load_yaml
from barcast.errors import ConfigError, DataError
from barcast.files import read_json
from barcast.paths import Paths, cell_name


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix, with the key of the inputs that it was trained on."""

    model: str
    horizon: int
    key: str

    @property
    def name(self) -> str:
        return cell_name(self.model, self.horizon)


def cell_key(paths: Paths, model: str, horizon: int) -> str:
    """SHA-256 over the cell's spec file and over the window files that its training reads.

    The test split is not among them, since no training sees it. Files are hashed once a process.

    Raises:
        ConfigError: the cell has no spec.
        DataError: a window file is missing.
    """
    spec = paths.spec(cell_name(model, horizon))
    if not spec.is_file():
        raise ConfigError(f"{spec}: no such file; run `dvc repro spec` first")
    return _key(f"spec {_hash(spec)}", paths, _inputs(horizon, ("train", "val")))


def train_key(spec: str, paths: Paths, horizon: int) -> str:
    """SHA-256 over the text of a spec and over the window files of train at one horizon.

    Raises:
        DataError: a window file is missing.
    """
    files = [*_inputs(horizon, ("train",)), "train/clipped.npy"]
    return _key(f"spec {hashlib.sha256(spec.encode()).hexdigest()}", paths, files)


def _key(spec: str, paths: Paths, files: Sequence[str]) -> str:
    digest = hashlib.sha256(f"{spec}\n".encode())
    for name in files:
        path = paths.windows / name
        if not path.is_file():
            raise DataError(f"{path}: no such window file; run `dvc repro window` first")
        digest.update(f"{name} {_hash(path)}\n".encode())
    return digest.hexdigest()


def cell_on_disk(paths: Paths, name: str) -> Cell | None:
    """The cell as it lies in `experiments/runs`, or None where its training has not finished.

    Its key is the one that the training wrote into the cell's live folder: whatever has happened to specs
    and windows since, it says what these files were made from, also after DVC restored them.
    """
    model, stamp = paths.checkpoint(name) / "model.json", paths.live(name) / "params.yaml"
    if not (model.is_file() and stamp.is_file()):
        return None
    config, key = read_json(model)["config"], load_yaml(stamp).get("cell_key")
    return Cell(config["model_name"], config["horizon"], str(key)) if key else None


def is_evaluated(paths: Paths, cell: Cell) -> bool:
    """Whether the evaluation on disk is there with all its parts, and is this model's.

    A pipeline killed between `train` and `evaluate` leaves the evaluation of the model before. `dvc.lock`
    tells: the checkpoint that `evaluate` read is no longer the one that `train` wrote.
    """
    lock = paths.root / "dvc.lock"
    stages = load_yaml(lock).get("stages", {}) if lock.is_file() else {}
    wrote = _recorded(stages, f"train@{cell.model}-{cell.horizon}", "outs", paths, cell.name)
    read = _recorded(stages, f"evaluate@{cell.model}-{cell.horizon}", "deps", paths, cell.name)
    files = (paths.cell_metrics(cell.name), *(paths.predictions(cell.name, split) for split in ("val", "test")))
    whole = all(file.is_file() for file in files) and paths.plots(cell.name).is_dir()
    return whole and (None in (wrote, read) or wrote == read)


def evaluation_digest(paths: Paths, name: str) -> str:
    """A hash of all that `evaluate` wrote for a cell."""
    digest = hashlib.sha256()
    for path in evaluation_files(paths, name):
        digest.update(f"{path.relative_to(paths.run(name)).as_posix()} {_hash(path)}\n".encode())
    return digest.hexdigest()


def evaluation_files(paths: Paths, name: str) -> list[Path]:
    """Metrics, predictions and plots of a cell, sorted."""
    folders = (paths.cell_metrics(name).parent, paths.predictions(name, "val").parent, paths.plots(name))
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


def flatten(values: Mapping[str, Any], separator: str, prefix: str = "") -> dict[str, Any]:
    """`{"val": {"log_loss": 1.0}}` as `{"val/log_loss": 1.0}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, separator, f"{prefix}{key}{separator}")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _inputs(horizon: int, splits: Sequence[str]) -> list[str]:
    files = ("rows.npy", "ends.npy", "index.parquet", "columns.json")
    return [f"{s}/{f}" for s in splits for f in files] + [f"labels/{s}_h{horizon}.npy" for s in splits]


def _hash(path: Path) -> str:
    stat = path.stat()
    return _hash_of(str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=4096)
def _hash_of(path: str, size: int, modified: int, inode: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _recorded(stages: Mapping[str, Any], stage: str, part: str, paths: Paths, name: str) -> str | None:
    """The hash that `dvc.lock` has for the checkpoint among a stage's `deps` or `outs`."""
    checkpoint = paths.checkpoint(name).relative_to(paths.root).as_posix()
    entries = stages.get(stage, {}).get(part, [])
    return next((entry.get("md5") for entry in entries if entry["path"] == checkpoint), None)
