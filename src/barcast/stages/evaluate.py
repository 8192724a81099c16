"""`evaluate@{model}-{horizon}`: one trained cell scored on val and test, beside the prior."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from barcast.config import load_yaml, validate
from barcast.data.windows import DatasetConfig, TimeSeriesDataset
from barcast.errors import DataError
from barcast.evaluation.attribution import importance_of
from barcast.evaluation.budget import ended_by_limit
from barcast.evaluation.evaluator import EvaluateConfig, Evaluator, Scored
from barcast.evaluation.plots import write_plots
from barcast.evaluation.scaling import Period, fold_periods
from barcast.files import atomic_dir, write_json
from barcast.models.base import BaseModel
from barcast.models.prior import Prior
from barcast.models.registry import ModelRegistry
from barcast.paths import Paths, cell_name
from barcast.stages._main import parse_horizon, run_stage


def evaluate(model_name: str, horizon: int, config: EvaluateConfig, paths: Paths) -> None:
    """Score one cell: write its predictions, its metrics beside the prior's, its post-processing and plot data.

    Raises:
        DataError: the cell is not trained, or was trained on other features than the windows hold.
    """
    dataset = TimeSeriesDataset(DatasetConfig(path=str(paths.windows), horizon=horizon))
    model, folds = _load(model_name, horizon, paths), read_folds(model_name, horizon, paths)
    scored, prior = score(model, dataset, config, folds), score(fit_prior(dataset, horizon), dataset, config)
    importance = importance_of(model, dataset.split("val").X)
    cell = cell_name(model_name, horizon)
    limit = ended_by_limit(model.config.model_dump(), model.training_history)
    if limit:
        print(f"{cell}: {limit} ended the training while validation was still improving; raise it", flush=True)
    write_cell(paths.run(cell), scored, prior, importance, limit)


def read_folds(model_name: str, horizon: int, paths: Paths) -> list[Period]:
    """A cell's out-of-fold predictions, one period per fold; none where it is not in `evaluate.out_of_fold`."""
    file = paths.oof_predictions(cell_name(model_name, horizon))
    return fold_periods(pd.read_parquet(file)) if file.is_file() else []


def score(model: BaseModel, dataset: TimeSeriesDataset, config: EvaluateConfig, folds: Sequence[Period] = ()) -> Scored:
    """A fitted model on the dataset's validation and test.

    Raises:
        DataError: it was trained on other features than the windows hold.
    """
    for split in ("val", "test"):
        if dataset.feature_columns(split) != model.feature_columns:
            raise DataError(
                f"{dataset.path}/{split}/columns.json: the features are not those that {model.config.model_name} "
                "was trained on; run `dvc repro` to bring windows and model together"
            )
    return Evaluator(config).evaluate(model, dataset.split("val"), dataset.split("test"), folds)


def fit_prior(dataset: TimeSeriesDataset, horizon: int) -> BaseModel:
    """The class frequencies of the train split: what a model must beat to have learnt anything."""
    config = {"model_name": "prior", "model_family": "baseline", "horizon": horizon, "random_seed": 0, "threads": 1}
    model = Prior(config, horizon, dataset.feature_columns())
    train, val = dataset.split("train"), dataset.split("val")
    return model.fit(train.X, train.y, val.X, val.y, sample_weight=train.weight)


def write_cell(run: Path, scored: Scored, prior: Scored, importance: pd.DataFrame, limit: str | None = None) -> None:
    """Write `predictions/`, `metrics/` and `plots/` of a cell, each whole or not at all."""
    write_predictions(run, scored)
    write_metrics(run, scored, prior, limit)
    with atomic_dir(run / "plots") as folder:
        write_plots(folder, scored, prior, importance)


def write_predictions(run: Path, scored: Scored) -> None:
    """Write `predictions/{val,test}_predictions.parquet` under a cell's folder."""
    with atomic_dir(run / "predictions") as folder:
        for split, found in scored.splits.items():
            file = folder / f"{split}_predictions.parquet"
            found.to_dataframe().to_parquet(file, compression="zstd", index=False)


def write_metrics(run: Path, scored: Scored, prior: Scored, limit: str | None = None) -> None:
    """Write `metrics/metrics.json` and `metrics/postprocess.json` under a cell's folder; `limit` is what
    `ended_by_limit` found."""
    content = {
        **scored.to_json(),
        "ended_by_limit": limit,
        "prior": {split: found.metrics for split, found in prior.splits.items()},
        "prior_probabilities": prior.test.output.probabilities[0].tolist(),  # of every window
    }
    with atomic_dir(run / "metrics") as folder:
        write_json(folder / "metrics.json", content)
        scored.postprocess.save(folder / "postprocess.json")


def _load(model_name: str, horizon: int, paths: Paths) -> BaseModel:
    model_class = ModelRegistry.get_metadata(model_name).model_class
    checkpoint = paths.checkpoint(cell_name(model_name, horizon))
    if not (checkpoint / "model.json").is_file():
        raise DataError(f"{checkpoint}: no trained model; run `dvc repro train@{model_name}-{horizon}` first")
    return model_class.load(checkpoint)


def main(model: str, horizon: str) -> None:
    """Run the stage with the settings of its spec, then tell the tracker.

    Raises:
        ConfigError: the horizon is no number, or the spec has another form.
    """
    from barcast.tracking import log_evaluation  # MLflow is slow to import and of no use to evaluate()

    paths, bars = Paths(), parse_horizon(horizon)
    spec = paths.spec("evaluate")
    config = validate(EvaluateConfig, load_yaml(spec).get("config", {}), spec, "config")
    evaluate(model, bars, config, paths)
    log_evaluation(paths, cell_name(model, bars))


if __name__ == "__main__":
    run_stage(main)
