"""Copying overlapping runs of rows at the speed of memory."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt


@numba.njit(parallel=True)  # type: ignore[untyped-decorator]
def copy_runs(source: npt.NDArray[np.float32], starts: npt.NDArray[np.int64], out: npt.NDArray[Any]) -> None:
    """Fill row i of `out [n, m]` with `source[starts[i] : starts[i] + m]`; bounds are the caller's to check."""
    length = out.shape[1]
    for row in numba.prange(len(starts)):
        out[row, :] = source[starts[row] : starts[row] + length]
