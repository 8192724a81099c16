"""The models of one horizon against each other: intervals, verdicts, tests, all on the same resamples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from barcast.evaluation.bootstrap import (
    NO_SPREAD,
    BootstrapConfig,
    Sample,
    Values,
    around,
    deltas,
    intervals,
    joint_spread,
    measure_all,
)
from barcast.evaluation.resampled import Draws, Measured, trading
from barcast.evaluation.sharpe import Moments, Overfitting, backtest_overfitting, moments
from barcast.evaluation.significance import (
    DieboldMariano,
    Superiority,
    confidence_set,
    diebold_mariano,
    superior_ability,
)
from barcast.evaluation.trading import Backtest
from barcast.evaluation.verdicts import Delta, Interval

Array = npt.NDArray[np.float64]


class SignificanceConfig(BootstrapConfig):
    """What of `compare:` in params.yaml says how differences are judged."""

    mcs_size: Annotated[float, Field(gt=0, lt=1)]
    pbo_blocks: Annotated[int, Field(ge=2, le=20, multiple_of=2)]


@dataclass(frozen=True)
class Entrant:
    """One model at a horizon, measured on test; `repeats` are the same model trained with other seeds, `rules` what
    its abstaining rules earned, by name."""

    name: str
    measured: Measured
    repeats: Sequence[Measured] = ()
    rules: Mapping[str, Backtest] = field(default_factory=dict)

    @property
    def runs(self) -> list[Measured]:
        return [self.measured, *self.repeats]

    @cached_property
    def losses(self) -> Array:
        """Log-loss of each time, the mean over the runs, `[T]`."""
        mean: Array = np.mean([run.losses for run in self.runs], axis=0)
        return mean

    @cached_property
    def run_losses(self) -> Array:
        """Test log-loss of each run."""
        return np.array([run.losses.mean() for run in self.runs])

    @property
    def seed_sd(self) -> float:
        """Standard deviation of the test log-loss over the runs; 0 for a single one."""
        return float(self.run_losses.std(ddof=1)) if len(self.runs) > 1 else 0.0

    def seed_half_width(self, level: float) -> float:
        """Half the interval of the mean over the runs that the seeds alone make, by Student's t."""
        if len(self.runs) < 2:
            return 0.0
        from scipy.stats import t

        count = len(self.runs)
        return float(t.ppf((1 + level) / 2, count - 1) * self.seed_sd / math.sqrt(count))

    @cached_property
    def moments(self) -> list[Moments | None]:
        """Of the net returns of each run."""
        return [moments(run.traded.by_time["net"].to_numpy()) for run in self.runs]


@dataclass(frozen=True)
class SeedSpread:
    """Test log-loss over the seeds, and the seed's share of the variance of one run's difference to the reference."""

    runs: int
    mean: float
    sd: float
    share: float


@dataclass(frozen=True)
class Pair:
    """Test log-loss of `first` minus `second`, and the Diebold-Mariano test of the two."""

    first: str
    second: str
    delta: Delta
    test: DieboldMariano


@dataclass(frozen=True)
class Standing:
    """What is known of one model: every metric with its interval, the trading metrics of its abstaining `rules`, and
    its differences to reference and best.

    `delta_reference` and `delta_best` are of log-loss, their intervals simultaneous over all models of the horizon;
    `deltas` are of every metric to the reference, each with an interval of its own. None for the model itself.
    """

    metrics: dict[str, Interval]
    rules: dict[str, dict[str, Interval]]
    deltas: dict[str, Delta] | None
    delta_reference: Delta | None
    delta_best: Delta | None
    mcs_p: float
    seeds: SeedSpread | None
    moments: Moments | None


@dataclass(frozen=True)
class Standings:
    """One horizon: each model's standing in the order of rank, and the tests of all of them together."""

    sample: Sample
    windows: int
    models: dict[str, Standing]
    superiority: Superiority | None
    pairs: list[Pair]
    overfitting: Overfitting | None

    def significance_json(self, mcs_size: float) -> dict[str, Any]:
        """This horizon's part of significance.json (docs/evaluation.md, "Files")."""
        spa = self.superiority
        return {
            "times": self.sample.times,
            "windows": self.windows,
            "block_length": self.sample.block_length,
            "resamples": len(self.sample.draws.drawn),
            "level": self.sample.level,
            "mcs_size": mcs_size,
            "spa": vars(spa) if spa else None,
            "mcs": {name: found.mcs_p for name, found in self.models.items()},
            "pairs": [
                {
                    "first": pair.first,
                    "second": pair.second,
                    "delta": vars(pair.delta),
                    "dm": pair.test.statistic,
                    "dm_p": pair.test.p_value,
                }
                for pair in self.pairs
            ],
        }

    def intervals_json(self) -> dict[str, Any]:
        """This horizon's part of intervals.json."""
        return {
            name: {
                "metrics": {metric: vars(interval) for metric, interval in found.metrics.items()},
                "rules": {
                    rule: {metric: vars(interval) for metric, interval in rows.items()}
                    for rule, rows in found.rules.items()
                },
                "deltas": {metric: vars(delta) for metric, delta in (found.deltas or {}).items()} or None,
            }
            for name, found in self.models.items()
        }


