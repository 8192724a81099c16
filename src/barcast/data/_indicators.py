"""Indicators of returns, candles, trend, momentum, volume and calendar: causal, scale-free, one value a bar.

Where an indicator is undefined because nothing moved or traded, its docstring names the neutral value.

TA-Lib is used for what is recursive (EMA, RSI, MACD, TRIX, ATR) and for selections (MAX, MIN, AROON). Its windowed
sums are running ones or start at a place that depends on the first bar, so that rounding errors of the whole past
stay in them; its MFI takes less than one unit of volume for none; its OBV and A/D grow with the length of the
history. Those are written out here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import talib

from barcast.data._rolling import (
    ROUNDING,
    Array,
    Bars,
    centred_distances,
    centred_products,
    deviation,
    ema,
    highest,
    lag,
    log_ratio,
    lowest,
    mean,
    ratio,
    ratio_of_sums,
    sign,
    weighted_sums,
    window_sums,
)

_WILDER_14 = 27  # Wilder's smoothing over n bars has weight 1/n, an EMA's over 2n - 1 as well

# --- returns ---------------------------------------------------------------------------------------


def log_return(bars: Bars, window: int) -> Array:
    """ln(C[t] / C[t-window])."""
    return log_ratio(bars.close, lag(bars.close, window))


def return_over_volatility(bars: Bars, window: int) -> Array:
    """Return over `window` bars in units of 50-bar volatility × √window; 0 where nothing moved."""
    return ratio(log_return(bars, window), bars.return_deviation * np.sqrt(window), 0.0)


# --- candles ---------------------------------------------------------------------------------------


def body_share(bars: Bars) -> Array:
    """(C - O) / (H - L), -1..1; 0 for a flat bar."""
    return ratio(bars.close - bars.open, bars.high - bars.low, 0.0)


def upper_share(bars: Bars) -> Array:
    """Upper shadow as a share of the bar, 0..1; 0 for a flat bar."""
    return ratio(bars.high - np.maximum(bars.open, bars.close), bars.high - bars.low, 0.0)


def lower_share(bars: Bars) -> Array:
    """Lower shadow as a share of the bar, 0..1; 0 for a flat bar."""
    return ratio(np.minimum(bars.open, bars.close) - bars.low, bars.high - bars.low, 0.0)


def close_place(bars: Bars) -> Array:
    """(C - L) / (H - L), 0..1; ½ for a flat bar."""
    return ratio(bars.close - bars.low, bars.high - bars.low, 0.5)


def mean_close_place(bars: Bars, window: int) -> Array:
    """Mean of the bars' (C - L) / (H - L), 0..1."""
    return mean(close_place(bars), window)


def range_over_mean(bars: Bars, window: int) -> Array:
    """ln(H/L) over its mean; 1 where all bars are flat."""
    return ratio(bars.log_range, mean(bars.log_range, window), 1.0)


def span_range(bars: Bars, window: int) -> Array:
    """ln(highest high / lowest low)."""
    return log_ratio(highest(bars.high, window), lowest(bars.low, window))


def overlap(bars: Bars) -> Array:
    """What this and the previous bar share of the range they cover together; below 0 for a gap, 1 for two flat ones."""
    high, low = lag(bars.high, 1), lag(bars.low, 1)
    shared = np.minimum(bars.high, high) - np.maximum(bars.low, low)
    return ratio(shared, np.maximum(bars.high, high) - np.minimum(bars.low, low), 1.0)


# --- trend -----------------------------------------------------------------------------------------


def dist_sma(bars: Bars, window: int) -> Array:
    """ln(C / simple moving average)."""
    return log_ratio(bars.close, mean(bars.close, window))


def dist_ema(bars: Bars, window: int) -> Array:
    """ln(C / exponential moving average)."""
    return log_ratio(bars.close, ema(bars.close, window))


def cross_sma(bars: Bars, short: int, long: int) -> Array:
    """ln(short simple moving average / long one)."""
    return log_ratio(mean(bars.close, short), mean(bars.close, long))


def cross_ema(bars: Bars, short: int, long: int) -> Array:
    """ln(short exponential moving average / long one)."""
    return log_ratio(ema(bars.close, short), ema(bars.close, long))


def dist_high(bars: Bars, window: int) -> Array:
    """ln(C / highest high), 0 at most."""
    return log_ratio(bars.close, highest(bars.high, window))


