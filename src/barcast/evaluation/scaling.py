"""Calibrated probabilities: temperature and vector scaling (Guo et al. 2017, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from barcast.models.base import CLASSES, EPSILON, Labels, Probabilities, log_loss

Method = Literal["none", "temperature", "vector"]

_LOG_TEMPERATURE = (-3.0, 3.0)  # 0.05 … 20: beyond it lies certainty, or the same answer to everything
_FEWEST_BATCHES = 5  # a spread among fewer means is a guess, and one alone has none

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
class Choice:
    """The scaling that is used, and the log-loss of each that was tried on the judging windows."""

    scaling: Scaling
    losses: dict[Method, float]


@dataclass(frozen=True)
class Judge:
    """M windows that no scaling was fitted on: `probabilities` `[M, 3]`, `y` `[M]`, and the time `[M]` of each.
    Windows less than `reach` times apart may share bars of their labels."""

    probabilities: Probabilities
    y: Labels
    times: npt.NDArray[Any]
    reach: int

    @property
    def batches(self) -> int:
        """How many batches `standard_error` has to go by."""
        return int(self._batch.max(initial=-1)) + 1

    @cached_property
    def _batch(self) -> npt.NDArray[np.int64]:
        batch: npt.NDArray[np.int64] = np.unique(self.times, return_inverse=True)[1] // max(self.reach, 1)
        return batch

    def losses(self, scaling: Scaling) -> Array:
        """The log-loss of each window, `[M]`."""
        true = scaling.apply(self.probabilities)[np.arange(len(self.y)), self.y + 1]
        losses: Array = -np.log(np.clip(true, EPSILON, 1.0))
        return losses

    def standard_error(self, values: Array) -> float:
        """Of the mean of `[M]` values that depend on each other over time: from the means of neighbouring times,
        `reach` together (batch means; Law and Kelton, *Simulation Modeling and Analysis*, 9.5.3)."""
        count, total = np.bincount(self._batch), np.bincount(self._batch, values)
        off = total - count * values.mean()
        return float(np.sqrt(off @ off * len(count) / max(len(count) - 1, 1)) / len(values))


def fit_scaling(method: Method, probabilities: Probabilities, y: Labels) -> Scaling:
    """Fit one method by the log-loss of `[N, 3]` probabilities and `[N]` labels."""
    if method == "none":
        return NO_SCALING
    return _fit_temperature(probabilities, y) if method == "temperature" else _fit_vector(probabilities, y)


def choose_scaling(methods: Sequence[Method], probabilities: Probabilities, y: Labels, judge: Judge) -> Choice:
    """Fit each method, and use one only where it helps windows that it was not fitted on.

    Of the methods tried, `none` among them, the simplest wins whose log-loss there is within one standard error
    of the best one's (Breiman et al. 1984, 3.4.3): a gain that the next stretch of time may take back is no reason
    to bend probabilities. Where the windows make fewer than five batches there is no error to go by, and `none` is
    used.

    Args:
        methods: what to try beside `none`, simplest first.
        probabilities: `[N, 3]` of the calibration slice.
        y: its labels, `[N]`.
        judge: the rest of validation.
    """
    tried = [NO_SCALING, *(fit_scaling(method, probabilities, y) for method in methods)]
    losses = {scaling.method: judge.losses(scaling) for scaling in tried}
    means = {method: float(values.mean()) for method, values in losses.items()}
    if judge.batches < _FEWEST_BATCHES:
        return Choice(NO_SCALING, means)
    best = losses[min(means, key=lambda method: means[method])]

    def close(scaling: Scaling) -> bool:
        excess = losses[scaling.method] - best
        return bool(excess.mean() <= judge.standard_error(excess))

    return Choice(next(scaling for scaling in tried if close(scaling)), means)


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
