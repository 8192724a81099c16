"""Indicators of volatility, the market's regime, volume and calendar: scale-free, causal, one value per bar.

All volatilities are per bar (not annualised) and in units of log return. r is the close-to-close log return, n the
window. Where a value is undefined because nothing moved or traded, its docstring names the neutral one.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from barcast.data._indicators import chande, close_place
from barcast.data._rolling import (
    ROUNDING,
    Array,
    Bars,
    Group,
    binned_entropy,
    centred_products,
    centred_sums,
    code_entropy,
    deviation,
    lag,
    log_ratio,
    mean,
    ratio,
    ratio_of_sums,
    sign,
)

VOLATILITY = Group(warmup=200)  # the recursive average true range must also forget its start
REGIME = Group(warmup=101)
# In standard deviations: seven bins that a normal hits equally often. Windows of two values would hit round edges.
_BIN_EDGES = np.array([NormalDist().inv_cdf(share / 7.0) for share in range(1, 7)])


@VOLATILITY.feature("vol_close_{}", 10, 20, 50, 100, log_price=True)
def close_to_close(bars: Bars, window: int) -> Array:
    """Sample standard deviation of r."""
    return deviation(bars.log_return, window, ddof=1)


@VOLATILITY.feature("vol_parkinson_{}", 20, 50, log_price=True)
def parkinson(bars: Bars, window: int) -> Array:
    """√(mean ln(H/L)² / (4 ln 2)) (Parkinson, J. Business 53, 1980)."""
    return np.sqrt(mean(bars.log_range * bars.log_range, window) / (4.0 * math.log(2.0)))


@VOLATILITY.feature("vol_garman_klass_{}", 20, 50, log_price=True)
def garman_klass(bars: Bars, window: int) -> Array:
    """√ mean(½ ln(H/L)² - (2 ln 2 - 1) ln(C/O)²) (Garman and Klass, J. Business 53, 1980)."""
    per_bar = 0.5 * bars.log_range * bars.log_range - (2.0 * math.log(2.0) - 1.0) * bars.log_body * bars.log_body
    return np.sqrt(np.maximum(mean(per_bar, window), 0.0))


@VOLATILITY.feature("vol_rogers_satchell_{}", 20, 50, log_price=True)
def rogers_satchell(bars: Bars, window: int) -> Array:
    """√ mean(ln(H/C) ln(H/O) + ln(L/C) ln(L/O)) (Rogers and Satchell, Ann. Appl. Probab. 1, 1991)."""
    return np.sqrt(_rogers_satchell_variance(bars, window))


def _rogers_satchell_variance(bars: Bars, window: int) -> Array:
    above = log_ratio(bars.high, bars.close) * log_ratio(bars.high, bars.open)
    below = log_ratio(bars.low, bars.close) * log_ratio(bars.low, bars.open)
    return np.maximum(mean(above + below, window), 0.0)


@VOLATILITY.feature("vol_yang_zhang_{}", 20, 50, log_price=True)
def yang_zhang(bars: Bars, window: int) -> Array:
    """√(V_open + k V_body + (1 - k) V_RS), k = 0.34 / (1.34 + (n+1)/(n-1)) (Yang and Zhang, J. Business 73, 2000).

    V_open and V_body are the sample variances of ln(O[t]/C[t-1]) and of ln(C/O).
    """
    k = 0.34 / (1.34 + (window + 1.0) / (window - 1.0))
    opening, body = deviation(bars.log_open, window, ddof=1), deviation(bars.log_body, window, ddof=1)
    return np.sqrt(opening * opening + k * body * body + (1.0 - k) * _rogers_satchell_variance(bars, window))


@VOLATILITY.feature("atr_share_14", recursive=True)
def atr_share(bars: Bars) -> Array:
    """Average true range over 14 bars as a share of the close."""
    share: Array = bars.atr / bars.close
    return share


def mean_true_range(bars: Bars, window: int) -> Array:
    """Mean of Wilder's true range (New Concepts in Technical Trading Systems, 1978) as a share of the close."""
    before = lag(bars.close, 1)
    true_range = np.maximum(bars.high, before) - np.minimum(bars.low, before)
    share: Array = mean(true_range, window) / bars.close
    return share


@VOLATILITY.feature("vol_ratio_{}_{}", (10, 50), (20, 100))
def volatility_ratio(bars: Bars, short: int, long: int) -> Array:
    """Close-to-close volatility of a short window over that of a long one; 1 where nothing moved."""
    return ratio(close_to_close(bars, short), close_to_close(bars, long), 1.0, ROUNDING)


