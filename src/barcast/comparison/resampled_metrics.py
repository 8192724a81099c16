"""Every metric of every resample at once: per-time sums in, `[B]` values out.

A metric that is a function of sums over windows needs only those sums by time, `[T, k]`; over B resamples of the times
they are one matrix product `[B, T] @ [T, k]`. What is no function of sums (area under the ROC curve, drawdown) is
computed by compiled loops. `METRICS` names what each metric reads here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from barcast.comparison.intervals import Values
from barcast.comparison.resampling import BootstrapConfig, BootstrapIndices, BootstrapSample, draw_jointly
from barcast.evaluation.backtest import Backtest, backtest
from barcast.evaluation.metrics import (
    Array,
    Confusion,
    LabelledProbabilities,
    confidence_bins,
    mean_defined,
    positive,
    resample_metrics,
)
from barcast.probabilities import CLASSES, EPSILON, PROBABILITY_COLUMNS

Resampled = dict[str, Array]


@dataclass(frozen=True)
class ScoredPredictions(LabelledProbabilities):
    """One model's predictions of N windows at T times, and what trading them earned."""

    time_index: npt.NDArray[np.int64]  # [N], 0 … T−1
    traded: Backtest  # at the same T times

    @classmethod
    def from_frame(cls, predictions: pd.DataFrame, cost_bps: float, bins: int) -> ScoredPredictions:
        """From a cell's predictions (docs/evaluation.md, "Files")."""
        return cls(
            predictions[[*PROBABILITY_COLUMNS]].to_numpy(np.float64),
            predictions["label"].to_numpy(np.int64),
            bins,
            np.unique(predictions["datetime"].to_numpy("datetime64[ns]"), return_inverse=True)[1],
            backtest(predictions[["datetime", "symbol", "close", "prediction"]], cost_bps),
        )

    @property
    def times(self) -> int:
        return len(self.traded.by_time)

    @cached_property
    def window_losses(self) -> Array:
        """The log-loss of each window, `[N]`."""
        true = self.probabilities[np.arange(len(self.y)), self.y + 1]
        return -np.log(np.clip(true, EPSILON, 1.0))

    @cached_property
    def losses(self) -> Array:
        """The log-loss of each time, `[T]`: the sum over its windows, scaled so that the mean over the times is the
        mean over the windows."""
        return self.sum_by_time(self.window_losses) * (self.times / len(self.y))

    def sum_by_time(self, values: Array) -> Array:
        """`[N] -> [T]` or `[N, k] -> [T, k]`."""
        if values.ndim == 1:
            return np.bincount(self.time_index, values, self.times).astype(np.float64)
        return np.stack([np.bincount(self.time_index, column, self.times) for column in values.T], axis=1)

    def resample(self, indices: BootstrapIndices) -> Resampled:
        """All metrics of each resample, `[B]`; NaN where one is undefined."""
        return {
            **resample_metrics("predictions", ResampledPredictions(self, indices)),
            **resample_trading(self.traded, indices),
        }


@dataclass(frozen=True)
class ResampledPredictions:
    """What the resampled forms of predictions' metrics are computed from."""

    data: ScoredPredictions
    indices: BootstrapIndices

    def sum(self, values: npt.ArrayLike) -> Array:
        """The sum over the windows of each resample, `[N] -> [B]` or `[N, k] -> [B, k]`."""
        return np.asarray(self.indices.counts @ self.data.sum_by_time(np.asarray(values)))

    @cached_property
    def confusion(self) -> Confusion:
        return Confusion(self.sum(np.eye(9)[self.data.confusion_cells]).reshape(-1, 3, 3))

    @cached_property
    def means(self) -> Resampled:
        """The metrics that are means over the windows."""
        p, y, bins = self.data.probabilities, self.data.y, self.data.bins
        rows, error, confidence = np.arange(len(y)), p - np.eye(len(CLASSES))[y + 1], p.max(axis=1)
        gap = np.zeros((len(rows), bins))
        gap[rows, confidence_bins(confidence, bins)] = (p.argmax(axis=1) == y + 1) - confidence
        table = [np.ones(len(rows)), self.data.window_losses, (error * error).sum(axis=1), gap]
        sums = self.sum(np.column_stack(table))  # [B, 3+M]
        count, loss, squares = sums[:, :3].T
        return {"log_loss": loss / count, "brier": squares / count, "ece": np.abs(sums[:, 3:]).sum(axis=1) / count}

    @property
    def auc_ovr(self) -> Array:
        from barcast.comparison._compiled import auc  # numba is slow to import

        counts = self.indices.counts.astype(np.float32)
        by_class = []
        for column, label in enumerate(CLASSES):
            order = np.argsort(self.data.probabilities[:, column], kind="stable")
            score = self.data.probabilities[order, column]
            group = np.concatenate([[0], np.cumsum(score[1:] != score[:-1])])
            by_class.append(auc(counts, self.data.time_index[order], group, self.data.y[order] == label))
        return mean_defined(np.stack(by_class, axis=1))


@dataclass(frozen=True)
class ResampledTrades:
    """What the resampled forms of metrics of trades are computed from."""

    data: Backtest
    indices: BootstrapIndices

    def sum(self, values: npt.ArrayLike) -> Array:
        """The sum over the times of each resample, `[T] -> [B]` or `[T, k] -> [B, k]`."""
        return np.asarray(self.indices.counts @ np.asarray(values))

    @cached_property
    def sums(self) -> Resampled:
        """The columns of `Backtest.by_time`, each summed."""
        columns = self.data.by_time.drop(columns=["net", "datetime"])
        return dict(zip(map(str, columns), self.sum(columns).T, strict=True))

    @cached_property
    def ratios(self) -> Resampled:
        """Sharpe and Sortino ratios a year, undefined where no return differs from another."""
        net, count = self.data.net, len(self.data.net)
        centre = net.mean() if count > 1 else np.nan
        table = np.column_stack([net - centre, (net - centre) ** 2, np.minimum(net, 0) ** 2])
        off, squares, downside = self.sum(table).T / count
        variance = (squares - off * off) * count / (count - 1)
        variance = np.where(variance > squares.mean() * 1e-12, variance, np.nan)  # below it is rounding
        mean, annual = off + centre, np.sqrt(self.data.bars_per_year)
        return {"sharpe": mean / np.sqrt(variance) * annual, "sortino": mean / np.sqrt(positive(downside)) * annual}

    @cached_property
    def path(self) -> Resampled:
        from barcast.comparison._compiled import path_drawdown

        drawdown, growth = path_drawdown(self.data.net, self.indices.drawn)
        return {"max_drawdown": drawdown, "total_return": growth}


def resample_trading(traded: Backtest, indices: BootstrapIndices) -> Resampled:
    """The trading metrics of each resample, `[B]`; NaN where one is undefined."""
    return resample_metrics("trades", ResampledTrades(traded, indices))


def observed_metrics(scored: ScoredPredictions) -> dict[str, float | None]:
    """The metrics on the data themselves; None where undefined."""
    resampled = scored.resample(BootstrapIndices.identity(scored.times))
    return {name: float(value[0]) if np.isfinite(value[0]) else None for name, value in resampled.items()}


def bootstrap_metrics(
    models: Mapping[str, ScoredPredictions], config: BootstrapConfig, seed: int
) -> tuple[BootstrapSample, dict[str, Values]]:
    """One set of resamples for all models, and by model its metrics on the data and on the resamples; DataError if
    there are too few times to resample."""
    sample = draw_jointly([scored.losses for scored in models.values()], config, seed)
    return sample, {name: (observed_metrics(each), each.resample(sample.indices)) for name, each in models.items()}
