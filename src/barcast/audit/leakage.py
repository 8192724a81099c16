"""Checks of values: features, scaler, prices and labels contain nothing of the future.

Each check raises a LeakageError that names column, symbol and row. Prices and labels are compared by code that
shares nothing with the code that made them: the label oracle uses neither the compiled search nor TA-Lib's average
true range. Features and scaler are checked by running the code that made them again: on altered bars, and on train rows
only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from barcast.data.frames import OHLCV, IntArray, feature_columns, isoformat, nanoseconds, row_name
from barcast.data.labels import BarrierConfig
from barcast.data.scaler import Scaler
from barcast.errors import DataError, LeakageError

Compute = Callable[[pd.DataFrame], pd.DataFrame]
Outcome = tuple[int | None, int | None]  # label and label_end_offset, both None if unknown

ALTERED_BARS = 200  # bars after the cut that are replaced; the past is kept from the first bar on
UNKNOWN: Outcome = (None, None)
_ROUNDING = 1e-9  # relative; the order of additions decides a touch as close to a barrier as this
_REMEDY = "run `dvc repro prepare`"


def check_causality(
    bars: pd.DataFrame, features: pd.DataFrame, compute: Compute, lasts: Sequence[int], rng: np.random.Generator
) -> int:
    """Features up to bar t must stay the same, bit for bit, when the bars after t are cut off or altered.

    `features` are `compute(bars)`: one symbol's bars `[R, 7]` give `[R, F]`. `lasts` are the rows t to try, and `rng`
    draws the altered bars. Returns how many values were compared.
    """
    compared, times = 0, nanoseconds(bars["datetime"])
    for last in lasts:
        trials = {"cut off": bars.iloc[: last + 1], "altered": alter_future(bars, last, rng)}
        for how, trial in trials.items():
            changed = first_difference(features, compute(trial.reset_index(drop=True)), last + 1)
            if changed:
                raise LeakageError(
                    f"{row_name(bars, changed[1])}: feature '{changed[0]}' changes when the bars after "
                    f"{isoformat(times[last])} are {how}; compute it from bars up to its own row"
                )
            compared += (last + 1) * features.shape[1]
    return compared


def alter_future(bars: pd.DataFrame, last: int, rng: np.random.Generator) -> pd.DataFrame:
    """The bars up to row `last`, then bars with other prices and volumes."""
    altered = bars.iloc[: last + 1 + ALTERED_BARS].copy()
    count = len(altered) - last - 1
    factor = np.ones(len(altered))
    factor[last + 1 :] = np.exp(1.0 + rng.normal(0.0, 0.05, count).cumsum())
    for name in OHLCV[:4]:  # one factor per bar: high and low still enclose open and close
        altered[name] = altered[name].to_numpy() * factor
    volume = altered["volume"].to_numpy().copy()
    volume[last + 1 :] = volume[last + 1 :] * np.exp(rng.normal(0.0, 1.0, count)) + 1.0
    altered["volume"] = volume
    return altered


def first_difference(expected: pd.DataFrame, actual: pd.DataFrame, rows: int) -> tuple[str, int] | None:
    """Column and row of the first value among the first `rows` that differs; NaN equals NaN."""
    earliest: tuple[str, int] | None = None
    for name in expected.columns:
        a, b = expected[name].to_numpy()[:rows], actual[name].to_numpy()[:rows]
        differs = np.flatnonzero((a != b) & ~(np.isnan(a) & np.isnan(b)))
        if len(differs) and (earliest is None or differs[0] < earliest[1]):
            earliest = name, int(differs[0])
    return earliest


def check_scaler(stored: Scaler, refitted: Scaler) -> None:
    """The stored scaler must be, bit for bit, the one fitted on train rows only.

    Raises:
        DataError: the stored scaler is of another configuration.
    """
    if (stored.kind, stored.clip, stored.columns) != (refitted.kind, refitted.clip, refitted.columns):
        raise DataError(f"scaler.json: its kind, clip or features are not those of params.yaml; {_REMEDY}")
    for position, name in enumerate(stored.columns):
        for what, a, b in (("center", stored.center, refitted.center), ("scale", stored.scale, refitted.scale)):
            if a[position] != b[position]:
                problem = f"{what} of feature '{name}' is {a[position]!r}, fitted on train only it is {b[position]!r}"
                remedy = "fit the scaler on train rows only, and on features of this code"
                raise LeakageError(f"scaler.json: {problem}; {remedy}")


def check_stored_features(stored: pd.DataFrame, expected: pd.DataFrame, split: str) -> None:
    """The features in a split's file must be those that the audited code computes."""
    names = feature_columns(stored.columns)
    if names != list(expected.columns):
        odd = sorted(set(names) ^ set(expected.columns)) or names
        raise LeakageError(f"{split}: feature '{odd[0]}' is not computed from the bars; {_REMEDY}")
    check_stored(stored, expected, split)