def dist_low(bars: Bars, window: int) -> Array:
    """ln(C / lowest low), 0 at least."""
    return log_ratio(bars.close, lowest(bars.low, window))


def slope(bars: Bars, window: int) -> Array:
    """Least-squares slope of ln C, a bar: the mean of the window's returns, weighted by a parabola."""
    place = np.arange(1.0, window)  # of a return in the window, the latest first
    return weighted_sums(bars.log_return, 6.0 * place * (window - place) / (window * (window * window - 1.0)))


def adx(bars: Bars) -> Array:
    """Wilder's average directional index over 14 bars, 0..100; 0 where no bar had a direction."""
    plus, minus = _directional_movement(bars)
    index = ratio(100.0 * np.abs(plus - minus), plus + minus, 0.0, ROUNDING * bars.close)
    return ema(index, _WILDER_14)


def di_difference(bars: Bars) -> Array:
    """Wilder's +DI less -DI over 14 bars, -100..100; 0 where nothing moved."""
    plus, minus = _directional_movement(bars)
    return ratio(100.0 * (plus - minus), bars.atr, 0.0, ROUNDING * bars.close)


def _directional_movement(bars: Bars) -> tuple[Array, Array]:
    """Smoothed +DM and -DM; a bar that reaches equally far both ways has neither.

    Prices come in ticks, so such ties are common; TA-Lib leaves them to rounding, and so to the unit of price.
    """
    up, down = bars.high - lag(bars.high, 1), lag(bars.low, 1) - bars.low
    least = ROUNDING * bars.close
    plus = np.where((up > least) & (up - down > least), up, 0.0 * up)  # 0 × keeps the NaN at the top
    minus = np.where((down > least) & (down - up > least), down, 0.0 * down)
    return ema(plus, _WILDER_14), ema(minus, _WILDER_14)


def aroon(bars: Bars) -> Array:
    """Aroon oscillator over 25 bars, -100..100: how much more recent the highest high is than the lowest low."""
    found: Array = talib.AROONOSC(bars.high, bars.low, timeperiod=25)
    return found


# --- momentum --------------------------------------------------------------------------------------


def rsi(bars: Bars, window: int) -> Array:
    """Wilder's relative strength index, 0..100; 50 where TA-Lib has 0 because no close moved in the window."""
    found: Array = talib.RSI(bars.unit[2], timeperiod=window)
    still = window_sums(np.abs(bars.direction), window) == 0.0
    return np.where((found == 0.0) & still, 50.0, found)


def rsi_change(bars: Bars) -> Array:
    """RSI over 14 bars less its value five bars ago."""
    return rsi(bars, 14) - lag(rsi(bars, 14), 5)


def stochastic(bars: Bars) -> Array:
    """Place of the close between the lowest low and the highest high of 14 bars, 0..1 (Lane's %K); ½ where flat."""
    low, high = lowest(bars.low, 14), highest(bars.high, 14)
    return ratio(bars.close - low, high - low, 0.5)


def mean_stochastic(bars: Bars) -> Array:
    """Mean of three bars' stochastic (Lane's %D), 0..1."""
    return mean(stochastic(bars), 3)


def cci(bars: Bars) -> Array:
    """Lambert's commodity channel index over 20 bars; 0 where the typical price stood still."""
    centre = mean(bars.typical, 20)
    distance = centred_distances(bars.typical, centre, 20) / 20.0
    return ratio(bars.typical - centre, 0.015 * distance, 0.0, 0.015 * ROUNDING * bars.typical)


def macd(bars: Bars, part: int) -> Array:
    """Appel's MACD (12, 26, 9) as a share of the close: part 0 the line, 2 its distance from the signal."""
    found: Array = talib.MACD(bars.unit[2], 12, 26, 9)[part]
    return found / bars.unit[2]


def trix(bars: Bars) -> Array:
    """Change of the triple exponential average over 15 bars, in per cent a bar."""
    found: Array = talib.TRIX(bars.unit[2], timeperiod=15)
    return found


def bollinger_place(bars: Bars) -> Array:
    """Distance of the close from its 20-bar mean, in two standard deviations; 0 where the close stood still."""
    sd = deviation(bars.close, 20)
    return ratio(bars.close - mean(bars.close, 20), 2.0 * sd, 0.0, ROUNDING * bars.close)


