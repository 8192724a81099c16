"""What a study shows while it runs: trials done, the best value so far, the time left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TextIO

from optuna.trial import FrozenTrial, TrialState

from barcast.training.progress import Progress
from barcast.tuning.settings import StudyConfig

_BEST = "best"


class StudyProgress(Progress):
    """A bar on a terminal, now and then a line elsewhere: `tune gru_h5  trial 7/20  best log_loss 1.0613  ETA 40 s`.

    Args:
        name: what to show in front.
        settings: how many trials there are, and by which metric they are judged.
        stream: where to write; standard output by default.
    """

    def __init__(self, name: str, settings: StudyConfig, stream: TextIO | None = None) -> None:
        super().__init__(name, settings.n_trials, "trial", stream)
        self._settings = settings
        self._best: float | None = None

    def on_trial(self, trial: FrozenTrial) -> None:
        """Take in a trial that ended."""
        if trial.state == TrialState.COMPLETE and trial.value is not None:
            better = min if self._settings.direction == "minimize" else max
            self._best = trial.value if self._best is None else better(self._best, trial.value)
        self({} if self._best is None else {_BEST: self._best}, trial.number)

    def _describe(self, metrics: Mapping[str, float], step: int) -> str:
        done = super()._describe(metrics, step)
        return f"{done}  best {self._settings.metric} {metrics[_BEST]:.4f}" if _BEST in metrics else done
