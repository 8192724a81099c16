"""Indicators of returns, candles, trend and momentum: causal, scale-free, one value per bar.

Where an indicator is undefined because nothing moved, its docstring names the neutral value.

TA-Lib computes selections (MAX, MIN, AROON) and recursive indicators (EMA, RSI, MACD, TRIX, ATR). An EMA has weight
2 / (window + 1) and is seeded by the first window's mean. TA-Lib's windowed sums are running ones or start at a place
that depends on the first bar, so that they keep rounding errors of the whole past; its MFI treats less than one unit of
volume as none; its OBV and A/D grow with the length of the history. Those are written out here and in `_activity`.
"""

from __future__ import annotations

import numpy as np
import talib

from barcast.data._rolling import (
    ROUNDING,
    Array,
    Bars,
    Group,
    centred_sums,
    deviation,
    lag,
    log_ratio,
    mean,
    ratio,
    ratio_of_sums,
    weighted_sums,
)

_WILDER_14 = 27  # Wilder's smoothing over n bars has weight 1/n, as an EMA's over 2n - 1 has

RETURNS = Group(warmup=100)


@RETURNS.feature("ret_{}", 1, 2, 3, 5, 8, 10, 20, 30, 50, 100, log_price=True)
def log_return(bars: Bars, window: int) -> Array:
    """ln(C[t] / C[t-window])."""
    return log_ratio(bars.close, lag(bars.close, window))


RETURNS.feature("ret_open_gap", log_price=True)(lambda bars: bars.log_open)


@RETURNS.feature("ret_{}_over_vol_50", 1, 5, 20)
def return_over_volatility(bars: Bars, window: int) -> Array:
    """Return over `window` bars in units of 50-bar volatility × √window; 0 where nothing moved."""
    return ratio(log_return(bars, window), bars.return_deviation * np.sqrt(window), 0.0)


CANDLES = Group(warmup=99)
CANDLES.feature("candle_body", log_price=True)(lambda bars: bars.log_body)
CANDLES.feature("candle_range", log_price=True)(lambda bars: bars.log_range)


@CANDLES.feature("candle_{}_share", "body", "upper", "lower")
def candle_share(bars: Bars, part: str) -> Array:
    """The body C - O (-1..1), or upper or lower shadow (0..1), as a share of H - L; 0 for a flat bar."""
    body, top, bottom = bars.close - bars.open, np.maximum(bars.open, bars.close), np.minimum(bars.open, bars.close)
    parts = {"body": body, "upper": bars.high - top, "lower": bottom - bars.low}
    return ratio(parts[part], bars.high - bars.low, 0.0)


@CANDLES.feature("candle_close_place")
def close_place(bars: Bars) -> Array:
    """(C - L) / (H - L), 0..1; ½ for a flat bar."""
    return ratio(bars.close - bars.low, bars.high - bars.low, 0.5)


@CANDLES.feature("candle_close_place_mean_{}", 20)
def mean_close_place(bars: Bars, window: int) -> Array:
    """Mean of the bars' (C - L) / (H - L), 0..1."""
    return mean(close_place(bars), window)


@CANDLES.feature("candle_range_over_mean_{}", 20)
def range_over_mean(bars: Bars, window: int) -> Array:
    """ln(H/L) over its mean; 1 where all bars are flat."""
    return ratio(bars.log_range, mean(bars.log_range, window), 1.0)


@CANDLES.feature("range_{}", 5, 20, 100, log_price=True)
def span_range(bars: Bars, window: int) -> Array:
    """ln(highest high / lowest low)."""
    return log_ratio(talib.MAX(bars.high, window), talib.MIN(bars.low, window))


@CANDLES.feature("candle_overlap")
def overlap(bars: Bars) -> Array:
    """Share of the range of this and the previous bar that both cover; below 0 for a gap, 1 for two flat bars."""
    high, low = lag(bars.high, 1), lag(bars.low, 1)
    shared = np.minimum(bars.high, high) - np.maximum(bars.low, low)
    return ratio(shared, np.maximum(bars.high, high) - np.minimum(bars.low, low), 1.0)


