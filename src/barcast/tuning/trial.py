"""One trial: sampled hyperparameters, a model fitted and scored on each fold, pruned where it is hopeless.

This module and what it imports decide the result of a trial. A change here begins a new study.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from barcast.data.dataset import DatasetConfig, TimeSeriesDataset
from barcast.models.base import BaseModel, Log, ModelConfig
from barcast.tuning._entries import SearchSpaceFn
from barcast.tuning.fold_scores import FoldScore, FoldScoring, score
from barcast.tuning.folds import Fold, open_fold, read_index
from barcast.tuning.search import ResumableSampler, Steps, make_pruner

if TYPE_CHECKING:
    from barcast.tuning.settings import StudyConfig

# User attributes of a trial, stored beside what Optuna stores itself.
SAMPLED, SCORES, REASON = "sampled", "fold_scores", "reason"
_GIVEN_UP = "given up"  # begins the reason of a pruned trial


@dataclass(frozen=True)
class TrialSpec:
    """What a trial does, small enough to be sent to another process: arrays are opened from files."""

    dataset: DatasetConfig
    folds: Sequence[Fold]
    rows: Sequence[Path]  # the file of each fold's scaled rows
    model_class: type[BaseModel]
    configure: Callable[[Mapping[str, Any]], ModelConfig]  # sampled values -> the model's checked config
    space: SearchSpaceFn
    settings: StudyConfig
    scoring: FoldScoring
    rounds: int  # the most that any trial may report, see `Steps`
    seed: int

    def sampler(self) -> ResumableSampler:
        """The sampler of the study."""
        return ResumableSampler(self.seed, self.settings.startup_trials)

    def pruner(self) -> optuna.pruners.BasePruner:
        """The pruner of the study."""
        return make_pruner(self.settings, Steps(self.rounds))


class Objective:
    """The mean of `tune.metric` over the folds, as a function of a trial.

    A fold's own validation part stops its training early, as validation does in the pipeline, and then
    scores it: the values compare hyperparameters and are too good as forecasts.
    """

    def __init__(self, spec: TrialSpec) -> None:
        dataset = TimeSeriesDataset(spec.dataset, splits=("train",))
        split = dataset.split("train")
        index = read_index(split)[0]
        self._features = dataset.feature_columns("train")
        self._folds = [open_fold(split, index, fold, rows) for fold, rows in zip(spec.folds, spec.rows, strict=True)]
        self._spec, self._steps = spec, Steps(spec.rounds)

    def __call__(self, trial: optuna.Trial) -> float:
        """Run the trial; raises TrialPruned where the pruner stops it, and what a model raises over sampled values."""
        if trial.user_attrs.get(REASON, "").startswith(_GIVEN_UP):  # killed after this was written
            raise optuna.TrialPruned
        spec, scores = self._spec, list[FoldScore]()
        sampled = spec.space(trial)
        trial.set_user_attr(SAMPLED, sampled)
        config, report = spec.configure(sampled), _Report(trial)
        for number, (train, val) in enumerate(self._folds):
            model = spec.model_class(config, config.horizon, self._features)
            log = self._watch(report, scores, config)
            model.fit(train.X, train.y, val.X, val.y, sample_weight=train.weight, log=log)
            scores.append(score(model, val, spec.settings.metric, spec.scoring))
            trial.set_user_attr(SCORES, [asdict(each) for each in scores])
            if number < len(self._folds) - 1:
                report(_mean(scores), self._steps.end(number), f"after fold {number + 1}")
        return _mean(scores)

    def _watch(self, report: _Report, before: Sequence[FoldScore], config: ModelConfig) -> Log:
        """The model's `log` in the next fold. Only rounds of log-loss predict how the fold will end."""
        fold, earlier, losses = len(before), sum(each.value for each in before), list[float]()
        keeps_best = getattr(config, "early_stopping", False)

        def log(metrics: Mapping[str, float], step: int) -> None:
            if self._spec.settings.metric != "log_loss" or "val_log_loss" not in metrics:
                return
            losses.append(metrics["val_log_loss"])
            if (reached := self._steps.within(fold, step)) is not None:
                value = (earlier + (min(losses) if keeps_best else losses[-1])) / (fold + 1)
                report(value, reached, f"in fold {fold + 1}, round {step + 1}")

        return log


class _Report:
    """Reports a trial's values to its study, and ends the trial where the pruner decides so.

    A resumed trial computes again what it had reported before it was killed. Those values are stored and were
    not pruned, except perhaps the last one: the kill may have come before the pruner was asked.
    """

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial
        stored = next(each for each in trial.study.get_trials(deepcopy=False) if each.number == trial.number)
        self._stored_until = -1 if stored.last_step is None else stored.last_step

    def __call__(self, value: float, step: int, place: str) -> None:
        if step > self._stored_until:
            self._trial.report(value, step)
        if step >= self._stored_until and self._trial.should_prune():
            self._trial.set_user_attr(REASON, f"{_GIVEN_UP} {place}")
            raise optuna.TrialPruned


def _mean(scores: Sequence[FoldScore]) -> float:
    return sum(each.value for each in scores) / len(scores)
