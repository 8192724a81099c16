"""From one symbol's bars to 107 features: causal, scale-free, and never NaN or infinite after the warm-up.

- Causal: row t uses bars up to and including t, and is bit-identical whatever follows.
- Scale-free: multiplying all prices, or all volumes, by a constant changes no feature. A difference within
  1e-9 of the price is taken for rounding, not for a move.
- Finite: wherever a division could be by zero (high = low, no volume, no move) a neutral value stands,
  named in the docstring of the function.
- Rows are treated as consecutive, whatever gap lies between their times.

A feature over a window depends only on that window. Recursive ones (EMA, RSI, ADX, MACD, TRIX, ATR) remember
all earlier bars, with weights that fade: after the warm-up the bars that they started from carry under 0.5 %, and
after `memory_bars` nothing: wherever the history begins, the same bits come out.

Features that are differences of log prices (returns, ranges, distances, slopes, MACD, volatilities) grow with the
market's volatility. With `units: atr` each is divided by the average true range of the last 200 bars, so that one
threshold means the same in a quiet and in a wild month. Their names then end in `_atr`. `atr_share_14` keeps the level
of volatility, and ratios, shares and oscillators have no unit to change.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import model_validator

from barcast.config import Section
from barcast.data import _indicators as indicators
from barcast.data import _volatility as measures
from barcast.data._rolling import ROUNDING, Array, Bars, ratio
from barcast.errors import DataError

Feature = Callable[[Bars], Array]
Table = dict[str, Feature]


def _family(pattern: str, function: Callable[..., Array], *windows: int) -> Table:
    """One column a window: `_family("ret_{}", f, 1, 5)` makes ret_1 and ret_5."""
    return {pattern.format(window): partial(function, window=window) for window in windows}


_RETURNS: Table = {
    **_family("ret_{}", indicators.log_return, 1, 2, 3, 5, 8, 10, 20, 30, 50, 100),
    "ret_open_gap": lambda bars: bars.log_open,
    **_family("ret_{}_over_vol_50", indicators.return_over_volatility, 1, 5, 20),
}
_CANDLES: Table = {
    "candle_body": lambda bars: bars.log_body,
    "candle_range": lambda bars: bars.log_range,
    "candle_body_share": indicators.body_share,
    "candle_upper_share": indicators.upper_share,
    "candle_lower_share": indicators.lower_share,
    "candle_close_place": indicators.close_place,
    "candle_close_place_mean_20": partial(indicators.mean_close_place, window=20),
    "candle_range_over_mean_20": partial(indicators.range_over_mean, window=20),
    **_family("range_{}", indicators.span_range, 5, 20, 100),
    "candle_overlap": indicators.overlap,
}
_TREND: Table = {
    **_family("dist_sma_{}", indicators.dist_sma, 10, 20, 50, 100, 200),
    **_family("dist_ema_{}", indicators.dist_ema, 10, 20, 50),
    "cross_ema_10_50": partial(indicators.cross_ema, short=10, long=50),
    "cross_sma_20_100": partial(indicators.cross_sma, short=20, long=100),
    **_family("slope_{}", indicators.slope, 20, 50, 100),
    "adx_14": indicators.adx,
    "di_difference_14": indicators.di_difference,
    "aroon_25": indicators.aroon,
    **_family("dist_high_{}", indicators.dist_high, 20, 100),
    **_family("dist_low_{}", indicators.dist_low, 20, 100),
}
_MOMENTUM: Table = {
    **_family("rsi_{}", indicators.rsi, 7, 14, 28),
    "rsi_14_change_5": indicators.rsi_change,
    "stoch_k_14": indicators.stochastic,
    "stoch_d_14_3": indicators.mean_stochastic,
    "cci_20": indicators.cci,
    "macd_12_26": partial(indicators.macd, part=0),
    "macd_histogram_12_26_9": partial(indicators.macd, part=2),
    "trix_15": indicators.trix,
    "bollinger_place_20": indicators.bollinger_place,
    "keltner_place_20": indicators.keltner_place,
    "chande_10": partial(indicators.chande, window=10),
    "up_share_20": indicators.up_share,
}
_VOLATILITY: Table = {
    **_family("vol_close_{}", measures.close_to_close, 10, 20, 50, 100),
    **_family("vol_parkinson_{}", measures.parkinson, 20, 50),
    **_family("vol_garman_klass_{}", measures.garman_klass, 20, 50),
    **_family("vol_rogers_satchell_{}", measures.rogers_satchell, 20, 50),
    **_family("vol_yang_zhang_{}", measures.yang_zhang, 20, 50),
    "atr_share_14": measures.atr_share,
    "vol_ratio_10_50": partial(measures.volatility_ratio, short=10, long=50),
    "vol_ratio_20_100": partial(measures.volatility_ratio, short=20, long=100),
    "vol_down_share_50": partial(measures.down_share, window=50),
}
_VOLUME: Table = {
    **_family("volume_ratio_{}", indicators.volume_ratio, 5, 20, 100),
    "volume_z_50": partial(indicators.volume_z, window=50),
    "volume_trend_5_20": partial(indicators.volume_trend, short=5, long=20),
    "volume_trend_20_100": partial(indicators.volume_trend, short=20, long=100),
    **_family("dist_vwap_{}", indicators.dist_vwap, 20, 50, 100),
    **_family("obv_share_{}", indicators.signed_volume_share, 20, 50),
    "chaikin_flow_20": indicators.chaikin_flow,
    "mfi_14": indicators.money_flow_index,
    "volume_move_corr_50": indicators.volume_move_correlation,
    "volume_weighted_ret_20": indicators.volume_weighted_return,
}
_REGIME: Table = {
    **_family("skew_{}", measures.skewness, 50, 100),
    **_family("kurtosis_{}", measures.excess_kurtosis, 50, 100),
    **_family("autocorr_1_{}", measures.autocorrelation, 50, 100),
    "autocorr_abs_1_100": partial(measures.absolute_autocorrelation, window=100),
    **_family("efficiency_{}", measures.efficiency, 20, 50),
    "entropy_permutation_100": partial(measures.permutation_entropy, window=100),
    "entropy_histogram_100": partial(measures.histogram_entropy, window=100),
    "variance_ratio_5_100": partial(measures.variance_ratio, span=5, window=100),
}
_CALENDAR: Table = {
    "day_sin": partial(indicators.phase, period=indicators.DAY, wave=np.sin),
    "day_cos": partial(indicators.phase, period=indicators.DAY, wave=np.cos),
    "week_sin": partial(indicators.phase, period=indicators.WEEK, wave=np.sin),
    "week_cos": partial(indicators.phase, period=indicators.WEEK, wave=np.cos),
}

# Rows until each window of the group is full; 200 where recursive indicators must also forget their start.
_WARMUP = {
    "returns": 100,
    "candles": 99,
    "trend": 200,
    "momentum": 200,
    "volatility": 200,
    "volume": 99,
    "regime": 101,
    "calendar": 0,
}
# What a recursive indicator keeps of its start falls below rounding (for the slowest, RSI over 28 bars, after
# 53 ln 2 / ln(28/27) = 1010 bars), and then two histories round to the same number one day and stay together.
_MEMORY = 1500
_RECURSIVE = (
    *("dist_ema_10", "dist_ema_20", "dist_ema_50", "cross_ema_10_50", "adx_14", "di_difference_14"),
    *("rsi_7", "rsi_14", "rsi_28", "rsi_14_change_5", "macd_12_26", "macd_histogram_12_26_9", "trix_15"),
    *("keltner_place_20", "atr_share_14"),
)
_IN_PRICES = re.compile(
    r"ret_(\d+|open_gap)|candle_(body|range)|range_\d+|(dist|cross|macd)_.+|slope_\d+|trix_15|volume_weighted_ret_20"
    r"|vol_(close|parkinson|garman_klass|rogers_satchell|yang_zhang)_\d+"
)
_UNIT_BARS = 200  # of the average true range that `units: atr` divides by
_GROUPS: dict[str, Table] = {
    "returns": _RETURNS,
    "candles": _CANDLES,
    "trend": _TREND,
    "momentum": _MOMENTUM,
    "volatility": _VOLATILITY,
    "volume": _VOLUME,
    "regime": _REGIME,
    "calendar": _CALENDAR,
}


class FeatureConfig(Section):
    """Which groups of features to compute (all of them give 107), and the unit of differences of log prices."""

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
    return [f"{name}_atr" if _in_atr(name, config) else name for name in _functions(config)]


def warmup_bars(config: FeatureConfig) -> int:
    """Rows at the top of each symbol to drop: some feature is unknown there, or remembers where it started."""
    in_atr = any(_in_atr(name, config) for name in _functions(config))
    return max(_UNIT_BARS * in_atr, *(_WARMUP[group] for group in config.groups()))


def memory_bars(config: FeatureConfig) -> int:
    """Bars before t that any feature of t can feel, to the last bit."""
    recursive = any(name in _RECURSIVE for name in _functions(config))
    return _MEMORY if recursive else warmup_bars(config)


def _functions(config: FeatureConfig) -> Table:
    """The features of the groups that are on, by their names in units of price."""
    return {name: function for group in config.groups() for name, function in _GROUPS[group].items()}


def _in_atr(name: str, config: FeatureConfig) -> bool:
    return config.units == "atr" and _IN_PRICES.fullmatch(name) is not None


def compute_features(bars: pd.DataFrame, config: FeatureConfig, last: int | None = None) -> pd.DataFrame:
    """All features of the groups that are on.

    Args:
        bars: [n] checked bars of one symbol in the order of time: datetime (UTC), open, high, low, close, volume.
        config: the groups.
        last: the number of rows wanted, counted from the end; None: all. Features over a window are then computed
            on no more bars than these rows need, recursive ones on all; no bit of the rows differs.

    Returns:
        [n, F] (or [last, F]) float64 with the index of `bars`; NaN in the first `warmup_bars(config)` rows of `bars`.
        A feature in units of ATR is 0 where the ATR is: nothing moved.
    """
    rows = len(bars) if last is None else min(last, len(bars))
    whole = Bars(bars)
    near = Bars(bars.iloc[max(len(bars) - rows - warmup_bars(config), 0) :]) if rows < len(bars) else whole
    functions = _functions(config)
    unit = measures.mean_true_range(near, _UNIT_BARS)
    values = np.empty((len(functions), rows))  # [F, n]: each feature contiguous, the frame a view of it
    for row, (name, function) in zip(values, functions.items(), strict=True):
        found = function(whole if name in _RECURSIVE else near)[-rows:]
        row[:] = ratio(found, unit[-rows:], 0.0, ROUNDING) if _in_atr(name, config) else found
    return pd.DataFrame(values.T, index=bars.index[len(bars) - rows :], columns=feature_names(config), copy=False)


def fill_features(bars: pd.DataFrame, config: FeatureConfig, out: npt.NDArray[np.float32]) -> None:
    """The features of one symbol's last r bars as float32, the form that models are trained on and asked in.

    Args:
        bars: [n] as `compute_features` takes them, with a `symbol` for the message.
        config: the groups.
        out: [F, r], filled; r is at most n less the warm-up.

    Raises:
        DataError: a feature is not finite; names symbol, time and feature.
    """
    computed = compute_features(bars, config, out.shape[1])
    with np.errstate(over="ignore"):  # what float32 can't hold is named below
        out[:] = computed.to_numpy().T
    for number, row in enumerate(out):
        if not np.isfinite(row).all():
            place = int(np.isfinite(row).argmin())
            bar = bars.iloc[len(bars) - len(row) + place]
            raise DataError(
                f"{bar['symbol']} {bar['datetime'].isoformat()}: feature '{computed.columns[number]}' is {row[place]}, "
                "expected a finite number; look for extreme prices or volumes at or before this bar"
            )