def judge(
    entrants: Sequence[Entrant], reference: Entrant, reach: int, config: SignificanceConfig, seed: int
) -> Standings:
    """Compare all models of a horizon on the same resamples of its test times.

    With repeats, the loss of a model is its mean over the runs, and its interval has the seeds' part beside that of
    the sample of windows (added in squares; Zou and Donner 2008).

    Args:
        entrants: best rank first, all measured on the same windows.
        reference: one of them, or a model beside them.
        reach: how many bars ahead a label looks.
        config: level, number of resamples, size of the confidence set, blocks of the overfitting test.
        seed: of all resamples.

    Raises:
        DataError: there are too few test times to resample.
    """
    everyone = {reference.name: reference, **{entrant.name: entrant for entrant in entrants}}
    sample, measured = measure_all({name: entrant.measured for name, entrant in everyone.items()}, config, seed)
    losses = {name: entrant.losses for name, entrant in everyone.items()}
    ranked = [entrant.name for entrant in entrants]
    rivals = {name: losses[name] for name in ranked if name != reference.name}
    among = joint_deltas(everyone, list(combinations(ranked, 2)), sample)
    return Standings(
        sample=sample,
        windows=len(reference.measured.y),
        models=_models(everyone, ranked, reference, sample, measured, seed),
        superiority=superior_ability(rivals, losses[reference.name], sample, seed),
        pairs=[
            Pair(a, b, delta, diebold_mariano(losses[a], losses[b], min(reach, sample.times - 1)))
            for (a, b), delta in among.items()
        ],
        overfitting=_overfitting(entrants, config.pbo_blocks),
    )


def _models(
    everyone: Mapping[str, Entrant],
    ranked: Sequence[str],
    reference: Entrant,
    sample: Sample,
    measured: Mapping[str, Values],
    seed: int,
) -> dict[str, Standing]:
    rivals = [name for name in ranked if name != reference.name]
    to_reference = joint_deltas(everyone, [(name, reference.name) for name in rivals], sample)
    to_best = joint_deltas(everyone, [(name, ranked[0]) for name in ranked[1:]], sample)
    p_values = confidence_set({name: everyone[name].losses for name in ranked}, sample, seed)
    return {
        name: Standing(
            metrics=intervals(measured[name], sample),
            rules={rule: _traded(found, sample) for rule, found in everyone[name].rules.items()},
            deltas=deltas(measured[name], measured[reference.name], sample) if name in rivals else None,
            delta_reference=to_reference.get((name, reference.name)),
            delta_best=to_best.get((name, ranked[0])),
            mcs_p=p_values[name],
            seeds=_seeds(everyone[name], reference, sample),
            moments=everyone[name].moments[0],
        )
        for name in ranked
    }


def _traded(traded: Backtest, sample: Sample) -> dict[str, Interval]:
    return intervals((traded.metrics, trading(traded, sample.draws)), sample)


def joint_deltas(
    everyone: Mapping[str, Entrant], pairs: Sequence[tuple[str, str]], sample: Sample
) -> dict[tuple[str, str], Delta]:
    """Differences in log-loss (*first − second*) of some pairs, with intervals that hold all together; one that no
    resample moves has none."""
    if not pairs:
        return {}
    resampled = {name: resampled_losses(entrant, sample.draws) for name, entrant in everyone.items()}
    values = np.array([everyone[a].run_losses.mean() - everyone[b].run_losses.mean() for a, b in pairs])
    spread = joint_spread(values, np.column_stack([resampled[a] - resampled[b] for a, b in pairs]), sample)
    found = {}
    for (a, b), value, error in zip(pairs, values.tolist(), spread.errors.tolist(), strict=True):
        seeds = [everyone[name].seed_half_width(sample.level) for name in (a, b)]
        half = math.hypot(spread.critical * error, *seeds)
        found[a, b] = around("log_loss", value, half, moving=error > NO_SPREAD)
    return found


def resampled_losses(entrant: Entrant, draws: Draws) -> Array:
    """The log-loss of each resample, the mean over the runs, `[B]`."""
    rows = np.bincount(entrant.measured.place, minlength=entrant.measured.times)
    scale = len(entrant.measured.y) / entrant.measured.times
    resampled: Array = (draws.counts @ entrant.losses) * scale / (draws.counts @ rows)
    return resampled


def _seeds(entrant: Entrant, reference: Entrant, sample: Sample) -> SeedSpread | None:
    if not entrant.repeats:
        return None
    apart = resampled_losses(entrant, sample.draws)
    if entrant.name != reference.name:
        apart = apart - resampled_losses(reference, sample.draws)
    seed, windows = entrant.seed_sd**2, float(apart.var())
    share = seed / (seed + windows) if seed + windows > 0 else 0.0
    return SeedSpread(len(entrant.runs), float(entrant.run_losses.mean()), entrant.seed_sd, share)


def _overfitting(entrants: Sequence[Entrant], blocks: int) -> Overfitting | None:
    """Over every run that ever traded; None where there are fewer than two, or too few bars for the blocks."""
    moving = [
        run.traded.by_time["net"].to_numpy()
        for entrant in entrants
        for run, found in zip(entrant.runs, entrant.moments, strict=True)
        if found is not None
    ]
    if len(moving) < 2 or len(moving[0]) < 2 * blocks:
        return None
    return backtest_overfitting(np.column_stack(moving), blocks)
