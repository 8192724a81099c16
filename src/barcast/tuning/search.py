"""How Optuna searches: what a trial samples, and when it is stopped early. Both are the same after a kill.

A trial's value at a step is the mean over its folds so far, the last one as far as it has come. Steps are counted
fold by fold, `CHECKPOINTS` per fold for models that report rounds, one for models that report once.
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner
from optuna.samplers import TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from barcast.tuning.settings import StudyConfig

CHECKPOINTS = 10
_RUNG = "completed_rung_"  # Optuna's notes in a trial's system attributes
_MIN_RIVALS = 2  # fewer values to compare with mean nothing
_WARMUP = 0.5  # share of the first fold's steps at which no trial is pruned: slow learners look bad there


class ResumableSampler(TPESampler):
    """TPE (Bergstra et al. 2011), seeded for each trial with the study's seed and the trial's number.

    What is sampled independently (all of a random trial, and parameters under a condition) is seeded with the
    parameter's name too: it does not depend on which of the other parameters were sampled before a kill.
    """

    def __init__(self, seed: int, startup_trials: int) -> None:
        self._study_seed, self._startup_trials = seed, startup_trials
        self._seed_for(0)

    def _seed_for(self, *keys: int) -> None:
        seed = int(np.random.SeedSequence([self._study_seed, *keys]).generate_state(1)[0])
        super().__init__(seed=seed, n_startup_trials=self._startup_trials)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._seed_for(trial.number)
        super().before_trial(study, trial)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        self._seed_for(trial.number, zlib.crc32(param_name.encode()))
        return super().sample_independent(study, trial, param_name, param_distribution)


class Steps:
    """The steps of a trial, of at most `rounds` rounds or epochs per fold; 1 for models that report once."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.per_fold = min(rounds, CHECKPOINTS)

    def within(self, fold: int, round_: int) -> int | None:
        """The step that round `round_` of fold `fold` (both from 0) reaches, the fold's last excepted; None between."""
        reached = (round_ + 1) * self.per_fold // self.rounds
        if reached == round_ * self.per_fold // self.rounds or reached >= self.per_fold:
            return None
        return fold * self.per_fold + reached - 1

    def end(self, fold: int) -> int:
        """The step at which fold `fold` (from 0) is finished."""
        return (fold + 1) * self.per_fold - 1


class StepMedianPruner(BasePruner):
    """Stops a trial that is worse than the median of the others at the same step (Golovin et al. 2017).

    Optuna's own compares a trial's best value over all its steps: after an easy fold it would never stop anything.
    """

    def __init__(self, startup_trials: int, warmup_steps: int) -> None:
        self._startup_trials, self._warmup_steps = startup_trials, warmup_steps

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        step = trial.last_step
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        complete = sum(other.state == TrialState.COMPLETE for other in finished)
        if step is None or step < self._warmup_steps or complete < self._startup_trials:
            return False
        value = trial.intermediate_values[step]
        rivals = [other.intermediate_values[step] for other in finished if step in other.intermediate_values]
        if math.isnan(value) or len(rivals) < _MIN_RIVALS:
            return math.isnan(value)
        median = float(np.median(rivals))
        return value > median if study.direction == StudyDirection.MINIMIZE else value < median


class ResumableHyperband(HyperbandPruner):
    """Optuna's Hyperband (Li et al. 2018), which decides the same when it is asked again after a kill.

    Optuna notes in the trial that it reached a rung, and then decides; asked again, it takes that rung for passed. It
    also learns its brackets only when it is first asked, after the sampler, which uses the trials of one bracket.
    """

    def __init__(self, max_resource: int) -> None:
        super().__init__(min_resource=1, max_resource=max_resource)
        self._try_initialization(None)  # type: ignore[arg-type]  # the study is used for max_resource = "auto" only

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        return self._was_stopped(study, trial) or super().prune(study, trial)

    def _was_stopped(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial, with its present value, is noted on a rung that it does not pass."""
        key = f"{_RUNG}{sum(name.startswith(_RUNG) for name in trial.system_attrs) - 1}"
        value = trial.system_attrs.get(key)
        if value is None or trial.last_step is None or trial.intermediate_values[trial.last_step] != value:
            return False
        rivals = self._create_bracket_study(study, self._get_bracket_id(study, trial)).get_trials(deepcopy=False)
        sign = 1 if study.direction == StudyDirection.MINIMIZE else -1
        values = sorted(sign * other.system_attrs[key] for other in rivals if key in other.system_attrs)
        return bool(sign * value > values[max(len(values) // self._reduction_factor - 1, 0)])


def make_pruner(settings: StudyConfig, steps: Steps) -> BasePruner:
    """The pruner that `tune.pruner` names; Hyperband counts the steps of a whole trial."""
    if settings.pruner == "median":
        return StepMedianPruner(settings.startup_trials, int(steps.per_fold * _WARMUP))
    if settings.pruner == "hyperband":
        return ResumableHyperband(max_resource=steps.end(settings.folds.count - 1) + 1)
    return NopPruner()
