"""Every metric of one model, a row each: its name, its direction, how it is shown and how it is computed.

A new metric is one more row of `METRICS`: the evaluation, tuning, intervals, leaderboard, page and diff read the table.
scikit-learn and empyrical are imported where they are called: whoever only checks params.yaml need not wait for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from operator import attrgetter
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from barcast.errors import ModelError
from barcast.probabilities import CLASSES, Labels, Probabilities, log_loss

Array = npt.NDArray[np.float64]
Metrics = dict[str, float | None]
Scalar = Callable[[Any], float | None]
Resampled = Callable[[Any], Array]
Values = Callable[[Any], npt.ArrayLike]
Source = Literal["predictions", "trades"]
Shown = Literal["file", "page", "markdown", "terminal"]

CLASS_NAMES = ("down", "flat", "up")
_SHOWN: tuple[Shown, ...] = get_args(Shown)


@dataclass(frozen=True)
class Metric:
    """One row of `METRICS`.

    `scalar` computes the metric from `LabelledProbabilities`, or from a `Backtest` where `source` is "trades"; None:
    undefined. `resampled` computes it for B bootstrap resamples at once, `[B]` with NaN for undefined, from
    `comparison.resampled_metrics.ResampledPredictions` or `ResampledTrades`; without it the metric has no interval.
    metrics.json and intervals.json have every metric. `shown` says where else it is: "page" (and in the diff, where it
    has a direction), "markdown" there and in leaderboard.md, "terminal" everywhere.
    """

    name: str
    title: str
    meaning: str
    scalar: Scalar
    resampled: Resampled | None
    source: Source = "predictions"
    direction: Literal["higher", "lower"] | None = "higher"  # which one is better; None: neither
    bounds: tuple[float, float] = (0, 1)
    form: str = ".3f"  # as `format` takes it
    shown: Shown = "page"


class Confusion:
    """Windows counted by actual and predicted class, `[..., 3, 3]`, and each class's scores `[..., 3]`, NaN where
    undefined."""

    def __init__(self, counts: Array) -> None:
        self.hits = np.diagonal(counts, axis1=-2, axis2=-1)
        self.actual, self.predicted, self.total = counts.sum(axis=-1), counts.sum(axis=-2), counts.sum(axis=(-2, -1))
        self.precision = self.hits / positive(self.predicted)
        self.recall = self.hits / positive(self.actual)
        self.f1 = 2 * self.hits / positive(self.actual + self.predicted)


@dataclass(frozen=True)
class LabelledProbabilities:
    """Probabilities of N windows beside what came true; `bins` are those of the calibration error."""

    probabilities: Probabilities  # [N, 3], ordered (−1, 0, +1)
    y: Labels  # [N] in {−1, 0, 1}
    bins: int

    @property
    def confusion_cells(self) -> Labels:
        """Each window's place in the flattened confusion matrix, `[N]` in 0 … 8."""
        return np.asarray(3 * (self.y + 1) + self.probabilities.argmax(axis=1))

    @cached_property
    def confusion(self) -> Confusion:
        return Confusion(np.bincount(self.confusion_cells, minlength=9).reshape(3, 3).astype(np.float64))


def classification_metrics(probabilities: npt.ArrayLike, y: npt.ArrayLike, bins: int) -> Metrics:
    """Score probabilities, and the classes that they favour, against the truth.

    None where a value is undefined: the precision of a class never predicted, the recall of a class that
    never came, the F1 of one that neither did, `auc_ovr` where no class has both outcomes. Macro averages
    (`macro_f1`, `balanced_accuracy`, `auc_ovr`) go over the classes where the value is defined. `mcc` is 0
    where predictions or truth are constant (the limit of Gorodkin 2004, eq. 7).

    Probabilities are `[N, 3]`, ordered (−1, 0, +1), rows summing to 1; `y` is `[N]` in {−1, 0, 1}; `bins` are those of
    the expected calibration error.

    Raises:
        ModelError: the shapes do not match, or there is no window.
    """
    p, truth = np.asarray(probabilities, np.float64), np.asarray(y, np.int64)
    if p.shape != (len(truth), len(CLASSES)) or not len(truth):
        raise ModelError(f"metrics: expected probabilities [N, 3] and labels [N], N ≥ 1, got {p.shape}, {truth.shape}")
    return compute_metrics("predictions", LabelledProbabilities(p, truth, bins))


def probability_metrics(probabilities: Probabilities, y: Labels, bins: int) -> Metrics:
    """`log_loss`, `brier` and `ece` of `[N, 3]` probabilities and `[N]` labels: what calibration changes."""
    windows = LabelledProbabilities(probabilities, y, bins)
    return {name: METRICS[name].scalar(windows) for name in ("log_loss", "brier", "ece")}


def shown_metrics(place: Shown) -> list[Metric]:
    """The metrics that a place shows, in order, but log-loss: each place has its own view of what ranks the models."""
    wide_enough = _SHOWN[_SHOWN.index(place) :]
    return [metric for metric in METRICS.values() if metric.shown in wide_enough and metric.name != "log_loss"]


