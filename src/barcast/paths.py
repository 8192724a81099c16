"""Where every file of a barcast repository lies; the only place that spells the layout."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from barcast.errors import ConfigError

SPLITS = ("train", "val", "test")


def cell_name(model: str, horizon: int) -> str:
    """`xgboost_h5`: the name of one cell of the matrix, in file names and in the tracker."""
    return f"{model}_h{horizon}"


def find_root(start: Path | None = None) -> Path:
    """The folder with `dvc.yaml`, at or above `start` (default: the working directory).

    Raises:
        ConfigError: no such folder.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise ConfigError(f"{start}: no dvc.yaml here or above; run barcast inside its repository")


@dataclass(frozen=True)
class Paths:
    """The files of the repository at `root`. Stages use `Paths()`: DVC runs them at the root."""

    root: Path = Path()

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def specs(self) -> Path:
        return self.root / "experiments/specs"

    def spec(self, name: str) -> Path:
        """The spec of a stage (`prepare`) or of a cell (`xgboost_h5`)."""
        return self.specs / f"{name}.yaml"

    @property
    def splits(self) -> Path:
        return self.root / "data/splits/scaled"

    @property
    def audit(self) -> Path:
        return self.root / "experiments/audit.json"

    @property
    def windows(self) -> Path:
        return self.root / "data/windows"

    @property
    def runs(self) -> Path:
        return self.root / "experiments/runs"

    def run(self, cell: str) -> Path:
        """The folder of one cell: checkpoints, live, predictions, metrics, plots."""
        return self.runs / cell

    def repeat(self, cell: str, seed: int) -> Path:
        """The folder of one cell trained anew with another seed: metrics, predictions."""
        return self.run(cell) / f"repeats/s{seed}"

    def checkpoint(self, cell: str) -> Path:
        return self.run(cell) / "checkpoints/model"

    def live(self, cell: str) -> Path:
        return self.run(cell) / "live"

    def unfinished(self, cell: str) -> Path:
        """Where the trainings of a cell that were killed lie, each under its cell key; no output of DVC."""
        return self.root / "experiments/unfinished" / cell

    def predictions(self, cell: str, split: str) -> Path:
        return self.run(cell) / f"predictions/{split}_predictions.parquet"

    def cell_metrics(self, cell: str) -> Path:
        return self.run(cell) / "metrics/metrics.json"

    def plots(self, cell: str) -> Path:
        return self.run(cell) / "plots"

    @property
    def tune(self) -> Path:
        """The studies of tuned cells, a folder each; not there where nothing was ever tuned."""
        return self.root / "experiments/tune"

    @property
    def oof(self) -> Path:
        """Out-of-fold predictions, a folder per cell."""
        return self.root / "experiments/oof"

    def oof_predictions(self, cell: str) -> Path:
        return self.oof / cell / "predictions.parquet"

    @property
    def ensembles(self) -> Path:
        """The rows that are no cells: a folder a horizon, in it one a row, in the form of a cell's."""
        return self.root / "experiments/ensembles"

    def ensemble(self, horizon: int) -> Path:
        """The ensemble rows of one horizon."""
        return self.ensembles / f"h{horizon}"

    @property
    def ledgers(self) -> Path:
        """The journals of studies: of the real repository, beside what DVC clears before a stage runs again."""
        return Path(os.environ.get("DVC_ROOT", self.root)).resolve() / "experiments/ledgers"

    @property
    def metrics(self) -> Path:
        return self.root / "experiments/metrics.json"

    @property
    def report(self) -> Path:
        return self.root / "experiments/report"

    def registry(self, horizon: int) -> Path:
        """The champion of one horizon: `model/` and `metadata.json`."""
        return self.root / f"experiments/registry/h{horizon}"

    @property
    def store(self) -> Path:
        """The MLflow store: of the real repository, also inside a queued experiment's temporary copy."""
        return Path(os.environ.get("DVC_ROOT", self.root)).resolve() / "experiments/mlflow"
