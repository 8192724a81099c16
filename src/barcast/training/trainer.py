"""One cell from windows to a fitted model. Never opens the test split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from barcast.data.windows import DatasetConfig, Split, TimeSeriesDataset
from barcast.errors import ModelError
from barcast.models.base import BaseModel, Log, ModelConfig, log_loss, no_log
from barcast.models.registry import ModelRegistry


class Trainer:
    """Fits one model at one horizon.

    Args:
        model_name: a name of `ModelRegistry`.
        config: the model's hyperparameters, as its own config class or as plain values.
        dataset_config: where the windows lie, and the horizon.
        log: called with the metrics of every round or epoch.
        unfinished_folder: where a model that learns in epochs keeps itself; who names it removes it in the end.

    Raises:
        ModelError: an unknown model, or a step taken before the one it needs.
    """

    def __init__(
        self,
        model_name: str,
        config: ModelConfig | Mapping[str, Any],
        dataset_config: DatasetConfig,
        log: Log = no_log,
        unfinished_folder: Path | None = None,
    ) -> None:
        self.model_name = model_name
        self.config = config
        self.dataset = TimeSeriesDataset(dataset_config)
        self.log = log
        self.unfinished_folder = unfinished_folder
        self.model: BaseModel | None = None

    def prepare_data(self) -> tuple[Split, Split]:
        """Open the train and the validation windows."""
        return self.dataset.split("train"), self.dataset.split("val")

    def build_model(self) -> BaseModel:
        """Create the unfitted model for the dataset's features."""
        horizon = self.dataset.config.horizon
        features = self.dataset.feature_columns("train")
        self.model = ModelRegistry.create(self.model_name, self.config, horizon, features)
        self.model.unfinished_folder = self.unfinished_folder
        return self.model

    def train(self) -> BaseModel:
        """Fit on train, watched on validation."""
        model = self.model or self.build_model()
        train, val = self.prepare_data()
        model.fit(train.X, train.y, val.X, val.y, sample_weight=train.weight, log=self.log)
        return model

    def evaluate(self, split: str = "val") -> dict[str, float]:
        """`log_loss` and `accuracy` of the fitted model on train or val.

        Raises:
            ModelError: the model is not trained yet, or the test split was asked for.
        """
        if self.model is None or not self.model.is_fitted:
            raise ModelError("Trainer.evaluate was called before train; call train first")
        if split == "test":
            raise ModelError("a Trainer may not open the test split; use barcast.evaluation.Evaluator")
        data = self.dataset.split(split)
        probabilities = self.model.predict_proba(data.X)
        hits = probabilities.argmax(axis=1) - 1 == data.y
        return {"log_loss": log_loss(probabilities, data.y), "accuracy": float(np.mean(hits))}

    def run_full_pipeline(
        self, checkpoint: Path | None = None, saving: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> dict[str, float]:
        """Build, train, save to `checkpoint` where given (inside the context that `saving` makes), and score on
        validation."""
        model = self.build_model()
        self.train()
        if checkpoint is not None:
            with saving():
                model.save(checkpoint)
        return self.evaluate("val")
