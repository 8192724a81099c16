"""What the tests of significance say of a horizon, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Judged:
    """What `compare` found: the contents of leaderboard.json, significance.json and overfitting.json."""

    leaderboard: Mapping[str, Any]
    significance: Mapping[str, Any]
    overfitting: Mapping[str, Any]


def significance_words(judged: Judged, horizon: int) -> str:
    """How intervals were made, whether any model beats the reference, and how overfitted a choice would be."""
    found = judged.significance[f"h{horizon}"]
    intervals = (
        f"Intervals: {found['resamples']:,} resamples in blocks of {found['block_length']:.0f} times on average."
    )
    parts = [intervals, _superiority(judged, found), _overfitting(judged, horizon), _rank_correlation(found)]
    return " ".join(filter(None, parts))


def _superiority(judged: Judged, found: Mapping[str, Any]) -> str:
    if found["spa"] is None:
        return ""
    p, reference = found["spa"]["consistent"], judged.leaderboard["reference"]
    shown = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return f"That no model beats {reference}: {shown} (test for superior predictive ability)."


def _rank_correlation(found: Mapping[str, Any]) -> str:
    by_score, by_val = found["rank_correlation"]["score"], found["rank_correlation"]["val"]
    if by_score is None or by_score["low"] is None or by_val is None:
        return ""
    return (
        f"Rank correlation of the score with log-loss on test: {by_score['value']:.2f} "
        f"({by_score['low']:.2f} to {by_score['high']:.2f}); of validation only: {by_val['value']:.2f}."
    )


def _overfitting(judged: Judged, horizon: int) -> str:
    found = judged.overfitting[f"h{horizon}"]["pbo"]
    return f"Probability that choosing by Sharpe ratio is overfitting: {found['pbo']:.0%}." if found else ""
