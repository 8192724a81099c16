"""Calibrated probabilities: temperature and vector scaling (Guo et al. 2017, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from barcast.models.base import CLASSES, EPSILON, Labels, Probabilities, log_loss

Method = Literal["none", "temperature", "vector"]

_LOG_TEMPERATURE = (-3.0, 3.0)  # 0.05 … 20: beyond it lies certainty, or the same answer to everything
FEWEST_PERIODS = 3  # a spread among fewer is a guess

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scaling:
    """Probabilities become softmax(`weights` · ln p + `bias`), class by class.

    One weight 1/T for all and no bias is temperature scaling; a weight and a bias for each class is vector
    scaling. `none` changes no bit.
    """

    method: Method
    weights: tuple[float, ...]  # [3]
    bias: tuple[float, ...]  # [3]

    def apply(self, probabilities: Probabilities) -> Probabilities:
        """`[N, 3]` -> `[N, 3]`."""
        if self.method == "none":
            return probabilities
        return _softmax(np.asarray(self.weights) * _logits(probabilities) + np.asarray(self.bias))

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        return cls(content["method"], tuple(content["weights"]), tuple(content["bias"]))

    def to_json(self) -> dict[str, Any]:
        return {"method": self.method, "weights": list(self.weights), "bias": list(self.bias)}


NO_SCALING = Scaling("none", (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))


@dataclass(frozen=True)
class Period:
    """Out-of-sample predictions of one stretch of time: `probabilities` `[M, 3]` and labels `y` `[M]`."""

    probabilities: Probabilities
    y: Labels


def fold_periods(frame: pd.DataFrame) -> list[Period]:
    """Out-of-fold predictions (`fold, p_down, p_flat, p_up, label`) as one period per fold."""
    return [
        Period(fold[["p_down", "p_flat", "p_up"]].to_numpy(np.float64), fold["label"].to_numpy(np.int64))
        for _, fold in frame.groupby("fold", sort=True)
    ]


@dataclass(frozen=True)
class Choice:
    """The scaling that is used, and the held-out log-loss of each that was tried, by period `[P]`."""

    scaling: Scaling
    held_out: dict[Method, Array]

    @property
    def losses(self) -> dict[Method, float]:
        """Mean held-out log-loss over the periods, by method."""
        return {method: float(values.mean()) for method, values in self.held_out.items()}

    @property
    def used(self) -> Array:
        """Held-out log-loss of the scaling that is used, by period `[P]`."""
        return self.held_out[self.scaling.method]


def fit_scaling(method: Method, probabilities: Probabilities, y: Labels) -> Scaling:
    """Fit one method by the log-loss of `[N, 3]` probabilities and `[N]` labels."""
    if method == "none":
        return NO_SCALING
    return _fit_temperature(probabilities, y) if method == "temperature" else _fit_vector(probabilities, y)


def choose_scaling(methods: Sequence[Method], folds: Sequence[Period], own: Sequence[Period]) -> Choice:
    """Fit each method, and use one only where it helps periods that it was not fitted on.

    Each method is fitted on all periods but one and scored on that one, in turn. Of the methods tried, `none` among
    them, the simplest wins whose mean log-loss is within one standard error of the best one's (Breiman et al. 1984,
    3.4.3), by the spread of the paired difference over the periods: a gain that the next period may take back is no
    reason to bend probabilities. Nor is a gain only on the folds: their models learnt from fewer windows and are
    overconfident for it, so a method must not lose on the model's own periods either. Fewer than three periods say
    nothing of the spread, and `none` is used. What is used is fitted again on all periods.

    Args:
        methods: what to try beside `none`, simplest first.
        folds: periods that models fitted on less than the whole of train predicted.
        own: periods that the model itself predicted. No label of one period reaches into another.
    """
    periods = [*folds, *own]
    none = np.array([log_loss(period.probabilities, period.y) for period in periods])
    if len(periods) < FEWEST_PERIODS:
        return Choice(NO_SCALING, {"none": none})
    held_out: dict[Method, Array] = {"none": none, **{method: _held_out(method, periods) for method in methods}}
    best = min(held_out.values(), key=lambda losses: float(losses.mean()))

    def close(method: Method) -> bool:
        excess, lost = held_out[method] - best, (held_out[method] - none)[len(folds) :]
        return bool(excess.mean() <= excess.std(ddof=1) / np.sqrt(len(periods)) and lost.sum() <= 0)

    method: Method = next((method for method in held_out if close(method)), "none")
    return Choice(_fit_on(method, periods), held_out)


def _held_out(method: Method, periods: Sequence[Period]) -> Array:
    """The log-loss of each period under the scaling that the others give, `[P]`."""
    losses = []
    for number, period in enumerate(periods):
        scaling = _fit_on(method, [*periods[:number], *periods[number + 1 :]])
        losses.append(log_loss(scaling.apply(period.probabilities), period.y))
    return np.array(losses)


def _fit_on(method: Method, periods: Sequence[Period]) -> Scaling:
    probabilities = np.concatenate([period.probabilities for period in periods])
    return fit_scaling(method, probabilities, np.concatenate([period.y for period in periods]))


def _fit_temperature(probabilities: Probabilities, y: Labels) -> Scaling:
    from scipy.optimize import minimize_scalar  # here: checking params.yaml should not wait for scipy

    logits = _logits(probabilities)

    def loss(log_temperature: float) -> float:
        return log_loss(_softmax(logits * np.exp(-log_temperature)), y)

    found = minimize_scalar(loss, bounds=_LOG_TEMPERATURE, method="bounded", options={"xatol": 1e-6})
    weight = float(np.exp(-found.x))
    return Scaling("temperature", (weight,) * len(CLASSES), (0.0,) * len(CLASSES))


def _fit_vector(probabilities: Probabilities, y: Labels) -> Scaling:
    """The maximum a posteriori with weights N(1, 1) and biases N(0, 1): as good as flat beside thousands of
    windows, but finite where a class never came."""
    from scipy.optimize import minimize

    logits, truth = _logits(probabilities), np.eye(len(CLASSES))[y + 1]  # [N, 3]

    def objective(values: Array) -> tuple[float, Array]:
        weights, bias = values[:3], values[3:]
        scaled = _softmax(weights * logits + bias)
        residual = scaled - truth
        off = values - start
        loss = log_loss(scaled, y) + 0.5 * (off @ off) / len(y)
        slope = np.concatenate([(residual * logits).mean(axis=0), residual.mean(axis=0)])
        return loss, slope + off / len(y)

    start = np.repeat([1.0, 0.0], len(CLASSES))
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-8})
    return Scaling("vector", tuple(map(float, found.x[:3])), tuple(map(float, found.x[3:])))


def _logits(probabilities: Probabilities) -> Array:
    return np.log(np.clip(probabilities, EPSILON, 1.0))


def _softmax(scores: Array) -> Probabilities:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    answer: Probabilities = powers / powers.sum(axis=1, keepdims=True)
    return answer
