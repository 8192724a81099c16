"""Where every file of a barcast repository is; the only place that spells the layout."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from barcast.errors import ConfigError


def cell_name(model: str, horizon: int) -> str:
    """`xgboost_h5`: the name of one cell of the matrix, in file names and in the tracker."""
    return f"{model}_h{horizon}"


def find_root(start: Path | None = None) -> Path:
    """The folder with `dvc.yaml`, at or above `start` (default: the working directory).
    Raises ConfigError: no such folder."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise ConfigError(f"{start}: no dvc.yaml here or above; run barcast inside its repository")


class _At:
    """A file or folder at a fixed place of the repository."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __get__(self, paths: Paths, owner: type) -> Path:
        return paths.root / self._place


@dataclass(frozen=True)
class Paths:
    """The files of the repository at `root`. Stages use `Paths()`: DVC runs them at the root."""

    root: Path = Path()

    params = _At("params.yaml")
    machine = _At("experiments/machine.yaml")  # settings of each cell that change no result; no stage depends on them
    audit = _At("experiments/audit.json")
    metrics = _At("experiments/metrics.json")
    report = _At("experiments/report")
    splits = _At("data/splits/scaled")
    scaler = _At("data/splits/scaled/scaler.json")
    split_report = _At("data/splits/scaled/split.json")
    clipped_values = _At("data/splits/scaled/train_clipped.parquet")  # only where the splits are made from bars
    windows = _At("data/windows")
    specs = _At("experiments/specs")
    runs = _At("experiments/runs")
    tune = _At("experiments/tune")  # a folder per study; not there where nothing was ever tuned
    oof = _At("experiments/oof")  # out-of-fold predictions, a folder per cell
    baselines = _At("experiments/baseline")  # the prior's scores, a folder per horizon
    registries = _At("experiments/registry")  # champions, a folder per horizon
    ensembles = _At("experiments/ensembles")  # a folder per horizon, in it one per row in the form of a cell's

    def spec(self, name: str) -> Path:
        """The spec of a stage (`prepare`) or of a cell (`xgboost_h5`)."""
        return self.specs / f"{name}.yaml"

    def run(self, cell: str) -> Path:
        """The folder of one cell: checkpoints, live, predictions, metrics, plots."""
        return self.runs / cell

    def repeat(self, cell: str, seed: int) -> Path:
        """The folder of one cell trained again with another seed: metrics, predictions."""
        return self.run(cell) / f"repeats/s{seed}"

    def checkpoint(self, cell: str) -> Path:
        return self.run(cell) / "checkpoints/model"

    def live(self, cell: str) -> Path:
        return self.run(cell) / "live"

    def unfinished(self, cell: str) -> Path:
        """A cell's trainings that were killed, each under its cell key; no output of DVC."""
        return self.root / "experiments/unfinished" / cell

    def predictions(self, cell: str, split: str) -> Path:
        return self.run(cell) / f"predictions/{split}_predictions.parquet"

    def cell_metrics(self, cell: str) -> Path:
        return self.run(cell) / "metrics/metrics.json"

    def plots(self, cell: str) -> Path:
        return self.run(cell) / "plots"

    def oof_predictions(self, cell: str) -> Path:
        return self.oof / cell / "predictions.parquet"

    def baseline(self, horizon: int) -> Path:
        """The prior's scores at one horizon: metrics, equity of each split."""
        return self.baselines / f"h{horizon}"

    def ensemble(self, horizon: int) -> Path:
        """The ensemble rows of one horizon."""
        return self.ensembles / f"h{horizon}"

    def registry(self, horizon: int) -> Path:
        """The champion of one horizon: `model/`, `metadata.json`, and in `previous/` the champion before."""
        return self.registries / f"h{horizon}"

    @property
    def shared_root(self) -> Path:
        """The real repository, also inside a queued experiment's temporary copy."""
        return Path(os.environ.get("DVC_ROOT", self.root)).resolve()

    @property
    def ledgers(self) -> Path:
        """The journals of studies: outside of what DVC clears before a stage runs again."""
        return self.shared_root / "experiments/ledgers"

    @property
    def store(self) -> Path:
        """The MLflow store."""
        return self.shared_root / "experiments/mlflow"
