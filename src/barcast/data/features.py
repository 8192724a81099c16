"""From one symbol's bars to features: causal, scale-free, and never NaN or infinite after the warm-up.

- Causal: row t uses bars up to and including t, and is bit-identical whatever follows.
- Scale-free: multiplying all prices, or all volumes, by a constant changes no feature. A difference within
  1e-9 of the price counts as rounding, not as a move.
- Finite: where a division could be by zero (high = low, no volume, no move) the value is neutral; the docstring of the
  function names it.
- Rows count as consecutive, whatever the gap between their times.

A feature over a window depends only on that window. Recursive ones (EMA, RSI, ADX, MACD, TRIX, ATR) remember all
earlier bars, with weights that fade: after the warm-up the first bars have a weight under 0.5 %. After `memory_bars`
the bits are the same wherever the history begins.

Features that are differences of log prices (returns, ranges, distances, slopes, MACD, volatilities) grow with the
market's volatility. With `units: atr` each is divided by the average true range of the last 200 bars, so that one
threshold means the same in a quiet and in a wild month. Their names then end in `_atr`. `atr_share_14` keeps the level
of volatility; ratios, shares and oscillators have no unit.

A feature is added in one file: write its function into `_indicators` or `_activity`, and enter it into a group with the
decorator `feature`. If its window is longer than the group's warm-up, raise that.
"""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import model_validator

from barcast.data import _activity as activity
from barcast.data import _indicators as indicators
from barcast.data._rolling import ROUNDING, Bars, Feature, Group, ratio
from barcast.data.frames import row_name
from barcast.errors import DataError
from barcast.section import Section

_GROUPS: dict[str, Group] = {
    "returns": indicators.RETURNS,
    "candles": indicators.CANDLES,
    "trend": indicators.TREND,
    "momentum": indicators.MOMENTUM,
    "volatility": activity.VOLATILITY,
    "volume": activity.VOLUME,
    "regime": activity.REGIME,
    "calendar": activity.CALENDAR,
}
# What a recursive indicator keeps of its start falls below rounding (for the slowest, RSI over 28 bars, after
# 53 ln 2 / ln(28/27) = 1010 bars). Then two histories round to the same number at some bar and stay together.
_MEMORY = 1500
_UNIT_BARS = 200  # of the average true range that `units: atr` divides by


class FeatureConfig(Section):
    """Which groups of features to compute, and the unit of differences of log prices."""

    units: Literal["price", "atr"]
    returns: bool
    candles: bool
    trend: bool
    momentum: bool
    volatility: bool
    volume: bool
    regime: bool
    calendar: bool

    @model_validator(mode="after")
    def _some_group(self) -> Self:
        if not self.groups():
            raise ValueError("at least one group of features to be true")
        return self

    def groups(self) -> list[str]:
        """The groups that are on, in the order of their columns."""
        return [group for group in _GROUPS if getattr(self, group)]


def feature_names(config: FeatureConfig) -> list[str]:
    """The columns that `compute_features` makes, in their order."""
    return [f"{feature.name}_atr" if _in_atr(feature, config) else feature.name for feature in _features(config)]


def warmup_bars(config: FeatureConfig) -> int:
    """Rows at the top of each symbol to drop: some feature is unknown there, or remembers where it started."""
    in_atr = any(_in_atr(feature, config) for feature in _features(config))
    return max(_UNIT_BARS * in_atr, *(_GROUPS[group].warmup for group in config.groups()))


def memory_bars(config: FeatureConfig) -> int:
    """Bars before t that can change any feature of t, to the last bit."""
    return _MEMORY if any(feature.recursive for feature in _features(config)) else warmup_bars(config)


def _features(config: FeatureConfig) -> list[Feature]:
    """The features of the groups that are on."""
    return [feature for group in config.groups() for feature in _GROUPS[group].features]


def _in_atr(feature: Feature, config: FeatureConfig) -> bool:
    return config.units == "atr" and feature.log_price


def compute_features(bars: pd.DataFrame, config: FeatureConfig, last: int | None = None) -> pd.DataFrame:
    """All features of the groups that are on: [n] checked bars of one symbol in time order give float64 [n, F].

    NaN in the first `warmup_bars(config)` rows. A feature in units of ATR is 0 where the ATR is 0: nothing moved.
    `last` is the number of rows wanted, counted from the end; None: all. Features over a window are then computed on no
    more bars than these rows need, recursive ones on all; no bit of the rows differs.
    """
    rows = len(bars) if last is None else min(last, len(bars))
    whole = Bars(bars)
    near = Bars(bars.iloc[max(len(bars) - rows - warmup_bars(config), 0) :]) if rows < len(bars) else whole
    features = _features(config)
    unit = activity.mean_true_range(near, _UNIT_BARS)[-rows:]
    values = np.empty((len(features), rows))  # [F, n]: each feature contiguous, the frame a view of it
    for row, feature in zip(values, features, strict=True):
        column = feature.compute(whole if feature.recursive else near)[-rows:]
        row[:] = ratio(column, unit, 0.0, ROUNDING) if _in_atr(feature, config) else column
    return pd.DataFrame(values.T, index=bars.index[len(bars) - rows :], columns=feature_names(config), copy=False)


def fill_features(bars: pd.DataFrame, config: FeatureConfig, out: npt.NDArray[np.float32]) -> None:
    """Fill `out` [F, r] with the features of one symbol's last r bars, at most all but the warm-up.

    They are float32, the type that models are trained on and predict from.

    Raises:
        DataError: a feature is not finite; names symbol, time and feature.
    """
    computed = compute_features(bars, config, out.shape[1])
    with np.errstate(over="ignore"):  # what float32 can't hold is named below
        out[:] = computed.to_numpy().T
    for name, row in zip(computed.columns, out, strict=True):
        if not np.isfinite(row).all():
            place = int(np.isfinite(row).argmin())
            problem = f"feature '{name}' is {row[place]}, expected a finite number"
            remedy = "look for extreme prices or volumes at or before this bar"
            raise DataError(f"{row_name(bars, len(bars) - len(row) + place)}: {problem}; {remedy}")
