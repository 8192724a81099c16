"""Several models' probabilities as one: a weighted mean.

The weights are ≥ 0 and solve a convex program, so the best ones are one point.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field

from barcast.config import Section
from barcast.models.base import EPSILON, Labels, Probabilities

Array = npt.NDArray[np.float64]

_TOLERANCE = 1e-9  # of a gradient, in nats
_NEGLIGIBLE = 1e-6  # a weight below it is tried at 0
_SWEEPS = 100
_ROUNDING = 1e-6  # of the sum of given weights


def _whole(weights: dict[str, float]) -> dict[str, float]:
    if any(not weight >= 0 for weight in weights.values()) or abs(sum(weights.values()) - 1) > _ROUNDING:
        raise ValueError("weights of at least 0 that sum to 1")
    return weights


class EnsembleSection(Section):
    """`ensemble:` of params.yaml."""

    weights: dict[str, Annotated[dict[str, float], AfterValidator(_whole)]]
    shrink: Annotated[float, Field(ge=0, le=1)]


def pool(members: npt.ArrayLike, weights: npt.ArrayLike) -> Probabilities:
    """The linear pool (Stone 1961) of members `[J, N, 3]` under weights `[J]`: `[N, 3]`."""
    mixed: Probabilities = np.tensordot(np.asarray(weights, np.float64), np.asarray(members, np.float64), axes=1)
    return mixed


def fit_weights(members: npt.ArrayLike, y: Labels, shrink: float = 0.0) -> Array:
    """The weights of the linear pool with the least log-loss, ≥ 0 and summing to 1, shrunk toward equal ones.

    The log-loss of a mixture is convex in its weights. At the best ones the mean ratio g of a member's probability
    of the truth to the mixture's is 1 where a weight is above 0 and at most 1 where it is 0 (Cover 1984); the answer
    is checked by that.

    Args:
        members: `[J, N, 3]` probabilities.
        y: `[N]` in {−1, 0, 1}.
        shrink: 0 leaves the best weights, in which members that don't help have 0; 1 makes all equal. Fitted weights
            vary with the sample, equal ones don't (Timmermann 2006, *Forecast combinations*, 4.1).
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
    shrunk: Array = (1 - shrink) * weights / weights.sum() + shrink / len(weights)
    return shrunk


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
