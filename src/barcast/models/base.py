"""What every model is: checks in the public methods, the computing in private hooks.

A model knows no tracker, no split and no file layout. It is given windows and labels, reports through a
`log(metrics, step)` callable, and saves itself in its library's own format.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from barcast.config import Section, validate
from barcast.data.windows import Windows, as_windows
from barcast.errors import ModelError
from barcast.files import atomic_dir, read_json, write_json

CLASSES = (-1, 0, 1)
EPSILON = 1e-15

Labels = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]
Sets = npt.NDArray[np.bool_]
Log = Callable[[Mapping[str, float], int], None]


class ModelConfig(Section):
    """What every model is told. A model's own fields stand in a subclass beside it."""

    model_name: str
    model_family: str
    horizon: Annotated[int, Field(ge=1)]
    random_seed: Annotated[int, Field(ge=0, lt=2**31)]
    threads: Annotated[int, Field(ge=1)]


class LearnerConfig(ModelConfig):
    """For models that learn from single windows, of every `train_stride`-th."""

    train_stride: Annotated[int, Field(ge=1)]


class EarlyStoppingConfig(LearnerConfig):
    """For models that learn in rounds or epochs and are watched on the validation split."""

    early_stopping: bool
    patience: Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class PredictionOutput:
    """What a model says of N windows.

    `probabilities` is `[N, 3]`, ordered (−1, 0, +1), each row summing to 1; `predictions` `[N]` is the
    most probable class; `uncertainty` `[N]` is the entropy of a row divided by ln 3, so 0 is certain
    and 1 is no idea at all (Shannon 1948). `sets` `[N, 3]` says which classes the conformal prediction set
    of each window holds, always the most probable one among them; None where no conformal step was done,
    as in what a model itself answers.
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
        """How many classes each window's prediction set holds `[N]`, 1 … 3; 0 where no conformal step was done."""
        return np.zeros(len(self), np.int64) if self.sets is None else self.sets.sum(axis=1, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.predictions)

    def to_dataframe(self) -> pd.DataFrame:
        """One row a window: datetime, symbol, horizon, prediction, p_down, p_flat, p_up, uncertainty, set_size,
        and the set's classes in_down, in_flat, in_up (all false where no conformal step was done)."""
        down, flat, up = self.probabilities.T
        held = np.zeros(self.probabilities.shape, np.bool_) if self.sets is None else self.sets
        return pd.DataFrame(
            {
                "datetime": self.timestamps,
                "symbol": self.symbols,
                "horizon": self.horizons,
                "prediction": self.predictions,
                "p_down": down,
                "p_flat": flat,
                "p_up": up,
                "uncertainty": self.uncertainty,
                "set_size": self.set_size,
                **dict(zip(("in_down", "in_flat", "in_up"), held.T, strict=True)),
            }
        )


def log_loss(probabilities: Probabilities, y: Labels) -> float:
    """Mean negative log-probability of the true classes, in nats; `[N, 3]` and `[N]` in {−1, 0, 1}."""
    true = np.asarray(probabilities)[np.arange(len(y)), np.asarray(y) + 1]
    return float(-np.log(np.clip(true, EPSILON, 1.0)).mean())


def no_log(metrics: Mapping[str, float], step: int) -> None:
    """The `log` of a model that nobody watches."""


