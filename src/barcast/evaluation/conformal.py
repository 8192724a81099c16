"""Prediction sets: which classes can't be ruled out, with a guarantee that needs little trust in the model.

Split conformal prediction (Vovk, Gammerman and Shafer 2005): a set holds every class whose score is at most
the ⌈(n+1)(1−α)⌉-th smallest score that the truth had on n calibration windows. Where calibration and test
windows are exchangeable and the probabilities owe nothing to the calibration windows, the set holds the truth
with probability 1−α or more. That is so of unscaled probabilities. A scaling is fitted on the calibration windows
too: it suits their truths a little better than later ones, and coverage falls short by what its parameters take,
little beside thousands of windows (docs/evaluation.md has figures). Markets drift, so the coverage that came true
is reported month by month.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from barcast.evaluation.metrics import Metrics
from barcast.models.base import Labels, Probabilities, Sets

Score = Literal["lac", "aps"]
SCORES: tuple[Score, ...] = ("lac", "aps")

Array = npt.NDArray[np.float64]


def conformal_scores(probabilities: Probabilities, score: Score) -> Array:
    """How strange each class would be, `[N, 3]`.

    - `lac`: one minus its probability (Sadinle, Lei and Wasserman 2019): the smallest sets on average.
    - `aps`: the probability of the classes before it, most probable first, and half its own (Romano, Sesia
      and Candès 2020, with the mean in place of the random share, so that a window always has the same set):
      sets that grow where the model is unsure.
    """
    if score == "lac":
        return np.asarray(1.0 - probabilities)
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=1)
    scores = np.empty_like(ranked)
    np.put_along_axis(scores, order, ranked.cumsum(axis=1) - ranked / 2, axis=1)
    return scores


@dataclass(frozen=True)
class ConformalSets:
    """Prediction sets at coverage 1−`alpha`: the classes whose score is at most `quantile` (infinite: all)."""

    score: Score
    alpha: float
    quantile: float

    @classmethod
    def fit(cls, probabilities: Probabilities, y: Labels, score: Score, alpha: float) -> Self:
        """From `[n, 3]` probabilities and `[n]` labels of the calibration slice.

        The guarantee is exact where `probabilities` were not fitted on these windows, and approximate of scaled ones.
        """
        true = conformal_scores(probabilities, score)[np.arange(len(y)), y + 1]
        rank = math.ceil((len(y) + 1) * (1 - alpha) - 1e-9)  # a whole number that rounding lifted stays itself
        return cls(score, alpha, float(np.sort(true)[rank - 1]) if rank <= len(y) else math.inf)

    def sets(self, probabilities: Probabilities) -> Sets:
        """Which classes each set holds, `[N, 3]`. The most probable class is always one of them: an empty set
        would promise less and say nothing."""
        held: Sets = conformal_scores(probabilities, self.score) <= self.quantile
        held[np.arange(len(held)), probabilities.argmax(axis=1)] = True
        return held

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        quantile = content["quantile"]
        return cls(content["score"], content["alpha"], math.inf if quantile is None else quantile)

    def to_json(self) -> dict[str, Any]:
        quantile = self.quantile if math.isfinite(self.quantile) else None
        return {"score": self.score, "alpha": self.alpha, "quantile": quantile}


def coverage_metrics(sets: Sets, y: Labels) -> Metrics:
    """`coverage` (share of sets that hold the truth), `mean_size`, `singletons` (share of sets of one class) and
    `windows`, of `[N, 3]` sets and `[N]` labels."""
    size = sets.sum(axis=1)
    return {
        "coverage": float(sets[np.arange(len(y)), y + 1].mean()),
        "mean_size": float(size.mean()),
        "singletons": float((size == 1).mean()),
        "windows": len(y),
    }


def coverage_by_month(sets: Sets, y: Labels, times: pd.Series) -> pd.DataFrame:
    """`coverage_metrics` of each month (`month`, such as 2022-03), in order."""
    months = times.dt.strftime("%Y-%m").to_numpy()
    rows = [
        {"month": month, **coverage_metrics(sets[months == month], y[months == month])} for month in np.unique(months)
    ]
    return pd.DataFrame(rows)[["month", "windows", "coverage", "mean_size", "singletons"]]
