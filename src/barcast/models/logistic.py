"""Multinomial logistic regression on standardised columns: the linear baseline."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from barcast.data.windows import FloatArray, Windows
from barcast.errors import ModelError
from barcast.models._classes import SeenClasses, weighted_log_loss
from barcast.models._lags import Lags, LagView, Spans, importance_frame
from barcast.models.base import BaseModel, LearnerConfig, Log, read_json, write_json
from barcast.probabilities import Labels, Probabilities, log_loss, softmax

Array = npt.NDArray[np.float64]
ROUNDING = 1e-9  # below float32's own precision: such a deviation comes only from summing


class LogisticConfig(LearnerConfig):
    """`model.logistic` of params.yaml; `C` is the inverse of the L2 penalty, as in scikit-learn."""

    lags: Lags
    spans: Spans
    C: Annotated[float, Field(gt=0)]
    max_iterations: Annotated[int, Field(ge=1)]


class Logistic(BaseModel):
    """Multinomial logistic regression.

    Linear in the columns that `lags` and `spans` choose, each brought to mean 0 and deviation 1 on train.

    The whole table is held as float64 while it learns, `lags: all` included: 8·N·L·F bytes. A fit that ends
    before it has converged is used; `converged` is then 0 in its log.
    """

    name, family = "logistic", "linear"
    config_class = LogisticConfig
    _classes: SeenClasses
    _mean: Array  # [C]
    _scale: Array  # [C]
    _weights: Array  # [m, C]
    _intercept: Array  # [m]

    def _fit(
        self, X_train: Windows, y_train: Labels, X_val: Windows, y_val: Labels, weight: FloatArray, log: Log
    ) -> None:
        thinned = X_train.thinned(self.config.train_stride)
        used = thinned[weight[thinned] > 0]
        X_train, y_train, weight = X_train.select(used), y_train[used], weight[used]
        self._classes = SeenClasses.of(y_train)
        table = self._view(X_train.seq_len).table(X_train)[:].astype(np.float64)  # [N, C]
        self._mean, deviation = table.mean(axis=0), table.std(axis=0)
        still = deviation <= ROUNDING * np.abs(self._mean)
        self._scale = np.where(still, 1.0, deviation)
        iterations = self._solve((table - self._mean) / self._scale, self._classes.encode(y_train), weight)
        metrics = {
            "train_log_loss": weighted_log_loss(self._predict_proba(X_train), y_train, weight),
            "val_log_loss": log_loss(self._predict_proba(X_val), y_val),
            "iterations": iterations,
            "converged": float(iterations < self.config.max_iterations),
        }
        log(metrics, 0)

    def _solve(self, x: Array, y: Labels, weight: FloatArray) -> int:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        regression: Any = LogisticRegression(C=self.config.C, max_iter=self.config.max_iterations)
        with threadpool_limits(self.config.threads), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the log has it
            regression.fit(x, y, sample_weight=weight)
        weights, intercept = regression.coef_, regression.intercept_
        if len(intercept) == 1:  # two classes: the logit of the second against the first
            weights, intercept = (np.concatenate([np.zeros_like(values), values]) for values in (weights, intercept))
        self._weights, self._intercept = weights, intercept
        return int(regression.n_iter_.max())

    def _predict_proba(self, X: Windows) -> Probabilities:
        blocks = [self._predict_block(block) for block in self._view(X.seq_len).blocks(X)]
        return self._classes.expand(np.concatenate(blocks))

    def _predict_block(self, block: FloatArray) -> Array:
        """`[n, C] -> [n, m]`. Each row is summed by itself: a matrix product's last bits depend on n."""
        x = (block - self._mean) / self._scale
        logits = np.stack([(x * weights).sum(axis=1) for weights in self._weights], axis=1) + self._intercept
        return softmax(logits)

    def get_feature_importance(self) -> pd.DataFrame:
        """The share of each standardised column in the classes' absolute coefficients, about their mean."""
        if self.seq_len is None:
            raise ModelError("logistic: importance was asked for before fit; fit or load it first")
        spread = np.abs(self._weights - self._weights.mean(axis=0)).sum(axis=0)
        return importance_frame(self._view(self.seq_len), spread, self.feature_columns)

    def _view(self, seq_len: int) -> LagView:
        return LagView(self.config.lags, self.config.spans, seq_len, len(self.feature_columns))

    def _save(self, folder: Path) -> None:
        arrays = {"mean": self._mean, "scale": self._scale, "weights": self._weights, "intercept": self._intercept}
        content = {name: values.tolist() for name, values in arrays.items()}
        write_json(folder / "weights.json", {"classes": self._classes.to_json(), **content})

    def _load(self, folder: Path) -> None:
        content = read_json(folder / "weights.json")
        self._classes = SeenClasses.from_json(content["classes"])
        self._mean, self._scale = np.asarray(content["mean"]), np.asarray(content["scale"])
        self._weights, self._intercept = np.asarray(content["weights"]), np.asarray(content["intercept"])
