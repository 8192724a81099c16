"""Rules that stay out of the market while the model is unsure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from barcast.evaluation.trading import backtest
from barcast.models.base import CLASSES, Labels, Probabilities, Sets

_QUANTILES = np.arange(0.0, 1.0, 0.05)


def act_on_singletons(sets: Sets) -> Labels:
    """The class of a set that holds one alone, else 0 (no position), `[N]`."""
    one = sets.sum(axis=1) == 1
    return np.where(one, np.asarray(CLASSES)[sets.argmax(axis=1)], 0)


def act_beyond(probabilities: Probabilities, threshold: float | None) -> Labels:
    """Long where p_up − p_down ≥ `threshold`, short where p_down − p_up is, else 0, `[N]`; None: never act."""
    if threshold is None:
        return np.zeros(len(probabilities), np.int64)
    edge = _edge(probabilities)
    return np.where(np.abs(edge) >= threshold, np.sign(edge), 0).astype(np.int64)


def choose_threshold(probabilities: Probabilities, bars: pd.DataFrame, cost_bps: float) -> float | None:
    """The threshold whose rule had the best Sharpe ratio net of costs; None where none had one above 0.

    Costs make a higher threshold pay, since a rule that acts less turns over less. Candidates are 0 and the
    quantiles 5%, 10% … 95% of |p_up − p_down|; of equal ones the highest wins.

    Args:
        probabilities: `[N, 3]`.
        bars: their N rows of `datetime, symbol, close`.
        cost_bps: costs in 1/10,000 of the value traded.
    """
    candidates = np.unique(np.quantile(np.abs(_edge(probabilities)), _QUANTILES, method="lower"))
    best, chosen = 0.0, None
    for threshold in candidates:
        rule = bars.assign(prediction=act_beyond(probabilities, float(threshold)))
        sharpe = backtest(rule, cost_bps).metrics["sharpe"]
        if sharpe is not None and sharpe > 0 and sharpe >= best:
            best, chosen = sharpe, float(threshold)
    return chosen


def _edge(probabilities: Probabilities) -> npt.NDArray[np.float64]:
    return np.asarray(probabilities[:, 2] - probabilities[:, 0])
