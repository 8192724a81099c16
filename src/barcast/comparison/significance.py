"""Which models are indistinguishable from the best, does any beat the reference, and does one beat another?"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from barcast.comparison.resampling import BootstrapSample
from barcast.evaluation.metrics import Array

_EQUAL = 1e-12  # a difference that varies by less over time has no spread to test it with


@dataclass(frozen=True)
class Superiority:
    """p-values of "no model has a lower expected loss than the reference": Hansen's lower bound, his consistent
    one, and the upper bound (White's reality check, studentised)."""

    lower: float
    consistent: float
    upper: float


class DieboldMariano(NamedTuple):
    """The statistic of a difference in loss (below 0: the first model is better) and its two-sided p-value."""

    statistic: float
    p_value: float


def confidence_set(losses: Mapping[str, Array], sample: BootstrapSample, seed: int) -> dict[str, float]:
    """The model confidence set's p-value of each model (Hansen, Lunde and Nason 2011, by arch, with the maximum
    statistic, which kept its size better than the range in the simulations of `benchmarks.coverage`).

    A model whose p-value is below the set's size is left out; the set then contains the best model with probability
    1 − size or more. Models whose losses differ by the same amount at every time share a p-value: without any spread
    nothing shows how certain the difference is.

    The resamples' spread is too small by `sample.small_sample_correction`, which would make the set too narrow. So the
    mean losses are first moved together by that factor, which leaves the resamples around them as they are. `losses`
    are `[T]` of each model, from the same windows.
    """
    from arch.bootstrap import MCS

    twins: dict[str, str] = {}  # each model → the first one that it differs from by a constant
    for name, loss in losses.items():
        firsts = dict.fromkeys(twins.values())
        twins[name] = next((other for other in firsts if np.ptp(losses[other] - loss) <= _EQUAL), name)
    names = list(dict.fromkeys(twins.values()))
    if len(names) == 1:
        return dict.fromkeys(losses, 1.0)
    table = np.column_stack([losses[name] for name in names])  # [T, models]
    means = table.mean(axis=0)
    moved = table - (means - means.mean()) * (1 - 1 / sample.small_sample_correction)
    length, count = round(sample.block_length), len(sample.indices.drawn)
    test = MCS(moved, size=0.5, reps=count, block_size=length, method="max", seed=seed)  # it changes no p-value
    test.compute()
    values = test.pvalues["Pvalue"]
    return {name: float(values[names.index(twin)]) for name, twin in twins.items()}


def superior_ability(
    losses: Mapping[str, Array], reference: Array, sample: BootstrapSample, seed: int
) -> Superiority | None:
    """The test for superior predictive ability against a reference (Hansen 2005, by arch); None where every model's
    losses differ from the reference's by the same amount at every time, or not at all. `losses` are `[T]` of each model
    but the reference."""
    from arch.bootstrap import SPA

    others = [loss for loss in losses.values() if np.ptp(loss - reference) > _EQUAL]
    if not others:
        return None
    length, count = round(sample.block_length), len(sample.indices.drawn)
    test = SPA(reference, np.column_stack(others), block_size=length, reps=count, seed=seed)
    with warnings.catch_warnings():  # arch's own arithmetic on pandas objects
        warnings.simplefilter("ignore", FutureWarning)
        test.compute()
    return Superiority(**{name: float(test.pvalues[name]) for name in ("lower", "consistent", "upper")})


def diebold_mariano(first: Array, second: Array, label_end_offset: int) -> DieboldMariano:
    """Do two forecasts have the same expected loss? (Diebold and Mariano 1995, with the correction of Harvey,
    Leybourne and Newbold 1997: their factor, and Student's t with T−1 degrees of freedom.)

    The variance of the mean includes autocovariances up to lag `label_end_offset`−1 with equal weights, as suits
    forecasts of overlapping outcomes. Where that is not positive, which a rectangular window allows, their weights
    fall linearly (Newey and West 1987). A difference that is the same at every time has no variance, and is not
    distinguishable from noise: statistic 0, p-value 1. Losses are `[T]`, of the same outcomes; `label_end_offset`, 1 …
    T−1, is how many times ahead an outcome ends.
    """
    from scipy.stats import t

    difference, end = first - second, label_end_offset
    times, mean = len(difference), float(difference.mean())
    if np.ptp(difference) <= _EQUAL:
        return DieboldMariano(0.0, 1.0)
    lags = np.arange(1, end)
    off = difference - mean
    covariance = np.array([off[lag:] @ off[: times - lag] for lag in range(end)]) / times
    variance = covariance[0] + 2 * covariance[1:].sum()
    if variance <= 0:
        variance = covariance[0] + 2 * ((1 - lags / end) * covariance[1:]).sum()
    corrected = (times + 1 - 2 * end + end * (end - 1) / times) / times
    statistic = mean / np.sqrt(variance / times) * np.sqrt(corrected)
    return DieboldMariano(float(statistic), float(2 * t.sf(abs(statistic), times - 1)))
