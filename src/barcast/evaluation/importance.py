"""What a model depends on: how much worse it gets when parts of its windows are shuffled."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from barcast.data.windows import Windows
from barcast.models.base import BaseModel
from barcast.probabilities import Labels, log_loss

Part = tuple[slice | int, slice | int]  # of the axes L and F


def permutation_importance(model: BaseModel, X: Windows, y: Labels, windows: int, seed: int) -> pd.DataFrame:
    """By feature: the rise of the log-loss when all its values are exchanged between windows (Breiman 2001).

    Of `X` `[N, L, F]` and `y` `[N]`, `windows` evenly chosen ones are predicted once per feature, which are all
    shuffled in the same way.

    Returns:
        `feature`, `lag` (null: the window as a whole) and `importance`, summing to 1, most important first; no row for
        a feature whose shuffling makes nothing worse.
    """
    rises = _rises(model, X, y, windows, seed, ((slice(None), feature) for feature in range(X.shape[2])))
    table = pd.DataFrame({"feature": model.feature_columns, "lag": pd.NA, "importance": rises})
    return _shares(table.astype({"lag": "Int64"}))


def lag_importance(model: BaseModel, X: Windows, y: Labels, windows: int, seed: int) -> pd.DataFrame:
    """The same by bar, with all its features exchanged: `lag` (bars before a window's last one) and `importance`."""
    lags = np.arange(X.seq_len)
    rises = _rises(model, X, y, windows, seed, ((int(bar), slice(None)) for bar in X.seq_len - 1 - lags))
    return _shares(pd.DataFrame({"lag": lags, "importance": rises}))


def _rises(model: BaseModel, X: Windows, y: Labels, windows: int, seed: int, parts: Iterable[Part]) -> list[float]:
    """The rise of the log-loss with each part of the sampled windows taken from other windows."""
    chosen = np.unique(np.linspace(0, len(X) - 1, min(windows, len(X))).round().astype(np.int64))
    x, truth = X[chosen], y[chosen]  # [n, L, F]
    shuffled = x[np.random.default_rng(seed).permutation(len(x))]
    before = log_loss(model.predict_proba(x), truth)
    rises = []
    for part in parts:
        index = (slice(None), *part)
        original = x[index].copy()
        x[index] = shuffled[index]
        rises.append(log_loss(model.predict_proba(x), truth) - before)
        x[index] = original
    return rises


def _shares(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame[frame["importance"] > 0].sort_values("importance", ascending=False, kind="stable", ignore_index=True)
    return frame.assign(importance=frame["importance"] / frame["importance"].sum())
