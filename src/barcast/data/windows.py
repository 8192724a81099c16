"""Windows over base rows: `[N, L, F]` that is never stored.

Base rows `[R, F]` are in a memory map; a window is identified by its last row. Window `i` is rows
`ends[i]-L+1 … ends[i]`: bar t is included, its features are known at its close; its label describes what follows.
"""

from __future__ import annotations

from typing import Any, overload

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from barcast.errors import ModelError

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


class Windows:
    """A lazy `[N, L, F]` float32 array: base rows, and the row at which each window ends.

    `X[i]` is a view `[L, F]`; `X[a:b]` and `X[index]` gather `[n, L, F]`; `X.select(index)` stays lazy.

    Raises:
        ModelError: rows of the wrong type or shape, or ends that reach outside the rows.
    """

    dtype = np.dtype(np.float32)
    ndim = 3

    def __init__(self, rows: FloatArray, ends: IntArray, seq_len: int) -> None:
        if rows.ndim != 2 or rows.dtype != np.float32 or not rows.flags.c_contiguous:
            raise ModelError(f"base rows: expected C-contiguous float32 [R, F], got {rows.dtype} {rows.shape}")
        if len(ends) and (ends.min() < seq_len - 1 or ends.max() >= len(rows)):
            raise ModelError(f"window ends: expected {seq_len - 1} … {len(rows) - 1}, got {ends.min()} … {ends.max()}")
        self.rows = np.asarray(rows)  # slicing a memmap as such costs a microsecond more
        self.ends = np.asarray(ends, np.int64)
        self.seq_len = seq_len

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.ends), self.seq_len, self.rows.shape[1]

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, key: int | np.integer[Any]) -> FloatArray: ...
    @overload
    def __getitem__(self, key: slice | npt.ArrayLike) -> FloatArray: ...
    def __getitem__(self, key: Any) -> FloatArray:
        if isinstance(key, int | np.integer):
            end = self.ends[key]
            return self.rows[end - self.seq_len + 1 : end + 1]
        return self.gather(self.ends[key])

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self.gather(self.ends).astype(dtype or self.dtype, copy=False)

    def select(self, index: slice | npt.ArrayLike) -> Windows:
        """The windows at `index` (slice, positions or mask), still lazy."""
        return Windows(self.rows, self.ends[index], self.seq_len)  # type: ignore[index]

    def thinned(self, stride: int, offset: int = 0) -> IntArray:
        """The positions of every `stride`-th window from the `offset`-th on, counted on the grid of the windows' ends:
        across a gap too, so that lagged columns of thinned windows are evenly spaced.

        Raises:
            ModelError: no window is there.
        """
        step = int(np.gcd.reduce(np.diff(self.ends))) or 1
        kept: IntArray = np.flatnonzero((self.ends - self.ends[:1]) // step % stride == offset)
        if not len(kept):
            raise ModelError(f"train_stride {stride} keeps none of {len(self)} windows; lower it")
        return kept

    def last(self, bars: int | None) -> Windows:
        """The same windows without all but their last `bars` bars, still lazy; None keeps them whole.

        Raises:
            ModelError: they are shorter.
        """
        if bars is not None and bars > self.seq_len:
            raise ModelError(f"lookback {bars} is longer than a window of seq_len {self.seq_len}; shorten it")
        return Windows(self.rows, self.ends, bars or self.seq_len)

    def gather(self, ends: IntArray, out: FloatArray | None = None) -> FloatArray:
        """Copy the windows that end at rows `ends` into `[n, L, F]`: new memory, or the first n windows of `out`.

        Raises:
            ModelError: an end at which there is no whole window.
        """
        length, width = self.seq_len, self.rows.shape[1]
        starts = np.asarray(ends, np.int64) - (length - 1)
        if len(starts) and (starts.min() < 0 or starts.max() > len(self.rows) - length):
            raise ModelError(f"window ends: expected {length - 1} … {len(self.rows) - 1}")
        if out is not None:
            for window, start in zip(out, starts.tolist(), strict=False):
                window[...] = self.rows[start : start + length]
            return out[: len(starts)]
        if not len(starts):
            return np.empty((0, length, width), np.float32)
        item = self.rows.itemsize
        shape = (len(self.rows) - length + 1, length * width)
        sliding = as_strided(self.rows, shape, (width * item, item), writeable=False)  # [R-L+1, L*F]
        return sliding[starts].reshape(-1, length, width)  # [n, L*F] -> [n, L, F]

    def lag(self, lag: int) -> FloatArray:
        """The features `lag` bars before each window's last bar, `[N, F]`."""
        return self.rows[self.ends - lag]


def as_windows(X: Windows | npt.ArrayLike) -> Windows:
    """Windows as they are; a plain `[N, L, F]` array as base rows that no two windows share.

    Raises:
        ModelError: X has not three dimensions.
    """
    if isinstance(X, Windows):
        return X
    array = np.ascontiguousarray(X, dtype=np.float32)
    if array.ndim != 3:
        raise ModelError(f"X: expected windows [N, L, F], got an array of shape {array.shape}")
    count, length, width = array.shape
    ends = np.arange(count, dtype=np.int64) * length + length - 1
    return Windows(array.reshape(count * length, width), ends, length)  # [N, L, F] -> [N*L, F]
