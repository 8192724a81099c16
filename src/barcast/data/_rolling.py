"""What features are computed with: sums over trailing windows, guarded arithmetic, shared series, groups of features.

Every windowed value is summed from its own window, oldest bar first, not updated from the value before. A running
sum would keep the rounding errors of all earlier bars, and would not return to exactly zero after a large value. Here
no bar outside the window changes a bit, neither the future nor the number of bars before. The inner loops run along
time, so compilers vectorise them and a window of 200 bars costs little more than a running sum.

Kernels that call each other are in this one file: numba's cache does not notice an edited callee elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
import pandas as pd
import talib

from barcast.data.frames import OHLCV, IntArray

Array = npt.NDArray[np.float64]
F = TypeVar("F", bound=Callable[..., Any])

# A smaller relative difference of prices or volumes counts as rounding: no market has such a tick.
ROUNDING = 1e-9
_BLOCK = 2048  # bars per block: three blocks fit the first-level cache


def compiled(function: F) -> F:
    """Compile with numba; cached on disk if some cache folder is writable, else in memory."""
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
def centred_sums(x: Array, centre: Array, window: int, power: int) -> Array:
    """Sum over the last `window` bars s of |x[s] - centre[t]|, or of the third or fourth power of it, [n] -> [n]."""
    sums = np.full(x.size, np.nan)
    for start in range(window - 1, x.size, _BLOCK):
        stop = min(start + _BLOCK, x.size)
        sums[start:stop] = 0.0
        for back in range(window - 1, -1, -1):
            for t in range(start, stop):
                deviation = x[t - back] - centre[t]
                if power == 1:
                    sums[t] += abs(deviation)
                else:
                    cube = deviation * deviation * deviation
                    sums[t] += cube if power == 3 else cube * deviation
    return sums


@compiled
def weighted_sums(x: Array, weights: Array) -> Array:
    """Sum over the last bars of x[t-back] weights[back], [n] and [window] -> [n]."""
    window, sums = weights.size, np.full(x.size, np.nan)
    for start in range(window - 1, x.size, _BLOCK):
        stop = min(start + _BLOCK, x.size)
        sums[start:stop] = 0.0
        for back in range(window - 1, -1, -1):
            for t in range(start, stop):
                sums[t] += x[t - back] * weights[back]
    return sums


@compiled
def code_entropy(codes: IntArray, kinds: int, window: int, first: int) -> Array:
    """Shannon entropy of the last `window` codes as a share of log(kinds), [n] -> [n] in 0..1.

    IntArray are in 0..kinds-1 from row `first` on. The counts are integers: updating them leaves no rounding.
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
    """Shannon entropy, as a share of its maximum, of a histogram of (x[s] - centre[t]) / unit[t], [n] -> [n] in 0..1.

    The histogram has the last `window` bars s; its bins are between `edges` (ascending) and outside them. 0 where the
    unit is 0; NaN where unit or centre is.
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
def _entropy(counts: IntArray, total: int) -> float:
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


def average_true_range(high: Array, low: Array, close: Array, period: int) -> Array:
    """Wilder's average true range (New Concepts in Technical Trading Systems, 1978), in price units, [n] -> [n].

    NaN in the first `period` rows. The value at t uses bars up to t only.
    """
    return cast(Array, talib.ATR(high, low, close, timeperiod=period))


class Bars:
    """One symbol's bars as contiguous float64 arrays [n], with the series that several features share."""

    def __init__(self, frame: pd.DataFrame) -> None:
        arrays = (np.ascontiguousarray(frame[column].to_numpy(dtype=np.float64)) for column in OHLCV)
        self.open, self.high, self.low, self.close, self.volume = arrays
        self.datetime: pd.Series[Any] = frame["datetime"]
        self.log_return = log_ratio(self.close, lag(self.close, 1))  # ln(C[t] / C[t-1])
        self.log_body = log_ratio(self.close, self.open)  # ln(C / O)
        self.log_range = log_ratio(self.high, self.low)  # ln(H / L)
        self.log_open = log_ratio(self.open, lag(self.close, 1))  # ln(O[t] / C[t-1])
        self.typical: Array = (self.high + self.low + self.close) / 3.0
        self.direction = sign(self.log_return)  # +1, 0 or -1

    @cached_property
    def unit(self) -> tuple[Array, Array, Array]:
        """High, low and close in units of a power of two near the first close: TA-Lib treats moves below 1e-14 as zero.

        Dividing by a power of two rounds nothing, so the bar at which the history starts changes no bit.
        """
        near = np.ldexp(1.0, np.frexp(self.close[:1])[1])
        return self.high / near, self.low / near, self.close / near

    @cached_property
    def atr(self) -> Array:
        """Average true range over 14 bars."""
        return average_true_range(self.high, self.low, self.close, 14)

    @cached_property
    def return_deviation(self) -> Array:
        """Standard deviation of the return over 50 bars, 0 where it is rounding."""
        sd = deviation(self.log_return, 50, ddof=1)
        return np.where(sd <= ROUNDING, 0.0, sd)


@dataclass(frozen=True)
class Feature:
    """One column."""

    name: str
    function: Callable[..., Array]
    parameters: tuple[Any, ...]
    log_price: bool  # a difference of log prices, which `units: atr` divides by the average true range
    recursive: bool  # remembers all earlier bars, not only a window

    def compute(self, bars: Bars) -> Array:
        """The feature of one symbol's bars, [n]."""
        return self.function(bars, *self.parameters)


@dataclass(frozen=True)
class Group:
    """The features of one group in column order, and the rows until all their windows are full."""

    warmup: int
    features: list[Feature] = field(default_factory=list)

    def feature(
        self, name: str, *parameters: Any, log_price: bool = False, recursive: bool = False
    ) -> Callable[[F], F]:
        """Enter a function of bars as one column for each of `parameters`, a value or a tuple of values for the `{}`
        of `name`; without any, as one column. The flags are those of `Feature`."""

        def enter(function: F) -> F:
            for each in parameters or [()]:
                values = each if isinstance(each, tuple) else (each,)
                self.features.append(Feature(name.format(*values), function, values, log_price, recursive))
            return function

        return enter
