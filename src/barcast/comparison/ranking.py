"""The order of the cells, and how well it predicts the order on test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from barcast.comparison.intervals import Interval, interval
from barcast.comparison.resampling import BootstrapSample
from barcast.evaluation.metrics import Array

FEWEST_RANKED = 4  # a rank correlation of fewer rows has hardly any values


def rank_scores(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The log-loss that ranks each row, from each row's metrics.json of one horizon.

    Over all its windows out of fold inside train and in the selection subset of validation: a single period ranks
    models almost at random. Where a row has no folds, all are ranked by validation only, since log-losses of different
    windows do not compare.
    """
    if not all(content["folds"] for content in metrics.values()):
        return {name: content["val"]["log_loss"] for name, content in metrics.items()}
    scores = {}
    for name, content in metrics.items():
        windows = [content["folds"]["windows"], content["windows"]["ranked"]]
        scores[name] = float(np.average([content[part]["log_loss"] for part in ("folds", "val")], weights=windows))
    return scores


def rank_correlation(
    scores: Sequence[float], losses: Array, resampled: Array, sample: BootstrapSample
) -> Interval | None:
    """Spearman's correlation of scores `[J]` known beforehand with later log-losses `[J]`, and its interval from those
    of each resample `[B, J]`; None for fewer than four models, or where all scores or all losses are equal."""
    if len(scores) < FEWEST_RANKED or np.ptp(scores) == 0 or np.ptp(losses) == 0:
        return None
    observed = float(_spearman(scores, losses[None])[0])
    return interval(observed, _spearman(scores, resampled), sample, bounds=(-1, 1))


def _spearman(scores: Sequence[float], losses: Array) -> Array:
    """Of the scores with each row of losses, `[B, J] -> [B]`."""
    from scipy.stats import rankdata

    first, second = rankdata(scores), rankdata(losses, axis=1)
    first, second = first - first.mean(), second - second.mean(axis=1, keepdims=True)
    norm = np.sqrt((first @ first) * (second * second).sum(axis=1))
    correlation: Array = np.divide(second @ first, norm, out=np.full(len(norm), np.nan), where=norm > 0)
    return correlation
