"""Stationary block bootstrap over time.

Blocks of neighbouring times with random lengths are drawn and joined (Politis and Romano 1994), so that each resample
keeps the overlap of labels and the regimes of a market; all symbols of a time are drawn together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from barcast.errors import DataError
from barcast.evaluation.metrics import Array
from barcast.section import Section

FEWEST_TIMES = 11  # the automatic rule for block lengths needs as many


class BootstrapConfig(Section):
    """How intervals are made: part of `compare:` in params.yaml."""

    level: Annotated[float, Field(gt=0.5, lt=1)]
    resamples: Annotated[int, Field(ge=100)]
    block_factor: Annotated[float, Field(ge=1)]


@dataclass(frozen=True)
class BootstrapIndices:
    """B resamples of T times: place i of resample b repeats the time `drawn[b, i]`. All models of a horizon are scored
    on the same indices, so their differences are paired."""

    drawn: npt.NDArray[np.int32]  # [B, T]

    @cached_property
    def counts(self) -> Array:
        """How often each time was drawn, `[B, T]`."""
        resamples, times = self.drawn.shape
        flat = self.drawn + np.arange(resamples, dtype=np.int64)[:, None] * times
        return np.bincount(flat.ravel(), minlength=resamples * times).reshape(resamples, times).astype(np.float64)

    @classmethod
    def identity(cls, times: int) -> BootstrapIndices:
        """One resample that draws each time once, in order: the data as they are."""
        return cls(np.arange(times, dtype=np.int32)[None])


@dataclass(frozen=True)
class BootstrapSample:
    """The resamples of one horizon's T test times, and the mean block length that they were drawn with."""

    indices: BootstrapIndices
    block_length: float
    level: float

    @property
    def times(self) -> int:
        return int(self.indices.drawn.shape[1])

    @property
    def small_sample_correction(self) -> float:
        """The factor that makes an interval from the resamples wide enough for a spread that is itself estimated.

        T times in blocks of b tell as much about it as T/b independent ones: the spread's square is biased by
        1 − 2b/T and varies like a χ² with T/b degrees of freedom (Priestley 1981, 6.2, with the exponential lag
        window of this bootstrap), so Student's t replaces the normal distribution.
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


def draw(times: int, length: float, config: BootstrapConfig, seed: int) -> BootstrapSample:
    """Draw the resamples of T times in blocks of mean length `length`."""
    from arch.bootstrap import StationaryBootstrap

    bootstrap = StationaryBootstrap(length, np.arange(times), seed=np.random.default_rng(seed))  # type: ignore[arg-type]
    drawn = np.stack([bootstrap.update_indices() for _ in range(config.resamples)])
    return BootstrapSample(BootstrapIndices(drawn.astype(np.int32)), length, config.level)


def draw_jointly(losses: Sequence[Array], config: BootstrapConfig, seed: int) -> BootstrapSample:
    """Draw one set of resamples for all models of a horizon, from the loss `[T]` of each.

    Blocks are `block_factor` times as long as the longest that a model's loss, or its difference to the first model's
    loss, needs: the automatic rule finds the best estimate of a variance, and intervals that hold as often as they
    promise need longer blocks (Sun, Phillips and Jin 2008). DataError if there are too few times to resample.
    """
    if len(losses[0]) < FEWEST_TIMES:
        raise DataError(
            f"test predictions: expected {FEWEST_TIMES} times or more to resample, got {len(losses[0])}; give the "
            "test split more bars (split.test in params.yaml, or the file test_scaled.parquet)"
        )
    length = config.block_factor * block_length([*losses, *(loss - losses[0] for loss in losses[1:])])
    return draw(len(losses[0]), length, config, seed)
