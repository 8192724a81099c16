"""Which part of validation does what: one slice is fitted on, the rest chooses and ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from barcast.errors import DataError

CALIBRATION, PURGED, RANKED, TEST = "calibration", "purged", "ranked", "test"

Parts = npt.NDArray[Any]


def validation_parts(windows: pd.DataFrame, share: float, purge_bars: int) -> Parts:
    """Cut validation in two by time, the same cut for every symbol.

    The earlier `share` of the times is the calibration slice. Its last `purge_bars` windows of each symbol are
    left out, so that no label of it reaches into the rest, which judges what was fitted and ranks the cells.

    Args:
        windows: N rows of `datetime, symbol`, in any order.
        share: of the distinct times, 0 … 1.
        purge_bars: at least the longest label reach.

    Returns:
        `[N]`: "calibration", "purged" or "ranked".

    Raises:
        DataError: one of the two parts would hold no window.
    """
    stamps = windows["datetime"].to_numpy("datetime64[ns]")
    times = np.unique(stamps)
    early = stamps < times[min(int(share * len(times)), len(times) - 1)]
    order = windows["datetime"][early].groupby(windows["symbol"][early]).rank(method="first", ascending=False)
    parts = np.where(early, CALIBRATION, RANKED)
    parts[np.flatnonzero(early)[order.to_numpy() <= purge_bars]] = PURGED
    for part in (CALIBRATION, RANKED):
        if not (parts == part).any():
            raise DataError(
                f"validation: no window is left for its {part} part ({len(windows)} windows, calibration.share "
                f"{share}, {purge_bars} purged for each symbol); widen the validation split or change the share"
            )
    return parts


def calibration_periods(windows: pd.DataFrame, parts: Parts, count: int, purge_bars: int) -> list[npt.NDArray[np.intp]]:
    """Cut the calibration slice into `count` consecutive stretches of time, the same cuts for every symbol.

    At the end of each, `purge_bars` windows of every symbol are left out. A stretch without a window is left out too.

    Args:
        windows: N rows of `datetime, symbol`.
        parts: `[N]`, of `validation_parts`.
        count: how many stretches.
        purge_bars: at least the longest label reach.

    Returns:
        Positions among the N windows, for each stretch.
    """
    own = windows[parts == CALIBRATION].reset_index(names="position")
    times = np.unique(own["datetime"].to_numpy("datetime64[ns]"))
    number = np.searchsorted(times, own["datetime"].to_numpy("datetime64[ns]")) * count // max(len(times), 1)
    to_end = own.groupby([own["symbol"], number])["datetime"].rank(method="first", ascending=False)
    kept = (to_end > purge_bars) | (number == count - 1)  # the slice's own end is purged already
    found = [np.flatnonzero((number == stretch) & kept) for stretch in range(count)]
    return [own["position"].to_numpy()[chosen] for chosen in found if len(chosen)]
