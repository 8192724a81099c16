"""What the features are computed with: sums over trailing windows, guarded arithmetic, shared series.

Every windowed value is summed afresh from its own window, oldest bar first, instead of being updated from
the value before. A running sum would carry the rounding errors of all earlier bars along (and would not
come back to exactly zero after a large value); here a value depends on nothing outside its window, neither
on the future, bit for bit, nor on how many bars came before. The inner loops run along time, so that
compilers vectorise them and a window of 200 bars costs little more than a running sum.

Kernels that call each other stand in this one file: numba's cache does not notice an edited callee elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
import pandas as pd
import talib

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
F = TypeVar("F", bound=Callable[..., Any])

# Relative size below which a price or volume difference is taken for rounding: no market has such a tick.
ROUNDING = 1e-9
_BLOCK = 2048  # bars worked on together: three such blocks fit the first-level cache


def compiled(function: F) -> F:
    """Compile with numba, cached on disk where some cache folder can be written, in memory otherwise."""
    try:
        jitted = numba.njit(cache=True, error_model="numpy")(function)
    except RuntimeError:  # numba found no writable cache folder: a read-only installation without a home
        jitted = numba.njit(error_model="numpy")(function)
    return cast(F, jitted)


@compiled
def window_sums(x: Array, window: int) -> Array:
    """Sum of the last `window` values, [n] -> [n]; NaN where the window reaches before the first value."""
    sums = np.full(x.size, np.nan)
    for start in range(window - 1, x.size, _BLOCK):
        stop = min(start + _BLOCK, x.size)
        sums[start:stop] = 0.0
        for back in range(window - 1, -1, -1):
            for t in range(start, stop):
                sums[t] += x[t - back]
    return sums


@compiled
def centred_products(x: Array, centre_x: Array, y: Array, centre_y: Array, window: int) -> Array:
    """Sum over the last `window` bars s of (x[s] - centre_x[t]) (y[s] - centre_y[t]), [n] -> [n]."""
    sums = np.full(x.size, np.nan)
    for start in range(window - 1, x.size, _BLOCK):
        stop = min(start + _BLOCK, x.size)
        sums[start:stop] = 0.0
        for back in range(window - 1, -1, -1):
            for t in range(start, stop):
                sums[t] += (x[t - back] - centre_x[t]) * (y[t - back] - centre_y[t])
    return sums


@compiled
def centred_powers(x: Array, centre: Array, window: int) -> tuple[Array, Array]:
    """Sums over the last `window` bars s of (x[s] - centre[t])³ and of its fourth power, [n] -> 2 × [n]."""
    third, fourth = np.full(x.size, np.nan), np.full(x.size, np.nan)
    for start in range(window - 1, x.size, _BLOCK):
        stop = min(start + _BLOCK, x.size)
        third[start:stop] = 0.0
        fourth[start:stop] = 0.0
        for back in range(window - 1, -1, -1):
            for t in range(start, stop):
                deviation = x[t - back] - centre[t]
                cube = deviation * deviation * deviation
                third[t] += cube
                fourth[t] += cube * deviation
    return third, fourth


@compiled
def centred_distances(x: Array, centre: Array, window: int) -> Array:
    """Sum over the last `window` bars s of |x[s] - centre[t]|, [n] -> [n]."""
    sums = np.full(x.size, np.nan)
    for start in range(window - 1, x.size, _BLOCK):
        stop = min(start + _BLOCK, x.size)
        sums[start:stop] = 0.0
        for back in range(window - 1, -1, -1):
            for t in range(start, stop):
                sums[t] += abs(x[t - back] - centre[t])
    return sums


@compiled
def weighted_sums(x: Array, weights: Array) -> Array:
    """Sum over the last bars of x[t-back] weights[back], [n] and [window] -> [n]."""
    window = weights.size
    sums = np.full(x.size, np.nan)
    for start in range(window - 1, x.size, _BLOCK):
        stop = min(start + _BLOCK, x.size)
        sums[start:stop] = 0.0
        for back in range(window - 1, -1, -1):
            for t in range(start, stop):
                sums[t] += x[t - back] * weights[back]
    return sums


@compiled
def code_entropy(codes: Codes, kinds: int, window: int, first: int) -> Array:
    """Shannon entropy of the last `window` codes as a share of log(kinds), [n] -> [n] in 0..1.

    Codes are in 0..kinds-1 from row `first` on. The counts are integers: updating them leaves no rounding.
    """
    entropy = np.full(codes.size, np.nan)
    counts = np.zeros(kinds, dtype=np.int64)
    for t in range(first, codes.size):
        counts[codes[t]] += 1
        if t - first >= window:
            counts[codes[t - window]] -= 1
        if t - first >= window - 1:
            entropy[t] = _entropy(counts, window)
    return entropy


@compiled
def binned_entropy(unit: Array, x: Array, centre: Array, edges: Array, window: int) -> Array:
    """Shannon entropy, as a share of its maximum, of a histogram of (x[s] - centre[t]) / unit[t].

    The histogram holds the last `window` bars s and its bins lie between `edges` (ascending) and outside
    them. 0 where the unit is 0; NaN where unit or centre is. [n] -> [n] in 0..1.
    """
    entropy = np.full(x.size, np.nan)
    counts = np.zeros(edges.size + 1, dtype=np.int64)
    for t in range(window - 1, x.size):
        if np.isnan(unit[t]) or np.isnan(centre[t]):
            continue
        counts[:] = 0
        for s in range(t - window + 1, t + 1):
            place = 0
            for edge in edges:
                place += (x[s] - centre[t]) > edge * unit[t]
            counts[place] += 1
        entropy[t] = _entropy(counts, window) if unit[t] > 0.0 else 0.0
    return entropy


@compiled
def _entropy(counts: Codes, total: int) -> float:
    entropy = 0.0
    for count in counts:
        if count > 0:
            share = count / total
            entropy -= share * math.log(share)
    return entropy / math.log(counts.size)


def lag(x: Array, bars: int) -> Array:
    """The value `bars` bars ago, [n] -> [n]; NaN at the top."""
    earlier = np.full(x.size, np.nan)
    earlier[bars:] = x[: max(x.size - bars, 0)]
    return earlier


def ratio(numerator: Array, denominator: Array, neutral: float, least: Array | float = 0.0) -> Array:
    """`numerator / denominator`, and `neutral` where the denominator is `least` or smaller; NaN stays NaN."""
    quotient = np.full(denominator.shape, neutral)
    np.divide(numerator, denominator, out=quotient, where=~(denominator <= least))
    return quotient


def mean(x: Array, window: int) -> Array:
    """Mean of the last `window` values, [n] -> [n]."""
    return window_sums(x, window) / window


def log_ratio(later: Array, earlier: Array) -> Array:
    """ln(later / earlier), [n] -> [n]."""
    logarithm: Array = np.log(later / earlier)
    return logarithm


def ratio_of_sums(numerator: Array, denominator: Array, window: int, neutral: float, least: float = 0.0) -> Array:
    """Sum of one series over the sum of another, both over `window` bars; `neutral` where that is `least` or less."""
    return ratio(window_sums(numerator, window), window_sums(denominator, window), neutral, least)


def deviation(x: Array, window: int, ddof: int = 0) -> Array:
    """Standard deviation of the last `window` values, in two passes, [n] -> [n]."""
    centre = mean(x, window)
    return np.sqrt(centred_products(x, centre, x, centre, window) / (window - ddof))


def sign(log_change: Array) -> Array:
    """+1, 0 or -1; a relative change within rounding has no direction. NaN stays NaN."""
    return np.where(np.abs(log_change) <= ROUNDING, 0.0, np.sign(log_change))


def highest(x: Array, window: int) -> Array:
    """Largest of the last `window` values, [n] -> [n]."""
    return cast(Array, talib.MAX(x, timeperiod=window))


def lowest(x: Array, window: int) -> Array:
    """Smallest of the last `window` values, [n] -> [n]."""
    return cast(Array, talib.MIN(x, timeperiod=window))


def ema(x: Array, window: int) -> Array:
    """Exponential moving average with weight 2 / (window + 1), seeded by the first window's mean, [n] -> [n]."""
    return cast(Array, talib.EMA(x, timeperiod=window))


