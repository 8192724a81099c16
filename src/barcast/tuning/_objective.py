"""One trial: hyperparameters drawn, the model fitted and scored on each fold, stopped where it is hopeless."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna

from barcast.config import validate
from barcast.errors import ModelError
from barcast.models.base import Log, ModelConfig
from barcast.models.registry import ModelRegistry
from barcast.tuning._pruning import Steps
from barcast.tuning._scores import FoldScore, score
from barcast.tuning.folds import FoldData
from barcast.tuning.search_space import FIXED, SearchSpaceFn
from barcast.tuning.settings import FoldScoring, StudyConfig

# Names in a trial's user attributes: what the ledger keeps beside what Optuna keeps by itself.
DRAWN, SCORES, REASON = "drawn", "fold_scores", "reason"
_GIVEN_UP = "given up"  # how the reason of a pruned trial begins


@dataclass(frozen=True)
class Objective:
    """The mean of `tune.metric` over the folds, as a function of a trial.

    A fold's own validation part stops its training early, as validation does in the pipeline, and then
    scores it: the values compare hyperparameters and are too good as forecasts. The test split plays no part.
    """

    model_name: str
    base: Mapping[str, Any]  # the cell's config, its threads as this process may use them
    space: SearchSpaceFn
    features: list[str]
    folds: Sequence[FoldData]
    settings: StudyConfig
    scoring: FoldScoring
    steps: Steps

    def __call__(self, trial: optuna.Trial) -> float:
        """Run the trial.

        Raises:
            TrialPruned: the pruner gave it up.
            ModelError, ConfigError: the model can't be fitted with what was drawn.
        """
        if trial.user_attrs.get(REASON, "").startswith(_GIVEN_UP):  # and cut short before its study was told
            raise optuna.TrialPruned
        drawn = self.space(trial)
        trial.set_user_attr(DRAWN, drawn)
        config, report = self._config(drawn), _Report(trial)
        scores: list[FoldScore] = []
        for number, fold in enumerate(self.folds):
            model = ModelRegistry.create(self.model_name, config, config.horizon, self.features)
            log = self._watch(report, number, scores, config)
            model.fit(fold.train.X, fold.train.y, fold.val.X, fold.val.y, sample_weight=fold.train.weight, log=log)
            scores.append(score(model, fold.val, self.settings.metric, self.scoring))
            trial.set_user_attr(SCORES, [each.to_dict() for each in scores])
            if number < len(self.folds) - 1:
                report(_mean(scores), self.steps.end(number), f"after fold {number + 1}")
        return _mean(scores)

    def _config(self, drawn: Mapping[str, Any]) -> ModelConfig:
        fixed = FIXED & set(drawn)
        if fixed:
            raise ModelError(f"{self.model_name}: {sorted(fixed)[0]} is not to be tuned; leave it out of the space")
        config_class = ModelRegistry.get_metadata(self.model_name).model_class.config_class
        return validate(config_class, {**self.base, **drawn}, "search space")

    def _watch(self, report: _Report, fold: int, before: list[FoldScore], config: ModelConfig) -> Log:
        """What the model reports its rounds to; only of log-loss do they say how the fold will end."""
        losses: list[float] = []
        keeps_best = getattr(config, "early_stopping", False)

        def log(metrics: Mapping[str, float], step: int) -> None:
            if self.settings.metric != "log_loss" or "val_log_loss" not in metrics:
                return
            losses.append(metrics["val_log_loss"])
            reached = self.steps.within(fold, step)
            if reached is not None:
                so_far = min(losses) if keeps_best else losses[-1]
                value = (sum(each.value for each in before) + so_far) / (len(before) + 1)
                report(value, reached, f"in fold {fold + 1}, round {step + 1}")

        return log


class _Report:
    """Tells a trial's values to its study, and ends the trial where the pruner says so.

    A trial that is taken up again reports anew what it had reported before it was cut short. Those values are
    there and were let pass, but for the last of them, after which the pruner may not have been asked.
    """

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial
        known = next(each for each in trial.study.get_trials(deepcopy=False) if each.number == trial.number)
        self._before = -1 if known.last_step is None else known.last_step

    def __call__(self, value: float, step: int, place: str) -> None:
        if step > self._before:
            self._trial.report(value, step)
        if step >= self._before and self._trial.should_prune():
            self._trial.set_user_attr(REASON, f"{_GIVEN_UP} {place}")
            raise optuna.TrialPruned


def _mean(scores: Sequence[FoldScore]) -> float:
    return sum(each.value for each in scores) / len(scores)
