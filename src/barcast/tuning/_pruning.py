"""When a trial is stopped early: steps that are comparable between trials, and the pruners that look at them.

A trial's value at a step is the mean over its folds so far, the last of them as far as it has come. Steps go
fold by fold, `CHECKPOINTS` to a fold for models that report rounds, one for models that report once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from optuna import Study
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from barcast.tuning.settings import StudyConfig

CHECKPOINTS = 10
_RUNG = "completed_rung_"  # what Optuna calls its notes in a trial's system attributes
_RIVALS = 2  # fewer than this many values to compare with say nothing
_SPARED = 0.5  # share of the first fold's steps at which none is given up: slow learners look worse there than they are


class Steps:
    """The steps of a trial.

    Args:
        rounds: the most rounds or epochs that any trial of the study may take; 1 for models that report once.
    """

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.per_fold = min(rounds, CHECKPOINTS)

    def within(self, fold: int, round_: int) -> int | None:
        """The step that is reached with round `round_` (from 0) of fold `fold` (from 0), None between two steps.

        The last step of a fold is its end, whenever that comes.
        """
        reached = (round_ + 1) * self.per_fold // self.rounds
        if reached == round_ * self.per_fold // self.rounds or reached >= self.per_fold:
            return None
        return fold * self.per_fold + reached - 1

    def end(self, fold: int) -> int:
        """The step at which fold `fold` (from 0) is finished."""
        return (fold + 1) * self.per_fold - 1


class StepMedianPruner(BasePruner):
    """Stops a trial that is worse than the median of the other trials at the same step (Golovin et al. 2017).

    Optuna's own median pruner compares the best value over all of a trial's steps with the median at the
    present one. Folds differ in how hard they are, so after an easy one it would never stop anything.
    """

    def __init__(self, startup_trials: int, spared_steps: int) -> None:
        self._startup_trials, self._spared_steps = startup_trials, spared_steps

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        step = trial.last_step
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        complete = sum(other.state == TrialState.COMPLETE for other in finished)
        if step is None or step < self._spared_steps or complete < self._startup_trials:
            return False
        value, rivals = trial.intermediate_values[step], list(_values_at(finished, step))
        if math.isnan(value):
            return True
        if len(rivals) < _RIVALS:
            return False
        median = float(np.median(rivals))
        return value > median if study.direction == StudyDirection.MINIMIZE else value < median


def _values_at(trials: list[FrozenTrial], step: int) -> Iterator[float]:
    for trial in trials:
        if step in trial.intermediate_values:
            yield trial.intermediate_values[step]


class ResumableHyperband(HyperbandPruner):
    """Hyperband (Li et al. 2018) by Optuna, whose answer is the same when it is asked for again after a kill.

    Optuna's notes in the trial that it has come to a rung, and then decides there. Asked once more, it takes the note
    for a rung that was passed. It also knows its brackets only from the first question on, but the sampler, which
    learns from the trials of a bracket alone, draws before that.
    """

    def __init__(self, max_resource: int) -> None:
        super().__init__(min_resource=1, max_resource=max_resource)
        self._try_initialization(None)  # type: ignore[arg-type]  # of use for max_resource = "auto" alone

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        return self._fell(study, trial) or super().prune(study, trial)

    def _fell(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial, with its present value, was noted on a rung that it does not leave."""
        rungs = [key for key in trial.system_attrs if key.startswith(_RUNG)]
        if not rungs or trial.last_step is None:
            return False
        key, value = f"{_RUNG}{len(rungs) - 1}", trial.intermediate_values[trial.last_step]
        if trial.system_attrs[key] != value:
            return False
        rivals = self._create_bracket_study(study, self._get_bracket_id(study, trial)).get_trials(deepcopy=False)
        sign = 1 if study.direction == StudyDirection.MINIMIZE else -1
        values = sorted(sign * other.system_attrs[key] for other in rivals if key in other.system_attrs)
        return bool(sign * value > values[max(len(values) // self._reduction_factor - 1, 0)])


def make_pruner(settings: StudyConfig, steps: Steps) -> BasePruner:
    """The pruner that `tune.pruner` names; Hyperband counts in the steps of a whole trial."""
    if settings.pruner == "median":
        return StepMedianPruner(settings.startup_trials, int(steps.per_fold * _SPARED))
    if settings.pruner == "hyperband":
        return ResumableHyperband(max_resource=steps.end(settings.folds.count - 1) + 1)
    return NopPruner()
