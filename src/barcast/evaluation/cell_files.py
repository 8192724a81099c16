"""The files of an evaluated cell, repeat or ensemble, and of the baseline that it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from barcast.errors import DataError
from barcast.evaluation.calibration import Period, fold_periods
from barcast.evaluation.evaluator import CellEvaluation
from barcast.evaluation.plots import plot_tables
from barcast.files import atomic_dir, read_json, write_json
from barcast.probabilities import PROBABILITY_COLUMNS

_PARQUET: dict[str, Any] = {"compression": "zstd", "index": False}


@dataclass(frozen=True)
class Baseline:
    """The prior of one horizon: what metrics.json has of it, and its equity by split."""

    metrics: Mapping[str, Any]
    equity: Mapping[str, pd.Series]


def write_baseline(folder: Path, prior: CellEvaluation) -> None:
    """Write `metrics.json` and `{val,test}_equity.parquet`."""
    frequencies = prior.splits["test"].predictions[[*PROBABILITY_COLUMNS]].iloc[0]  # the same for every window
    metrics = {name: split.metrics for name, split in prior.splits.items()}
    with atomic_dir(folder) as target:
        write_json(target / "metrics.json", {"prior": metrics, "prior_probabilities": frequencies.tolist()})
        for name, split in prior.splits.items():
            split.equity[["datetime", "equity"]].to_parquet(target / f"{name}_equity.parquet", **_PARQUET)


def read_baseline(folder: Path) -> Baseline:
    """Read what `write_baseline` wrote to `h{n}/`; DataError if there is no baseline yet."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; run `dvc repro baseline@{folder.name.removeprefix('h')}` first")
    equity = {name: pd.read_parquet(folder / f"{name}_equity.parquet")["equity"] for name in ("val", "test")}
    return Baseline(read_json(folder / "metrics.json"), equity)


def read_folds(file: Path) -> list[Period]:
    """Out-of-fold predictions, one period per fold; none for a cell that is not in `evaluate.out_of_fold`."""
    return fold_periods(pd.read_parquet(file)) if file.is_file() else []


def write_scores(folder: Path, evaluation: CellEvaluation, baseline: Baseline, limit: str | None = None) -> None:
    """Write `predictions/{val,test}_predictions.parquet` and `metrics/{metrics,postprocess}.json`; for `limit` see
    `ended_by_limit`."""
    with atomic_dir(folder / "predictions") as target:
        for name, split in evaluation.splits.items():
            split.predictions.to_parquet(target / f"{name}_predictions.parquet", **_PARQUET)
    with atomic_dir(folder / "metrics") as target:
        write_json(target / "metrics.json", {**evaluation.to_json(), "ended_by_limit": limit, **baseline.metrics})
        write_json(target / "postprocess.json", evaluation.postprocess.to_json())


def write_plots(folder: Path, evaluation: CellEvaluation, baseline: Baseline, importance: pd.DataFrame) -> None:
    """Write `plots/*.csv`: see `plot_tables`."""
    with atomic_dir(folder / "plots") as target:
        for name, table in plot_tables(evaluation, baseline.equity, importance).items():
            table.to_csv(target / f"{name}.csv", index=False, lineterminator="\n")
