"""What the three boosters share: their view of the windows, the log of each round, and when to stop."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from barcast.data.windows import FloatArray, IntArray, Windows
from barcast.errors import ModelError
from barcast.models._classes import SeenClasses
from barcast.models._lags import Lags, LagView, Spans, Table, bin_table, importance_frame
from barcast.models.base import BaseModel, EarlyStoppingConfig, Log, read_json, write_json
from barcast.probabilities import Labels, Probabilities

Count = Annotated[int, Field(ge=1)]
Depth = Annotated[int, Field(ge=1, le=16)]
Bins = Annotated[int, Field(ge=2, le=256)]  # an index of one byte
Fraction = Annotated[float, Field(gt=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]

POINTS_PER_BIN = 4
FEW_WINDOWS = 256  # up to so many, waking other threads takes longer than all trees


class BoosterConfig(EarlyStoppingConfig):
    """What every booster is given. `threads` changes no byte of what it learns, so it is written nowhere."""

    threads: Annotated[int, Field(ge=1, exclude=True)] = 1
    learning_rate: Fraction
    max_rounds: Count
    max_depth: Depth
    max_bins: Bins
    colsample: Fraction
    subsample: Fraction
    lags: Lags
    spans: Spans
    reg_lambda: NonNegative


@dataclass(frozen=True)
class Labelled:
    """A table `[N, C]`, its labels `[N]` in 0 … m−1 and weights `[N]`."""

    table: Table
    y: Labels
    weight: FloatArray


class EarlyStopping:
    """Logs each round and decides when to stop: once `patience` rounds in a row were no better on validation.

    With early stopping the rounds up to the best one are kept, without it all of them.
    """

    def __init__(self, config: EarlyStoppingConfig, classes: SeenClasses, seen_in_val: float, log: Log) -> None:
        self._config, self._classes, self._seen_in_val, self._log = config, classes, seen_in_val, log
        self._best_loss = math.inf
        self._best = 0
        self._done = 0

    def after_round(self, train_loss: float, val_loss: float) -> bool:
        """Take in a round's log-losses; true: stop now.

        Raises:
            ModelError: a loss is not finite.
        """
        if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
            raise ModelError(
                f"{self._config.model_name}: round {self._done + 1}: log-loss is {train_loss} on train and {val_loss} "
                "on val, expected finite values; lower learning_rate"
            )
        val_loss = self._classes.whole_loss(val_loss, self._seen_in_val)
        self._log({"train_log_loss": self._classes.whole_loss(train_loss, 1.0), "val_log_loss": val_loss}, self._done)
        if val_loss < self._best_loss:
            self._best_loss, self._best = val_loss, self._done
        self._done += 1
        return self._config.early_stopping and self._done - 1 - self._best >= self._config.patience

    @property
    def kept(self) -> int:
        """How many rounds, from the first, the fitted model consists of."""
        return self._best + 1 if self._config.early_stopping else self._done


class BoosterModel(BaseModel):
    """A gradient booster of trees on the columns that `lags` and `spans` choose.

    Windows that weigh 0 are left out before anything is counted, and a class that the train windows lack is
    predicted as `SeenClasses` describes. `train_log_loss` is weighted as the fit is, `val_log_loss` is not.
    """

    _classes: SeenClasses

    def _fit(
        self, X_train: Windows, y_train: Labels, X_val: Windows, y_val: Labels, weight: FloatArray, log: Log
    ) -> None:
        thinned = X_train.thinned(self.config.train_stride)
        used = thinned[weight[thinned] > 0]
        self._classes = SeenClasses.of(y_train[used])
        seen = np.isin(y_val, self._classes.present)
        if not seen.any():
            raise ModelError(f"y_val: expected some of the labels {list(self._classes.present)} that y_train has")
        view = self._view(X_train.seq_len)
        train = self._labelled(view, X_train, y_train, used, weight)
        val = self._labelled(view, X_val, y_val, np.flatnonzero(seen), np.ones(len(y_val), np.float32))
        stopping = EarlyStopping(self.config, self._classes, float(seen.mean()), log)
        bins = bin_table(train.table, POINTS_PER_BIN * self.config.max_bins, self.config.random_seed)
        if (bins[0] == bins[-1]).all():  # the least and the greatest values
            raise ModelError("X_train: all columns are constant; check the features")
        self._boost(train, val, bins, stopping)

    def _predict_proba(self, X: Windows) -> Probabilities:
        blocks = [self._predict_block(block) for block in self._view(X.seq_len).blocks(X)]
        return self._classes.expand(np.concatenate(blocks))

    def get_feature_importance(self) -> pd.DataFrame:
        """The share of each feature and lag in all that the trees' splits gained."""
        if self.seq_len is None:
            raise ModelError(f"{self.config.model_name}: importance was asked for before fit; fit or load it first")
        return importance_frame(self._view(self.seq_len), self._gains(), self.feature_columns)

    def _threads(self, block: FloatArray) -> int:
        """Threads that predict `[n, C]`; the result does not depend on them."""
        threads: int = self.config.threads
        return threads if len(block) > FEW_WINDOWS else 1

    def _labelled(self, view: LagView, X: Windows, y: Labels, rows: IntArray, weight: FloatArray) -> Labelled:
        return Labelled(view.table(X.select(rows)), self._classes.encode(y[rows]), weight[rows])

    def _view(self, seq_len: int) -> LagView:
        return LagView(self.config.lags, self.config.spans, seq_len, len(self.feature_columns))

    def _save(self, folder: Path) -> None:
        write_json(folder / "classes.json", self._classes.to_json())

    def _load(self, folder: Path) -> None:
        self._classes = SeenClasses.from_json(read_json(folder / "classes.json"))

    @abstractmethod
    def _boost(self, train: Labelled, val: Labelled, bins: FloatArray, stopping: EarlyStopping) -> None:
        """Grow trees for the m present classes until `stopping` stops it; `bins [P, C]` shows where values lie."""

    @abstractmethod
    def _predict_block(self, block: FloatArray) -> npt.NDArray[np.floating]:
        """`[n, C]` -> probabilities of the present classes `[n, m]`."""

    @abstractmethod
    def _gains(self) -> npt.NDArray[np.floating]:
        """`[C]`, non-negative."""
