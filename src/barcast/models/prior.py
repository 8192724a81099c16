"""The class frequencies of the train labels: what a model must beat to have learnt anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from barcast.data.windows import FloatArray, Windows
from barcast.models._classes import weighted_log_loss
from barcast.models.base import BaseModel, Log, read_json, write_json
from barcast.probabilities import CLASSES, Labels, Probabilities, log_loss


class Prior(BaseModel):
    """Class frequencies of the train labels.

    Every window gets the weighted class frequencies of the train split. They are Laplace-smoothed (one more window of
    each class), so that a class which the train split lacks costs a finite log-loss. Weights are scaled to mean 1 over
    the windows that weigh anything: frequencies depend only on their ratios.
    """

    name, family = "prior", "baseline"

    _frequencies: npt.NDArray[np.float64]

    def _fit(
        self, X_train: Windows, y_train: Labels, X_val: Windows, y_val: Labels, weight: FloatArray, log: Log
    ) -> None:
        weight64 = weight.astype(np.float64)
        counts = np.bincount(y_train + 1, weight64, len(CLASSES)) * np.count_nonzero(weight) / weight64.sum()
        self._frequencies = (counts + 1) / (counts.sum() + len(CLASSES))
        train_loss = weighted_log_loss(self._repeat(len(y_train)), y_train, weight)
        log({"train_log_loss": train_loss, "val_log_loss": log_loss(self._repeat(len(y_val)), y_val)}, 0)

    def _predict_proba(self, X: Windows) -> Probabilities:
        return self._repeat(len(X))

    def _repeat(self, count: int) -> Probabilities:
        return np.tile(self._frequencies, (count, 1))  # [3] -> [N, 3]

    def _save(self, folder: Path) -> None:
        write_json(folder / "frequencies.json", {"frequencies": self._frequencies.tolist()})

    def _load(self, folder: Path) -> None:
        self._frequencies = np.asarray(read_json(folder / "frequencies.json")["frequencies"])