def keltner_place(bars: Bars) -> Array:
    """Distance of the close from its 20-bar EMA, in average true ranges; 0 where nothing moved."""
    return ratio(bars.close - ema(bars.close, 20), bars.atr, 0.0, ROUNDING * bars.close)


def chande(bars: Bars, window: int) -> Array:
    """Chande's momentum oscillator of log returns: Σ r / Σ |r|, -1..1; 0 where nothing moved."""
    return ratio_of_sums(bars.log_return, np.abs(bars.log_return), window, 0.0, ROUNDING)


def up_share(bars: Bars) -> Array:
    """Share of rising closes in 20 bars, unchanged ones counted half."""
    return mean(0.5 * (bars.direction + 1.0), 20)


# --- volume ----------------------------------------------------------------------------------------


def volume_ratio(bars: Bars, window: int) -> Array:
    """ln(1 + V / mean V); ln 2, an ordinary bar, where the window has no volume."""
    return np.log1p(ratio(bars.volume, mean(bars.volume, window), 1.0))


def volume_z(bars: Bars, window: int) -> Array:
    """Volume less its mean, in standard deviations; 0 where it is constant."""
    centre = mean(bars.volume, window)
    return ratio(bars.volume - centre, deviation(bars.volume, window), 0.0, ROUNDING * centre)


def volume_trend(bars: Bars, short: int, long: int) -> Array:
    """Mean volume of a short window over that of a long one; 1 where the long one has none."""
    return ratio(mean(bars.volume, short), mean(bars.volume, long), 1.0)


def dist_vwap(bars: Bars, window: int) -> Array:
    """ln(C / volume-weighted typical price); the plain mean of typical prices where the window has no volume."""
    weighted = ratio_of_sums(bars.typical * bars.volume, bars.volume, window, np.nan)
    empty = mean(bars.volume, window) == 0.0
    return log_ratio(bars.close, np.where(empty, mean(bars.typical, window), weighted))


def signed_volume_share(bars: Bars, window: int) -> Array:
    """Volume of rising less falling bars as a share of all, -1..1 (Granville's OBV, windowed); 0 without any."""
    return ratio_of_sums(bars.direction * bars.volume, bars.volume, window, 0.0)


def chaikin_flow(bars: Bars) -> Array:
    """Chaikin's money flow over 20 bars: volume weighted by where the bar closed, -1..1; 0 without volume."""
    return ratio_of_sums((2.0 * close_place(bars) - 1.0) * bars.volume, bars.volume, 20, 0.0)


def money_flow_index(bars: Bars) -> Array:
    """Quong and Soudack's money flow index over 14 bars, 0..100; 50 where no money flowed."""
    side = sign(log_ratio(bars.typical, lag(bars.typical, 1)))
    flow = bars.typical * bars.volume
    return 100.0 * ratio_of_sums(np.maximum(side, 0.0) * flow, np.abs(side) * flow, 14, 0.5)


def volume_move_correlation(bars: Bars) -> Array:
    """Correlation of volume and |r| over 50 bars, -1..1; 0 where either is constant."""
    volume, move = bars.volume, np.abs(bars.log_return)
    mean_volume, mean_move = mean(volume, 50), mean(move, 50)
    product = centred_products(volume, mean_volume, move, mean_move, 50) / 50.0
    sd_volume, sd_move = deviation(volume, 50), deviation(move, 50)
    constant = (sd_volume <= ROUNDING * mean_volume) | (sd_move <= ROUNDING)
    return ratio(product, np.where(constant, 0.0, sd_volume * sd_move), 0.0)


def volume_weighted_return(bars: Bars) -> Array:
    """Volume-weighted mean return over 20 bars; 0 without volume."""
    return ratio_of_sums(bars.log_return * bars.volume, bars.volume, 20, 0.0)


# --- calendar --------------------------------------------------------------------------------------

DAY, WEEK = 86_400.0, 604_800.0  # seconds
_MONDAY = 3.0 * DAY  # since Monday, at the epoch: 1970-01-01 was a Thursday


def phase(bars: Bars, period: float, wave: Callable[[Array], Array]) -> Array:
    """Sine or cosine of the time since the day's (or Monday's) midnight UTC, one turn a `period` of seconds."""
    return wave(2.0 * np.pi * (((bars.seconds + _MONDAY) % period) / period))
