"""A study's trials as a table, its best hyperparameters as a block of params.yaml; no time of day in either."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from barcast.config import dump_yaml
from barcast.files import write_json
from barcast.tracking import TrialRecord
from barcast.tuning._objective import DRAWN, REASON, SCORES
from barcast.tuning._plots import PARAM, write_plots
from barcast.tuning.settings import Direction, StudyConfig

STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def trials_frame(trials: Sequence[FrozenTrial], folds: int) -> pd.DataFrame:
    """One row a finished trial, by number.

    Columns: `number`, `state` (complete, pruned, failed), `value` (the metric's mean over the folds; of complete
    trials alone), `reported` (the same as far as a trial came), `log_loss` and `sharpe_per_bar` (means over the
    folds), `fold_1 …` (the metric on each fold), `reason` (where it was pruned, or why it failed), and a `param.`
    column a key: numbers as numbers, all else as JSON. What there is not is null; `sharpe_per_bar` also where a
    fold saw no trade.
    """
    rows = [_row(trial, folds) for trial in trials]
    frame = pd.DataFrame(rows, columns=list(_row_columns(folds)))
    frame = frame.astype({"number": "int64", "state": "str", "reason": "str"})
    frame = frame.astype({name: "float64" for name in frame.columns if name not in ("number", "state", "reason")})
    drawn = [trial.user_attrs.get(DRAWN, {}) for trial in trials]
    keys = dict.fromkeys(key for values in drawn for key in values)
    return frame.assign(**{f"{PARAM}{key}": _column([values.get(key) for values in drawn]) for key in keys})


def _row_columns(folds: int) -> list[str]:
    scores = [f"fold_{number}" for number in range(1, folds + 1)]
    return ["number", "state", "value", "reported", "log_loss", "sharpe_per_bar", *scores, "reason"]


def _row(trial: FrozenTrial, folds: int) -> dict[str, Any]:
    scores = trial.user_attrs.get(SCORES, [])
    complete = trial.state == TrialState.COMPLETE
    return {
        "number": trial.number,
        "state": STATES[trial.state],
        "value": trial.value if complete else None,
        "reported": trial.value if complete else _last_report(trial),
        "log_loss": _mean(scores, "log_loss") if complete else None,
        "sharpe_per_bar": _mean(scores, "sharpe_per_bar") if complete else None,
        **{f"fold_{number}": score["value"] for number, score in enumerate(scores[:folds], 1)},
        "reason": trial.user_attrs.get(REASON, ""),
    }


def _last_report(trial: FrozenTrial) -> float | None:
    return None if trial.last_step is None else trial.intermediate_values[trial.last_step]


def _mean(scores: Sequence[Mapping[str, float | None]], key: str) -> float | None:
    values = [score[key] for score in scores]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _column(values: list[Any]) -> pd.Series:
    known = [value for value in values if value is not None]
    if known and all(type(value) is int for value in known):
        return pd.Series(values, dtype="Int64")
    if known and all(type(value) in (int, float) for value in known):
        return pd.Series(values, dtype="float64")
    return pd.Series([None if value is None else json.dumps(value) for value in values], dtype="str")


def trial_record(trial: FrozenTrial) -> TrialRecord:
    """A trial as the tracker takes it, with its times."""
    scores = trial.user_attrs.get(SCORES, [])
    complete = trial.state == TrialState.COMPLETE
    means = {"value": trial.value, **{key: _mean(scores, key) for key in ("log_loss", "sharpe_per_bar")}}
    metrics = {f"fold_{number}": score["value"] for number, score in enumerate(scores, 1)}
    metrics |= {name: value for name, value in means.items() if complete and value is not None}
    times = (trial.datetime_start, trial.datetime_complete)
    started, ended = (None if time is None else int(time.timestamp() * 1000) for time in times)
    return TrialRecord(
        number=trial.number,
        state=STATES[trial.state],
        params=trial.user_attrs.get(DRAWN, {}),
        metrics=metrics,
        reason=trial.user_attrs.get(REASON, ""),
        started_ms=started,
        ended_ms=ended,
    )


def best_trial(trials: Sequence[FrozenTrial], direction: Direction) -> FrozenTrial | None:
    """The complete trial with the best value, the first of equal ones; None where none is complete."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    sign = 1 if direction == "minimize" else -1
    return min(complete, key=lambda trial: (sign * _value(trial), trial.number), default=None)


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None, "a complete trial has a value"
    return trial.value


def importances(trials: Sequence[FrozenTrial], direction: Direction) -> pd.DataFrame:
    """`parameter` and `importance` (summing to 1), the greatest first, by PED-ANOVA (Watanabe et al. 2023).

    Of these trials alone: the ledger may hold more, and what it holds must not show in an output.
    No rows where fewer than two complete trials differ in value: then nothing can be told apart.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    study = optuna.create_study(direction=direction)  # in memory
    study.add_trials(complete)
    differ = len({_value(trial) for trial in complete}) > 1
    found = optuna.importance.get_param_importances(study) if differ else {}
    ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    frame = pd.DataFrame(ranked, columns=["parameter", "importance"])
    return frame.astype({"parameter": "str", "importance": "float64"})


@dataclass(frozen=True)
class StudyResult:
    """What a study found. `best_params` has every key that its trials could set, as the best trial has it."""

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
        found = f"{self.settings.metric} {self.best.value:.6g}, the mean of {len(self.folds)} folds inside train"
        return f"{found}: trial {self.best.number} of {len(self.trials)}"

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