@VOLATILITY.feature("vol_down_share_{}", 50)
def down_share(bars: Bars, window: int) -> Array:
    """Share of Σ r² that falling bars made, 0..1; ½ where nothing moved."""
    squares = bars.log_return * bars.log_return
    falling = np.where(bars.log_return < 0.0, squares, 0.0 * squares)  # 0 × keeps the NaN at the top
    return ratio_of_sums(falling, squares, window, 0.5, window * ROUNDING**2)


@REGIME.feature("{}_{}", ("skew", 50), ("skew", 100), ("kurtosis", 50), ("kurtosis", 100))
def standardised_moment(bars: Bars, moment: str, window: int) -> Array:
    """Third standardised moment of r, or the fourth less the normal's 3; 0 where nothing moved."""
    centre, sd = mean(bars.log_return, window), deviation(bars.log_return, window)
    if moment == "skew":
        return ratio(centred_sums(bars.log_return, centre, window, 3) / window, sd * sd * sd, 0.0, ROUNDING**3)
    fourth = centred_sums(bars.log_return, centre, window, 4) / window
    return ratio(fourth, sd * sd * sd * sd, 3.0, ROUNDING**4) - 3.0


@REGIME.feature("autocorr_{}_{}", ("1", 50), ("1", 100), ("abs_1", 100))
def autocorrelation(bars: Bars, of: str, window: int) -> Array:
    """Autocorrelation of r, or of |r| (volatility clusters), at a lag of one bar, -1..1; 0 where it is constant.

    Box and Jenkins' r₁: window - 1 products over window squares, all about the window's one mean.
    """
    x = np.abs(bars.log_return) if of == "abs_1" else bars.log_return
    centre = mean(x, window)
    products = centred_products(x, centre, lag(x, 1), centre, window - 1)
    squares = centred_products(x, centre, x, centre, window)
    return ratio(products, squares, 0.0, window * ROUNDING**2)


@REGIME.feature("efficiency_{}", 20, 50)
def efficiency(bars: Bars, window: int) -> Array:
    """Kaufman's efficiency ratio (Smarter Trading, 1995) of log prices: |Σ r| / Σ |r|, 0..1; 0 where nothing moved."""
    return np.abs(chande(bars, window))


@REGIME.feature("entropy_permutation_{}", 100)
def permutation_entropy(bars: Bars, window: int) -> Array:
    """Entropy of the order of three neighbouring closes (Bandt and Pompe, PRL 88, 2002), 0..1; equal closes: as rising.

    0 is one order throughout (a straight line, or nothing moved), 1 all six orders equally often.
    """
    before, middle, last = lag(bars.close, 2), lag(bars.close, 1), bars.close
    # Which of six orders they have: a fall over two bars includes at least one fall.
    codes = (middle < before) * 3 + (last < middle) + (last < before)
    return code_entropy(codes.astype(np.int64), 6, window, 2)


@REGIME.feature("entropy_histogram_{}", 100)
def histogram_entropy(bars: Bars, window: int) -> Array:
    """Entropy of r's histogram in 7 bins of its standard deviation, 0..1 (1: the normal's); 0 where nothing moved."""
    sd = deviation(bars.log_return, window)
    unit = np.where(sd <= ROUNDING, 0.0, sd)
    return binned_entropy(unit, bars.log_return, mean(bars.log_return, window), _BIN_EDGES, window)


@REGIME.feature("variance_ratio_{}_{}", (5, 100))
def variance_ratio(bars: Bars, span: int, window: int) -> Array:
    """Variance of overlapping `span`-bar returns over span × that of r; 1 for a random walk or where nothing moved.

    Both unbiased about the window's mean (Lo and MacKinlay, Rev. Financial Studies 1, 1988, eq. 12-13).
    """
    centre = mean(bars.log_return, window)
    long_return = log_ratio(bars.close, lag(bars.close, span))
    terms = window - span + 1
    squares = centred_products(long_return, span * centre, long_return, span * centre, terms)
    single = centred_products(bars.log_return, centre, bars.log_return, centre, window) / (window - 1)
    return ratio(squares / (span * terms * (1.0 - span / window)), single, 1.0, ROUNDING**2)


VOLUME = Group(warmup=99)


