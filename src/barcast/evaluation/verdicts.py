"""Is a difference real? Intervals, and the word that an interval allows: `better`, `worse` or `noise`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["better", "worse", "noise"]

LOWER_IS_BETTER = frozenset({"log_loss", "brier", "ece"})
NEITHER_IS_BETTER = frozenset({"turnover", "trades", "exposure"})


@dataclass(frozen=True)
class Interval:
    """A measured value and the confidence interval around it; None: undefined, as a Sharpe ratio without a trade."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Delta:
    """A paired difference (one model's metric minus another's, on the same windows), its interval and the verdict;
    None for metrics of which neither more nor less is better."""

    value: float | None
    low: float | None
    high: float | None
    verdict: Verdict | None


def verdict(metric: str, low: float | None, high: float | None) -> Verdict | None:
    """The word for a difference in `metric` that lies in `low … high`.

    `better` or `worse` where the whole interval lies on one side of 0; `noise` where it holds 0, or where
    the difference is undefined. None for a metric of which neither more nor less is better.
    """
    if metric in NEITHER_IS_BETTER:
        return None
    if low is None or high is None or math.isnan(low) or math.isnan(high) or low <= 0 <= high:
        return "noise"
    return "better" if (high < 0) == (metric in LOWER_IS_BETTER) else "worse"
