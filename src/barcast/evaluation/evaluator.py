"""A fitted model and a split in, predictions and every figure about them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pandas as pd
from pydantic import Field

from barcast.config import Section
from barcast.data.windows import Split
from barcast.evaluation.calibration import reliability_table
from barcast.evaluation.metrics import Metrics, classification_metrics
from barcast.evaluation.trading import backtest
from barcast.models.base import BaseModel, Labels, PredictionOutput


class EvaluateConfig(Section):
    """`evaluate:` of params.yaml."""

    cost_bps: Annotated[float, Field(ge=0)]
    calibration_bins: Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Evaluation:
    """One model on one split of N windows.

    `metrics` holds what `classification_metrics` and `backtest` say; `equity` and `reliability` are theirs
    and `reliability_table`'s.
    """

    output: PredictionOutput
    y: Labels  # [N]
    close: pd.Series  # [N]
    metrics: Metrics
    reliability: pd.DataFrame
    equity: pd.DataFrame

    def to_dataframe(self) -> pd.DataFrame:
        """`PredictionOutput.to_dataframe()` with the truth (`label`) and the `close` beside it; N rows."""
        return self.output.to_dataframe().assign(label=self.y, close=self.close)


class Evaluator:
    """Scores a fitted model on any split that it is handed."""

    def __init__(self, model: BaseModel, config: EvaluateConfig) -> None:
        self.model = model
        self.config = config

    def evaluate(self, split: Split) -> Evaluation:
        """Predict a split's windows and score them, unweighted.

        Raises:
            ModelError: the model is not fitted, or was fitted on windows of another shape.
            DataError: a close of the split is no price.
        """
        output = self.model.predict(split.X, split.meta)
        bars = split.meta[["datetime", "symbol", "close"]].assign(prediction=output.predictions)
        traded = backtest(bars, self.config.cost_bps)
        bins = self.config.calibration_bins
        scores = classification_metrics(output.probabilities, split.y, bins)
        return Evaluation(
            output=output,
            y=split.y,
            close=split.meta["close"].reset_index(drop=True),
            metrics={**scores, **traded.metrics},
            reliability=reliability_table(output.probabilities, split.y, bins),
            equity=traded.equity,
        )
