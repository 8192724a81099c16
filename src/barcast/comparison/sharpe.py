"""Sharpe ratios corrected for luck: that of one short period, and that of having tried many models.

All ratios here are per bar, not annualised.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from barcast.errors import DataError
from barcast.evaluation.metrics import Array

EULER = 0.5772156649015329
_TRIAL_COLUMNS = ["state", "sharpe_per_bar"]


@dataclass(frozen=True)
class Moments:
    """Sharpe ratio, skewness and (plain, normal = 3) kurtosis of `bars` returns."""

    sharpe: float
    skew: float
    kurtosis: float
    bars: int


def moments(returns: Array) -> Moments | None:
    """The moments of `[T]` returns per bar; None where all are equal, so there is no ratio."""
    off = returns - returns.mean()
    spread = float(np.sqrt((off**2).mean()))
    if len(returns) < 2 or spread <= 1e-12 * max(np.abs(returns).max(), 1e-12):
        return None
    skew, kurtosis = float((off**3).mean() / spread**3), float((off**4).mean() / spread**4)
    return Moments(float(returns.mean() / returns.std(ddof=1)), skew, kurtosis, len(returns))


def probabilistic_sharpe(returns: Moments, benchmark: float = 0.0) -> float | None:
    """The probability that the true Sharpe ratio is above `benchmark`, given length, skewness and kurtosis of the
    returns (Bailey and López de Prado 2012, *The Sharpe ratio efficient frontier*, eq. 11).

    None where skewness is so extreme that the approximated variance of the ratio is not positive."""
    from scipy.stats import norm

    ratio = returns.sharpe
    variance = 1 - returns.skew * ratio + (returns.kurtosis - 1) / 4 * ratio**2
    if variance <= 0:
        return None
    return float(norm.cdf((ratio - benchmark) * math.sqrt(returns.bars - 1) / math.sqrt(variance)))


def expected_maximum(trials: int, sd: float) -> float:
    """The highest Sharpe ratio to expect of `trials` independent worthless ones with standard deviation `sd` (Bailey
    and López de Prado 2014, *The deflated Sharpe ratio*, eq. 1); 0 for a single one."""
    from scipy.stats import norm

    if trials <= 1:
        return 0.0
    low, high = norm.ppf(1 - 1 / trials), norm.ppf(1 - 1 / (trials * math.e))
    return float(sd * ((1 - EULER) * low + EULER * high))


def deflated_sharpe(returns: Moments, trials: int, sd: float) -> float | None:
    """`probabilistic_sharpe` against the ratio that the best of `trials` worthless ones would show (Bailey and
    López de Prado 2014, eq. 2)."""
    return probabilistic_sharpe(returns, expected_maximum(trials, sd))


@dataclass(frozen=True)
class Overfitting:
    """`pbo`: the share of splits in which the best trial of one half is below the median in the other half."""

    pbo: float
    blocks: int
    splits: int
    columns: int


def backtest_overfitting(returns: Array, blocks: int) -> Overfitting:
    """The probability of backtest overfitting by combinatorially symmetric cross-validation (Bailey, Borwein, López
    de Prado and Zhu 2017, *The probability of backtest overfitting*, section 3).

    The T bars are cut into `blocks` of neighbours. Every choice of half of them is a sample, the other half is out of
    sample. The trial with the best Sharpe ratio in the sample has the relative rank ω = rank/(columns+1) out of it;
    the choice is overfitted where ω is below one half. The median of an odd number of trials has ω = one half, which
    counts half, so worthless trials give 0.5 whatever their number. Equal ratios share their mean rank; a trial that
    never moves has the ratio 0. `returns` are `[T, columns]`. DataError if there are fewer than 2 trials, an odd number
    of blocks, or fewer than 2 bars per block.
    """
    bars, columns = returns.shape
    if columns < 2 or blocks % 2 or bars < 2 * blocks:
        raise DataError(
            f"backtest overfitting: expected 2 trials or more, an even number of blocks and 2 bars in each, "
            f"got {columns} trials, {blocks} blocks, {bars} bars"
        )
    pieces = np.array_split(returns, blocks)
    sums = np.stack([[len(piece) * np.ones(columns), piece.sum(0), (piece**2).sum(0)] for piece in pieces])
    halves = list(combinations(range(blocks), blocks // 2))
    chosen = np.zeros((len(halves), blocks))  # [splits, blocks]: 1 in the sample
    chosen[np.arange(len(halves))[:, None], halves] = 1
    inside = _sharpe(np.tensordot(chosen, sums, axes=1))  # [splits, columns]
    outside = _sharpe(np.tensordot(1 - chosen, sums, axes=1))
    best = np.take_along_axis(outside, inside.argmax(axis=1)[:, None], axis=1)
    rank = (outside < best).sum(axis=1) + ((outside == best).sum(axis=1) + 1) / 2  # [splits], 1 … columns
    above = np.sign(2 * rank - (columns + 1))  # of ω over one half, in whole numbers
    return Overfitting(float((1 - above).mean() / 2), blocks, len(halves), columns)


def _sharpe(sums: Array) -> Array:
    """`[splits, 3, columns]` of counts, sums and sums of squares -> ratios `[splits, columns]`."""
    count, total, squares = sums[:, 0], sums[:, 1], sums[:, 2]
    mean = total / count
    variance = (squares - count * mean**2) / (count - 1)
    moving = variance > 1e-12 * np.maximum(squares / count, 1e-30)
    return np.where(moving, mean / np.sqrt(np.where(moving, variance, 1.0)), 0.0)


@dataclass(frozen=True)
class TrialCounts:
    """All trials: cells, their repeats with other seeds, and the tuning trials of the present studies, failed and
    pruned ones too. Trials of studies that were since replaced are not counted, so the truth is deflated more.

    `sharpe_sd` is the standard deviation of the Sharpe ratios per bar of the `with_sharpe` trials that have one;
    `expected_max` is the ratio to expect of the best of `total` worthless trials.
    """

    cells: int
    repeats: int
    tuning: int
    failed: int
    pruned: int
    total: int
    with_sharpe: int
    sharpe_sd: float
    expected_max: float

    def deflate(self, returns: Moments | None) -> float | None:
        """The deflated Sharpe ratio; None where there is no ratio."""
        return None if returns is None else deflated_sharpe(returns, self.total, self.sharpe_sd)


def count_trials(
    cells: Sequence[Moments | None], repeats: Sequence[Moments | None], tuning: pd.DataFrame
) -> TrialCounts:
    """Count all trials, from the moments of each cell's and repeat's test returns, and from `read_tuning_trials`."""
    known = [returns.sharpe for returns in (*cells, *repeats) if returns is not None]
    tuned = tuning["sharpe_per_bar"].astype("float64")
    sharpes = [*known, *tuned[np.isfinite(tuned)]]
    counts = len(cells), len(repeats), len(tuning)
    failed, pruned = (int((tuning["state"] == state).sum()) for state in ("failed", "pruned"))
    sd = float(np.std(sharpes, ddof=1)) if len(sharpes) > 1 else 0.0
    return TrialCounts(*counts, failed, pruned, sum(counts), len(sharpes), sd, expected_maximum(sum(counts), sd))


def read_tuning_trials(files: Sequence[Path]) -> pd.DataFrame:
    """`state` and `sharpe_per_bar` of the trials of all studies, from the `trials.parquet` of each; DataError if one
    lacks a column."""
    frames = []
    for path in files:
        frame = pd.read_parquet(path)
        if missing := set(_TRIAL_COLUMNS) - set(frame.columns):
            raise DataError(f"{path}: no column '{min(missing)}'; run `dvc repro tune` to write the file again")
        frames.append(frame[_TRIAL_COLUMNS])
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=_TRIAL_COLUMNS)
