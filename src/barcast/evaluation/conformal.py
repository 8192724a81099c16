"""Prediction sets with a coverage guarantee: which classes can't be ruled out.

Split conformal prediction (Vovk, Gammerman and Shafer 2005): a set contains each class whose nonconformity score is at
most the ⌈(n+1)(1−α)⌉-th smallest score of the true class over n calibration windows. It contains the true class with
probability 1−α or more if calibration and test windows are exchangeable and the probabilities were not fitted on the
calibration windows. A calibrator is, so coverage falls short by what its one or six parameters take, which is little
with thousands of windows (docs/evaluation.md has figures). Markets drift, so coverage is reported by month.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import pandas as pd

from barcast.evaluation.metrics import Array, Metrics
from barcast.probabilities import Labels, Probabilities, Sets

Score = Literal["lac", "aps"]
SCORES: tuple[Score, ...] = ("lac", "aps")


def nonconformity_scores(probabilities: Probabilities, score: Score) -> Array:
    """The nonconformity score of each class, `[N, 3]`.

    - `lac`: one minus its probability (Sadinle, Lei and Wasserman 2019): the smallest sets on average.
    - `aps`: the probability of the classes before it, most probable first, and half its own (Romano, Sesia and Candès
      2020, with the mean in place of the random share, so that sets repeat): sets that grow where the model is unsure.
    """
    if score == "lac":
        return np.asarray(1.0 - probabilities)
    order, scores = np.argsort(-probabilities, axis=1, kind="stable"), np.empty_like(probabilities)
    ranked = np.take_along_axis(probabilities, order, axis=1)
    np.put_along_axis(scores, order, ranked.cumsum(axis=1) - ranked / 2, axis=1)
    return scores


@dataclass(frozen=True)
class ConformalSets:
    """Prediction sets at coverage 1−`alpha`: the classes whose score is at most `quantile` (None: all classes)."""

    score: Score
    alpha: float
    quantile: float | None

    @classmethod
    def fit(cls, probabilities: Probabilities, y: Labels, score: Score, alpha: float) -> Self:
        """From `[n, 3]` probabilities and `[n]` labels of the calibration subset."""
        true = nonconformity_scores(probabilities, score)[np.arange(len(y)), y + 1]
        rank = math.ceil((len(y) + 1) * (1 - alpha) - 1e-9)  # rounding must not lift a whole number to the next
        return cls(score, alpha, float(np.sort(true)[rank - 1]) if rank <= len(y) else None)

    def sets(self, probabilities: Probabilities) -> Sets:
        """The classes of each set, `[N, 3]`; always the most probable one, since an empty set is of no use."""
        limit = math.inf if self.quantile is None else self.quantile
        contained: Sets = nonconformity_scores(probabilities, self.score) <= limit
        contained[np.arange(len(contained)), probabilities.argmax(axis=1)] = True
        return contained


def coverage_metrics(sets: Sets, y: Labels) -> Metrics:
    """Of `[N, 3]` sets and `[N]` labels: `coverage` (share of sets with the true class), `mean_size`, `singletons`
    (share of sets of one class) and `windows`."""
    size = sets.sum(axis=1)
    return {
        "coverage": float(sets[np.arange(len(y)), y + 1].mean()),
        "mean_size": float(size.mean()),
        "singletons": float((size == 1).mean()),
        "windows": len(y),
    }


def coverage_by_month(sets: Sets, y: Labels, times: pd.Series) -> pd.DataFrame:
    """`coverage_metrics` of each `month`, such as 2022-03, in order."""
    months = times.dt.strftime("%Y-%m").to_numpy()
    rows = [{"month": m, **coverage_metrics(sets[months == m], y[months == m])} for m in np.unique(months)]
    return pd.DataFrame(rows, columns=["month", "windows", "coverage", "mean_size", "singletons"])
