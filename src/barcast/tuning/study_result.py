"""What a study shows: its progress, the tracker's record of a trial, and its outcome as files.

The files: its trials, its best hyperparameters as a block of params.yaml, its plots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from barcast.files import write_json
from barcast.tracking import TrialRecord
from barcast.training.progress import Progress
from barcast.tuning.settings import StudyConfig
from barcast.tuning.study_plots import write_plots
from barcast.tuning.study_summary import MEANS, STATES, trial_row, trials_frame
from barcast.tuning.trial import SAMPLED, SCORES
from barcast.yaml_io import dump_yaml


class StudyProgress(Progress):
    """A bar on a terminal, an occasional line elsewhere: `tune gru_h5  trial 7/20  best log_loss 1.0613  ETA 40 s`."""

    def __init__(self, name: str, settings: StudyConfig, stream: TextIO | None = None) -> None:
        super().__init__(name, settings.n_trials, "trial", stream)
        self._settings, self._values = settings, list[float]()

    def on_trial(self, trial: FrozenTrial) -> None:
        """Count a trial that ended."""
        if trial.state == TrialState.COMPLETE and trial.value is not None:
            self._values.append(trial.value)
        best = min if self._settings.direction == "minimize" else max
        self({"best": best(self._values)} if self._values else {}, trial.number)

    def _describe(self, metrics: Mapping[str, float], step: int) -> str:
        done = super()._describe(metrics, step)
        return f"{done}  best {self._settings.metric} {metrics['best']:.4f}" if "best" in metrics else done


def trial_record(trial: FrozenTrial) -> TrialRecord:
    """A trial as the tracker takes it, with its times."""
    row, params = trial_row(trial, len(trial.user_attrs.get(SCORES, []))), trial.user_attrs.get(SAMPLED, {})
    metrics = {name: row[name] for name in row if name.startswith("fold_") or name in ("value", *MEANS)}
    known = {name: value for name, value in metrics.items() if value is not None}
    times = (trial.datetime_start, trial.datetime_complete)
    started, ended = (None if time is None else int(time.timestamp() * 1000) for time in times)
    return TrialRecord(trial.number, row["state"], params, known, row["reason"], started, ended)


@dataclass(frozen=True)
class StudyResult:
    """The outcome of a study. `best_params` has every key that its trials could set, as the best trial has it."""

    model_name: str
    horizon: int
    settings: StudyConfig
    folds: list[dict[str, Any]]  # number, first and last time, and windows of both parts
    trials: list[FrozenTrial]  # finished ones, by number
    best: FrozenTrial
    best_params: dict[str, Any]
    importances: pd.DataFrame

    @property
    def frame(self) -> pd.DataFrame:
        """The trials as a table; see `trials_frame`."""
        return trials_frame(self.trials, self.settings.folds.count)

    def write(self, folder: Path) -> None:
        """Write `best_params.yaml`, `trials.parquet`, `study.json` and `plots/`: the same bytes for the same study."""
        block = {"model": {self.model_name: {f"h{self.horizon}": self.best_params}}}
        (folder / "best_params.yaml").write_text(f"# {self.headline()}\n{dump_yaml(block)}", encoding="utf-8")
        self.frame.to_parquet(folder / "trials.parquet", compression="zstd", index=False)
        write_json(folder / "study.json", self.to_dict())
        (folder / "plots").mkdir()
        write_plots(folder / "plots", self.frame, self.importances, self.settings)

    def headline(self) -> str:
        """The outcome in one line."""
        score = f"{self.settings.metric} {self.best.value:.6g}, the mean of {len(self.folds)} folds inside train"
        return f"{score}: trial {self.best.number} of {len(self.trials)}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without any time of day."""
        states = [STATES[trial.state] for trial in self.trials]
        return {
            "model": self.model_name,
            "horizon": self.horizon,
            "metric": self.settings.metric,
            "direction": self.settings.direction,
            "folds": self.folds,
            "trials": {state: states.count(state) for state in STATES.values()},
            "best": {"number": self.best.number, "value": self.best.value, "params": self.best_params},
        }
