"""Windows over base rows: `[N, L, F]` that is never stored, only looked at.

Base rows `[R, F]` lie once in a memory map; a window is named by the row of its last bar. Window `i` is
rows `ends[i]-L+1 … ends[i]`: bar t is included, since its features are known at its close, and the label
of t describes what follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, overload

import numpy as np
import numpy.typing as npt
import pandas as pd
from numpy.lib.stride_tricks import as_strided
from pydantic import AfterValidator, Field

from barcast.config import Section
from barcast.errors import DataError, ModelError
from barcast.files import read_json
from barcast.paths import SPLITS

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


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
    """The row of the last bar of every window that crosses no symbol and no gap.

    Args:
        symbols: `[R]` symbol codes; rows of one symbol lie together, in time order.
        times: `[R]` nanoseconds.
        seq_len: bars a window.
        max_gap_ns: the longest allowed time between two neighbouring rows of a window.

    Returns:
        `[N]` int64 row numbers, ascending.
    """
    rows = len(times)
    if rows < seq_len:
        return np.empty(0, np.int64)
    broken = (symbols[1:] != symbols[:-1]) | (np.diff(times) > max_gap_ns)
    breaks_until = np.concatenate([[0], np.cumsum(broken)])  # [R], breaks between row 0 and row r
    ends = np.arange(seq_len - 1, rows, dtype=np.int64)
    unbroken: IntArray = ends[breaks_until[ends] == breaks_until[ends - seq_len + 1]]
    return unbroken


class Windows:
    """A lazy `[N, L, F]` float32 array: base rows, and the row at which each window ends.

    Indexing copies no more than what is asked for: `X[i]` is a view `[L, F]`, `X[a:b]` and `X[index]`
    gather `[n, L, F]`; `X.select(index)` stays lazy.

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
        """Copy the windows that end at rows `ends` into `[n, L, F]`.

        Without `out` into new memory, by indexing a view in which every window is one long row. With `out`,
        `[≥ n, L, F]`, into its first n windows by compiled code on all of numba's threads: the quickest
        way, for those who gather often enough to pay a second of compiling once.

        Raises:
            ModelError: an end at which no whole window lies.
        """
        length, width = self.seq_len, self.rows.shape[1]
        starts = np.asarray(ends, np.int64) - (length - 1)
        if len(starts) and (starts.min() < 0 or starts.max() > len(self.rows) - length):
            raise ModelError(f"window ends: expected {length - 1} … {len(self.rows) - 1}")
        if out is not None:
            from barcast.data._gather import copy_runs  # numba is slow to import

            whole = out[: len(starts)]
            copy_runs(self.rows.reshape(-1), starts * width, whole.reshape(len(starts), length * width))
            return whole
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


LABELS = np.dtype([("known", "?"), ("label", "i1"), ("sample_weight", "<f4"), ("reach", "<i4")])


def pack_labels(label: pd.Series, sample_weight: pd.Series, bars_to_hit: pd.Series) -> npt.NDArray[np.void]:
    """One horizon's labels as `[R]` records that lie in a file as they lie in memory.

    Args:
        label: `[R]` in {−1, 0, 1}, missing where the outcome is not known.
        sample_weight: `[R]`, any value where the outcome is not known.
        bars_to_hit: `[R]` bars until the outcome is known, any value where it is not; called `reach` from here on.
    """
    known = label.notna()
    packed = np.zeros(len(label), LABELS)
    packed["known"] = known
    packed["label"] = label.fillna(0)
    packed["sample_weight"] = sample_weight.where(known, 0.0)
    packed["reach"] = bars_to_hit.where(known, 0).fillna(0)
    return packed


CLIPPED = np.dtype([("row", "<i4"), ("column", "<i2"), ("value", "<f4")])


@dataclass(frozen=True)
class Split:
    """The labelled windows of one split at one horizon."""

    name: str
    X: Windows  # [N, L, F]
    y: npt.NDArray[np.int64]  # [N] in {-1, 0, 1}
    weight: FloatArray  # [N], mean 1 within each class
    reach: npt.NDArray[np.int32]  # [N] bars after the window's last one until its outcome is known
    index_file: Path

    @cached_property
    def meta(self) -> pd.DataFrame:
        """`[N]`: datetime, symbol, close and the base row of each window's last bar; read when asked for."""
        index = pd.read_parquet(self.index_file)
        return index.iloc[self.X.ends].reset_index(drop=True).assign(row=self.X.ends)

    def batches(
        self, size: int, shuffle: bool = False, seed: int = 0
    ) -> Iterator[tuple[FloatArray, npt.NDArray[np.int64], FloatArray]]:
        """Yield `(X [B, L, F], y [B], weight [B])`; every window once, the last batch may be short.

        X is one buffer that the next batch overwrites: copy what is kept.
        """
        order = np.random.default_rng(seed).permutation(len(self.X)) if shuffle else np.arange(len(self.X))
        buffer = np.empty((min(size, len(order)), *self.X.shape[1:]), np.float32)
        for start in range(0, len(order), size):
            index = order[start : start + size]
            yield self.X.gather(self.X.ends[index], buffer), self.y[index], self.weight[index]


