"""Triple-barrier outcomes the slow way, bar by bar as `labels.py` defines them, for the audit to compare with.

Nothing of the code that makes the labels is used: neither its compiled scan nor TA-Lib's average true range.
"""

from __future__ import annotations

import math

import pandas as pd

from barcast.data.labels import BarrierConfig

Outcome = tuple[int | None, int | None]  # label and bars to the hit, both None where they are not known

UNKNOWN: Outcome = (None, None)
_ROUNDING = 1e-9  # relative; a touch as near to a barrier as this is decided by the order of additions


class SlowScan:
    """One symbol's bars `[R, 7]`, ready to be searched for the first touch of a barrier."""

    def __init__(self, bars: pd.DataFrame, atr_period: int) -> None:
        self.high, self.low, self.close = (bars[name].astype(float).tolist() for name in ("high", "low", "close"))
        self.atr = self._average_true_range(atr_period)

    def outcome(self, t: int, barrier: BarrierConfig, stretched: float = 1.0) -> Outcome:
        """What became of a position entered at the close of bar `t`.

        Args:
            t: number of the bar.
            barrier: distances in ATR, and how many bars to search.
            stretched: multiplies the ATR.
        """
        entry, atr = self.close[t], self.atr[t] * stretched
        upper, lower = entry + barrier.k_up * atr, entry - barrier.k_down * atr
        if not lower < entry < upper:  # the ATR is NaN or 0
            return UNKNOWN
        for bars in range(1, barrier.max_bars + 1):
            if t + bars == len(self.close):
                return UNKNOWN
            if self.low[t + bars] <= lower:  # the stop, also where the bar reached both
                return -1, bars
            if self.high[t + bars] >= upper:
                return 1, bars
        return 0, barrier.max_bars

    def allows(self, found: Outcome, t: int, barrier: BarrierConfig) -> bool:
        """Whether `found` is the outcome of bar `t`, or would be one rounding away from it."""
        return any(found == self.outcome(t, barrier, 1.0 + by) for by in (0.0, -_ROUNDING, _ROUNDING))

    def _average_true_range(self, period: int) -> list[float]:
        """Wilder's, NaN for the first `period` bars: the mean of as many true ranges, smoothed from there on."""
        atr, total = [math.nan] * len(self.close), 0.0
        for t in range(1, len(self.close)):
            before = self.close[t - 1]
            true_range = max(self.high[t], before) - min(self.low[t], before)
            total += true_range
            if t == period:
                atr[t] = total / period
            elif t > period:
                atr[t] = (atr[t - 1] * (period - 1) + true_range) / period
        return atr
