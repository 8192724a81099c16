"""The subsets of validation: one to calibrate on, one to select and rank models on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from barcast.errors import DataError

CALIBRATION, PURGED, SELECTION, TEST = "calibration", "purged", "ranked", "test"  # values of the column `part`
SCORED = (SELECTION, TEST)


def cut_validation(windows: pd.DataFrame, share: float, purge_bars: int) -> npt.NDArray[np.str_]:
    """Cut N windows (`datetime, symbol`, in any order) in two by time, at the same time for every symbol.

    The calibration subset is the earlier `share` of the distinct times. The last `purge_bars` windows of each symbol
    in it are purged; with at least the longest label, none of its labels reaches into the selection subset.

    Returns `[N]`: CALIBRATION, PURGED or SELECTION; DataError if the calibration or selection subset has no window.
    """
    stamps = windows["datetime"].to_numpy("datetime64[ns]")
    times = np.unique(stamps)
    early = stamps < times[min(int(share * len(times)), len(times) - 1)]
    order = windows["datetime"][early].groupby(windows["symbol"][early]).rank(method="first", ascending=False)
    subsets = np.where(early, CALIBRATION, SELECTION)
    subsets[np.flatnonzero(early)[order.to_numpy() <= purge_bars]] = PURGED
    for value, name in ((CALIBRATION, "calibration"), (SELECTION, "selection")):
        if not (subsets == value).any():
            raise DataError(
                f"validation: the {name} subset has no window ({len(windows)} windows, calibration.share {share}, "
                f"{purge_bars} purged per symbol); widen the validation split or change the share"
            )
    return subsets


def cut_calibration(
    windows: pd.DataFrame, subsets: npt.NDArray[np.str_], count: int, purge_bars: int
) -> list[npt.NDArray[np.intp]]:
    """Cut the calibration subset into `count` consecutive periods, at the same times for every symbol.

    The last `purge_bars` windows of each symbol in a period are left out. So is a period without windows. Returns for
    each period the positions of its windows among the N rows of `windows`, and so of `subsets`.
    """
    inside = windows[subsets == CALIBRATION].reset_index(names="position")
    times = np.unique(inside["datetime"].to_numpy("datetime64[ns]"))
    number = np.searchsorted(times, inside["datetime"].to_numpy("datetime64[ns]")) * count // max(len(times), 1)
    to_end = inside.groupby([inside["symbol"], number])["datetime"].rank(method="first", ascending=False)
    kept = (to_end > purge_bars) | (number == count - 1)  # the end of the subset is purged already
    periods = [np.flatnonzero((number == period) & kept) for period in range(count)]
    return [inside["position"].to_numpy()[rows] for rows in periods if len(rows)]