class BaseModel(ABC):
    """A three-class classifier of windows.

    Args:
        config: the model's own config class, or plain values for it.
        horizon: bars ahead; must equal the config's.
        feature_columns: the names of the F features, in the order of X's last axis.

    `unfinished_folder` may be set before `fit`: a model that learns in epochs keeps itself there after each,
    and goes on from there when it was killed. The folder's name must stand for config, data and code.

    Raises:
        ModelError: wrong shapes, labels outside {−1, 0, 1}, NaN, or predicting before fitting.
    """

    config_class: ClassVar[type[ModelConfig]] = ModelConfig

    def __init__(self, config: ModelConfig | Mapping[str, Any], horizon: int, feature_columns: list[str]) -> None:
        if not isinstance(config, ModelConfig):
            config = validate(self.config_class, config, "model config")
        if not isinstance(config, self.config_class):
            raise ModelError(f"expected a {self.config_class.__name__}, got a {type(config).__name__}")
        if config.horizon != horizon:
            raise ModelError(f"horizon {horizon} was asked for, but the config says {config.horizon}")
        self.config: Any = config
        self.horizon = horizon
        self.feature_columns = list(feature_columns)
        self.seq_len: int | None = None
        self.training_history: list[dict[str, float]] = []
        self.unfinished_folder: Path | None = None

    @property
    def is_fitted(self) -> bool:
        return self.seq_len is not None

    def fit(
        self,
        X_train: Windows | npt.ArrayLike,
        y_train: npt.ArrayLike,
        X_val: Windows | npt.ArrayLike,
        y_val: npt.ArrayLike,
        *,
        sample_weight: npt.ArrayLike | None = None,
        log: Log = no_log,
    ) -> Self:
        """Learn from the train windows, watching the validation windows.

        Args:
            X_train: `[N, L, F]`, lazy or plain.
            y_train: `[N]` in {−1, 0, 1}.
            X_val: `[M, L, F]`, used for early stopping alone.
            y_val: `[M]` in {−1, 0, 1}.
            sample_weight: `[N]`, non-negative; None weighs all alike.
            log: called with the metrics of each step.
        """
        train, labels = self.validate_inputs(X_train, y_train, "train")
        val, val_labels = self.validate_inputs(X_val, y_val, "val")
        if val.seq_len != train.seq_len:
            raise ModelError(f"X_val: expected windows of {train.seq_len} bars like X_train, got {val.seq_len}")
        weight = np.ones(len(train), np.float32) if sample_weight is None else np.asarray(sample_weight, np.float32)
        if weight.shape != (len(train),) or not (np.isfinite(weight).all() and (weight >= 0).all()):
            raise ModelError(f"sample_weight: expected {len(train)} finite values ≥ 0, got shape {weight.shape}")
        if not weight.any():
            raise ModelError("sample_weight: every weight is 0, so there is nothing to learn from")
        self.training_history = []
        self.seq_len = None  # a fit that fails leaves no model, be there an earlier one

        def record(metrics: Mapping[str, float], step: int) -> None:
            self.training_history.append({"step": step, **metrics})
            log(metrics, step)

        self._fit(train, labels, val, val_labels, weight, record)
        self.seq_len = train.seq_len
        return self

    def predict_proba(self, X: Windows | npt.ArrayLike) -> Probabilities:
        """Class probabilities `[N, 3]`, ordered (−1, 0, +1)."""
        if not self.is_fitted:
            raise ModelError(f"{self.config.model_name}: predict was called before fit; fit or load it first")
        windows, _ = self.validate_inputs(X)
        if windows.seq_len != self.seq_len:
            raise ModelError(f"X: expected windows of {self.seq_len} bars as in fit, got {windows.seq_len}")
        probabilities = np.asarray(self._predict_proba(windows), np.float64)  # [N, L, F] -> [N, 3]
        if probabilities.shape != (len(windows), len(CLASSES)) or not np.isfinite(probabilities).all():
            raise ModelError(f"{self.config.model_name}: answered {probabilities.shape} or not-finite probabilities")
        normalised: Probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
        return normalised

    def predict(self, X: Windows | npt.ArrayLike, metadata: pd.DataFrame) -> PredictionOutput:
        """Predict N windows; `metadata` has their N rows of `datetime` and `symbol`."""
        probabilities = self.predict_proba(X)
        if len(metadata) != len(probabilities):
            raise ModelError(f"metadata: expected {len(probabilities)} rows, one a window, got {len(metadata)}")
        return PredictionOutput.from_probabilities(probabilities, metadata, self.horizon)

    def save(self, path: Path | str) -> None:
        """Write the fitted model as a folder: the library's own format plus `model.json`; no pickle."""
        if not self.is_fitted:
            raise ModelError(f"{self.config.model_name}: save was called before fit; there is nothing to save")
        with atomic_dir(Path(path)) as folder:
            self._save(folder)
            content = {
                "config": self.config.model_dump(mode="json"),
                "feature_columns": self.feature_columns,
                "seq_len": self.seq_len,
                "training_history": self.training_history,
            }
            write_json(folder / "model.json", content)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a saved model; its predictions equal those before saving, bit for bit (a compiled network's but for
        rounding)."""
        folder = Path(path)
        if not (folder / "model.json").is_file():
            raise ModelError(f"{folder}: no model.json here; train the model first")
        content = read_json(folder / "model.json")
        model = cls(content["config"], content["config"]["horizon"], content["feature_columns"])
        model.seq_len = content["seq_len"]
        model.training_history = content["training_history"]
        model._load(folder)
        return model

    def validate_inputs(
        self, X: Windows | npt.ArrayLike, y: npt.ArrayLike | None = None, name: str = ""
    ) -> tuple[Windows, Labels]:
        """Check windows, and labels where given; returns them in the form that the hooks take.

        Raises:
            ModelError: naming the array, what was expected and what came.
        """
        suffix = f"_{name}" if name else ""
        windows = as_windows(X)
        if len(windows) == 0:
            raise ModelError(f"X{suffix}: expected at least one window, got none")
        if windows.seq_len == 0:
            raise ModelError(f"X{suffix}: expected windows of at least one bar, got shape {windows.shape}")
        if windows.shape[2] != len(self.feature_columns):
            raise ModelError(f"X{suffix}: expected {len(self.feature_columns)} features, got {windows.shape[2]}")
        bad = np.argwhere(~np.isfinite(windows.rows))
        if len(bad):
            row, column = bad[0]
            raise ModelError(f"X{suffix}: row {row}, column {self.feature_columns[column]} is not finite")
        if y is None:
            return windows, np.empty(0, np.int64)
        labels = np.asarray(y)
        if labels.shape != (len(windows),):
            raise ModelError(f"y{suffix}: expected {len(windows)} labels, one a window, got shape {labels.shape}")
        strange = np.setdiff1d(labels, CLASSES)
        if len(strange):
            raise ModelError(f"y{suffix}: expected labels in {{-1, 0, 1}}, got {strange[0]}")
        return windows, labels.astype(np.int64)

    def get_feature_importance(self) -> pd.DataFrame:
        """Columns `feature`, `lag` (bars before the last one; null: the window as a whole) and `importance`
        (summing to 1), most important first; empty where the model has no notion of it."""
        return pd.DataFrame({"feature": [], "lag": [], "importance": []})

    @abstractmethod
    def _fit(
        self,
        X_train: Windows,
        y_train: Labels,
        X_val: Windows,
        y_val: Labels,
        weight: npt.NDArray[np.float32],
        log: Log,
    ) -> None: ...

    @abstractmethod
    def _predict_proba(self, X: Windows) -> Probabilities: ...

    @abstractmethod
    def _save(self, folder: Path) -> None: ...

    @abstractmethod
    def _load(self, folder: Path) -> None: ...
