"""Feature importance by feature, by lag, and by both as a heat map."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from barcast.evaluation.page.columns import Columns
from barcast.evaluation.plots import OTHERS

FEATURES = 16
LAGS = 60  # columns of the heat map; more lags than that share columns
WHOLE = "all"  # the lag of what describes a window as a whole
SCALE = 1e5  # shares are written as whole numbers of 1/100,000


def figures(table: pd.DataFrame) -> Iterator[tuple[str, Columns, str]]:
    """(kind, columns, words) of each figure that a table of `feature, lag, importance` allows.

    Nothing where a model has no notion of importance; no figures by lag where it looks at one lag alone, or
    only tells features apart. Rows without a feature are what the lags weigh, asked for by themselves.
    """
    table = table.reset_index(drop=True)
    table["lag"] = _lag_names(table["lag"])
    of_features = table[table["feature"].notna()]
    if not of_features["importance"].sum() > 0:
        return
    by_feature = of_features[of_features["feature"] != OTHERS].groupby("feature", sort=True)["importance"].sum()
    by_feature = by_feature.sort_values(ascending=False, kind="stable").head(FEATURES)
    first = ", ".join(f"{feature} {share:.1%}" for feature, share in by_feature.head(3).items())
    yield "features", {"feature": list(by_feature.index), "share": _whole(by_feature)}, f"First by importance: {first}."
    of_lags = table[table["feature"].isna()] if table["feature"].isna().any() else of_features
    lags = _ordered(of_lags["lag"])
    if len(lags) < 2:
        return
    by_lag = of_lags.groupby("lag")["importance"].sum().reindex(lags, fill_value=0.0)
    words = f"Lag {by_lag.idxmax()} weighs most, {by_lag.max():.1%} of all; 0 is the window's last bar."
    yield "lags", {"lag": lags, "share": _whole(by_lag)}, words
    if len(_ordered(of_features["lag"])) > 1:
        grid = of_features.pivot_table(
            index="feature", columns="lag", values="importance", aggfunc="sum", fill_value=0.0
        )
        grid = grid.reindex(index=by_feature.index, columns=lags, fill_value=0.0)
        yield "heat", _grid(grid), _strongest(grid)


def _strongest(grid: pd.DataFrame) -> str:
    shares = grid.to_numpy()
    row, column = divmod(int(shares.argmax()), shares.shape[1])
    return f"Strongest: {grid.index[row]} at lag {grid.columns[column]}, {shares.max():.1%} of all importance."


def _lag_names(lag: pd.Series) -> pd.Series:
    """Lags as text: `0`, `5`, `60–61` where columns are shared, `all` for a window as a whole."""
    known = lag.dropna().astype(int)
    width = max(1, -(-(int(known.max()) + 1 if len(known) else 1) // LAGS))
    start = known // width * width
    named = start.astype(str) if width == 1 else start.astype(str) + "–" + (start + width - 1).astype(str)
    return named.reindex(lag.index).fillna(WHOLE)


def _ordered(names: pd.Series) -> list[str]:
    """The oldest lag first, as time runs; what describes the window as a whole last."""
    lags = sorted({name for name in names if name != WHOLE}, key=lambda name: -int(name.partition("–")[0]))
    return lags + ([WHOLE] if (names == WHOLE).any() else [])


def _whole(shares: pd.Series) -> list[int]:
    return [round(share * SCALE) for share in shares.to_numpy(np.float64).tolist()]


def _grid(grid: pd.DataFrame) -> Columns:
    """Rows, columns and cells apart: a fifth of the bytes that a row for each cell would take."""
    cells = [round(share * SCALE) for share in grid.to_numpy(np.float64).ravel().tolist()]
    return {"feature": list(grid.index), "lag": list(grid.columns), "grid": cells}
