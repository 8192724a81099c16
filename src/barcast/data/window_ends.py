"""Where windows end: none crosses a symbol or a long gap."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import AfterValidator, Field

from barcast.data.windows import IntArray
from barcast.section import Section


def _positive_duration(text: str) -> str:
    try:
        duration = pd.Timedelta(text)
    except ValueError:
        raise ValueError("a duration such as '2h' or '90min'") from None
    if not duration > pd.Timedelta(0):
        raise ValueError("a duration above zero such as '2h'")
    return text


class WindowConfig(Section):
    """`window:` of params.yaml."""

    seq_len: Annotated[int, Field(ge=1)]
    max_gap: Annotated[str, AfterValidator(_positive_duration)]

    @property
    def max_gap_ns(self) -> int:
        return int(pd.Timedelta(self.max_gap).as_unit("ns").value)


def window_ends(symbols: npt.NDArray[Any], times: IntArray, seq_len: int, max_gap_ns: int) -> IntArray:
    """The row of the last bar of every window that crosses no symbol and no gap, `[N]` ascending.

    Args:
        symbols: `[R]` symbol codes; rows of one symbol are consecutive, in time order.
        times: `[R]` nanoseconds.
        seq_len: bars per window.
        max_gap_ns: the longest allowed time between two neighbouring rows of a window.
    """
    rows = len(times)
    if rows < seq_len:
        return np.empty(0, np.int64)
    broken = (symbols[1:] != symbols[:-1]) | (np.diff(times) > max_gap_ns)
    breaks_until = np.concatenate([[0], np.cumsum(broken)])  # [R], breaks between row 0 and row r
    ends = np.arange(seq_len - 1, rows, dtype=np.int64)
    unbroken: IntArray = ends[breaks_until[ends] == breaks_until[ends - seq_len + 1]]
    return unbroken
