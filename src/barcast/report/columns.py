"""Numbers for people, and a figure's data as columns of short JSON numbers, undefined values as null."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

Columns = dict[str, list[Any]]  # column → values, all of one length


@dataclass(frozen=True)
class Figure:
    """One figure of the page."""

    kind: str  # names its specification (`figures.specs`)
    columns: Columns  # passed to it when the page draws it
    caption: str


def minute(time: str | pd.Timestamp) -> int:
    """A time as whole minutes since 1970-01-01 UTC; the page turns them into dates again."""
    return int(pd.Timestamp(time).timestamp() // 60)


def minutes(times: pd.Series) -> pd.Series:
    """`minute` of each time."""
    return (times - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(minutes=1)


def rounded(values: Iterable[float], digits: int) -> list[float | None]:
    """Rounded to `digits`; None where a value is NaN or infinite."""
    return [round(value, digits) if np.isfinite(value) else None for value in map(float, values)]


def as_columns(frame: pd.DataFrame, digits: Mapping[str, int]) -> Columns:
    """All columns of a frame; those in `digits` are `rounded`."""
    return {
        name: rounded(frame[name], digits[name]) if name in digits else frame[name].tolist() for name in map(str, frame)
    }


def number(value: float | None, form: str) -> str:
    """As text with a true minus sign; a dash where it is undefined, no sign where it rounds to 0."""
    if value is None:
        return "–"
    text = format(value, form)
    return (text.lstrip("+-") if not any(digit in text for digit in "123456789") else text).replace("-", "−")