TREND = Group(warmup=200)  # recursive indicators must also forget their start


@TREND.feature("dist_sma_{}", 10, 20, 50, 100, 200, log_price=True)
def dist_sma(bars: Bars, window: int) -> Array:
    """ln(C / simple moving average)."""
    return log_ratio(bars.close, mean(bars.close, window))


@TREND.feature("dist_ema_{}", 10, 20, 50, log_price=True, recursive=True)
def dist_ema(bars: Bars, window: int) -> Array:
    """ln(C / exponential moving average)."""
    return log_ratio(bars.close, talib.EMA(bars.close, window))


@TREND.feature("cross_ema_{}_{}", (10, 50), log_price=True, recursive=True)
def cross_ema(bars: Bars, short: int, long: int) -> Array:
    """ln(short exponential moving average / long one)."""
    return log_ratio(talib.EMA(bars.close, short), talib.EMA(bars.close, long))


@TREND.feature("cross_sma_{}_{}", (20, 100), log_price=True)
def cross_sma(bars: Bars, short: int, long: int) -> Array:
    """ln(short simple moving average / long one)."""
    return log_ratio(mean(bars.close, short), mean(bars.close, long))


@TREND.feature("slope_{}", 20, 50, 100, log_price=True)
def slope(bars: Bars, window: int) -> Array:
    """Least-squares slope of ln C per bar: the mean of the window's returns, weighted by a parabola."""
    place = np.arange(1.0, window)  # of a return in the window, the latest first
    return weighted_sums(bars.log_return, 6.0 * place * (window - place) / (window * (window * window - 1.0)))


@TREND.feature("adx_14", recursive=True)
def adx(bars: Bars) -> Array:
    """Wilder's average directional index over 14 bars, 0..100; 0 where no bar had a direction."""
    plus, minus = _directional_movement(bars)
    index: Array = talib.EMA(ratio(100.0 * np.abs(plus - minus), plus + minus, 0.0, ROUNDING * bars.close), _WILDER_14)
    return index


@TREND.feature("di_difference_14", recursive=True)
def di_difference(bars: Bars) -> Array:
    """Wilder's +DI less -DI over 14 bars, -100..100; 0 where nothing moved."""
    plus, minus = _directional_movement(bars)
    return ratio(100.0 * (plus - minus), bars.atr, 0.0, ROUNDING * bars.close)


def _directional_movement(bars: Bars) -> tuple[Array, Array]:
    """Smoothed +DM and -DM; a bar that reaches equally far both ways has neither.

    Prices come in ticks, so such ties are common; in TA-Lib rounding decides them, and so the unit of price.
    """
    up, down = bars.high - lag(bars.high, 1), lag(bars.low, 1) - bars.low
    least = ROUNDING * bars.close
    plus = np.where((up > least) & (up - down > least), up, 0.0 * up)  # 0 × keeps the NaN at the top
    minus = np.where((down > least) & (down - up > least), down, 0.0 * down)
    return talib.EMA(plus, _WILDER_14), talib.EMA(minus, _WILDER_14)


@TREND.feature("aroon_25")
def aroon(bars: Bars) -> Array:
    """Aroon oscillator over 25 bars, -100..100: how much more recent the highest high is than the lowest low."""
    oscillator: Array = talib.AROONOSC(bars.high, bars.low, timeperiod=25)
    return oscillator


@TREND.feature("dist_{}_{}", ("high", 20), ("high", 100), ("low", 20), ("low", 100), log_price=True)
def dist_extreme(bars: Bars, side: str, window: int) -> Array:
    """ln(C / highest high), 0 at most, or ln(C / lowest low), 0 at least."""
    return log_ratio(bars.close, talib.MAX(bars.high, window) if side == "high" else talib.MIN(bars.low, window))


