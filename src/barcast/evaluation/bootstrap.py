"""How sure is a number? Confidence intervals from a stationary block bootstrap over time.

Blocks of neighbouring times with random lengths are drawn and joined (Politis and Romano 1994), so that the
overlap of labels and the moods of a market survive in each resample; all symbols of a time are drawn together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from barcast.config import Section
from barcast.errors import DataError
from barcast.evaluation.resampled import Draws, Measured, Resampled
from barcast.evaluation.verdicts import Delta, Interval, verdict

Array = npt.NDArray[np.float64]
Values = tuple[Mapping[str, float | None], Resampled]  # by metric: on the data, and on each resample `[B]`

_BOUNDS: dict[str, tuple[float, float]] = {
    "mcc": (-1, 1),
    "max_drawdown": (-1, 0),
    "total_return": (-1, math.inf),
    "turnover": (0, 2),
    "sharpe": (-math.inf, math.inf),
    "sortino": (-math.inf, math.inf),
    **dict.fromkeys(("log_loss", "profit_factor", "trades"), (0, math.inf)),
    "brier": (0, 2),
    "rank": (-1, 1),
}
_SHARE = (0, 1)  # of every other metric
_MIN_DEFINED = 0.9  # of the resamples; below it a metric has no interval
NO_SPREAD = 1e-12  # a difference whose resamples are off by less is one that no resample moves
FEWEST_TIMES = 11  # the automatic rule for block lengths needs as many


class BootstrapConfig(Section):
    """How intervals are made: part of `compare:` in params.yaml."""

    level: Annotated[float, Field(gt=0.5, lt=1)]
    resamples: Annotated[int, Field(ge=100)]
    block_factor: Annotated[float, Field(ge=1)]


@dataclass(frozen=True)
class Sample:
    """The resamples of one horizon's T test times, and the block length that they were drawn with."""

    draws: Draws
    block_length: float
    level: float

    @property
    def times(self) -> int:
        return int(self.draws.drawn.shape[1])

    @property
    def widening(self) -> float:
        """What makes an interval from the resamples wide enough for a spread that is itself estimated.

        T times in blocks of b tell as much about it as T/b independent ones: the spread's square is biased by
        1 − 2b/T and varies like a χ² with T/b degrees of freedom (Priestley 1981, 6.2, with the exponential lag
        window of this bootstrap), so Student's t takes the place of the normal distribution.
        """
        from scipy.stats import norm, t

        share, tail = self.block_length / self.times, (1 + self.level) / 2
        unbiased = 1 / math.sqrt(max(1 - 2 * share, 0.1))
        return float(unbiased * t.ppf(tail, max(1 / share, 2.0)) / norm.ppf(tail))


def block_length(series: Sequence[Array]) -> float:
    """The mean block length for the stationary bootstrap of several `[T]` series together: the longest that one of
    them needs by the automatic rule (Politis and White 2004, corrected by Patton, Politis and White 2009)."""
    from arch.bootstrap import optimal_block_length

    lengths = [
        float(optimal_block_length(values)["stationary"].iloc[0])
        for values in series
        if len(values) >= FEWEST_TIMES and np.ptp(values) > 1e-12  # a constant needs none
    ]
    return max([1.0, *(length for length in lengths if math.isfinite(length))])


def draw(times: int, length: float, config: BootstrapConfig, seed: int) -> Sample:
    """Draw the resamples of T times in blocks of mean length `length`."""
    from arch.bootstrap import StationaryBootstrap

    bootstrap = StationaryBootstrap(length, np.arange(times), seed=np.random.default_rng(seed))  # type: ignore[arg-type]
    drawn = np.stack([bootstrap.update_indices() for _ in range(config.resamples)])
    return Sample(Draws(drawn.astype(np.int32)), length, config.level)


def upper_quantile(values: Array, level: float) -> float:
    """The ⌈(B+1)·level⌉-th smallest of B values, which as many new ones stay below as `level` says (Davison and Hinkley
    1997, *Bootstrap methods and their application*, 5.2); the largest where there are too few."""
    rank = min(math.ceil((len(values) + 1) * level - 1e-9), len(values))
    return float(np.partition(values, rank - 1)[rank - 1])


def intervals(values: Values, sample: Sample) -> dict[str, Interval]:
    """Each metric with its confidence interval, cut off where the metric ends.

    Symmetric: value ± the `level` quantile of |resample − value| (Hall 1992, 3.5), widened for the spread's own
    uncertainty. A metric that is undefined on the data, or on more than a tenth of the resamples, has none.
    """
    return {name: _interval(name, values[0][name], values[1][name], sample) for name in values[1]}


