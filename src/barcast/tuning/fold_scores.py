"""Scores on a fold's validation part: the evaluator's metrics, and the Sharpe ratio per bar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from barcast.errors import ModelError
from barcast.evaluation.backtest import backtest
from barcast.evaluation.metrics import classification_metrics
from barcast.models.base import BaseModel
from barcast.probabilities import Labels
from barcast.section import Section
from barcast.tuning.folds import FoldSplit


class FoldScoring(Section):
    """The keys of `evaluate:` that a fold's scores depend on."""

    cost_bps: Annotated[float, Field(ge=0)]
    calibration_bins: Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class FoldScore:
    """The scores of one trial on one fold; `value` is the study's metric."""

    value: float
    log_loss: float
    sharpe_per_bar: float | None


def score(model: BaseModel, val: FoldSplit, metric: str, config: FoldScoring) -> FoldScore:
    """Score a fitted model on the validation part of a fold.
    Raises ModelError: the metric is undefined there, such as a Sharpe ratio without a trade."""
    output = model.predict(val.X, val.meta)
    metrics: dict[str, Any] = classification_metrics(output.probabilities, val.y, config.calibration_bins)
    bars = val.meta[["datetime", "symbol", "close"]].assign(prediction=output.predictions)
    metrics |= backtest(bars, config.cost_bps).metrics
    if metrics[metric] is None:
        raise ModelError(f"{val.name}: {metric} is undefined; set tune.metric to one that always is, such as log_loss")
    sharpe = sharpe_per_bar(val, output.predictions, config.cost_bps)
    return FoldScore(float(metrics[metric]), float(metrics["log_loss"]), sharpe)


def sharpe_per_bar(val: FoldSplit, predictions: Labels, cost_bps: float) -> float | None:
    """Mean over deviation (ddof 1) of the net returns of all bars, not annualised; None where nothing is earned.

    Between the windows of a symbol (gaps, a stride) a prediction is held until the next window, so the ratio is
    per bar at any stride.
    """
    ends, index = val.X.ends, val.index
    owner = index["symbol"].to_numpy()[ends]  # [N]
    starts = np.flatnonzero(np.concatenate([[True], owner[1:] != owner[:-1]]))
    stops = np.append(starts[1:], len(ends)) - 1
    rows = np.concatenate([np.arange(ends[a], ends[b] + 1) for a, b in zip(starts, stops, strict=True)])
    held = predictions[np.searchsorted(ends, rows, side="right") - 1]
    bars = index.iloc[rows][["datetime", "symbol", "close"]].assign(prediction=held)
    equity = backtest(bars, cost_bps).equity["equity"].to_numpy()
    if not (equity > 0).all() or len(equity) < 2:
        return None
    net = equity / np.concatenate([[1.0], equity[:-1]]) - 1
    deviation = float(net.std(ddof=1))
    return float(net.mean() / deviation) if deviation > 0 else None
