"""The models of one horizon as one: the weighted average of their probabilities, scored like any model.

The weights are given, or fitted on the members' out-of-fold predictions, if all have them, and on the calibration
subset of validation, and shrunk toward equal ones. So the selection subset ranks the ensemble as it ranks its members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import AfterValidator, Field

from barcast.evaluation.calibration import Period
from barcast.evaluation.evaluator import UNCALIBRATED_COLUMNS, CellEvaluation, EvaluateConfig, Evaluator, Predictions
from barcast.evaluation.metrics import Array
from barcast.evaluation.validation_split import CALIBRATION
from barcast.probabilities import EPSILON, PROBABILITY_COLUMNS, Labels, PredictionOutput, Probabilities
from barcast.section import Section

Members = Mapping[str, pd.DataFrame]  # each member's table of predictions, all of the same windows

_TOLERANCE = 1e-9  # of a gradient, in nats
_NEGLIGIBLE = 1e-6  # a weight below it is tried at 0
_ITERATIONS = 100
_ROUNDING = 1e-6  # of the sum of given weights


def _sum_to_1(weights: dict[str, float]) -> dict[str, float]:
    if any(not weight >= 0 for weight in weights.values()) or abs(sum(weights.values()) - 1) > _ROUNDING:
        raise ValueError("weights of at least 0 that sum to 1")
    return weights


class EnsembleSection(Section):
    """`ensemble:` of params.yaml."""

    weights: dict[str, Annotated[dict[str, float], AfterValidator(_sum_to_1)]]
    shrink: Annotated[float, Field(ge=0, le=1)]


class EnsembleConfig(EvaluateConfig):
    """`config:` of `experiments/specs/ensembles_h{n}.yaml`: how every cell is scored, and the members."""

    members: list[str]
    weights: dict[str, float] | None  # null: fitted
    shrink: Annotated[float, Field(ge=0, le=1)]


def evaluate_ensemble(
    val: Members, test: Members, folds: Members, horizon: int, config: EnsembleConfig
) -> tuple[CellEvaluation, dict[str, Any]]:
    """Weight the members and score their average. Each fold is scored with weights that are fitted without it.

    `folds` are out-of-fold predictions; empty unless all members have them. Returns the scores; and `weights` by
    member, whether they are `fitted`, and the number of `windows` to fit on.
    """
    own = {name: frame[frame["part"] == CALIBRATION].assign(fold=-1) for name, frame in val.items()}
    sources = [each for each in ((folds, PROBABILITY_COLUMNS), (own, UNCALIBRATED_COLUMNS)) if each[0]]
    p = np.concatenate([_stack(members, columns) for members, columns in sources], axis=1)  # [J, N, 3]
    windows = pd.concat([members[config.members[0]][["fold", "label"]] for members, _ in sources])  # the same for all
    y, fold = windows["label"].to_numpy(np.int64), windows["fold"].to_numpy()

    def fit(chosen: npt.NDArray[np.bool_]) -> Array:
        if config.weights is not None:
            return np.array([config.weights.get(name, 0.0) for name in config.members])
        return fit_weights(p[:, chosen], y[chosen], config.shrink)

    held_out = [
        Period(weighted_average(p[:, fold == number], fit(fold != number)), y[fold == number])
        for number in np.unique(fold[fold >= 0])
    ]
    weights = fit(np.ones(len(y), np.bool_))

    def predict(members: Members) -> Predictions:
        first, average = members[config.members[0]], weighted_average(_stack(members, UNCALIBRATED_COLUMNS), weights)
        output = PredictionOutput.from_probabilities(average, first[["datetime", "symbol"]], horizon)
        return Predictions(output, first["label"].to_numpy(np.int64), first[["datetime", "symbol", "close"]])

    by_member = dict(zip(config.members, weights.tolist(), strict=True))
    summary = {"weights": by_member, "fitted": config.weights is None, "windows": len(y)}
    return Evaluator(config).score(predict(val), predict(test), held_out), summary


def _stack(members: Members, columns: Sequence[str]) -> Array:
    """`[J, N, 3]`."""
    return np.stack([frame[[*columns]].to_numpy(np.float64) for frame in members.values()])


def weighted_average(members: npt.ArrayLike, weights: npt.ArrayLike) -> Probabilities:
    """The linear pool (Stone 1961) of members `[J, N, 3]` under weights `[J]`: `[N, 3]`."""
    return np.asarray(np.tensordot(np.asarray(weights, np.float64), np.asarray(members, np.float64), axes=1))


def fit_weights(members: npt.ArrayLike, y: Labels, shrink: float = 0.0) -> Array:
    """The weights of the average with the least log-loss, ≥ 0 and summing to 1, shrunk toward equal ones.

    The log-loss is convex in the weights, so the best ones are one point. There the mean ratio of a member's
    probability of the true class to the average's is 1 where the weight is above 0, and at most 1 where it is 0 (Cover
    1984); the solution is checked by that.

    A `shrink` of 0 keeps the best weights, which vary with the sample and are 0 for members that don't help; 1 makes
    all equal (Timmermann 2006, *Forecast combinations*, 4.1). `members` is `[J, N, 3]`, `y` `[N]`, the weights `[J]`.
    """
    true = np.clip(np.asarray(members, np.float64)[:, np.arange(len(y)), y + 1], EPSILON, 1.0)  # [J, N]
    used = np.ones(len(true), bool)
    weights = np.full(len(true), 1 / len(true))
    for _ in range(_ITERATIONS):
        weights[used] = _solve(true[used], weights[used] / weights[used].sum())
        weights[~used] = 0.0
        ratio = (true / (weights @ true)).mean(axis=1)  # [J]
        useless = used & (weights < _NEGLIGIBLE)
        missed = ~used & (ratio > 1 + _TOLERANCE)
        if missed.any():
            used |= missed
            weights[missed] = _NEGLIGIBLE
        elif useless.any() and used.sum() > useless.sum():
            used &= ~useless
        else:
            break
    weights[weights < _NEGLIGIBLE] = 0.0
    return np.asarray((1 - shrink) * weights / weights.sum() + shrink / len(weights))


def _solve(true: Array, start: Array) -> Array:
    """Minimise −mean log(w·p) over the simplex, from `start`; `true` `[J, N]` is p of the true class."""
    from scipy.optimize import minimize

    def loss(weights: Array) -> tuple[float, Array]:
        average = np.clip(weights @ true, EPSILON, None)
        return -float(np.log(average).mean()), -(true / average).mean(axis=1)

    if len(true) == 1:
        return np.ones(1)
    sum_1 = {"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones_like(w)}
    settings = {"bounds": [(0.0, 1.0)] * len(true), "options": {"ftol": 1e-13, "maxiter": 500}}
    best = minimize(loss, start, jac=True, method="SLSQP", constraints=sum_1, **settings)
    positive = np.clip(best.x, 0.0, None)
    solved: Array = positive / positive.sum()
    return solved if loss(solved)[0] <= loss(start)[0] else start