def _interval(name: str, value: float | None, resampled: Array, sample: Sample) -> Interval:
    known = resampled[np.isfinite(resampled)]
    if value is None or len(known) < _MIN_DEFINED * len(resampled):
        return Interval(value, None, None)
    half = upper_quantile(np.abs(known - value), sample.level) * sample.widening
    low, high = _BOUNDS.get(name, _SHARE)
    return Interval(value, max(value - half, float(low)), min(value + half, float(high)))


def deltas(
    first: Values,
    second: Values,
    sample: Sample,
) -> dict[str, Delta]:
    """The paired difference *first − second* of each metric, with an interval of its own and the verdict."""
    return {name: _delta(name, first, second, sample) for name in first[0]}


def _delta(name: str, first: Values, second: Values, sample: Sample) -> Delta:
    one, other = first[0][name], second[0][name]
    if one is None or other is None:
        return Delta(None, None, None, verdict(name, None, None))
    apart = first[1][name] - second[1][name]
    known = apart[np.isfinite(apart)]
    if len(known) < _MIN_DEFINED * len(apart):
        return Delta(one - other, None, None, verdict(name, None, None))
    half = upper_quantile(np.abs(known - (one - other)), sample.level) * sample.widening
    return around(name, one - other, half, moving=half > NO_SPREAD)


def around(metric: str, value: float, half: float, moving: bool) -> Delta:
    """A difference with the interval `value` ± `half`.

    One that no resample moves has no interval and counts as noise: on a test so short or so uniform the resamples
    can't say how sure it is. That of two models which always answer alike is 0, and surely so.
    """
    if not moving and abs(value) > NO_SPREAD:
        return Delta(value, None, None, verdict(metric, None, None))
    half = half if moving else max(half, abs(value))  # what rounding left of 0 holds 0
    return Delta(value, value - half, value + half, verdict(metric, value - half, value + half))


@dataclass(frozen=True)
class Spread:
    """How far several differences may be off together.

    `critical` standard errors to each side hold all k true differences at once with the confidence level, so that
    of k verdicts from them the chance that any is false stays at 1 − level.
    """

    errors: Array  # [k], standard errors
    critical: float


def joint_spread(values: Array, resampled: Array, sample: Sample) -> Spread:
    """Standard errors and the common critical value of k differences: the `level` quantile of the largest
    |resample − value| in units of its standard error (single-step max-t; Romano and Wolf 2005).

    Args:
        values: `[k]`, the differences measured.
        resampled: `[B, k]`, the same of each resample.
        sample: what they were drawn with.
    """
    errors = resampled.std(axis=0)
    moving = errors > NO_SPREAD  # two models that always answer alike have nothing to be unsure of
    if not moving.any():
        return Spread(errors, 0.0)
    largest = (np.abs(resampled - values)[:, moving] / errors[moving]).max(axis=1)
    return Spread(errors, upper_quantile(largest, sample.level) * sample.widening)


def resample(models: Sequence[Measured], config: BootstrapConfig, seed: int) -> Sample:
    """Draw one set of resamples for all models of a horizon.

    Blocks are `block_factor` times as long as the longest that a model's loss, or its loss over the first model's,
    asks for: the automatic rule finds the best estimate of a variance, and intervals that hold as often as they
    say need longer blocks than that (Sun, Phillips and Jin 2008).

    Raises:
        DataError: there are too few times to resample.
    """
    losses = [model.losses for model in models]
    if len(losses[0]) < FEWEST_TIMES:
        raise DataError(
            f"test predictions: expected {FEWEST_TIMES} times or more to resample, got {len(losses[0])}; give the "
            "test split more bars (split.test in params.yaml, or the file test_scaled.parquet)"
        )
    length = config.block_factor * block_length([*losses, *(loss - losses[0] for loss in losses[1:])])
    return draw(len(losses[0]), length, config, seed)


def measure_all(models: Mapping[str, Measured], config: BootstrapConfig, seed: int) -> tuple[Sample, dict[str, Values]]:
    """One set of resamples for all models, and by model its values on the data and on the resamples."""
    sample = resample(list(models.values()), config, seed)
    return sample, {name: (point(model), model.metrics(sample.draws)) for name, model in models.items()}


def point(model: Measured) -> dict[str, float | None]:
    """The metrics on the data themselves; None where undefined."""
    found = model.metrics(Draws.identity(model.times))
    return {name: float(value[0]) if np.isfinite(value[0]) else None for name, value in found.items()}
