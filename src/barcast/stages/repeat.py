"""`repeat@{model}-{horizon}-{seed}`: one cell trained again with another seed, and scored; the model is not kept."""

from __future__ import annotations

from barcast.data.dataset import DatasetConfig, TimeSeriesDataset
from barcast.errors import ConfigError
from barcast.evaluation.cell_files import read_baseline, read_folds, write_scores
from barcast.evaluation.evaluator import EvaluateConfig, Evaluator
from barcast.files import atomic_dir
from barcast.paths import Paths, cell_name
from barcast.stages._main import parse_horizon, read_cell_spec, read_settings, run_stage
from barcast.training.trainer import Trainer


def repeat(model_name: str, horizon: int, seed: int, config: EvaluateConfig, paths: Paths) -> None:
    """Train the cell as in its spec but with `seed`, score it, and write `repeats/s{seed}/`; ConfigError if the cell
    has no spec, DataError if the horizon has no baseline."""
    cell = cell_name(model_name, horizon)
    values = {**read_cell_spec(paths, cell)["config"], "random_seed": seed}
    baseline = read_baseline(paths.baseline(horizon))
    windows = DatasetConfig(path=str(paths.windows), horizon=horizon)
    model = Trainer(model_name, values, windows).train()
    folds = read_folds(paths.oof_predictions(cell))  # of the cell's own seed
    evaluation = Evaluator(config).evaluate_dataset(model, TimeSeriesDataset(windows), folds)
    with atomic_dir(paths.repeat(cell, seed)) as folder:
        write_scores(folder, evaluation, baseline)
    print(f"{cell}, seed {seed}: test log-loss {evaluation.splits['test'].metrics['log_loss']:.4f}", flush=True)


def main(model: str, horizon: str, seed: str) -> None:
    """Run the stage; ConfigError if an argument is not a number or the spec has another form."""
    bars = parse_horizon(horizon)
    if not seed.isdecimal():
        raise ConfigError(f"seed '{seed}': expected a whole number such as 1")
    paths = Paths()
    repeat(model, bars, int(seed), read_settings(EvaluateConfig, "repeat", paths), paths)


if __name__ == "__main__":
    run_stage(main)
