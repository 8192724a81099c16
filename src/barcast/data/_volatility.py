"""Volatility estimators and measures of the market's regime: scale-free, causal, one value a bar.

All volatilities are per bar (not annualised) and in units of log return. r is the close-to-close log return,
n the window. Where a measure is undefined because nothing moved, its docstring names the neutral value.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from barcast.data._indicators import chande
from barcast.data._rolling import (
    ROUNDING,
    Array,
    Bars,
    Codes,
    binned_entropy,
    centred_powers,
    centred_products,
    code_entropy,
    deviation,
    lag,
    log_ratio,
    mean,
    ratio,
    ratio_of_sums,
)

# In standard deviations: seven bins alike likely for a normal. Round edges would be hit by windows of two values.
_BIN_EDGES = np.array([NormalDist().inv_cdf(share / 7.0) for share in range(1, 7)])


def close_to_close(bars: Bars, window: int) -> Array:
    """Sample standard deviation of r."""
    return deviation(bars.log_return, window, ddof=1)


def parkinson(bars: Bars, window: int) -> Array:
    """√(mean ln(H/L)² / (4 ln 2)) (Parkinson, J. Business 53, 1980)."""
    return np.sqrt(mean(bars.log_range * bars.log_range, window) / (4.0 * math.log(2.0)))


def garman_klass(bars: Bars, window: int) -> Array:
    """√ mean(½ ln(H/L)² - (2 ln 2 - 1) ln(C/O)²) (Garman and Klass, J. Business 53, 1980)."""
    per_bar = 0.5 * bars.log_range * bars.log_range - (2.0 * math.log(2.0) - 1.0) * bars.log_body * bars.log_body
    return np.sqrt(np.maximum(mean(per_bar, window), 0.0))


def rogers_satchell(bars: Bars, window: int) -> Array:
    """√ mean(ln(H/C) ln(H/O) + ln(L/C) ln(L/O)) (Rogers and Satchell, Ann. Appl. Probab. 1, 1991)."""
    return np.sqrt(_rogers_satchell_variance(bars, window))


def _rogers_satchell_variance(bars: Bars, window: int) -> Array:
    above = log_ratio(bars.high, bars.close) * log_ratio(bars.high, bars.open)
    below = log_ratio(bars.low, bars.close) * log_ratio(bars.low, bars.open)
    return np.maximum(mean(above + below, window), 0.0)


def yang_zhang(bars: Bars, window: int) -> Array:
    """√(V_open + k V_body + (1 - k) V_RS), k = 0.34 / (1.34 + (n+1)/(n-1)) (Yang and Zhang, J. Business 73, 2000).

    V_open and V_body are the sample variances of ln(O[t]/C[t-1]) and of ln(C/O).
    """
    k = 0.34 / (1.34 + (window + 1.0) / (window - 1.0))
    opening, body = deviation(bars.log_open, window, ddof=1), deviation(bars.log_body, window, ddof=1)
    return np.sqrt(opening * opening + k * body * body + (1.0 - k) * _rogers_satchell_variance(bars, window))


def atr_share(bars: Bars) -> Array:
    """Average true range over 14 bars as a share of the close."""
    share: Array = bars.atr / bars.close
    return share


def mean_true_range(bars: Bars, window: int) -> Array:
    """Mean over the last bars of Wilder's true range (New Concepts in Technical Trading Systems, 1978), as a share of
    the close."""
    before = lag(bars.close, 1)
    true_range = np.maximum(bars.high, before) - np.minimum(bars.low, before)
    share: Array = mean(true_range, window) / bars.close
    return share


def volatility_ratio(bars: Bars, short: int, long: int) -> Array:
    """Close-to-close volatility of a short window over that of a long one; 1 where nothing moved."""
    return ratio(close_to_close(bars, short), close_to_close(bars, long), 1.0, ROUNDING)


def down_share(bars: Bars, window: int) -> Array:
    """Share of Σ r² that falling bars made, 0..1; ½ where nothing moved."""
    squares = bars.log_return * bars.log_return
    falling = np.where(bars.log_return < 0.0, squares, 0.0 * squares)  # 0 × keeps the NaN at the top
    return ratio_of_sums(falling, squares, window, 0.5, window * ROUNDING**2)


def skewness(bars: Bars, window: int) -> Array:
    """Third standardised moment of r; 0 where nothing moved."""
    centre, sd = mean(bars.log_return, window), deviation(bars.log_return, window)
    third, _ = centred_powers(bars.log_return, centre, window)
    return ratio(third / window, sd * sd * sd, 0.0, ROUNDING**3)


def excess_kurtosis(bars: Bars, window: int) -> Array:
    """Fourth standardised moment of r, less the normal's 3; 0 where nothing moved."""
    centre, sd = mean(bars.log_return, window), deviation(bars.log_return, window)
    _, fourth = centred_powers(bars.log_return, centre, window)
    return ratio(fourth / window, sd * sd * sd * sd, 3.0, ROUNDING**4) - 3.0


def autocorrelation(bars: Bars, window: int) -> Array:
    """Autocorrelation of r at one bar's distance, -1..1; 0 where nothing moved."""
    return _autocorrelation(bars.log_return, window)


def absolute_autocorrelation(bars: Bars, window: int) -> Array:
    """Autocorrelation of |r| at one bar's distance (volatility clusters), -1..1; 0 where it is constant."""
    return _autocorrelation(np.abs(bars.log_return), window)


def _autocorrelation(x: Array, window: int) -> Array:
    """Box and Jenkins' r₁: window - 1 products over window squares, all about the window's one mean."""
    centre = mean(x, window)
    products = centred_products(x, centre, lag(x, 1), centre, window - 1)
    squares = centred_products(x, centre, x, centre, window)
    return ratio(products, squares, 0.0, window * ROUNDING**2)


def efficiency(bars: Bars, window: int) -> Array:
    """Kaufman's efficiency ratio (Smarter Trading, 1995) of log prices: |Σ r| / Σ |r|, 0..1; 0 where nothing moved."""
    return np.abs(chande(bars, window))


def permutation_entropy(bars: Bars, window: int) -> Array:
    """Entropy of the order of three neighbouring closes (Bandt and Pompe, PRL 88, 2002), 0..1; equal closes: as rising.

    0 is one order throughout (a straight line, or nothing moved), 1 all six orders alike often.
    """
    return code_entropy(_order_codes(bars.close), 6, window, 2)


def _order_codes(x: Array) -> Codes:
    """Which of the six orders x[t-2], x[t-1], x[t] stand in, [n] -> [n] in 0..5."""
    before, middle = lag(x, 2), lag(x, 1)
    first_fell, last_fell, fell_over_two = middle < before, x < middle, x < before
    code = first_fell * 3 + last_fell + fell_over_two  # fell_over_two alone can't happen without one fall
    return code.astype(np.int64)


def histogram_entropy(bars: Bars, window: int) -> Array:
    """Entropy of r's histogram in 7 bins of its standard deviation, 0..1 (1: the normal's); 0 where nothing moved."""
    sd = deviation(bars.log_return, window)
    unit = np.where(sd <= ROUNDING, 0.0, sd)
    return binned_entropy(unit, bars.log_return, mean(bars.log_return, window), _BIN_EDGES, window)


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
