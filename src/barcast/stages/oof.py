"""`oof@{model}-{horizon}`: a cell's out-of-fold predictions inside train, which calibrate, weight and rank it."""

from __future__ import annotations

from typing import Any

from barcast.cache.fingerprint import check_libraries
from barcast.data.dataset import DatasetConfig, TimeSeriesDataset
from barcast.files import atomic_dir
from barcast.paths import Paths, cell_name
from barcast.section import Section
from barcast.stages._main import machine_settings, parse_horizon, read_settings, run_stage
from barcast.training.progress import Progress
from barcast.tuning.fold_scaler import FoldScaler
from barcast.tuning.folds import FoldConfig
from barcast.tuning.out_of_fold import out_of_fold
from barcast.yaml_io import load_yaml


class OofSpec(Section):
    """`config:` of `experiments/specs/oof_{model}_h{n}.yaml`; `base` is null for models without folds."""

    base: dict[str, Any] | None
    folds: FoldConfig
    scaler: FoldScaler


def oof(model: str, horizon: int, paths: Paths) -> None:
    """Write `experiments/oof/{cell}/predictions.parquet`; an empty folder for a model that is not in `out_of_fold`.
    Raises ConfigError: there is no spec, or a library differs from the one it names."""
    cell = cell_name(model, horizon)
    spec = f"oof_{cell}"
    config = read_settings(OofSpec, spec, paths)
    with atomic_dir(paths.oof / cell) as folder:
        if config.base is None:
            print(f"{cell}: not in evaluate.out_of_fold, so it has no folds")
            return
        check_libraries(load_yaml(paths.spec(spec))["libraries"], spec)
        dataset = TimeSeriesDataset(DatasetConfig(path=str(paths.windows), horizon=horizon), splits=("train",))
        with Progress(f"oof {cell}", config.folds.count, "fold") as progress:
            base = {**config.base, **machine_settings(paths, cell)}
            predictions = out_of_fold(model, base, dataset, config.folds, config.scaler, progress)
        predictions.to_parquet(folder / paths.oof_predictions(cell).name, compression="zstd", index=False)


def main(model: str, horizon: str) -> None:
    """Run the stage; ConfigError if the horizon is not a number or the spec has another form."""
    oof(model, parse_horizon(horizon), Paths())


if __name__ == "__main__":
    run_stage(main)