def average_true_range(high: Array, low: Array, close: Array, period: int) -> Array:
    """Wilder's average true range (New Concepts in Technical Trading Systems, 1978), in price units, [n] -> [n].

    NaN in the first `period` rows. The value at t uses bars up to t only.
    """
    return cast(Array, talib.ATR(high, low, close, timeperiod=period))


class Bars:
    """One symbol's bars as contiguous float64 arrays [n], with the series that several features share."""

    def __init__(self, frame: pd.DataFrame) -> None:
        columns = ("open", "high", "low", "close", "volume")
        arrays = (np.ascontiguousarray(frame[column].to_numpy(dtype=np.float64)) for column in columns)
        self.open, self.high, self.low, self.close, self.volume = arrays
        self.datetime: pd.Series[Any] = frame["datetime"]

    @cached_property
    def unit(self) -> tuple[Array, Array, Array]:
        """High, low and close in units of a power of two near the first close: TA-Lib takes moves below 1e-14 for zero.

        Dividing by a power of two rounds nothing, so it makes no difference to any bit at which bar the history starts.
        """
        near = np.ldexp(1.0, np.frexp(self.close[:1])[1])
        return self.high / near, self.low / near, self.close / near

    @cached_property
    def seconds(self) -> Array:
        """Since the epoch, to the millisecond."""
        utc = self.datetime.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().astype("datetime64[ms]")
        seconds: Array = utc.astype(np.int64) / 1000.0
        return seconds

    @cached_property
    def log_return(self) -> Array:
        """ln(C[t] / C[t-1])."""
        return log_ratio(self.close, lag(self.close, 1))

    @cached_property
    def log_body(self) -> Array:
        """ln(C / O)."""
        return log_ratio(self.close, self.open)

    @cached_property
    def log_range(self) -> Array:
        """ln(H / L)."""
        return log_ratio(self.high, self.low)

    @cached_property
    def log_open(self) -> Array:
        """ln(O[t] / C[t-1])."""
        return log_ratio(self.open, lag(self.close, 1))

    @cached_property
    def typical(self) -> Array:
        """Typical price, (H + L + C) / 3."""
        price: Array = (self.high + self.low + self.close) / 3.0
        return price

    @cached_property
    def direction(self) -> Array:
        """+1, 0 or -1: the sign of the return."""
        return sign(self.log_return)

    @cached_property
    def atr(self) -> Array:
        """Average true range over 14 bars."""
        return average_true_range(self.high, self.low, self.close, 14)

    @cached_property
    def return_deviation(self) -> Array:
        """Standard deviation of the return over 50 bars, 0 where it is rounding."""
        sd = deviation(self.log_return, 50, ddof=1)
        return np.where(sd <= ROUNDING, 0.0, sd)
