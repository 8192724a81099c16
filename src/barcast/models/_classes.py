"""The classes that a train set holds, and honest probabilities for those it lacks."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from barcast.errors import ModelError
from barcast.probabilities import CLASSES, EPSILON, Labels, Probabilities


@dataclass(frozen=True)
class SeenClasses:
    """The classes that a model learns to distinguish. Libraries differ in what they make of a class without a row, so
    none is shown one: the model is fitted on `present`, and each absent class gets the probability `share`,
    which is 1/(n+3) for n training windows (Laplace's rule of succession)."""

    present: tuple[int, ...]
    share: float

    @classmethod
    def of(cls, y: Labels) -> Self:
        """The classes among the labels `[N]`.

        Raises:
            ModelError: there is only one, so there is nothing to distinguish.
        """
        present = tuple(int(label) for label in np.unique(y))
        if len(present) < 2:
            raise ModelError(
                f"y_train: all {len(y)} windows that weigh anything have label {present[0]}, expected two classes "
                "or more; widen the training span or the barriers"
            )
        return cls(present, 1 / (len(y) + len(CLASSES)))

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        return cls(tuple(content["present"]), content["share"])

    def to_json(self) -> dict[str, Any]:
        return {"present": list(self.present), "share": self.share}

    def encode(self, y: Labels) -> Labels:
        """Labels of present classes `[N]` as 0 … m−1."""
        return np.searchsorted(self.present, y).astype(np.int64)

    def expand(self, probabilities: npt.ArrayLike) -> Probabilities:
        """`[N, m]` over the present classes -> `[N, 3]` over all."""
        known = np.asarray(probabilities, np.float64)
        all_classes = np.full((len(known), len(CLASSES)), self.share)
        columns = [CLASSES.index(label) for label in self.present]
        all_classes[:, columns] = known * (1 - self._absent)
        return all_classes

    def whole_loss(self, loss: float, fraction: float) -> float:
        """The log-loss of the expanded probabilities, from the mean `loss` of the `fraction` with present classes."""
        return fraction * (loss - log(1 - self._absent)) - (1 - fraction) * log(self.share)

    @property
    def _absent(self) -> float:
        return self.share * (len(CLASSES) - len(self.present))


def weighted_log_loss(probabilities: Probabilities, y: Labels, weight: npt.NDArray[np.float32]) -> float:
    """The log-loss that a weighted fit lowers: `[N, 3]`, `[N]` in {−1, 0, 1} and `[N]`."""
    true = np.clip(probabilities[np.arange(len(y)), y + 1], EPSILON, 1.0)
    return float(-np.average(np.log(true), weights=weight))
