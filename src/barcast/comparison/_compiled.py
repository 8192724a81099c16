"""The statistics of a resample that are no function of sums, as compiled loops."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@numba.njit  # type: ignore[untyped-decorator]
def auc(counts: Array, time_index: Array, group: Array, positive: Array) -> Array:
    """The area under the ROC curve of each of B resamples, `[B]`; NaN where one has a single outcome.

    `counts` `[B, T]` tells how often each time was drawn. Of N rows in ascending order of their score, `time_index` is
    the time, `group` the same number for rows of the same score, ascending, `positive` whether the outcome came true.
    """
    areas = np.full(len(counts), np.nan)
    for resample in range(len(counts)):
        count = counts[resample]
        below, tied_won, tied_lost, won, area = 0.0, 0.0, 0.0, 0.0, 0.0
        for row in range(len(time_index)):
            if row and group[row] != group[row - 1]:
                area += tied_won * (below + tied_lost / 2)
                below += tied_lost
                won += tied_won
                tied_won, tied_lost = 0.0, 0.0
            if positive[row]:
                tied_won += count[time_index[row]]
            else:
                tied_lost += count[time_index[row]]
        area += tied_won * (below + tied_lost / 2)
        below += tied_lost
        won += tied_won
        if won > 0 and below > 0:
            areas[resample] = area / (won * below)
    return areas


@numba.njit  # type: ignore[untyped-decorator]
def path_drawdown(net: Array, drawn: Array) -> tuple[Array, Array]:
    """The largest drawdown (≤ 0) and the total return of each resampled path, `[B]` each, from returns `net` `[T]`,
    none below −1, and the time `[B, T]` that each step of each path repeats."""
    falls, totals = np.empty(len(drawn)), np.empty(len(drawn))
    for resample in range(len(drawn)):
        worth, peak, fall = 1.0, 1.0, 0.0
        for time in drawn[resample]:
            worth *= 1.0 + net[time]
            peak = max(peak, worth)
            fall = min(fall, worth / peak - 1.0)
        falls[resample], totals[resample] = fall, worth - 1.0
    return falls, totals
