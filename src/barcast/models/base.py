"""What every model is: checks in the public methods, the computing in private hooks.

A model knows no tracker, no split and no file layout. It is given windows and labels, reports through a
`log(metrics, step)` callable, and saves itself in its library's own format.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from pydantic import Field, ValidationError

from barcast.data.windows import FloatArray, Windows, as_windows
from barcast.errors import ConfigError, ModelError
from barcast.probabilities import CLASSES, Labels, PredictionOutput, Probabilities
from barcast.section import Section

Input: TypeAlias = Windows | ArrayLike
Log = Callable[[Mapping[str, float], int], None]
ResumePoints = Callable[[int], Any]


class ModelConfig(Section):
    """What every model is given. A model's own fields are in a subclass beside it."""

    model_name: str
    model_family: str
    horizon: Annotated[int, Field(ge=1)]
    random_seed: Annotated[int, Field(ge=0, lt=2**31)]
    threads: Annotated[int, Field(ge=1)]


class LearnerConfig(ModelConfig):
    """For models that learn from every `train_stride`-th window."""

    train_stride: Annotated[int, Field(ge=1)]


class EarlyStoppingConfig(LearnerConfig):
    """For models that learn in rounds or epochs, monitored on the validation split."""

    early_stopping: bool
    patience: Annotated[int, Field(ge=1)]


def no_log(metrics: Mapping[str, float], step: int) -> None:
    """The `log` of a model that nobody listens to."""


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a part of a model as JSON: sorted keys, a last newline; NaN and infinity are refused (they are no JSON)."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    file.write_text(text + "\n", encoding="utf-8")


def read_json(file: Path) -> dict[str, Any]:
    """Read a part of a model.

    Raises:
        ModelError: the file is not JSON, as after a power cut or an edit by hand.
    """
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(
            f"{file}: not valid JSON ({error}); restore it with `dvc checkout -f`, or train the model again"
        ) from None
    return content


