"""Do the probabilities mean what they say? Reliability by bins, and the error that sums it up."""

from __future__ import annotations

import numpy as np
import pandas as pd

from barcast.models.base import CLASSES, Labels, Probabilities


def reliability_table(probabilities: Probabilities, y: Labels, bins: int) -> pd.DataFrame:
    """What was claimed against what came true, by equal-width bins of the top class's probability.

    Bin m of M holds the windows with confidence in ((m−1)/M, m/M] (Guo et al. 2017, section 2).

    Args:
        probabilities: `[N, 3]`, ordered (−1, 0, +1).
        y: `[N]` in {−1, 0, 1}.
        bins: M.

    Returns:
        M rows: `low`, `high`, `count`, and the mean `confidence` and `accuracy` (NaN in an empty bin).
    """
    confidence = probabilities.max(axis=1)
    correct = np.asarray(CLASSES)[probabilities.argmax(axis=1)] == y
    edges = np.arange(bins + 1) / bins
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    size = np.where(count > 0, count, np.nan)
    return pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "count": count,
            "confidence": np.bincount(place, confidence, bins) / size,
            "accuracy": np.bincount(place, correct, bins) / size,
        }
    )


def expected_calibration_error(probabilities: Probabilities, y: Labels, bins: int) -> float:
    """Mean |accuracy − confidence| over the bins, weighed by their counts (Guo et al. 2017, eq. 3).

    Args:
        probabilities: `[N, 3]`, ordered (−1, 0, +1).
        y: `[N]` in {−1, 0, 1}.
        bins: number of equal-width bins.
    """
    table = reliability_table(probabilities, y, bins)
    gap = (table["accuracy"] - table["confidence"]).abs()
    return float((gap * table["count"]).sum() / len(y))