@VOLUME.feature("volume_ratio_{}", 5, 20, 100)
def volume_ratio(bars: Bars, window: int) -> Array:
    """ln(1 + V / mean V); ln 2, an ordinary bar, where the window has no volume."""
    return np.log1p(ratio(bars.volume, mean(bars.volume, window), 1.0))


@VOLUME.feature("volume_z_{}", 50)
def volume_z(bars: Bars, window: int) -> Array:
    """Volume less its mean, in standard deviations; 0 where it is constant."""
    centre = mean(bars.volume, window)
    return ratio(bars.volume - centre, deviation(bars.volume, window), 0.0, ROUNDING * centre)


@VOLUME.feature("volume_trend_{}_{}", (5, 20), (20, 100))
def volume_trend(bars: Bars, short: int, long: int) -> Array:
    """Mean volume of a short window over that of a long one; 1 where the long one has none."""
    return ratio(mean(bars.volume, short), mean(bars.volume, long), 1.0)


@VOLUME.feature("dist_vwap_{}", 20, 50, 100, log_price=True)
def dist_vwap(bars: Bars, window: int) -> Array:
    """ln(C / volume-weighted typical price); the plain mean of typical prices where the window has no volume."""
    weighted = ratio_of_sums(bars.typical * bars.volume, bars.volume, window, np.nan)
    empty = mean(bars.volume, window) == 0.0
    return log_ratio(bars.close, np.where(empty, mean(bars.typical, window), weighted))


@VOLUME.feature("obv_share_{}", 20, 50)
def signed_volume_share(bars: Bars, window: int) -> Array:
    """Volume of rising less falling bars as a share of all, -1..1 (Granville's OBV, windowed); 0 without any."""
    return ratio_of_sums(bars.direction * bars.volume, bars.volume, window, 0.0)


@VOLUME.feature("chaikin_flow_20")
def chaikin_flow(bars: Bars) -> Array:
    """Chaikin's money flow over 20 bars: volume weighted by where the bar closed, -1..1; 0 without volume."""
    return ratio_of_sums((2.0 * close_place(bars) - 1.0) * bars.volume, bars.volume, 20, 0.0)


@VOLUME.feature("mfi_14")
def money_flow_index(bars: Bars) -> Array:
    """Quong and Soudack's money flow index over 14 bars, 0..100; 50 where no money flowed."""
    side = sign(log_ratio(bars.typical, lag(bars.typical, 1)))
    flow = bars.typical * bars.volume
    return 100.0 * ratio_of_sums(np.maximum(side, 0.0) * flow, np.abs(side) * flow, 14, 0.5)


@VOLUME.feature("volume_move_corr_50")
def volume_move_correlation(bars: Bars) -> Array:
    """Correlation of volume and |r| over 50 bars, -1..1; 0 where either is constant."""
    volume, move = bars.volume, np.abs(bars.log_return)
    mean_volume, mean_move = mean(volume, 50), mean(move, 50)
    product = centred_products(volume, mean_volume, move, mean_move, 50) / 50.0
    sd_volume, sd_move = deviation(volume, 50), deviation(move, 50)
    constant = (sd_volume <= ROUNDING * mean_volume) | (sd_move <= ROUNDING)
    return ratio(product, np.where(constant, 0.0, sd_volume * sd_move), 0.0)


@VOLUME.feature("volume_weighted_ret_20", log_price=True)
def volume_weighted_return(bars: Bars) -> Array:
    """Volume-weighted mean return over 20 bars; 0 without volume."""
    return ratio_of_sums(bars.log_return * bars.volume, bars.volume, 20, 0.0)


CALENDAR = Group(warmup=0)
_SECONDS = {"day": 86_400.0, "week": 604_800.0}
_MONDAY = 3.0 * _SECONDS["day"]  # since Monday, at the epoch: 1970-01-01 was a Thursday


@CALENDAR.feature("{}_{}", ("day", "sin"), ("day", "cos"), ("week", "sin"), ("week", "cos"))
def phase(bars: Bars, period: str, wave: str) -> Array:
    """Sine or cosine of the time since the day's (or Monday's) midnight UTC, one turn per period."""
    utc = bars.datetime.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().astype("datetime64[ms]")
    seconds = _SECONDS[period]
    angle: Array = 2.0 * np.pi * (((utc.astype(np.int64) / 1000.0 + _MONDAY) % seconds) / seconds)
    return np.sin(angle) if wave == "sin" else np.cos(angle)
