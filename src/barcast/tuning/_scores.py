"""A fold's validation part, predicted and scored: the evaluator's metrics, and the Sharpe ratio a bar."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from barcast.data.windows import IntArray
from barcast.errors import ModelError
from barcast.evaluation.metrics import classification_metrics
from barcast.evaluation.trading import backtest
from barcast.models.base import BaseModel, Labels
from barcast.tuning.folds import FoldSplit
from barcast.tuning.settings import FoldScoring


@dataclass(frozen=True)
class FoldScore:
    """What one fold says of one trial; `value` is the metric that the study goes by."""

    value: float
    log_loss: float
    sharpe_per_bar: float | None

    def to_dict(self) -> dict[str, float | None]:
        """Plain values for JSON."""
        return asdict(self)


def score(model: BaseModel, val: FoldSplit, metric: str, config: FoldScoring) -> FoldScore:
    """Score a fitted model on the validation part of a fold.

    Raises:
        ModelError: the metric is undefined there, as a Sharpe ratio without a single trade.
    """
    output = model.predict(val.X, val.meta)
    metrics: dict[str, Any] = classification_metrics(output.probabilities, val.y, config.calibration_bins)
    bars = val.meta[["datetime", "symbol", "close"]].assign(prediction=output.predictions)
    metrics |= backtest(bars, config.cost_bps).metrics
    if metrics[metric] is None:
        raise ModelError(f"{val.name}: {metric} is undefined; set tune.metric to one that always is, such as log_loss")
    return FoldScore(
        value=float(metrics[metric]),
        log_loss=float(metrics["log_loss"]),
        sharpe_per_bar=sharpe_per_bar(val, output.predictions, config.cost_bps),
    )


def sharpe_per_bar(val: FoldSplit, predictions: Labels, cost_bps: float) -> float | None:
    """Mean over deviation (ddof 1) of the net returns of every bar, not annualised; None where nothing is earned.

    Windows across gaps are missing: a prediction is then held until the symbol's next window,
    through the bars between, so that the figure is of a bar whatever the stride.
    """
    ends = val.X.ends
    symbols = val.index["symbol"].to_numpy()
    rows = _rows_between(ends, symbols[ends])
    held = predictions[np.searchsorted(ends, rows, side="right") - 1]
    bars = val.index.iloc[rows][["datetime", "symbol", "close"]].assign(prediction=held)
    equity = backtest(bars, cost_bps).equity["equity"].to_numpy()
    if not (equity > 0).all() or len(equity) < 2:
        return None
    net = equity / np.concatenate([[1.0], equity[:-1]]) - 1
    deviation = float(net.std(ddof=1))
    return float(net.mean() / deviation) if deviation > 0 else None


def _rows_between(ends: IntArray, owner: np.ndarray[Any, Any]) -> IntArray:
    """Every row from each symbol's first window end to its last; `owner [N]` is the symbol of each end."""
    starts = np.flatnonzero(np.concatenate([[True], owner[1:] != owner[:-1]]))
    stops = np.append(starts[1:], len(ends)) - 1
    return np.concatenate([np.arange(ends[a], ends[b] + 1) for a, b in zip(starts, stops, strict=True)])
