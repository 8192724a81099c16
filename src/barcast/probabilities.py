"""Three classes and their probabilities: what every model returns, and how wrong it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

CLASSES = (-1, 0, 1)
PROBABILITY_COLUMNS = ("p_down", "p_flat", "p_up")  # of every table of predictions
EPSILON = 1e-15

Labels = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]
Sets = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PredictionOutput:
    """Predictions for N windows.

    `probabilities` is `[N, 3]`, ordered (−1, 0, +1), each row summing to 1; `predictions` `[N]` is the
    most probable class; `uncertainty` `[N]` is the entropy of a row divided by ln 3: 0 is certain, 1 a uniform
    guess (Shannon 1948). `sets` `[N, 3]` marks the classes of each window's conformal prediction set, always with the
    most probable one; None where there was no conformal step, as in what a model itself returns.
    """

    predictions: Labels
    probabilities: Probabilities
    timestamps: pd.Series
    symbols: pd.Series
    horizons: Labels
    uncertainty: npt.NDArray[np.float64]
    sets: Sets | None = None

    @classmethod
    def from_probabilities(
        cls, probabilities: Probabilities, metadata: pd.DataFrame, horizon: int, sets: Sets | None = None
    ) -> PredictionOutput:
        """Derive classes and uncertainty from `[N, 3]` probabilities and N rows of `datetime, symbol`."""
        clipped = np.clip(probabilities, EPSILON, 1.0)
        return cls(
            predictions=np.asarray(CLASSES, np.int64)[probabilities.argmax(axis=1)],
            probabilities=probabilities,
            timestamps=metadata["datetime"].reset_index(drop=True),
            symbols=metadata["symbol"].reset_index(drop=True),
            horizons=np.full(len(probabilities), horizon, np.int64),
            uncertainty=-(clipped * np.log(clipped)).sum(axis=1) / np.log(len(CLASSES)),
            sets=sets,
        )

    @property
    def set_size(self) -> Labels:
        """How many classes each window's prediction set holds `[N]`, 1 … 3; 0 without a conformal step."""
        return np.zeros(len(self), np.int64) if self.sets is None else self.sets.sum(axis=1, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.predictions)

    def to_dataframe(self) -> pd.DataFrame:
        """One row per window: datetime, symbol, horizon, prediction, p_down, p_flat, p_up, uncertainty, set_size,
        and the set's classes in_down, in_flat, in_up (all false without a conformal step)."""
        held = np.zeros(self.probabilities.shape, np.bool_) if self.sets is None else self.sets
        return pd.DataFrame(
            {
                "datetime": self.timestamps,
                "symbol": self.symbols,
                "horizon": self.horizons,
                "prediction": self.predictions,
                **dict(zip(PROBABILITY_COLUMNS, self.probabilities.T, strict=True)),
                "uncertainty": self.uncertainty,
                "set_size": self.set_size,
                **dict(zip(("in_down", "in_flat", "in_up"), held.T, strict=True)),
            }
        )


def softmax(logits: Probabilities) -> Probabilities:
    """`[N, m]` logits as probabilities `[N, m]`."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Probabilities = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def log_loss(probabilities: Probabilities, y: Labels) -> float:
    """Mean negative log-probability of the true classes, in nats; `[N, 3]` and `[N]` in {−1, 0, 1}."""
    true = np.asarray(probabilities)[np.arange(len(y)), np.asarray(y) + 1]
    return float(-np.log(np.clip(true, EPSILON, 1.0)).mean())
