"""A study's trials as a table, the best one, and which parameter mattered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from barcast.tuning.trial import REASON, SAMPLED, SCORES

if TYPE_CHECKING:
    from barcast.tuning.settings import Direction

PARAM = "param."  # before the name of a parameter's column
STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
MEANS = ("log_loss", "sharpe_per_bar")


def trials_frame(trials: Sequence[FrozenTrial], folds: int) -> pd.DataFrame:
    """One row per finished trial, by number.

    Columns: `number`, `state` (complete, pruned, failed), `value` (the metric's mean over the folds; complete
    trials only), `reported` (the same as far as a trial came), `log_loss` and `sharpe_per_bar` (means over the
    folds), `fold_1 …` (the metric on each fold), `reason` (where it was pruned, or why it failed), and one `param.`
    column per key: numbers as numbers, all else as JSON. What does not exist is null; `sharpe_per_bar` also where
    a fold has no trade.
    """
    scores = [f"fold_{number}" for number in range(1, folds + 1)]
    columns = ["number", "state", "value", "reported", *MEANS, *scores, "reason"]
    types = dict.fromkeys(columns, "float64") | {"number": "int64", "state": "str", "reason": "str"}
    frame = pd.DataFrame([trial_row(trial, folds) for trial in trials], columns=columns).astype(types)
    sampled = [trial.user_attrs.get(SAMPLED, {}) for trial in trials]
    keys = dict.fromkeys(key for values in sampled for key in values)
    return frame.assign(**{f"{PARAM}{key}": _column([values.get(key) for values in sampled]) for key in keys})


def trial_row(trial: FrozenTrial, folds: int) -> dict[str, Any]:
    """A row of `trials_frame`, without the parameters."""
    scores = trial.user_attrs.get(SCORES, [])
    complete = trial.state == TrialState.COMPLETE
    last = None if trial.last_step is None else trial.intermediate_values[trial.last_step]
    return {
        "number": trial.number,
        "state": STATES[trial.state],
        "value": trial.value if complete else None,
        "reported": trial.value if complete else last,
        **{key: _mean(scores, key) if complete else None for key in MEANS},
        **{f"fold_{number}": score["value"] for number, score in enumerate(scores[:folds], 1)},
        "reason": trial.user_attrs.get(REASON, ""),
    }


def _mean(scores: Sequence[Mapping[str, float | None]], key: str) -> float | None:
    known = [value for value in (score[key] for score in scores) if value is not None]
    return sum(known) / len(known) if known and len(known) == len(scores) else None


def _column(values: list[Any]) -> pd.Series:
    types = {type(value) for value in values if value is not None}
    if types and types <= {int, float}:
        return pd.Series(values, dtype="Int64" if types == {int} else "float64")
    return pd.Series([None if value is None else json.dumps(value) for value in values], dtype="str")


def best_trial(trials: Sequence[FrozenTrial], direction: Direction) -> FrozenTrial | None:
    """The complete trial with the best value, the first of equal ones; None where none is complete."""
    sign = 1 if direction == "minimize" else -1
    values = [(sign * trial.values[0], trial.number, trial) for trial in trials if trial.state == TrialState.COMPLETE]
    return min(values)[-1] if values else None


def importances(trials: Sequence[FrozenTrial], direction: Direction) -> pd.DataFrame:
    """`parameter` and `importance` (summing to 1), the greatest first, by PED-ANOVA (Watanabe et al. 2023).

    Only of these trials: the study may hold more, which must not change an output. No rows where all complete
    trials have the same value.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    study = optuna.create_study(direction=direction)  # in memory
    study.add_trials(complete)
    differ = len({trial.values[0] for trial in complete}) > 1
    importance = optuna.importance.get_param_importances(study) if differ else {}
    ranked = sorted(importance.items(), key=lambda item: (-item[1], item[0]))
    types = {"parameter": "str", "importance": "float64"}
    return pd.DataFrame(ranked, columns=[*types]).astype(types)
