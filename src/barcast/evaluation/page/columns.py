"""Figures' data as columns of short numbers: thinned, rounded, and what is undefined as null."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pandas as pd

Columns = dict[str, list[Any]]  # column → values, all of one length

_MINUTE = np.timedelta64(1, "m")


@overload
def minutes(times: pd.Timestamp) -> int: ...
@overload
def minutes(times: pd.Series) -> npt.NDArray[np.int64]: ...
def minutes(times: Any) -> Any:
    """UTC times as whole minutes since 1970: what the page turns into dates again."""
    if isinstance(times, pd.Timestamp):
        return int(times.timestamp() // 60)
    return times.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[m]").astype(np.int64)


def rounded(values: Iterable[float], digits: int) -> list[float | None]:
    """Rounded to `digits`; None where a value is NaN or infinite."""
    return [round(value, digits) if np.isfinite(value) else None for value in map(float, values)]


def thinned(frame: pd.DataFrame, points: int) -> pd.DataFrame:
    """At most `points` rows, evenly chosen; the first and the last are always among them."""
    chosen = np.unique(np.linspace(0, len(frame) - 1, min(points, len(frame))).round().astype(np.int64))
    return frame.iloc[chosen]
