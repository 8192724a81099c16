"""Every metric of every resample at once: per-time sums in, `[B]` values out.

A metric that is a function of sums over windows needs nothing but those sums by time, `[T, k]`; over B
resamples of the times they are one matrix product `[B, T] @ [T, k]`. What is no function of sums (area under the ROC
curve, drawdown) is computed by compiled loops. All agree with `classification_metrics` and `backtest`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from barcast.evaluation.metrics import CLASS_NAMES
from barcast.evaluation.trading import Backtest, backtest, bars_a_year
from barcast.models.base import CLASSES, EPSILON, Labels, Probabilities

Array = npt.NDArray[np.float64]
Resampled = dict[str, Array]

_K = len(CLASSES)
PROBABILITY_COLUMNS = ["p_down", "p_flat", "p_up"]


@dataclass(frozen=True)
class Draws:
    """B resamples of T times: `drawn[b, i]` is the time that stands at place i of resample b.

    Every model of a horizon is measured on the same draws, so differences are paired.
    """

    drawn: npt.NDArray[np.int32]  # [B, T]

    @cached_property
    def counts(self) -> Array:
        """How often each time was drawn, `[B, T]`."""
        resamples, times = self.drawn.shape
        flat = self.drawn + np.arange(resamples, dtype=np.int64)[:, None] * times
        return np.bincount(flat.ravel(), minlength=resamples * times).reshape(resamples, times).astype(np.float64)

    @classmethod
    def identity(cls, times: int) -> Draws:
        """One resample that draws each time once, in order: the data as they are."""
        return cls(np.arange(times, dtype=np.int32)[None])


@dataclass(frozen=True)
class Measured:
    """One model's answers to N windows at T times, with what following them earned."""

    probabilities: Probabilities  # [N, 3]
    y: Labels  # [N]
    place: npt.NDArray[np.int64]  # [N], 0 … T−1
    traded: Backtest  # by the same T times
    bins: int

    @classmethod
    def of(cls, predictions: pd.DataFrame, cost_bps: float, bins: int) -> Measured:
        """From a cell's predictions (docs/evaluation.md, "Files")."""
        place = np.unique(predictions["datetime"].to_numpy("datetime64[ns]"), return_inverse=True)[1]
        return cls(
            predictions[PROBABILITY_COLUMNS].to_numpy(np.float64),
            predictions["label"].to_numpy(np.int64),
            place,
            backtest(predictions[["datetime", "symbol", "close", "prediction"]], cost_bps),
            bins,
        )

    @property
    def times(self) -> int:
        return len(self.traded.by_time)

    @cached_property
    def losses(self) -> Array:
        """The log-loss of each time, `[T]`: the sum over its windows, scaled so that the mean over the times is the
        mean over the windows."""
        true = self.probabilities[np.arange(len(self.y)), self.y + 1]
        return self._sums(-np.log(np.clip(true, EPSILON, 1.0)))[:, 0] * (self.times / len(self.y))

    def metrics(self, draws: Draws) -> Resampled:
        """All metrics of each resample, `[B]`; NaN where one is undefined."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return {**self._probability(draws), **self._classes(draws), **trading(self.traded, draws)}

    def _sums(self, values: Array) -> Array:
        """`[N]` or `[N, k]` -> `[T, k]`."""
        columns = values.reshape(len(values), -1).T
        return np.stack([np.bincount(self.place, column, self.times) for column in columns], axis=1)

    def _probability(self, draws: Draws) -> Resampled:
        rows, p = np.arange(len(self.y)), self.probabilities
        off = p - np.eye(_K)[self.y + 1]
        confidence = p.max(axis=1)
        gap = np.zeros((len(rows), self.bins))
        edges = np.arange(self.bins + 1) / self.bins
        bin_ = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, self.bins - 1)
        gap[rows, bin_] = (p.argmax(axis=1) == self.y + 1) - confidence
        loss = -np.log(np.clip(p[rows, self.y + 1], EPSILON, 1.0))
        table = self._sums(np.column_stack([np.ones(len(rows)), loss, (off * off).sum(axis=1), gap]))
        sums = draws.counts @ table  # [B, T] @ [T, 3+M]
        count = sums[:, 0]
        return {
            "log_loss": sums[:, 1] / count,
            "brier": sums[:, 2] / count,
            "ece": np.abs(sums[:, 3:]).sum(axis=1) / count,
            "auc_ovr": self._area(draws),
        }

    def _area(self, draws: Draws) -> Array:
        from barcast.evaluation._loops import areas  # numba is slow to import

        counts = draws.counts.astype(np.float32)
        found = []
        for column, label in enumerate(CLASSES):
            order = np.argsort(self.probabilities[:, column], kind="stable")
            score = self.probabilities[order, column]
            group = np.concatenate([[0], np.cumsum(score[1:] != score[:-1])])
            found.append(areas(counts, self.place[order], group, self.y[order] == label))
        return _mean_defined(np.stack(found, axis=1))

    def _classes(self, draws: Draws) -> Resampled:
        """What follows from the confusion matrix of each resample, `[B, 3, 3]`, actual by predicted."""
        cell = np.eye(_K * _K)[_K * (self.y + 1) + self.probabilities.argmax(axis=1)]
        confusion = (draws.counts @ self._sums(cell)).reshape(-1, _K, _K)
        hit = np.diagonal(confusion, axis1=1, axis2=2)
        actual, predicted = confusion.sum(axis=2), confusion.sum(axis=1)
        by_class = {
            "precision": hit / np.where(predicted > 0, predicted, np.nan),
            "recall": hit / np.where(actual > 0, actual, np.nan),
            "f1": 2 * hit / np.where(actual + predicted > 0, actual + predicted, np.nan),
        }
        total, right = confusion.sum(axis=(1, 2)), hit.sum(axis=1)
        return {
            "accuracy": right / total,
            "balanced_accuracy": _mean_defined(by_class["recall"]),
            "macro_f1": _mean_defined(by_class["f1"]),
            **{f"{key}_{name}": v[:, i] for key, v in by_class.items() for i, name in enumerate(CLASS_NAMES)},
            "mcc": _matthews(total, right, actual, predicted),
        }


def trading(traded: Backtest, draws: Draws) -> Resampled:
    """The trading metrics of each resample, `[B]`; NaN where one is undefined."""
    from barcast.evaluation._loops import paths

    by_time = traded.by_time
    net = by_time["net"].to_numpy()
    keys = ["rows", "between", "turnover", "invested", "trades", "won", "gains", "losses"]
    summed = draws.counts @ by_time[keys].to_numpy()  # [B, T] @ [T, 8]
    rows, between, turnover, invested, trades, won, gains, losses = summed.T
    fall, total = paths(net, draws.drawn)
    return {
        **_ratios(net, by_time["datetime"], draws.counts),
        "max_drawdown": fall,
        "hit_rate": won / np.where(trades > 0, trades, np.nan),
        "profit_factor": gains / np.where(losses > 0, losses, np.nan),
        "turnover": turnover / rows,
        "trades": trades,
        "exposure": invested / np.where(between > 0, between, np.nan),
        "total_return": total,
    }


def _ratios(net: Array, times: pd.Series, counts: Array) -> Resampled:
    """Sharpe and Sortino ratios a year, undefined where no return differs from another."""
    a_year, count = np.sqrt(bars_a_year(times.to_numpy("datetime64[ns]"))), len(net)
    if count < 2 or not net.any():
        return {"sharpe": np.full(len(counts), np.nan), "sortino": np.full(len(counts), np.nan)}
    centre = net.mean()
    table = np.column_stack([net - centre, (net - centre) ** 2, np.minimum(net, 0) ** 2])
    off, squares, downside = (counts @ table).T / count
    variance = (squares - off * off) * count / (count - 1)
    scale = squares.mean() * 1e-12  # below it lies rounding
    return {
        "sharpe": (off + centre) / np.sqrt(np.where(variance > scale, variance, np.nan)) * a_year,
        "sortino": (off + centre) / np.sqrt(np.where(downside > 0, downside, np.nan)) * a_year,
    }


def _matthews(total: Array, right: Array, actual: Array, predicted: Array) -> Array:
    """Gorodkin (2004), eq. 7; 0 where truth or predictions are constant."""
    covariance = right * total - (actual * predicted).sum(axis=1)
    spread = (total**2 - (actual**2).sum(axis=1)) * (total**2 - (predicted**2).sum(axis=1))
    return np.where(spread > 0, covariance / np.sqrt(np.where(spread > 0, spread, 1.0)), 0.0)


def _mean_defined(values: Array) -> Array:
    """The mean of each row over what is defined, NaN where nothing is, `[B, k]` -> `[B]`."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    mean: Array = np.where(known, values, 0.0).sum(axis=1) / np.where(count > 0, count, np.nan)
    return mean
