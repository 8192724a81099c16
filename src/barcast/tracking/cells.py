"""What the files of a cell tell: the inputs that it was made from, and whether it is finished."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barcast.cache.keys import hash_file
from barcast.files import read_json
from barcast.paths import Paths, cell_name
from barcast.yaml_io import load_yaml


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix, with the key of the inputs that it was trained on."""

    model: str
    horizon: int
    key: str

    @property
    def name(self) -> str:
        return cell_name(self.model, self.horizon)


def cell_on_disk(paths: Paths, name: str) -> Cell | None:
    """The cell in `experiments/runs`, or None if its training has not finished.

    Its key is the one that the training wrote into the cell's live folder. It tells what these files were made
    from even if specs and windows have changed since, or DVC restored the files.
    """
    model, stamp = paths.checkpoint(name) / "model.json", paths.live(name) / "params.yaml"
    if not (model.is_file() and stamp.is_file()):
        return None
    config, key = read_json(model)["config"], load_yaml(stamp).get("cell_key")
    return Cell(config["model_name"], config["horizon"], str(key)) if key else None


def locked_stages(paths: Paths) -> dict[str, Any]:
    """The stages that `dvc.lock` records; empty before the first `dvc repro`."""
    lock = paths.root / "dvc.lock"
    stages: dict[str, Any] = load_yaml(lock).get("stages", {}) if lock.is_file() else {}
    return stages


def is_evaluated(paths: Paths, cell: Cell, stages: Mapping[str, Any]) -> bool:
    """Whether the evaluation on disk is complete and belongs to the model on disk.

    A pipeline killed between `train` and `evaluate` leaves the evaluation of the previous model. `stages`, from
    `locked_stages`, tell: the checkpoint that `evaluate` read is no longer the one that `train` wrote.
    """
    checkpoint = paths.checkpoint(cell.name).relative_to(paths.root).as_posix()

    def md5(stage: str, part: str) -> str | None:
        entries = stages.get(f"{stage}@{cell.model}-{cell.horizon}", {}).get(part, [])
        return next((entry.get("md5") for entry in entries if entry["path"] == checkpoint), None)

    wrote, read = md5("train", "outs"), md5("evaluate", "deps")
    files = (paths.cell_metrics(cell.name), *(paths.predictions(cell.name, split) for split in ("val", "test")))
    complete = all(file.is_file() for file in files) and paths.plots(cell.name).is_dir()
    return complete and (None in (wrote, read) or wrote == read)


def evaluation_files(paths: Paths, name: str) -> list[Path]:
    """Metrics, predictions and plots of a cell, sorted."""
    folders = (paths.cell_metrics(name).parent, paths.predictions(name, "val").parent, paths.plots(name))
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


def evaluation_digest(paths: Paths, name: str) -> str:
    """A hash of everything that `evaluate` wrote for a cell."""
    files, folder = evaluation_files(paths, name), paths.run(name)
    lines = [f"{path.relative_to(folder).as_posix()} {hash_file(path)}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
