"""How certain is a number, and is a difference real? Intervals from resamples, and the verdict that one allows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from barcast.comparison.resampling import BootstrapSample
from barcast.evaluation.metrics import METRICS, Array

Values = tuple[Mapping[str, float | None], Mapping[str, Array]]  # by metric: on the data, and on each resample `[B]`
Verdict = Literal["better", "worse", "noise"]

_MIN_DEFINED = 0.9  # of the resamples; below it a metric has no interval
NO_SPREAD = 1e-12  # no resample moves a difference whose resamples vary by less


@dataclass(frozen=True)
class Interval:
    """A value and its confidence interval; None: undefined, as a Sharpe ratio without a trade."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Delta(Interval):
    """A paired difference (one model's metric minus another's, on the same windows), its interval and the verdict;
    None for a metric that has no direction."""

    verdict: Verdict | None


def verdict(metric: str, low: float | None, high: float | None) -> Verdict | None:
    """The verdict on a difference in `metric` whose interval is `low … high`.

    `better` or `worse` where the whole interval is on one side of 0; `noise` where it contains 0, or where the
    difference is undefined. None for a metric that has no direction.
    """
    if (direction := METRICS[metric].direction) is None:
        return None
    if low is None or high is None or math.isnan(low) or math.isnan(high) or low <= 0 <= high:
        return "noise"
    return "better" if (high < 0) == (direction == "lower") else "worse"


def upper_quantile(values: Array, level: float) -> float:
    """The ⌈(B+1)·level⌉-th smallest of B values: a new value is below it with probability `level` (Davison and Hinkley
    1997, *Bootstrap methods and their application*, 5.2). The largest value where there are too few."""
    rank = min(math.ceil((len(values) + 1) * level - 1e-9), len(values))
    return float(np.partition(values, rank - 1)[rank - 1])


def half_width(value: float | None, resampled: Array, sample: BootstrapSample) -> float | None:
    """Half of a symmetric interval: the `level` quantile of |resample − value| (Hall 1992, 3.5), times the correction
    for small samples; None where the value is undefined, or undefined on more than a tenth of the resamples `[B]`."""
    known = resampled[np.isfinite(resampled)]
    if value is None or len(known) < _MIN_DEFINED * len(resampled):
        return None
    return upper_quantile(np.abs(known - value), sample.level) * sample.small_sample_correction


def interval(value: float | None, resampled: Array, sample: BootstrapSample, bounds: tuple[float, float]) -> Interval:
    """A value with its confidence interval, cut off at `bounds`."""
    if value is None or (half := half_width(value, resampled, sample)) is None:
        return Interval(value, None, None)
    return Interval(value, max(value - half, float(bounds[0])), min(value + half, float(bounds[1])))


def intervals(values: Values, sample: BootstrapSample) -> dict[str, Interval]:
    """Each metric with its confidence interval."""
    observed, resampled = values
    return {name: interval(observed[name], resampled[name], sample, METRICS[name].bounds) for name in resampled}


def deltas(first: Values, second: Values, sample: BootstrapSample) -> dict[str, Delta]:
    """The paired difference *first − second* of each metric, with an interval of its own and the verdict."""
    found = {}
    for name, one in first[0].items():
        other, resampled = second[0][name], first[1][name] - second[1][name]
        value = None if one is None or other is None else one - other
        half = half_width(value, resampled, sample)
        found[name] = with_interval(name, value, half, half)
    return found


def with_interval(metric: str, value: float | None, half: float | None, spread: float | None) -> Delta:
    """A difference with the interval `value` ± `half`; None where it is undefined.

    A difference that no resample moves, whose `spread` is 0, has no interval and counts as noise: on a test so short
    or so uniform the resamples can't tell how certain it is. That of two models with equal predictions is 0 with
    certainty.
    """
    moving = spread is not None and spread > NO_SPREAD
    if value is None or half is None or (not moving and abs(value) > NO_SPREAD):
        return Delta(value, None, None, verdict(metric, None, None))
    half = half if moving else max(half, abs(value))  # a rounded 0 has an interval that contains 0
    return Delta(value, value - half, value + half, verdict(metric, value - half, value + half))


def simultaneous_band(values: Array, resampled: Array, sample: BootstrapSample) -> tuple[Array, float]:
    """Standard errors `[k]` and the common critical value of k differences: the `level` quantile of the largest
    |resample − value| in units of its standard error (single-step max-t; Romano and Wolf 2005).

    So many standard errors to each side contain all k true differences at once with the confidence level: the chance
    that any of the k verdicts is false is at most 1 − level. `values` are `[k]`, `resampled` `[B, k]`.
    """
    errors = resampled.std(axis=0)
    moving = errors > NO_SPREAD  # two models with equal predictions have no uncertainty
    if not moving.any():
        return errors, 0.0
    largest = (np.abs(resampled - values)[:, moving] / errors[moving]).max(axis=1)
    return errors, upper_quantile(largest, sample.level) * sample.small_sample_correction
