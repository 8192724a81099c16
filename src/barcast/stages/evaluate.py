"""`evaluate@{model}-{horizon}`: one trained cell scored on val and test, beside the prior."""

from __future__ import annotations

import sys

from barcast.config import load_yaml, validate
from barcast.data.windows import DatasetConfig, TimeSeriesDataset
from barcast.errors import ConfigError, DataError
from barcast.evaluation.evaluator import EvaluateConfig, Evaluation, Evaluator
from barcast.evaluation.plots import write_plots
from barcast.files import atomic_dir, write_json
from barcast.models.base import BaseModel
from barcast.models.prior import Prior
from barcast.models.registry import ModelRegistry
from barcast.paths import Paths, cell_name
from barcast.stages._main import run_stage

SCORED = ("val", "test")


def evaluate(model_name: str, horizon: int, config: EvaluateConfig, paths: Paths) -> None:
    """Score one cell: write its predictions, its metrics beside the prior's, and the data of its plots.

    Raises:
        DataError: the cell is not trained, or was trained on other features than the windows hold.
    """
    cell = cell_name(model_name, horizon)
    dataset = TimeSeriesDataset(DatasetConfig(path=str(paths.windows), horizon=horizon))
    model = _load(model_name, horizon, paths)
    scored = _evaluate(model, dataset, config)
    prior = _evaluate(fit_prior(dataset, horizon), dataset, config)
    _write_predictions(scored, paths, cell)
    content = {**_metrics(scored), "prior": _metrics(prior)}
    with atomic_dir(paths.cell_metrics(cell).parent) as folder:
        write_json(folder / paths.cell_metrics(cell).name, content)
    with atomic_dir(paths.plots(cell)) as folder:
        write_plots(folder, scored, model.get_feature_importance())


def _load(model_name: str, horizon: int, paths: Paths) -> BaseModel:
    model_class = ModelRegistry.get_metadata(model_name).model_class
    checkpoint = paths.checkpoint(cell_name(model_name, horizon))
    if not (checkpoint / "model.json").is_file():
        raise DataError(f"{checkpoint}: no trained model; run `dvc repro train@{model_name}-{horizon}` first")
    return model_class.load(checkpoint)


def fit_prior(dataset: TimeSeriesDataset, horizon: int) -> BaseModel:
    """The class frequencies of the train split: what a model must beat to have learnt anything."""
    config = {"model_name": "prior", "model_family": "baseline", "horizon": horizon, "random_seed": 0, "threads": 1}
    model = Prior(config, horizon, dataset.feature_columns())
    train, val = dataset.split("train"), dataset.split("val")
    return model.fit(train.X, train.y, val.X, val.y, sample_weight=train.weight)


def _evaluate(model: BaseModel, dataset: TimeSeriesDataset, config: EvaluateConfig) -> dict[str, Evaluation]:
    for split in SCORED:
        if dataset.feature_columns(split) != model.feature_columns:
            raise DataError(
                f"{dataset.path}/{split}/columns.json: the features are not those that {model.config.model_name} "
                "was trained on; run `dvc repro` to bring windows and model together"
            )
    return {split: Evaluator(model, config).evaluate(dataset.split(split)) for split in SCORED}


def _write_predictions(scored: dict[str, Evaluation], paths: Paths, cell: str) -> None:
    with atomic_dir(paths.predictions(cell, "test").parent) as folder:
        for split, evaluation in scored.items():
            file = folder / paths.predictions(cell, split).name
            evaluation.to_dataframe().to_parquet(file, compression="zstd", index=False)


def _metrics(scored: dict[str, Evaluation]) -> dict[str, object]:
    return {split: evaluation.metrics for split, evaluation in scored.items()}


def main(model: str, horizon: str) -> None:
    """Run the stage with the settings of its spec, then tell the tracker.

    Raises:
        ConfigError: the horizon is no number, or the spec has another form.
    """
    if not horizon.isdecimal():
        raise ConfigError(f"horizon '{horizon}': expected a whole number of bars such as 5")
    from barcast.tracking import log_evaluation  # MLflow is slow to import and of no use to evaluate()

    paths = Paths()
    spec = paths.spec("evaluate")
    config = validate(EvaluateConfig, load_yaml(spec).get("config", {}), spec, "config")
    evaluate(model, int(horizon), config, paths)
    log_evaluation(paths, cell_name(model, int(horizon)))


if __name__ == "__main__":
    run_stage(main, sys.argv[1:3])