MOMENTUM = Group(warmup=200)  # as for trend


@MOMENTUM.feature("rsi_{}", 7, 14, 28, recursive=True)
def rsi(bars: Bars, window: int) -> Array:
    """Wilder's relative strength index, 0..100; 50 where TA-Lib has 0 because no close moved in the window."""
    index: Array = talib.RSI(bars.unit[2], timeperiod=window)
    still = mean(np.abs(bars.direction), window) == 0.0
    return np.where((index == 0.0) & still, 50.0, index)


@MOMENTUM.feature("rsi_14_change_5", recursive=True)
def rsi_change(bars: Bars) -> Array:
    """RSI over 14 bars less its value five bars ago."""
    return rsi(bars, 14) - lag(rsi(bars, 14), 5)


@MOMENTUM.feature("stoch_k_14")
def stochastic(bars: Bars) -> Array:
    """Place of the close between the lowest low and the highest high of 14 bars, 0..1 (Lane's %K); ½ where flat."""
    low, high = talib.MIN(bars.low, 14), talib.MAX(bars.high, 14)
    return ratio(bars.close - low, high - low, 0.5)


@MOMENTUM.feature("stoch_d_14_3")
def mean_stochastic(bars: Bars) -> Array:
    """Mean of three bars' stochastic (Lane's %D), 0..1."""
    return mean(stochastic(bars), 3)


@MOMENTUM.feature("cci_20")
def cci(bars: Bars) -> Array:
    """Lambert's commodity channel index over 20 bars; 0 where the typical price stood still."""
    centre = mean(bars.typical, 20)
    distance = centred_sums(bars.typical, centre, 20, 1) / 20.0
    return ratio(bars.typical - centre, 0.015 * distance, 0.0, 0.015 * ROUNDING * bars.typical)


@MOMENTUM.feature("macd_{}", "12_26", "histogram_12_26_9", log_price=True, recursive=True)
def macd(bars: Bars, part: str) -> Array:
    """Appel's MACD (12, 26, 9) as a share of the close: the line, or as histogram its distance from the signal."""
    line: Array = talib.MACD(bars.unit[2], 12, 26, 9)[0 if part == "12_26" else 2]
    return line / bars.unit[2]


@MOMENTUM.feature("trix_15", log_price=True, recursive=True)
def trix(bars: Bars) -> Array:
    """Change of the triple exponential average over 15 bars, in per cent per bar."""
    change: Array = talib.TRIX(bars.unit[2], timeperiod=15)
    return change


@MOMENTUM.feature("bollinger_place_20")
def bollinger_place(bars: Bars) -> Array:
    """Distance of the close from its 20-bar mean, in two standard deviations; 0 where the close stood still."""
    sd = deviation(bars.close, 20)
    return ratio(bars.close - mean(bars.close, 20), 2.0 * sd, 0.0, ROUNDING * bars.close)


@MOMENTUM.feature("keltner_place_20", recursive=True)
def keltner_place(bars: Bars) -> Array:
    """Distance of the close from its 20-bar EMA, in average true ranges; 0 where nothing moved."""
    return ratio(bars.close - talib.EMA(bars.close, 20), bars.atr, 0.0, ROUNDING * bars.close)


@MOMENTUM.feature("chande_{}", 10)
def chande(bars: Bars, window: int) -> Array:
    """Chande's momentum oscillator of log returns: Σ r / Σ |r|, -1..1; 0 where nothing moved."""
    return ratio_of_sums(bars.log_return, np.abs(bars.log_return), window, 0.0, ROUNDING)


@MOMENTUM.feature("up_share_20")
def up_share(bars: Bars) -> Array:
    """Share of rising closes in 20 bars, unchanged ones counted half."""
    return mean(0.5 * (bars.direction + 1.0), 20)
