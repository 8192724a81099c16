"""What is left of a Sharpe ratio once luck is taken out: its own, and that of having tried many things.

All ratios here are per bar, not annualised.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from barcast.errors import DataError

Array = npt.NDArray[np.float64]

EULER = 0.5772156649015329


@dataclass(frozen=True)
class Moments:
    """Sharpe ratio, skewness and (plain, normal = 3) kurtosis of `bars` returns."""

    sharpe: float
    skew: float
    kurtosis: float
    bars: int


def moments(returns: Array) -> Moments | None:
    """The moments of `[T]` returns per bar; None where they never differ, so that there is no ratio."""
    off = returns - returns.mean()
    spread = float(np.sqrt((off**2).mean()))
    if len(returns) < 2 or spread <= 1e-12 * max(np.abs(returns).max(), 1e-12):
        return None
    return Moments(
        sharpe=float(returns.mean() / returns.std(ddof=1)),
        skew=float((off**3).mean() / spread**3),
        kurtosis=float((off**4).mean() / spread**4),
        bars=len(returns),
    )


def probabilistic_sharpe(found: Moments, benchmark: float = 0.0) -> float | None:
    """The probability that the true Sharpe ratio is above `benchmark`, given length, skewness and kurtosis of the
    returns (Bailey and López de Prado 2012, *The Sharpe ratio efficient frontier*, eq. 11).

    None where skewness is so extreme that the approximation gives the ratio no positive variance."""
    from scipy.stats import norm

    ratio = found.sharpe
    variance = 1 - found.skew * ratio + (found.kurtosis - 1) / 4 * ratio**2
    if variance <= 0:
        return None
    return float(norm.cdf((ratio - benchmark) * math.sqrt(found.bars - 1) / math.sqrt(variance)))


def expected_maximum(trials: int, sd: float) -> float:
    """The highest Sharpe ratio to expect of `trials` independent ones that are all worthless, when they vary by `sd`
    (Bailey and López de Prado 2014, *The deflated Sharpe ratio*, eq. 1); 0 for a single one."""
    from scipy.stats import norm

    if trials <= 1:
        return 0.0
    low, high = norm.ppf(1 - 1 / trials), norm.ppf(1 - 1 / (trials * math.e))
    return float(sd * ((1 - EULER) * low + EULER * high))


def deflated_sharpe(found: Moments, trials: int, sd: float) -> float | None:
    """`probabilistic_sharpe` against the ratio that the best of `trials` worthless ones would show (Bailey and
    López de Prado 2014, eq. 2)."""
    return probabilistic_sharpe(found, expected_maximum(trials, sd))


@dataclass(frozen=True)
class Overfitting:
    """`pbo`: the share of splits in which the best trial of one half is below the median in the other; one in which it
    is the median itself counts half."""

    pbo: float
    blocks: int
    splits: int
    columns: int


def backtest_overfitting(returns: Array, blocks: int) -> Overfitting:
    """The probability of backtest overfitting by combinatorially symmetric cross-validation (Bailey, Borwein, López
    de Prado and Zhu 2017, *The probability of backtest overfitting*, section 3).

    The T bars are cut into `blocks` of neighbours; every choice of half of them is a sample, the rest is what came
    out. The trial with the best Sharpe ratio in the sample has, out of it, the relative rank ω = rank/(columns+1);
    the choice counts as overfitted where ω is below one half. Of an odd number of trials one is the median: there ω is
    one half and counts as one half, so that worthless trials give 0.5 whatever their number. Equal ratios share their
    mean rank; a trial that never moves has the ratio 0.

    Args:
        returns: `[T, columns]`, each trial's return at each bar.
        blocks: an even number.

    Raises:
        DataError: fewer than 2 trials, an odd number of blocks, or fewer than 2 bars a block.
    """
    bars, columns = returns.shape
    if columns < 2 or blocks % 2 or bars < 2 * blocks:
        raise DataError(
            f"backtest overfitting: expected 2 trials or more, an even number of blocks and 2 bars in each, "
            f"got {columns} trials, {blocks} blocks, {bars} bars"
        )
    pieces = np.array_split(returns, blocks)
    sums = np.stack([[len(piece) * np.ones(columns), piece.sum(0), (piece**2).sum(0)] for piece in pieces])
    chosen = _halves(blocks)  # [splits, blocks]
    inside = _sharpe(np.tensordot(chosen, sums, axes=1))  # [splits, columns]
    outside = _sharpe(np.tensordot(1 - chosen, sums, axes=1))
    best = np.take_along_axis(outside, inside.argmax(axis=1)[:, None], axis=1)
    rank = (outside < best).sum(axis=1) + ((outside == best).sum(axis=1) + 1) / 2  # [splits], 1 … columns
    above = np.sign(2 * rank - (columns + 1))  # of ω over one half, in whole numbers
    return Overfitting(float((1 - above).mean() / 2), blocks, len(chosen), columns)


def _halves(blocks: int) -> Array:
    """Each way to choose half of the blocks as a row of zeros and ones."""
    choices: Sequence[tuple[int, ...]] = list(combinations(range(blocks), blocks // 2))
    chosen = np.zeros((len(choices), blocks))
    chosen[np.arange(len(choices))[:, None], choices] = 1
    return chosen


def _sharpe(sums: Array) -> Array:
    """`[splits, 3, columns]` of counts, sums and sums of squares -> ratios `[splits, columns]`."""
    count, total, squares = sums[:, 0], sums[:, 1], sums[:, 2]
    mean = total / count
    variance = (squares - count * mean**2) / (count - 1)
    moving = variance > 1e-12 * np.maximum(squares / count, 1e-30)
    return np.where(moving, mean / np.sqrt(np.where(moving, variance, 1.0)), 0.0)