def check_stored(stored: pd.DataFrame, expected: pd.DataFrame, split: str) -> None:
    """The columns of `expected` must be equal in the rows of a split, bit for bit."""
    changed = first_difference(expected, stored, len(stored))
    if changed:
        name, row = changed
        problem = f"{name} is {stored[name].iloc[row]}, from the bars it is {expected[name].iloc[row]}"
        raise LeakageError(f"{split}: {row_name(stored, row)}: {problem}; {_REMEDY}")


class LabelOracle:
    """Triple-barrier labels the slow way: one symbol's bars `[R, 7]`, searched one by one as `labels.py` defines."""

    def __init__(self, bars: pd.DataFrame, atr_period: int) -> None:
        self.high, self.low, self.close = (bars[name].astype(float).tolist() for name in ("high", "low", "close"))
        self.atr = self._average_true_range(atr_period)

    def outcome(self, t: int, barrier: BarrierConfig, stretch: float = 1.0) -> Outcome:
        """The outcome of a position entered at the close of bar `t`; `stretch` multiplies the ATR."""
        entry, atr = self.close[t], self.atr[t] * stretch
        upper, lower = entry + barrier.k_up * atr, entry - barrier.k_down * atr
        if not lower < entry < upper:  # the ATR is NaN or 0
            return UNKNOWN
        for offset in range(1, barrier.max_bars + 1):
            if t + offset == len(self.close):
                return UNKNOWN
            if self.low[t + offset] <= lower:  # the stop, also if the bar touches both
                return -1, offset
            if self.high[t + offset] >= upper:
                return 1, offset
        return 0, barrier.max_bars

    def matches(self, stored: Outcome, t: int, barrier: BarrierConfig) -> bool:
        """Whether `stored` is the outcome of bar `t`, or one rounding away from it."""
        return any(stored == self.outcome(t, barrier, 1.0 + by) for by in (0.0, -_ROUNDING, _ROUNDING))

    def _average_true_range(self, period: int) -> list[float]:
        """Wilder's: NaN for the first `period` bars, then the mean of as many true ranges, smoothed from there on."""
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


def check_labels(
    part: pd.DataFrame, at: IntArray, rows: IntArray, horizon: int, scan: LabelOracle, barrier: BarrierConfig, name: str
) -> int:
    """Labels and the bars until them must be those of the oracle; returns how many were compared.

    `part` has one symbol's rows of the split `name`, `[R, C]`, and `at` `[R]` their positions among the symbol's bars.
    `rows` are those to compare.
    """
    columns = f"label_h{horizon}", f"bars_to_hit_h{horizon}"
    values = ([None if pd.isna(v) else int(v) for v in part[column].iloc[rows]] for column in columns)
    for row, stored in zip(rows.tolist(), zip(*values, strict=True), strict=True):
        if not scan.matches(stored, int(at[row]), barrier):
            true = scan.outcome(int(at[row]), barrier)
            column, *pair = next(each for each in zip(columns, stored, true, strict=True) if each[1] != each[2])
            a, b = ("null" if value is None else value for value in pair)
            problem = f"{column} is {a}, searching the bars gives {b}"
            raise LeakageError(f"{name}: {row_name(part, row)}: {problem}; {_REMEDY}")
    return len(rows)
