"""`oof@{model}-{horizon}`: a cell's out-of-fold predictions inside train.

They calibrate the cell, weigh it in the ensemble, and rank it, each by more than one stretch of time.
"""

from __future__ import annotations

from typing import Any

from barcast.config import Section, load_yaml, validate
from barcast.data.windows import DatasetConfig, TimeSeriesDataset
from barcast.files import atomic_dir
from barcast.paths import Paths, cell_name
from barcast.stages._main import parse_horizon, run_stage
from barcast.stages.train import check_libraries
from barcast.training.progress import Progress
from barcast.tuning.folds import FoldConfig
from barcast.tuning.out_of_fold import out_of_fold
from barcast.tuning.scaling import FoldScaler


class OofSpec(Section):
    """`config:` of `experiments/specs/oof_{model}_h{n}.yaml`; `base` is null for models without folds."""

    base: dict[str, Any] | None
    folds: FoldConfig
    scaler: FoldScaler


def oof(model: str, horizon: int, paths: Paths) -> None:
    """Write `experiments/oof/{cell}/predictions.parquet`, or an empty folder for a model that is not in `out_of_fold`.

    Raises:
        ConfigError: there is no spec, or a library differs from the one it names.
    """
    cell = cell_name(model, horizon)
    file = paths.spec(f"oof_{cell}")
    spec = load_yaml(file)
    config = validate(OofSpec, spec.get("config", {}), file, "config")
    with atomic_dir(paths.oof / cell) as folder:
        if config.base is None:
            print(f"{cell}: not in evaluate.out_of_fold, so it has no folds")
            return
        check_libraries(spec["libraries"], f"oof_{cell}")
        dataset = TimeSeriesDataset(DatasetConfig(path=str(paths.windows), horizon=horizon), splits=("train",))
        with Progress(f"oof {cell}", config.folds.count, "fold") as progress:
            said = out_of_fold(model, config.base, dataset, config.folds, config.scaler, progress)
        said.to_parquet(folder / paths.oof_predictions(cell).name, compression="zstd", index=False)


def main(model: str, horizon: str) -> None:
    """Run the stage in the repository's root.

    Raises:
        ConfigError: the horizon is no number, or the spec has another form.
    """
    oof(model, parse_horizon(horizon), Paths())


if __name__ == "__main__":
    run_stage(main)