def compute_metrics(source: Source, data: Any) -> Metrics:
    """All metrics of one source, of `LabelledProbabilities` or of a `Backtest`."""
    return {name: metric.scalar(data) for name, metric in METRICS.items() if metric.source == source}


def resample_metrics(source: Source, resamples: Any) -> dict[str, Array]:
    """All metrics of one source that have a resampled form, `[B]` each; NaN where one is undefined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            name: metric.resampled(resamples)
            for name, metric in METRICS.items()
            if metric.source == source and metric.resampled
        }


def of_confusion(compute: Callable[[Confusion], Array]) -> tuple[Scalar, Resampled]:
    """Both forms of a metric that follows from the confusion matrix."""
    return lambda windows: defined(compute(windows.confusion)), lambda resamples: compute(resamples.confusion)


def ratio_of_sums(numerator: Values, denominator: Values) -> tuple[Scalar, Resampled]:
    """Both forms of a ratio of two sums, undefined where the lower one is 0.

    Both functions return one value per window of `LabelledProbabilities` `[N]`, or per time of a `Backtest` `[T]`.
    """

    def scalar(data: Any) -> float | None:
        above, below = np.sum(numerator(data)), np.sum(denominator(data))
        return float(above / below) if below else None

    def resampled(resamples: Any) -> Array:
        above, below = (resamples.sum(values(resamples.data)) for values in (numerator, denominator))
        return np.asarray(above / positive(below))

    return scalar, resampled


def defined(value: float | Array) -> float | None:
    """A finite number as it is, None (JSON null) for NaN and infinity."""
    return float(value) if np.isfinite(value) else None


def positive(values: Array) -> Array:
    """As a denominator: NaN where it is not above 0."""
    return np.where(values > 0, values, np.nan)


def mean_defined(values: Array) -> Array:
    """The mean over the last axis of the values that are defined, NaN where none is, `[..., k]` -> `[...]`."""
    known = np.isfinite(values)
    return np.asarray(np.where(known, values, 0.0).sum(axis=-1) / positive(known.sum(axis=-1)))


def confidence_bins(confidence: Array, bins: int) -> npt.NDArray[np.int64]:
    """The bin of each: number m of M, from 0, has those in (m/M, (m+1)/M] (Guo et al. 2017, section 2)."""
    return np.clip(np.searchsorted(np.arange(bins + 1) / bins, confidence, side="left") - 1, 0, bins - 1)


def reliability_table(probabilities: Probabilities, y: Labels, bins: int) -> pd.DataFrame:
    """Confidence, the top class's probability, beside accuracy, of `[N, 3]` probabilities and `[N]` labels: for each
    bin of `confidence_bins` its `low`, `high`, `count`, and mean `confidence` and `accuracy` (NaN in an empty one)."""
    confidence, edges = probabilities.max(axis=1), np.arange(bins + 1) / bins
    correct = np.asarray(CLASSES)[probabilities.argmax(axis=1)] == y
    index = confidence_bins(confidence, bins)
    count = np.bincount(index, minlength=bins)
    size = np.where(count > 0, count, np.nan)
    means = {
        "confidence": np.bincount(index, confidence, bins) / size,
        "accuracy": np.bincount(index, correct, bins) / size,
    }
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "count": count, **means})


def expected_calibration_error(probabilities: Probabilities, y: Labels, bins: int) -> float:
    """Mean |accuracy − confidence| over the bins of `reliability_table`, weighted by count (Guo et al. 2017, eq. 3)."""
    table = reliability_table(probabilities, y, bins)
    return float(((table["accuracy"] - table["confidence"]).abs() * table["count"]).sum() / len(y))


def auc_ovr(probabilities: Probabilities, y: Labels) -> float | None:
    """One-vs-rest area under the ROC curve, `[N, 3]` and `[N]`, averaged over the classes that have both outcomes.

    None where no class has both, that is where y is constant.
    """
    from sklearn.metrics import roc_auc_score

    outcomes = [(y == label, probabilities[:, column]) for column, label in enumerate(CLASSES)]
    scores = [roc_auc_score(truth, score) for truth, score in outcomes if 0 < truth.sum() < len(truth)]
    return float(np.mean(scores)) if scores else None


def _brier(windows: LabelledProbabilities) -> float | None:
    """The sum over the classes, 0 … 2."""
    from sklearn.metrics import brier_score_loss

    return defined(brier_score_loss(windows.y, windows.probabilities, labels=CLASSES, scale_by_half=False))


def _of_class(score: str, column: int, of: Confusion) -> Array:
    return np.asarray(getattr(of, score)[..., column])


def _matthews(of: Confusion) -> Array:
    """Gorodkin (2004), eq. 7; 0 where truth or predictions are constant."""
    covariance = of.hits.sum(axis=-1) * of.total - (of.actual * of.predicted).sum(axis=-1)
    spread = (of.total**2 - (of.actual**2).sum(axis=-1)) * (of.total**2 - (of.predicted**2).sum(axis=-1))
    return np.where(spread > 0, covariance / np.sqrt(np.where(spread > 0, spread, 1.0)), 0.0)


def _empyrical(ratio: str, traded: Any) -> float | None:
    """None where the equity never moved."""
    import empyrical

    if ratio == "max_drawdown":
        return float(empyrical.max_drawdown(traded.net))
    moved = len(traded.net) > 1 and bool(traded.net.any())
    return defined(getattr(empyrical, ratio)(traded.net, annualization=traded.bars_per_year)) if moved else None


def _profit_factor(traded: Any) -> float | None:
    won, lost = traded.results[traded.results > 0].sum(), -traded.results[traded.results < 0].sum()
    return float(won / lost) if lost > 0 else None


def _by_time(column: str) -> Values:
    return lambda traded: traded.by_time[column].to_numpy()


# fmt: off
METRICS: dict[str, Metric] = {metric.name: metric for metric in (
    Metric("log_loss", "test log-loss", "in nats, lower is better", lambda of: log_loss(of.probabilities, of.y),
           lambda of: of.means["log_loss"], direction="lower", bounds=(0, np.inf), form=".4f"),
    Metric("macro_f1", "macro-F1", "mean F1 of the classes", *of_confusion(lambda of: mean_defined(of.f1)),
           shown="markdown"),
    Metric("mcc", "MCC", "Matthews correlation, 0 is chance", *of_confusion(_matthews),
           bounds=(-1, 1), form="+.3f", shown="terminal"),
    Metric("auc_ovr", "AUC", "one-vs-rest, 0.5 is chance", lambda of: auc_ovr(of.probabilities, of.y),
           attrgetter("auc_ovr"), shown="markdown"),
    Metric("brier", "Brier", "squared error of the probabilities, lower is better", _brier,
           lambda of: of.means["brier"], direction="lower", bounds=(0, 2), form=".4f"),
    Metric("ece", "ECE", "expected calibration error",
           lambda of: expected_calibration_error(of.probabilities, of.y, of.bins),
           lambda of: of.means["ece"], direction="lower", shown="terminal"),
    Metric("accuracy", "accuracy", "share of windows whose most probable class came true",
           *of_confusion(lambda of: of.hits.sum(axis=-1) / of.total), shown="file"),
    Metric("balanced_accuracy", "balanced accuracy", "mean recall of the classes",
           *of_confusion(lambda of: mean_defined(of.recall)), shown="file"),
    *(Metric(f"{score}_{name}", f"{score}, {name}", f"{score} of one class",
             *of_confusion(partial(_of_class, score, column)), shown="file")
      for score in ("precision", "recall", "f1") for column, name in enumerate(CLASS_NAMES)),
    Metric("sharpe", "Sharpe", "annualised, net of costs", partial(_empyrical, "sharpe_ratio"),
           lambda of: of.ratios["sharpe"], source="trades", bounds=(-np.inf, np.inf), form=".2f", shown="terminal"),
    Metric("max_drawdown", "max drawdown", "largest fall of the net equity", partial(_empyrical, "max_drawdown"),
           lambda of: of.path["max_drawdown"], source="trades", bounds=(-1, 0), form=".1%", shown="markdown"),
    Metric("trades", "trades", "positions opened", lambda of: len(of.results),
           lambda of: of.sums["trades"], source="trades", direction=None, bounds=(0, np.inf),
           form=",.0f", shown="markdown"),
    Metric("sortino", "Sortino", "as Sharpe, over the deviation of losses", partial(_empyrical, "sortino_ratio"),
           lambda of: of.ratios["sortino"], source="trades", bounds=(-np.inf, np.inf), form=".2f", shown="file"),
    Metric("hit_rate", "hit rate", "share of trades with a net gain",
           *ratio_of_sums(_by_time("won"), _by_time("trades")), source="trades", shown="file"),
    Metric("profit_factor", "profit factor", "net gains over net losses of trades", _profit_factor,
           lambda of: of.sums["gains"] / positive(of.sums["losses"]), source="trades", bounds=(0, np.inf),
           shown="file"),
    Metric("turnover", "turnover", "mean change of position per row, 0 … 2",
           *ratio_of_sums(_by_time("turnover"), _by_time("rows")), source="trades", direction=None, bounds=(0, 2),
           shown="file"),
    Metric("exposure", "exposure", "share of the time between rows spent in a position",
           *ratio_of_sums(_by_time("invested"), _by_time("between")), source="trades", direction=None, shown="file"),
    Metric("total_return", "total return", "growth of the net equity",
           lambda of: float(of.equity["equity"].iloc[-1] - 1), lambda of: of.path["total_return"],
           source="trades", bounds=(-1, np.inf), form=".1%", shown="file"),
)}
# fmt: on
