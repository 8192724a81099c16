"""Which models can't be told from the best, does any beat the reference, and does one beat another?"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from barcast.evaluation.bootstrap import Sample

Array = npt.NDArray[np.float64]

_EQUAL = 1e-12  # a difference that varies by less over time has no spread to be judged by


@dataclass(frozen=True)
class Superiority:
    """p-values of "no model has a lower expected loss than the reference": Hansen's lower bound, his consistent
    one, and the upper bound (White's reality check, studentised)."""

    lower: float
    consistent: float
    upper: float


@dataclass(frozen=True)
class DieboldMariano:
    """The statistic of a difference in loss (below 0: the first model is better) and its two-sided p-value."""

    statistic: float
    p_value: float


def confidence_set(losses: Mapping[str, Array], sample: Sample, seed: int) -> dict[str, float]:
    """The model confidence set's p-value of each model (Hansen, Lunde and Nason 2011, by arch, with the maximum
    statistic, which kept its size better than the range in the simulations of `benchmarks.coverage`).

    A model whose p-value is below the set's size is left out; the set then holds the best model with probability
    1 − size or more. Models whose losses differ by the same amount at every time, as by none, share a p-value: without
    any spread nothing tells how sure the difference is.

    The resamples' spread is too small by `sample.widening`, and a set that trusted it would be too narrow. So the
    mean losses are drawn together by that factor first, which leaves the resamples around them as they are.

    Args:
        losses: `[T]` of each model, from the same windows.
        sample: gives block length, number of resamples and the widening.
        seed: of the resamples.
    """
    from arch.bootstrap import MCS

    twins = _twins(losses)
    names = sorted(set(twins.values()), key=list(losses).index)
    if len(names) == 1:
        return dict.fromkeys(losses, 1.0)
    table = np.column_stack([losses[name] for name in names])  # [T, models]
    means = table.mean(axis=0)
    found = MCS(
        table - (means - means.mean()) * (1 - 1 / sample.widening),
        size=0.5,  # p-values don't depend on it
        reps=len(sample.draws.drawn),
        block_size=round(sample.block_length),
        method="max",
        seed=seed,
    )
    found.compute()
    values = found.pvalues["Pvalue"]
    return {name: float(values[names.index(twin)]) for name, twin in twins.items()}


def superior_ability(losses: Mapping[str, Array], reference: Array, sample: Sample, seed: int) -> Superiority | None:
    """The test for superior predictive ability against a reference (Hansen 2005, by arch); None where every model's
    losses are the reference's own, or off it by the same amount at every time.

    Args:
        losses: `[T]` of each model but the reference.
        reference: `[T]`.
        sample: gives block length and number of resamples.
        seed: of the resamples.
    """
    from arch.bootstrap import SPA

    others = [loss for loss in losses.values() if np.ptp(loss - reference) > _EQUAL]
    if not others:
        return None
    found = SPA(
        reference,
        np.column_stack(others),
        block_size=round(sample.block_length),
        reps=len(sample.draws.drawn),
        seed=seed,
    )
    with warnings.catch_warnings():  # arch's own arithmetic on pandas objects
        warnings.simplefilter("ignore", FutureWarning)
        found.compute()
    return Superiority(**{name: float(found.pvalues[name]) for name in ("lower", "consistent", "upper")})


def diebold_mariano(first: Array, second: Array, reach: int) -> DieboldMariano:
    """Do two forecasts have the same expected loss? (Diebold and Mariano 1995, with the correction of Harvey,
    Leybourne and Newbold 1997: their factor, and Student's t with T−1 degrees of freedom.)

    The variance of the mean takes in autocovariances up to lag `reach`−1 with equal weights, as fits forecasts
    of overlapping outcomes. Where that is not positive, which a rectangular window allows, they are weighted
    down linearly (Newey and West 1987). A difference that is the same at every time has no variance, and is not
    told apart from noise: statistic 0, p-value 1.

    Args:
        first: `[T]` losses.
        second: `[T]` losses of the same outcomes.
        reach: how many times ahead an outcome reaches, 1 … T−1.
    """
    from scipy.stats import t

    apart = first - second
    times, mean = len(apart), float(apart.mean())
    if np.ptp(apart) <= _EQUAL:
        return DieboldMariano(0.0, 1.0)
    lags = np.arange(1, reach)
    off = apart - mean
    covariance = np.array([off[lag:] @ off[: times - lag] for lag in range(reach)]) / times
    variance = covariance[0] + 2 * covariance[1:].sum()
    if variance <= 0:
        variance = covariance[0] + 2 * ((1 - lags / reach) * covariance[1:]).sum()
    corrected = (times + 1 - 2 * reach + reach * (reach - 1) / times) / times
    statistic = mean / np.sqrt(variance / times) * np.sqrt(corrected)
    return DieboldMariano(float(statistic), float(2 * t.sf(abs(statistic), times - 1)))


def _twins(losses: Mapping[str, Array]) -> dict[str, str]:
    """Each model -> the first one that it differs from by the same at every time: there is no spread to divide by."""
    first: dict[str, str] = {}
    for name, loss in losses.items():
        kept = sorted(set(first.values()), key=list(losses).index)
        first[name] = next((other for other in kept if np.ptp(losses[other] - loss) <= _EQUAL), name)
    return first