class DatasetConfig(Section):
    """Where the windows lie, and which horizon's labels go with them."""

    path: str
    horizon: Annotated[int, Field(ge=1)]


class TimeSeriesDataset:
    """One horizon's view of the window files; opens a split only when asked for it.

    Args:
        config: where the files lie, and the horizon.
        splits: the splits that may be opened.

    Raises:
        DataError: the files are missing, hold no labels for the horizon, or are of a split that may not be opened.
    """

    def __init__(self, config: DatasetConfig, splits: Sequence[str] = SPLITS) -> None:
        self.config = config
        self.path = Path(config.path)
        self.splits = tuple(splits)
        self._opened: dict[str, Split] = {}

    def only(self, *splits: str) -> TimeSeriesDataset:
        """The same files with no way to any split but these."""
        return TimeSeriesDataset(self.config, [name for name in self.splits if name in splits])

    def split(self, name: str) -> Split:
        """The split's labelled windows, memory-mapped."""
        if name not in self.splits:
            raise DataError(f"split '{name}': this dataset may open {', '.join(self.splits)} alone")
        if name not in self._opened:
            self._opened[name] = self._open(name)
        return self._opened[name]

    def get_split(self, name: str) -> tuple[Windows, npt.NDArray[np.int64], pd.DataFrame]:
        """`(X, y, meta)` of a split: lazy `[N, L, F]`, `[N]`, and a frame of N rows."""
        split = self.split(name)
        return split.X, split.y, split.meta

    def feature_columns(self, split: str = "train") -> list[str]:
        """The names of the F features, in the order of X's last axis."""
        return list(self._read(split, "columns.json")["features"])

    def clipped(self) -> npt.NDArray[np.void]:
        """The scaled values of train that the scaler's clip cut off, as `CLIPPED` records before the cut.

        None are known of splits that were scaled elsewhere.
        """
        records: npt.NDArray[np.void] = np.load(self._file("train/clipped.npy"))
        return records

    def _read(self, split: str, name: str) -> dict[str, Any]:
        return read_json(self._file(f"{split}/{name}"))

    def _file(self, name: str) -> Path:
        path = self.path / name
        if not path.is_file():
            raise DataError(f"{path}: no such window file; run `dvc repro window` first")
        return path

    def _open(self, name: str) -> Split:
        horizon = self.config.horizon
        layout = self._read(name, "columns.json")
        rows = np.load(self._file(f"{name}/rows.npy"), mmap_mode="r")
        ends = np.load(self._file(f"{name}/ends.npy"))
        file = self._file(f"labels/{name}_h{horizon}.npy")
        labels = np.load(file)[ends]
        ends, labels = ends[labels["known"]], labels[labels["known"]]
        if len(ends) == 0:
            raise DataError(f"{file}: no window of {name} has a known label")
        y = labels["label"].astype(np.int64)
        return Split(
            name=name,
            X=Windows(rows, ends, int(layout["seq_len"])),
            y=y,
            weight=class_neutral(labels["sample_weight"].astype(np.float64), y),
            reach=np.ascontiguousarray(labels["reach"]),
            index_file=self._file(f"{name}/index.parquet"),
        )


def class_neutral(weight: npt.NDArray[np.float64], y: npt.NDArray[np.int64]) -> FloatArray:
    """Scale weights `[N]` to mean 1 within each class of `y [N]`.

    Labels that end at the time barrier overlap more, and so weigh less. Left so, training would see other
    class frequencies than those on which log-loss is measured, and every probability would be off by it.
    A class whose weights are all 0 keeps them.
    """
    scaled = np.array(weight, np.float64)
    for label in np.unique(y):
        mean = weight[y == label].mean()
        if mean > 0:
            scaled[y == label] /= mean
    return scaled.astype(np.float32)
