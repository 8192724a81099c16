"""`baseline@{horizon}`: the prior of one horizon, scored on val and test, which every row is compared with."""

from __future__ import annotations

from barcast.data.dataset import DatasetConfig, TimeSeriesDataset
from barcast.evaluation.baseline import evaluate_prior
from barcast.evaluation.cell_files import write_baseline
from barcast.evaluation.evaluator import EvaluateConfig
from barcast.paths import Paths
from barcast.stages._main import parse_horizon, read_settings, run_stage


def baseline(horizon: int, config: EvaluateConfig, paths: Paths) -> None:
    """Write `experiments/baseline/h{n}/`."""
    dataset = TimeSeriesDataset(DatasetConfig(path=str(paths.windows), horizon=horizon))
    write_baseline(paths.baseline(horizon), evaluate_prior(dataset, config))


def main(horizon: str) -> None:
    """Run the stage; ConfigError if the horizon is not a number or the spec has another form."""
    paths = Paths()
    baseline(parse_horizon(horizon), read_settings(EvaluateConfig, "baseline", paths), paths)


if __name__ == "__main__":
    run_stage(main)