class BaseModel(ABC):
    """A three-class classifier of windows.

    A subclass with a `name` and a `family` of its own is registered under them; the first line of its docstring
    describes it.

    Args:
        config: the model's own config class, or plain values for it.
        horizon: bars ahead; must equal the config's.
        feature_columns: the names of the F features, in the order of X's last axis.

    `resume` may be set before `fit`. A model that learns in epochs asks it for the resume checkpoint of its n-th
    network, and keeps itself there after each epoch. What it returns must be for the same config, data and code.

    Raises:
        ConfigError: a value of the config is missing, unknown, of the wrong type or out of range.
        ModelError: wrong shapes, labels outside {−1, 0, 1}, NaN, or predicting before fitting.
    """

    name: ClassVar[str]
    family: ClassVar[str]
    requires_gpu: ClassVar[bool] = False
    config_class: ClassVar[type[ModelConfig]] = ModelConfig
    registered: ClassVar[dict[str, type[BaseModel]]] = {}  # by family:name

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls):
            cls.enroll()

    @classmethod
    def enroll(cls) -> None:
        """Make the class known under its family and name. Raises a ModelError where another class has them."""
        key = f"{cls.family}:{cls.name}"
        other = BaseModel.registered.get(key, cls)  # the same class where its module is loaded again
        if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ModelError(f"{key}: already registered by {other.__module__}; choose another name")
        BaseModel.registered[key] = cls

    @staticmethod
    def named(name: str) -> type[BaseModel]:
        """The class of a `name` or `family:name`; raises a ModelError for none or several."""
        file = Path(__file__).with_name(f"{name.rpartition(':')[2]}.py")
        if file.is_file():
            importlib.import_module(f"{__package__}.{file.stem}")
        found = [model for key, model in BaseModel.registered.items() if name in (key, key.rpartition(":")[2])]
        if len(found) != 1:
            raise ModelError(f"'{name}' is the name of {len(found)} models; `barcast models` lists them")
        return found[0]

    def __init__(self, config: ModelConfig | Mapping[str, Any], horizon: int, feature_columns: list[str]) -> None:
        if not isinstance(config, ModelConfig):
            try:
                config = self.config_class.model_validate(config)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                raise ConfigError(f"model config: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        if not isinstance(config, self.config_class):
            raise ModelError(f"expected a {self.config_class.__name__}, got a {type(config).__name__}")
        if config.horizon != horizon:
            raise ModelError(f"horizon {horizon} was asked for, but the config has {config.horizon}")
        names = [key.rpartition(":")[2] for key, model in BaseModel.registered.items() if model is type(self)]
        if names and config.model_name not in names:
            raise ModelError(f"{names[0]}: its config is that of '{config.model_name}'; give it its own")
        self.config: Any = config
        self.horizon = horizon
        self.feature_columns = list(feature_columns)
        self.seq_len: int | None = None
        self.training_history: list[dict[str, float]] = []
        self.resume: ResumePoints | None = None

    @property
    def is_fitted(self) -> bool:
        return self.seq_len is not None

    def fit(
        self,
        X_train: Input,
        y_train: ArrayLike,
        X_val: Input,
        y_val: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        log: Log = no_log,
    ) -> Self:
        """Learn from the train windows, monitoring the validation windows.

        Args:
            X_train: `[N, L, F]`, lazy or plain.
            y_train: `[N]` in {−1, 0, 1}.
            X_val: `[M, L, F]`, used only for early stopping.
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
        self.seq_len = None  # a fit that fails leaves no model, not even an earlier one

        def record(metrics: Mapping[str, float], step: int) -> None:
            self.training_history.append({"step": step, **metrics})
            log(metrics, step)

        self._fit(train, labels, val, val_labels, weight, record)
        self.seq_len = train.seq_len
        return self

    def predict_proba(self, X: Input) -> Probabilities:
        """Class probabilities `[N, 3]`, ordered (−1, 0, +1)."""
        if not self.is_fitted:
            raise ModelError(f"{self.config.model_name}: predict was called before fit; fit or load it first")
        windows, _ = self.validate_inputs(X)
        if windows.seq_len != self.seq_len:
            raise ModelError(f"X: expected windows of {self.seq_len} bars as in fit, got {windows.seq_len}")
        probabilities = np.asarray(self._predict_proba(windows), np.float64)  # [N, L, F] -> [N, 3]
        if probabilities.shape != (len(windows), len(CLASSES)) or not np.isfinite(probabilities).all():
            raise ModelError(f"{self.config.model_name}: returned {probabilities.shape} or non-finite probabilities")
        normalised: Probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
        return normalised

    def predict(self, X: Input, metadata: pd.DataFrame) -> PredictionOutput:
        """Predict N windows; `metadata` has their N rows of `datetime` and `symbol`."""
        probabilities = self.predict_proba(X)
        if len(metadata) != len(probabilities):
            raise ModelError(f"metadata: expected {len(probabilities)} rows, one per window, got {len(metadata)}")
        return PredictionOutput.from_probabilities(probabilities, metadata, self.horizon)

    def save(self, path: Path | str) -> None:
        """Write the fitted model as a folder: the library's own format plus `model.json`; no pickle.

        What is there already is replaced once all is written.
        """
        if not self.is_fitted:
            raise ModelError(f"{self.config.model_name}: save was called before fit; there is nothing to save")
        content = {
            "config": self.config.model_dump(mode="json"),
            "feature_columns": self.feature_columns,
            "seq_len": self.seq_len,
            "training_history": self.training_history,
        }
        target = Path(path)
        folder, former = (target.with_name(f".{target.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
        folder.mkdir(parents=True)  # these names are those of `barcast.files`, which cleans up after a kill
        try:
            self._save(folder)
            write_json(folder / "model.json", content)
            if target.exists():
                os.replace(target, former)
            os.replace(folder, target)
        finally:
            for left in (folder, former):
                shutil.rmtree(left, ignore_errors=True)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a saved model; it predicts the same bits as before (a compiled network: up to rounding)."""
        folder = Path(path)
        if not (folder / "model.json").is_file():
            raise ModelError(f"{folder}: no model.json here; train the model first")
        content = read_json(folder / "model.json")
        model = cls(content["config"], content["config"]["horizon"], content["feature_columns"])
        model.seq_len = content["seq_len"]
        model.training_history = content["training_history"]
        model._load(folder)
        return model

    def validate_inputs(self, X: Input, y: ArrayLike | None = None, name: str = "") -> tuple[Windows, Labels]:
        """Check windows, and labels where given; returns them in the form that the hooks take.

        Raises:
            ModelError: naming the array, what was expected and what came.
        """
        suffix = f"_{name}" if name else ""
        windows = as_windows(X)
        if 0 in windows.shape[:2]:
            raise ModelError(f"X{suffix}: expected at least one window of at least one bar, got shape {windows.shape}")
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
            raise ModelError(f"y{suffix}: expected {len(windows)} labels, one per window, got shape {labels.shape}")
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
        self, X_train: Windows, y_train: Labels, X_val: Windows, y_val: Labels, weight: FloatArray, log: Log
    ) -> None: ...

    @abstractmethod
    def _predict_proba(self, X: Windows) -> Probabilities: ...

    @abstractmethod
    def _save(self, folder: Path) -> None: ...

    @abstractmethod
    def _load(self, folder: Path) -> None: ...
