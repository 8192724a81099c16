"""`evaluate@{model}-{horizon}`: one trained cell scored on val and test, beside the prior."""

from __future__ import annotations

from barcast.data.dataset import DatasetConfig, TimeSeriesDataset
from barcast.errors import DataError
from barcast.evaluation.attribution import importance_of
from barcast.evaluation.cell_files import read_baseline, read_folds, write_plots, write_scores
from barcast.evaluation.evaluator import EvaluateConfig, Evaluator, ended_by_limit
from barcast.models.registry import ModelRegistry
from barcast.paths import Paths, cell_name
from barcast.stages._main import parse_horizon, read_settings, run_stage


def evaluate(model_name: str, horizon: int, config: EvaluateConfig, paths: Paths) -> None:
    """Score one cell and write its `predictions/`, `metrics/` and `plots/`; DataError if it is not trained, or on other
    features than those of the windows, or there is no baseline."""
    cell = cell_name(model_name, horizon)
    model_class, checkpoint = ModelRegistry.get_metadata(model_name).model_class, paths.checkpoint(cell)
    if not (checkpoint / "model.json").is_file():
        raise DataError(f"{checkpoint}: no trained model; run `dvc repro train@{model_name}-{horizon}` first")
    model, baseline = model_class.load(checkpoint), read_baseline(paths.baseline(horizon))
    dataset = TimeSeriesDataset(DatasetConfig(path=str(paths.windows), horizon=horizon), splits=("val", "test"))
    evaluation = Evaluator(config).evaluate_dataset(model, dataset, read_folds(paths.oof_predictions(cell)))
    importance = importance_of(model, dataset.split("val").X)
    limit = ended_by_limit(model.config.model_dump(), model.training_history)
    if limit:
        print(f"{cell}: {limit} ended the training while validation was still improving; raise it", flush=True)
    write_scores(paths.run(cell), evaluation, baseline, limit)
    write_plots(paths.run(cell), evaluation, baseline, importance)


def main(model: str, horizon: str) -> None:
    """Run the stage and log to the tracker; ConfigError if the horizon is not a number or the spec has another form."""
    from barcast.tracking import log_evaluation  # here: MLflow is slow to import, and evaluate() doesn't need it

    paths, bars = Paths(), parse_horizon(horizon)
    evaluate(model, bars, read_settings(EvaluateConfig, "evaluate", paths), paths)
    log_evaluation(paths, cell_name(model, bars))


if __name__ == "__main__":
    run_stage(main)
