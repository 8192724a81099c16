"""What a model looks at, asked from outside: how much worse it gets when a part of its windows is shuffled."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from barcast.data.windows import Windows
from barcast.models.base import BaseModel, Labels, log_loss

Part = tuple[slice | int, slice | int]  # of the axes L and F


def permutation_importance(model: BaseModel, X: Windows, y: Labels, windows: int, seed: int) -> pd.DataFrame:
    """By feature: the rise of the log-loss when its whole course is exchanged between windows (Breiman 2001).

    Args:
        model: fitted.
        X: `[N, L, F]`.
        y: `[N]` in {−1, 0, 1}.
        windows: how many of them, evenly chosen, are asked; F times as many predictions are made.
        seed: of the shuffling, the same for every feature.

    Returns:
        `feature`, `lag` (null: the window as a whole) and `importance`, summing to 1, most important first.
        A feature whose shuffling made nothing worse has no row.
    """
    rises = _rises(model, X, y, windows, seed, ((slice(None), feature) for feature in range(X.shape[2])))
    lag = pd.array([pd.NA] * len(rises), dtype="Int64")
    return _shares(pd.DataFrame({"feature": model.feature_columns, "lag": lag, "importance": rises}))


def lag_importance(model: BaseModel, X: Windows, y: Labels, windows: int, seed: int) -> pd.DataFrame:
    """By bar: the same for all features of the bar `lag` bars before a window's last one.

    Returns:
        `lag` and `importance`, summing to 1, most important first.
    """
    lags = np.arange(X.seq_len)
    rises = _rises(model, X, y, windows, seed, ((int(bar), slice(None)) for bar in X.seq_len - 1 - lags))
    return _shares(pd.DataFrame({"lag": lags, "importance": rises}))


def _rises(model: BaseModel, X: Windows, y: Labels, windows: int, seed: int, parts: Iterable[Part]) -> list[float]:
    """How much the log-loss of a sample rises with each part of its windows taken from other windows."""
    chosen = np.unique(np.linspace(0, len(X) - 1, min(windows, len(X))).round().astype(np.int64))
    x, truth = X[chosen], y[chosen]  # [n, L, F]
    other = x[np.random.default_rng(seed).permutation(len(x))]
    before = log_loss(model.predict_proba(x), truth)
    rises = []
    for part in parts:
        place = (slice(None), *part)
        own = x[place].copy()
        x[place] = other[place]
        rises.append(log_loss(model.predict_proba(x), truth) - before)
        x[place] = own
    return rises


def _shares(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame[frame["importance"] > 0].sort_values("importance", ascending=False, kind="stable", ignore_index=True)
    return frame.assign(importance=frame["importance"] / frame["importance"].sum())
