"""The two statistics of a resample that are no ratio of sums, as compiled loops."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@numba.njit  # type: ignore[untyped-decorator]
def areas(counts: Array, place: Array, group: Array, positive: Array) -> Array:
    """The area under the ROC curve of each of B resamples, `[B]`; NaN where one has a single outcome.

    Args:
        counts: `[B, T]`, how often each time was drawn.
        place: `[N]`, the time of each row, rows in ascending order of their score.
        group: `[N]`, the same number for rows of the same score, ascending.
        positive: `[N]`, whether the outcome came.
    """
    found = np.full(len(counts), np.nan)
    for resample in range(len(counts)):
        count = counts[resample]
        below, tied_won, tied_lost, won, area = 0.0, 0.0, 0.0, 0.0, 0.0
        for row in range(len(place)):
            if row and group[row] != group[row - 1]:
                area += tied_won * (below + tied_lost / 2)
                below += tied_lost
                won += tied_won
                tied_won, tied_lost = 0.0, 0.0
            if positive[row]:
                tied_won += count[place[row]]
            else:
                tied_lost += count[place[row]]
        area += tied_won * (below + tied_lost / 2)
        below += tied_lost
        won += tied_won
        if won > 0 and below > 0:
            found[resample] = area / (won * below)
    return found


@numba.njit  # type: ignore[untyped-decorator]
def paths(net: Array, drawn: Array) -> tuple[Array, Array]:
    """The largest fall (≤ 0) and the total return of each resampled path of returns, `[B]` each.

    Args:
        net: `[T]` returns, none below −1.
        drawn: `[B, T]`, the time that each step of each path repeats.
    """
    falls, totals = np.empty(len(drawn)), np.empty(len(drawn))
    for resample in range(len(drawn)):
        worth, peak, fall = 1.0, 1.0, 0.0
        for time in drawn[resample]:
            worth *= 1.0 + net[time]
            peak = max(peak, worth)
            fall = min(fall, worth / peak - 1.0)
        falls[resample], totals[resample] = fall, worth - 1.0
    return falls, totals
