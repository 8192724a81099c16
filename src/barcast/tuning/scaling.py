"""A fold's own scaler, made from rows that a scaler of all of train has scaled already.

Scaling is affine but for its clip, and so is its inverse. Let z = (x − c) / s be a scaled value before the
clip. A scaler fitted on some of the x has center c' = c + s·m(z) and scale s' = s·d(z), where m and d are the center
and scale of the same z: median and quartile range, or mean and deviation, follow an affine map. Hence

    (x − c') / s' = (z − m(z)) / d(z),

and neither c nor s need be known. What the clip cut off is stored with the windows (`clipped.npy`), so z is known
of every value, and the result equals a scaler refitted on the raw features up to the rounding of z to
float32. Of splits that were scaled elsewhere nothing more than their values is known; they are taken as z.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from numpy.lib.format import open_memmap
from pydantic import Field

from barcast.config import Section
from barcast.data.splits import center_and_scale
from barcast.data.windows import FloatArray, IntArray, TimeSeriesDataset
from barcast.files import atomic_file
from barcast.tuning.folds import Fold

_COLUMNS_AT_ONCE = 16
_ROWS_AT_ONCE = 65_536

Array = npt.NDArray[np.float64]


class FoldScaler(Section):
    """How the splits were scaled; `clip` is null where they were scaled elsewhere and nothing is cut off."""

    kind: Literal["robust", "standard"]
    clip: Annotated[float, Field(gt=0)] | None


def covered_rows(ends: IntArray, seq_len: int, rows: int) -> npt.NDArray[np.bool_]:
    """Which of the base rows `[R]` lie in one of the windows that end at `ends`."""
    change = np.zeros(rows + 1, np.int64)
    np.add.at(change, ends - seq_len + 1, 1)
    np.add.at(change, ends + 1, -1)
    covered: npt.NDArray[np.bool_] = np.cumsum(change[:-1]) > 0
    return covered


def write_fold(folder: Path, dataset: TimeSeriesDataset, fold: Fold, scaler: FoldScaler) -> Path:
    """Write the rows that a fold's windows need, scaled by a scaler that has seen its training windows alone.

    Returns:
        The file, `fold_{number}.npy`, for `open_fold`.
    """
    X, target = dataset.split("train").X, folder / f"fold_{fold.number}.npy"
    fitted = covered_rows(X.ends[fold.train], X.seq_len, len(X.rows))
    written = fitted | covered_rows(X.ends[fold.val], X.seq_len, len(X.rows))
    write_scaled(target, X.rows, dataset.clipped(), fitted, written, scaler)
    return target


def write_scaled(
    target: Path,
    rows: FloatArray,
    clipped: npt.NDArray[np.void],
    fitted: npt.NDArray[np.bool_],
    written: npt.NDArray[np.bool_],
    scaler: FoldScaler,
) -> None:
    """Write base rows `[R, F]` as a scaler fitted on some of them gives them.

    Args:
        target: an `.npy` file of R rows; those not in `written` are a hole that takes no room on the disk.
        rows: `[R, F]` as all of train scaled them.
        clipped: `CLIPPED` records of what the clip cut off in `rows`.
        fitted: `[R]` the rows to fit on.
        written: `[R]` the rows to write.
        scaler: kind and clip.
    """
    center, scale = _fit(rows, clipped, np.flatnonzero(fitted), scaler.kind)
    limit = np.inf if scaler.clip is None else scaler.clip
    clipped = clipped[np.argsort(clipped["row"], kind="stable")]
    with atomic_file(target) as temporary:
        scaled = open_memmap(temporary, mode="w+", dtype=np.float32, shape=rows.shape)
        for part in _stretches(written):
            block = rows[part].astype(np.float64)
            cut = clipped[slice(*np.searchsorted(clipped["row"], [part.start, part.stop]))]
            block[cut["row"] - part.start, cut["column"]] = cut["value"]
            scaled[part] = np.clip((block - center) / scale, -limit, limit)
        scaled.flush()


def _fit(rows: FloatArray, clipped: npt.NDArray[np.void], chosen: IntArray, kind: str) -> tuple[Array, Array]:
    """Center and scale of each column over the chosen rows, `[F]` each."""
    position = np.full(len(rows), -1, np.int64)
    position[chosen] = np.arange(len(chosen))
    cut = clipped[position[clipped["row"]] >= 0]
    width = rows.shape[1]
    fitted = []
    for first in range(0, width, _COLUMNS_AT_ONCE):
        block = rows[chosen, first : first + _COLUMNS_AT_ONCE].astype(np.float64)  # [n, ≤ 16]
        here = cut[(cut["column"] >= first) & (cut["column"] < first + _COLUMNS_AT_ONCE)]
        block[position[here["row"]], here["column"] - first] = here["value"]
        fitted += [center_and_scale(column, kind) for column in block.T]
    center, scale = np.array(fitted).T
    return center, scale


def _stretches(written: npt.NDArray[np.bool_]) -> Iterator[slice]:
    """The runs of True, in slices of at most `_ROWS_AT_ONCE`."""
    edges = np.flatnonzero(np.diff(written.astype(np.int8), prepend=0, append=0))
    for start, stop in edges.reshape(-1, 2).tolist():
        for first in range(start, stop, _ROWS_AT_ONCE):
            yield slice(first, min(first + _ROWS_AT_ONCE, stop))
