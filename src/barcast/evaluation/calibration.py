"""Calibrated probabilities: temperature and vector scaling (Guo et al. 2017, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from barcast.evaluation.metrics import Array
from barcast.probabilities import CLASSES, EPSILON, PROBABILITY_COLUMNS, Labels, Probabilities, log_loss, softmax

Method = Literal["none", "temperature", "vector"]

_LOG_TEMPERATURE = (-3.0, 3.0)  # 0.05 … 20: beyond it probabilities are all but certain, or all but equal
FEWEST_PERIODS = 3  # the standard error of fewer is a guess


@dataclass(frozen=True)
class Calibrator:
    """Maps probabilities p to softmax(`weights` · ln p + `bias`), class by class.

    Temperature scaling has one weight 1/T for all classes and no bias, vector scaling a weight and a bias per class.
    `none` returns its input.
    """

    method: Method
    weights: tuple[float, ...]  # [3]
    bias: tuple[float, ...]  # [3]

    def apply(self, probabilities: Probabilities) -> Probabilities:
        """`[N, 3]` -> `[N, 3]`."""
        if self.method == "none":
            return probabilities
        return softmax(np.asarray(self.weights) * _logits(probabilities) + np.asarray(self.bias))


NO_CALIBRATION = Calibrator("none", (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))


@dataclass(frozen=True)
class Period:
    """Out-of-sample predictions of one period: `probabilities` `[M, 3]` and labels `y` `[M]`."""

    probabilities: Probabilities
    y: Labels


def fold_periods(frame: pd.DataFrame) -> list[Period]:
    """Out-of-fold predictions (`fold, p_down, p_flat, p_up, label`) as one period per fold."""
    return [
        Period(fold[[*PROBABILITY_COLUMNS]].to_numpy(np.float64), fold["label"].to_numpy(np.int64))
        for _, fold in frame.groupby("fold", sort=True)
    ]


@dataclass(frozen=True)
class CalibrationChoice:
    """The chosen calibrator, and the holdout log-loss of each method that was tried, by period `[P]`."""

    calibrator: Calibrator
    holdout: dict[Method, Array]

    @property
    def chosen_losses(self) -> Array:
        """Holdout log-loss of the chosen method, by period `[P]`."""
        return self.holdout[self.calibrator.method]


def choose_calibrator(methods: Sequence[Method], folds: Sequence[Period], own: Sequence[Period]) -> CalibrationChoice:
    """Fit each method, and choose one only if it helps on periods that it was not fitted on.

    Each method is fitted on all periods but one and scored on that one, in turn. Of the methods tried, `none` among
    them, the simplest wins whose mean log-loss is within one standard error of the best one's (Breiman et al. 1984,
    3.4.3); the error is that of the paired difference over the periods. A method must also not lose on the model's own
    periods: the models of the folds learned from fewer windows and are overconfident, so a gain on the folds only does
    not count. With fewer than three periods `none` is chosen. The chosen method is fitted again on all periods.

    `methods`, simplest first, are tried beside `none`. `folds` were predicted by models fitted on part of train, `own`
    periods by the model itself. No label of one period may reach into another.
    """
    periods = [*folds, *own]
    none = np.array([log_loss(period.probabilities, period.y) for period in periods])
    if len(periods) < FEWEST_PERIODS:
        return CalibrationChoice(NO_CALIBRATION, {"none": none})
    holdout: dict[Method, Array] = {"none": none}
    for method in methods:  # fitted on the other periods
        fitted = [fit_calibrator(method, [*periods[:i], *periods[i + 1 :]]) for i in range(len(periods))]
        losses = [log_loss(fit.apply(each.probabilities), each.y) for fit, each in zip(fitted, periods, strict=True)]
        holdout[method] = np.array(losses)
    best = min(holdout.values(), key=lambda losses: float(losses.mean()))

    def is_close(method: Method) -> bool:
        excess, change = holdout[method] - best, (holdout[method] - none)[len(folds) :]
        return bool(excess.mean() <= excess.std(ddof=1) / np.sqrt(len(periods)) and change.sum() <= 0)

    chosen: Method = next((method for method in holdout if is_close(method)), "none")
    return CalibrationChoice(fit_calibrator(chosen, periods), holdout)


def fit_calibrator(method: Method, periods: Sequence[Period]) -> Calibrator:
    """Fit one method by the log-loss over all windows of the periods."""
    if method == "none":
        return NO_CALIBRATION
    fit = _fit_temperature if method == "temperature" else _fit_vector
    logits = _logits(np.concatenate([period.probabilities for period in periods]))  # [N, 3]
    return fit(logits, np.concatenate([period.y for period in periods]))


def _fit_temperature(logits: Array, y: Labels) -> Calibrator:
    from scipy.optimize import minimize_scalar  # here: checking params.yaml should not wait for scipy

    def loss(log_temperature: float) -> float:
        return log_loss(softmax(logits * np.exp(-log_temperature)), y)

    best = minimize_scalar(loss, bounds=_LOG_TEMPERATURE, method="bounded", options={"xatol": 1e-6})
    return Calibrator("temperature", (float(np.exp(-best.x)),) * len(CLASSES), (0.0,) * len(CLASSES))


def _fit_vector(logits: Array, y: Labels) -> Calibrator:
    """The maximum a posteriori under weights N(1, 1) and biases N(0, 1), which hardly matter beside thousands of
    windows but keep the fit finite if a class is missing."""
    from scipy.optimize import minimize

    def objective(values: Array) -> tuple[float, Array]:
        calibrated, offset = softmax(values[:3] * logits + values[3:]), values - start
        residual = calibrated - truth
        loss = log_loss(calibrated, y) + 0.5 * (offset @ offset) / len(y)
        gradient = np.concatenate([(residual * logits).mean(axis=0), residual.mean(axis=0)])
        return loss, gradient + offset / len(y)

    start, truth = np.repeat([1.0, 0.0], len(CLASSES)), np.eye(len(CLASSES))[y + 1]  # [6], [N, 3]
    best = minimize(objective, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-8}).x
    return Calibrator("vector", tuple(map(float, best[:3])), tuple(map(float, best[3:])))


def _logits(probabilities: Probabilities) -> Array:
    return np.log(np.clip(probabilities, EPSILON, 1.0))
