"""Several models' probabilities as one: a weighted mean, and a stack that was fitted out of fold.

Both weigh members by convex programs with weights ≥ 0, so the best weights are one point, and a member that does not
help gets 0 exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator

from barcast.config import Section
from barcast.evaluation.metrics import CLASS_NAMES
from barcast.models.base import CLASSES, EPSILON, Labels, Probabilities

Array = npt.NDArray[np.float64]

_TOLERANCE = 1e-9  # of a gradient, in nats
_NEGLIGIBLE = 1e-6  # a weight below it is tried at 0
_SWEEPS = 100
_ROUNDING = 1e-6  # of the sum of given weights


def _once(names: list[str]) -> list[str]:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"each model once; {twice!r} stands twice")
    return names


def _whole(weights: dict[str, float]) -> dict[str, float]:
    if any(not weight >= 0 for weight in weights.values()) or abs(sum(weights.values()) - 1) > _ROUNDING:
        raise ValueError("weights of at least 0 that sum to 1")
    return weights


class EnsembleSection(Section):
    """`ensemble:` of params.yaml. Models that are not in the matrix are no members of the stack."""

    weights: dict[str, Annotated[dict[str, float], AfterValidator(_whole)]]
    stack: Annotated[list[str], AfterValidator(_once)]


def pool(members: npt.ArrayLike, weights: npt.ArrayLike) -> Probabilities:
    """The linear pool (Stone 1961) of members `[J, N, 3]` under weights `[J]`: `[N, 3]`."""
    mixed: Probabilities = np.tensordot(np.asarray(weights, np.float64), np.asarray(members, np.float64), axes=1)
    return mixed


def fit_weights(members: npt.ArrayLike, y: Labels) -> Array:
    """The weights of the linear pool with the least log-loss: ≥ 0, summing to 1, 0 for members that don't help.

    The log-loss of a mixture is convex in its weights. At the best ones the mean ratio g of a member's probability
    of the truth to the mixture's is 1 where a weight is above 0 and at most 1 where it is 0 (Cover 1984); the answer
    is checked by that.

    Args:
        members: `[J, N, 3]` probabilities.
        y: `[N]` in {−1, 0, 1}.
    """
    true = np.clip(np.asarray(members, np.float64)[:, np.arange(len(y)), y + 1], EPSILON, 1.0)  # [J, N]
    used = np.ones(len(true), bool)
    weights = np.full(len(true), 1 / len(true))
    for _ in range(_SWEEPS):
        weights[used] = _solve(true[used], weights[used] / weights[used].sum())
        weights[~used] = 0.0
        gain = (true / (weights @ true)).mean(axis=1)  # [J]
        useless = used & (weights < _NEGLIGIBLE)
        missed = ~used & (gain > 1 + _TOLERANCE)
        if missed.any():
            used |= missed
            weights[missed] = _NEGLIGIBLE
        elif useless.any() and used.sum() > useless.sum():
            used &= ~useless
        else:
            break
    weights[weights < _NEGLIGIBLE] = 0.0
    normalised: Array = weights / weights.sum()
    return normalised


def _solve(true: Array, start: Array) -> Array:
    """Minimise −mean log(w·p) over the simplex, from `start`; `true [J, N]` are the members' p of the truth."""
    from scipy.optimize import minimize

    def loss(weights: Array) -> tuple[float, Array]:
        mixed = np.clip(weights @ true, EPSILON, None)
        return -float(np.log(mixed).mean()), -(true / mixed).mean(axis=1)

    if len(true) == 1:
        return np.ones(1)
    found = minimize(
        loss,
        start,
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * len(true),
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones_like(w)},
        options={"ftol": 1e-13, "maxiter": 500},
    )
    kept = np.clip(found.x, 0.0, None)
    solved: Array = kept / kept.sum()
    return solved if loss(solved)[0] <= loss(start)[0] else start


@dataclass(frozen=True)
class Stack:
    """A logarithmic pool (Genest and Zidek 1986): `p_c ∝ exp(b_c + Σ_j w_j log p_jc)`, w ≥ 0 (Breiman 1996).

    It is fitted on probabilities that the members gave for windows which they were not fitted on.
    """

    members: tuple[str, ...]
    weights: Array  # [J]
    bias: Array  # [3], its mean is 0

    @classmethod
    def fit(cls, members: Mapping[str, Probabilities], y: Labels) -> Self:
        """Fit on out-of-fold probabilities `[N, 3]` a member and labels `[N]`.

        A ridge of one window's worth toward equal weights and no bias makes the best values one point also where
        members say the same.
        """
        from scipy.optimize import minimize

        logs = np.stack([_log(p) for p in members.values()])  # [J, N, 3]
        count, rows = len(logs), np.arange(len(y))

        def loss(values: Array) -> tuple[float, Array]:
            weights, bias = values[:count], values[count:]
            logits = np.tensordot(weights, logs, axes=1) + bias  # [N, 3]
            p = np.exp(logits - logits.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            away = np.concatenate([weights - 1 / count, bias])
            value = -np.log(np.clip(p[rows, y + 1], EPSILON, None)).mean() + away @ away / (2 * len(y))
            p[rows, y + 1] -= 1  # the gradient of the logits, times N
            slope = np.concatenate([np.tensordot(logs, p, axes=([1, 2], [0, 1])), p.sum(axis=0)]) / len(y)
            return float(value), slope + away / len(y)

        start = np.concatenate([np.full(count, 1 / count), np.zeros(len(CLASSES))])
        bounds = [(0.0, None)] * count + [(None, None)] * len(CLASSES)
        options = {"ftol": 1e-14, "gtol": 1e-9, "maxiter": 1000}
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
        return cls(tuple(members), found[:count], found[count:] - found[count:].mean())

    def apply(self, members: Mapping[str, Probabilities]) -> Probabilities:
        """The members' probabilities `[N, 3]` of other windows -> `[N, 3]`."""
        logits = sum(w * _log(members[name]) for name, w in zip(self.members, self.weights, strict=True)) + self.bias
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        answer: Probabilities = p / p.sum(axis=1, keepdims=True)
        return answer

    def to_json(self) -> dict[str, Any]:
        """`weights` by member and `bias` by class."""
        weights = dict(zip(self.members, self.weights.tolist(), strict=True))
        return {"weights": weights, "bias": dict(zip(CLASS_NAMES, self.bias.tolist(), strict=True))}


def _log(probabilities: Probabilities) -> Array:
    logs: Array = np.log(np.clip(probabilities, EPSILON, 1.0))
    return logs
