"""`repeat@{model}-{horizon}-{seed}`: one cell trained anew with another seed, and scored; the model is not kept."""

from __future__ import annotations

from barcast.config import load_yaml, validate
from barcast.data.windows import DatasetConfig, TimeSeriesDataset
from barcast.errors import ConfigError
from barcast.evaluation.evaluator import EvaluateConfig
from barcast.files import atomic_dir
from barcast.paths import Paths, cell_name
from barcast.stages._main import parse_horizon, run_stage
from barcast.stages.evaluate import fit_prior, read_folds, score, write_metrics, write_predictions
from barcast.training.trainer import Trainer


def repeat(model_name: str, horizon: int, seed: int, config: EvaluateConfig, paths: Paths) -> None:
    """Train the cell as its spec says but with `seed`, score it, and write `repeats/s{seed}/`.

    Raises:
        ConfigError: the cell has no spec.
    """
    cell = cell_name(model_name, horizon)
    values = {**load_yaml(paths.spec(cell))["config"], "random_seed": seed}
    where = DatasetConfig(path=str(paths.windows), horizon=horizon)
    model = Trainer(model_name, values, where).train()
    dataset = TimeSeriesDataset(where)
    folds = read_folds(model_name, horizon, paths)  # of the cell's own seed
    scored, prior = score(model, dataset, config, folds), score(fit_prior(dataset, horizon), dataset, config)
    with atomic_dir(paths.repeat(cell, seed)) as folder:
        write_predictions(folder, scored)
        write_metrics(folder, scored, prior)
    print(f"{cell}, seed {seed}: test log-loss {scored.test.metrics['log_loss']:.4f}", flush=True)


def main(model: str, horizon: str, seed: str) -> None:
    """Run the stage with the settings of its spec.

    Raises:
        ConfigError: the horizon or the seed is no number, or the spec has another form.
    """
    bars = parse_horizon(horizon)
    if not seed.isdecimal():
        raise ConfigError(f"seed '{seed}': expected a whole number such as 1")
    paths = Paths()
    spec = paths.spec("repeat")
    config = validate(EvaluateConfig, load_yaml(spec).get("config", {}), spec, "config")
    repeat(model, bars, int(seed), config, paths)


if __name__ == "__main__":
    run_stage(main)
