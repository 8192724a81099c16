"""The models of one horizon compared with each other: intervals, verdicts and tests on the same resamples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from barcast.comparison.intervals import Delta, Interval, deltas, intervals, simultaneous_band, with_interval
from barcast.comparison.resampled_metrics import ScoredPredictions, bootstrap_metrics, resample_trading
from barcast.comparison.resampling import BootstrapConfig, BootstrapIndices, BootstrapSample
from barcast.comparison.sharpe import Moments, Overfitting, backtest_overfitting, moments
from barcast.comparison.significance import Superiority, confidence_set, diebold_mariano, superior_ability
from barcast.evaluation.backtest import Backtest
from barcast.evaluation.metrics import Array


class SignificanceConfig(BootstrapConfig):
    """The settings of the tests: part of `compare:` in params.yaml."""

    mcs_size: Annotated[float, Field(gt=0, lt=1)]
    pbo_blocks: Annotated[int, Field(ge=2, le=20, multiple_of=2)]


@dataclass(frozen=True)
class ModelResult:
    """One model's predictions of test, scored; `repeats` are of the same model trained with other seeds, `strategies`
    what its abstaining strategies earned, by name. `score` ranks it, `metrics` is its metrics.json."""

    name: str
    scored: ScoredPredictions
    repeats: Sequence[ScoredPredictions] = ()
    strategies: Mapping[str, Backtest] = field(default_factory=dict)
    score: float = math.nan
    metrics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def runs(self) -> list[ScoredPredictions]:
        return [self.scored, *self.repeats]

    @cached_property
    def losses(self) -> Array:
        """Log-loss of each time, the mean over the runs, `[T]`."""
        return np.asarray(np.mean([run.losses for run in self.runs], axis=0))

    @cached_property
    def run_losses(self) -> Array:
        """Test log-loss of each run."""
        return np.array([run.losses.mean() for run in self.runs])

    @property
    def seed_sd(self) -> float:
        """Standard deviation of the test log-loss over the runs; 0 for a single one."""
        return float(self.run_losses.std(ddof=1)) if len(self.runs) > 1 else 0.0

    def seed_half_width(self, level: float) -> float:
        """Half the interval of the mean over the runs, from the seeds only, by Student's t."""
        from scipy.stats import t

        count = len(self.runs)
        return float(t.ppf((1 + level) / 2, count - 1) * self.seed_sd / math.sqrt(count)) if count > 1 else 0.0

    @cached_property
    def moments(self) -> list[Moments | None]:
        """Of the net returns of each run."""
        return [moments(run.traded.net) for run in self.runs]

    def resampled_losses(self, indices: BootstrapIndices) -> Array:
        """The log-loss of each resample, the mean over the runs, `[B]`."""
        rows = np.bincount(self.scored.time_index, minlength=self.scored.times)
        scale = len(self.scored.y) / self.scored.times
        return np.asarray((indices.counts @ self.losses) * scale / (indices.counts @ rows))


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
    dm: float  # the statistic: below 0 the first model is better
    dm_p: float


@dataclass(frozen=True)
class ModelComparison:
    """One model beside the others: every metric with its interval, the trading metrics of its abstaining strategies
    (`rules`), and its differences to reference and best.

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


@dataclass(frozen=True)
class HorizonComparison:
    """All models of a horizon in the order of rank, and the tests of them all."""

    ranked: Sequence[ModelResult]
    sample: BootstrapSample
    models: dict[str, ModelComparison]
    superiority: Superiority | None
    pairs: list[Pair]
    overfitting: Overfitting | None

    def significance_json(self, mcs_size: float) -> dict[str, Any]:
        """This horizon's part of significance.json (docs/evaluation.md, "Files"), but the rank correlation."""
        return {
            "times": self.sample.times,
            "windows": len(self.ranked[0].scored.y),
            "block_length": self.sample.block_length,
            "resamples": len(self.sample.indices.drawn),
            "level": self.sample.level,
            "mcs_size": mcs_size,
            "spa": asdict(self.superiority) if self.superiority else None,
            "mcs": {name: model.mcs_p for name, model in self.models.items()},
            "pairs": [asdict(pair) for pair in self.pairs],
        }

    def intervals_json(self) -> dict[str, Any]:
        """This horizon's part of intervals.json."""
        models = {name: asdict(model) for name, model in self.models.items()}
        return {name: {key: model[key] for key in ("metrics", "rules", "deltas")} for name, model in models.items()}


