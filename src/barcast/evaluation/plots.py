"""One cell's plots as small CSV files that `dvc plots` draws and that the report page reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from barcast.evaluation.evaluator import Evaluation, Scored
from barcast.evaluation.metrics import CLASS_NAMES

EQUITY_POINTS = 500
TOP_FEATURES = 20
OTHERS = "(others)"  # all features beyond the first, in `importance.csv`


def write_plots(folder: Path, scored: Scored, prior: Scored, importance: pd.DataFrame) -> None:
    """Write `{split}_confusion.csv` (one row a window: actual, predicted), `{split}_reliability.csv`,
    `{split}_equity.csv` (at most 500 points, the prior's equity beside the model's), `{split}_coverage.csv` and
    `importance.csv` (see `importance_table`)."""
    for split, found in scored.splits.items():
        equity = found.equity.assign(prior=prior.splits[split].equity["equity"])
        _write(confusion(found), folder / f"{split}_confusion.csv")
        _write(found.reliability, folder / f"{split}_reliability.csv")
        _write(thin(equity), folder / f"{split}_equity.csv")
        _write(found.coverage, folder / f"{split}_coverage.csv")
    _write(importance_table(importance), folder / "importance.csv")


def confusion(found: Evaluation) -> pd.DataFrame:
    """Columns `actual` and `predicted` (down, flat, up), one row a scored window: what DVC's confusion template
    counts."""
    names = np.asarray(CLASS_NAMES)
    actual, predicted = found.answers.y[found.scored], found.output.predictions[found.scored]
    return pd.DataFrame({"actual": names[actual + 1], "predicted": names[predicted + 1]})


def importance_table(importance: pd.DataFrame) -> pd.DataFrame:
    """`feature, lag, importance` of the 20 features with the largest sums, every lag of theirs, most important first.

    What the others have is summed by lag, as feature `(others)`, so that nothing is lost. Rows without a feature (what
    the lags weigh, asked for by themselves) stay as they are.
    """
    total = importance.groupby("feature", sort=True)["importance"].sum().sort_values(ascending=False, kind="stable")
    first = importance[importance["feature"].isin(total.index[:TOP_FEATURES])]
    rest = importance[importance["feature"].notna() & ~importance["feature"].isin(first["feature"])]
    by_themselves = importance[importance["feature"].isna()]
    by_lag = rest.groupby("lag", dropna=False, sort=True)["importance"].sum().reset_index().assign(feature=OTHERS)
    parts = [part for part in (first, by_lag[list(importance.columns)], by_themselves) if len(part)]
    table = pd.concat(parts) if parts else first
    return table[table["importance"] > 0].sort_values("importance", ascending=False, kind="stable")


def thin(frame: pd.DataFrame, points: int = EQUITY_POINTS) -> pd.DataFrame:
    """At most `points` rows, evenly chosen; the first and the last are always among them."""
    chosen = np.unique(np.linspace(0, len(frame) - 1, min(points, len(frame))).round().astype(np.int64))
    return frame.iloc[chosen]


def _write(frame: pd.DataFrame, path: Path) -> None:
    frame.to_csv(path, index=False, lineterminator="\n")
