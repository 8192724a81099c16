"""The tables of a cell's plots, which `dvc plots` and the report page draw."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from barcast.evaluation.evaluator import CellEvaluation
from barcast.evaluation.metrics import CLASS_NAMES
from barcast.evaluation.validation_split import SCORED

EQUITY_POINTS = 500
TOP_FEATURES = 20
OTHERS = "(others)"  # all features beyond the first, in `importance`


def plot_tables(
    evaluation: CellEvaluation, prior_equity: Mapping[str, pd.Series], importance: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """Of each split `{split}_confusion`, `{split}_reliability`, `{split}_equity` (at most 500 rows, with the prior's
    equity) and `{split}_coverage`; and `importance` (see `importance_table`)."""
    tables, names = {"importance": importance_table(importance)}, np.asarray(CLASS_NAMES)
    for name, split in evaluation.splits.items():
        scored = split.predictions[split.predictions["part"].isin(SCORED)]
        confusion = {"actual": names[scored["label"] + 1], "predicted": names[scored["prediction"] + 1]}
        tables[f"{name}_confusion"] = pd.DataFrame(confusion)  # one row per window, as DVC's template takes them
        tables[f"{name}_reliability"] = split.reliability
        tables[f"{name}_equity"] = thin(split.equity.assign(prior=prior_equity[name]))
        tables[f"{name}_coverage"] = split.coverage
    return tables


def importance_table(importance: pd.DataFrame) -> pd.DataFrame:
    """`feature, lag, importance` of the 20 features with the largest sums, all lags of each, most important first.

    All others are summed by lag, as feature `(others)`, so that nothing is lost. Rows without a feature (the importance
    of a lag by itself) stay as they are.
    """
    total = importance.groupby("feature", sort=True)["importance"].sum().sort_values(ascending=False, kind="stable")
    top = importance[importance["feature"].isin(total.index[:TOP_FEATURES])]
    rest = importance[importance["feature"].notna() & ~importance["feature"].isin(top["feature"])]
    lags = importance[importance["feature"].isna()]
    others = rest.groupby("lag", dropna=False, sort=True)["importance"].sum().reset_index().assign(feature=OTHERS)
    parts = [part for part in (top, others[list(importance.columns)], lags) if len(part)]
    table = pd.concat(parts or [top])
    return table[table["importance"] > 0].sort_values("importance", ascending=False, kind="stable")


def thin(frame: pd.DataFrame, points: int = EQUITY_POINTS) -> pd.DataFrame:
    """At most `points` rows, evenly chosen, with the first and the last among them."""
    chosen = np.unique(np.linspace(0, len(frame) - 1, min(points, len(frame))).round().astype(np.int64))
    return frame.iloc[chosen]
