"""The order of the cells, and how much it tells of the next period."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from barcast.evaluation.bootstrap import Sample, Values, intervals
from barcast.evaluation.verdicts import Interval

Array = npt.NDArray[np.float64]

FEWEST_RANKED = 4  # a rank correlation of fewer rows has hardly any values


def rank_scores(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """By row the log-loss that ranks it, from each row's metrics.json of one horizon.

    Over all its windows out of fold inside train and in the ranked part of validation: one stretch of time ranks models
    almost at random. Where a row has no folds, all are ranked by validation only, since log-losses of different
    windows do not compare.
    """
    pooled = all(content["folds"] for content in metrics.values())
    return {name: _pooled(content) if pooled else content["val"]["log_loss"] for name, content in metrics.items()}


def _pooled(content: Mapping[str, Any]) -> float:
    parts = [(content["folds"]["log_loss"], content["folds"]["windows"])]
    parts.append((content["val"]["log_loss"], content["windows"]["ranked"]))
    losses, windows = zip(*parts, strict=True)
    return float(np.average(losses, weights=windows))


def rank_correlation(scores: Sequence[float], losses: Array, resampled: Array, sample: Sample) -> Interval | None:
    """Spearman's correlation of scores known beforehand with later log-losses, and its interval.

    Args:
        scores: `[J]`, one per model.
        losses: `[J]`, on test.
        resampled: `[B, J]`, the same on each resample of test.
        sample: what they were drawn with.

    Returns:
        None for fewer than four models, or where all scores or all losses are equal.
    """
    if len(scores) < FEWEST_RANKED or np.ptp(scores) == 0 or np.ptp(losses) == 0:
        return None
    values: Values = ({"rank": _spearman(scores, losses)}, {"rank": _spearman_rows(scores, resampled)})
    return intervals(values, sample)["rank"]


def _spearman(scores: Sequence[float], losses: Array) -> float:
    return float(_spearman_rows(scores, losses[None])[0])


def _spearman_rows(scores: Sequence[float], losses: Array) -> Array:
    """Of each row `[B, J] -> [B]`."""
    from scipy.stats import rankdata

    first, second = rankdata(scores), rankdata(losses, axis=1)
    first, second = first - first.mean(), second - second.mean(axis=1, keepdims=True)
    norm = np.sqrt((first @ first) * (second * second).sum(axis=1))
    correlation: Array = np.divide(second @ first, norm, out=np.full(len(norm), np.nan), where=norm > 0)
    return correlation
