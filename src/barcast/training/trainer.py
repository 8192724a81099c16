"""One cell from windows to a fitted model. Never opens the test split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from barcast.data.dataset import DatasetConfig, Split, TimeSeriesDataset
from barcast.errors import ModelError
from barcast.models.base import BaseModel, Log, ModelConfig, ResumePoints, no_log
from barcast.probabilities import log_loss


class Trainer:
    """Fits one model at one horizon.

    Args:
        model_name: a model's name, as `ModelRegistry` lists them.
        config: its hyperparameters, as its own config class or as plain values.
        dataset_config: where the windows are, and the horizon.
        log: called with the metrics of every round or epoch.
        resume: see `BaseModel`.

    Raises:
        ModelError: an unknown model, or a step taken before the one it needs.
    """

    def __init__(
        self,
        model_name: str,
        config: ModelConfig | Mapping[str, Any],
        dataset_config: DatasetConfig,
        log: Log = no_log,
        resume: ResumePoints | None = None,
    ) -> None:
        self.model_name, self.config, self.log, self.resume = model_name, config, log, resume
        self.dataset = TimeSeriesDataset(dataset_config)
        self.model: BaseModel | None = None

    def prepare_data(self) -> tuple[Split, Split]:
        """Open the train and the validation windows."""
        return self.dataset.split("train"), self.dataset.split("val")

    def build_model(self) -> BaseModel:
        """Create the unfitted model for the dataset's features."""
        horizon, features = self.dataset.config.horizon, self.dataset.feature_columns("train")
        self.model = BaseModel.named(self.model_name)(self.config, horizon, features)
        self.model.resume = self.resume
        return self.model

    def train(self) -> BaseModel:
        """Fit on train, monitored on validation."""
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

    def run_full_pipeline(self, checkpoint: Path | None = None) -> dict[str, float]:
        """Build, train, save to `checkpoint` where given, and score on validation."""
        model = self.build_model()
        self.train()
        if checkpoint is not None:
            model.save(checkpoint)
        return self.evaluate("val")