def compare_models(
    ranked: Sequence[ModelResult], reference: ModelResult, label_end_offset: int, config: SignificanceConfig, seed: int
) -> HorizonComparison:
    """Compare all models of a horizon on the same resamples of its test times.

    With repeats, the loss of a model is its mean over the runs, and its interval has the seeds' part beside that of
    the sample of windows (added in squares; Zou and Donner 2008).

    `ranked` has the best rank first, all scored on the same windows; `reference` is one of them, or a model beside
    them. A label looks `label_end_offset` bars ahead; `seed` is of all resamples.

    Raises:
        DataError: there are too few test times to resample.
    """
    models = {reference.name: reference, **{model.name: model for model in ranked}}
    sample, values = bootstrap_metrics({name: model.scored for name, model in models.items()}, config, seed)
    losses = {name: model.losses for name, model in models.items()}
    names = [model.name for model in ranked]
    rivals = {name: losses[name] for name in names if name != reference.name}
    to_reference = simultaneous_deltas(models, [(name, reference.name) for name in rivals], sample)
    to_best = simultaneous_deltas(models, [(name, names[0]) for name in names[1:]], sample)
    to_each_other = simultaneous_deltas(models, list(combinations(names, 2)), sample)
    lags = min(label_end_offset, sample.times - 1)
    p_values = confidence_set({name: losses[name] for name in names}, sample, seed)

    def compare(name: str) -> ModelComparison:
        return ModelComparison(
            metrics=intervals(values[name], sample),
            rules={
                strategy: intervals((traded.metrics, resample_trading(traded, sample.indices)), sample)
                for strategy, traded in models[name].strategies.items()
            },
            deltas=deltas(values[name], values[reference.name], sample) if name in rivals else None,
            delta_reference=to_reference.get((name, reference.name)),
            delta_best=to_best.get((name, names[0])),
            mcs_p=p_values[name],
            seeds=_seed_spread(models[name], reference, sample),
        )

    return HorizonComparison(
        ranked=ranked,
        sample=sample,
        models={name: compare(name) for name in names},
        superiority=superior_ability(rivals, losses[reference.name], sample, seed),
        pairs=[
            Pair(a, b, delta, *diebold_mariano(losses[a], losses[b], lags)) for (a, b), delta in to_each_other.items()
        ],
        overfitting=_overfitting(ranked, config.pbo_blocks),
    )


def simultaneous_deltas(
    models: Mapping[str, ModelResult], pairs: Sequence[tuple[str, str]], sample: BootstrapSample
) -> dict[tuple[str, str], Delta]:
    """Differences in log-loss (*first − second*) of some pairs, with intervals that hold for all of them together."""
    if not pairs:
        return {}
    resampled = {name: model.resampled_losses(sample.indices) for name, model in models.items()}
    values = np.array([models[a].run_losses.mean() - models[b].run_losses.mean() for a, b in pairs])
    gaps = np.column_stack([resampled[a] - resampled[b] for a, b in pairs])
    errors, critical = simultaneous_band(values, gaps, sample)
    by_pair = {}
    for (a, b), value, error in zip(pairs, values.tolist(), errors.tolist(), strict=True):
        seeds = [models[name].seed_half_width(sample.level) for name in (a, b)]
        by_pair[a, b] = with_interval("log_loss", value, math.hypot(critical * error, *seeds), error)
    return by_pair


def _seed_spread(model: ModelResult, reference: ModelResult, sample: BootstrapSample) -> SeedSpread | None:
    if not model.repeats:
        return None
    difference = model.resampled_losses(sample.indices)
    if model.name != reference.name:
        difference = difference - reference.resampled_losses(sample.indices)
    seed, windows = model.seed_sd**2, float(difference.var())
    share = seed / (seed + windows) if seed + windows > 0 else 0.0
    return SeedSpread(len(model.runs), float(model.run_losses.mean()), model.seed_sd, share)


def _overfitting(models: Sequence[ModelResult], blocks: int) -> Overfitting | None:
    """Over every run that ever traded; None where there are fewer than two, or too few bars for the blocks."""
    runs = [pair for model in models for pair in zip(model.runs, model.moments, strict=True)]
    returns = [run.traded.net for run, known in runs if known is not None]
    if len(returns) < 2 or len(returns[0]) < 2 * blocks:
        return None
    return backtest_overfitting(np.column_stack(returns), blocks)
