"""A fold's own scaler, fitted on rows that a scaler of the whole train split has already scaled.

Scaling is affine except for its clip. Let z = (x − c) / s be a scaled value before the clip. A scaler fitted on
some of the x has center c' = c + s·m(z) and scale s' = s·d(z), where m and d are the center and scale of the same
z: median and quartile range, or mean and deviation, follow an affine map. Hence

    (x − c') / s' = (z − m(z)) / d(z),

without knowing c or s. The windows store the values that the clip changed (`clipped.npy`), so every z is known, and the
result equals a scaler refitted on the raw features up to the rounding of z to float32. Splits that were scaled
elsewhere store no such values; theirs are taken as z.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from numpy.lib.format import open_memmap
from pydantic import Field

from barcast.data.dataset import TimeSeriesDataset
from barcast.data.scaler import center_and_scale
from barcast.data.windows import FloatArray, IntArray
from barcast.section import Section
from barcast.tuning.folds import Fold

_COLUMNS_AT_ONCE = 16
_ROWS_AT_ONCE = 65_536

Array = npt.NDArray[np.float64]


class FoldScaler(Section):
    """How the splits were scaled; `clip` is null where they were scaled elsewhere: nothing is clipped."""

    kind: Literal["robust", "standard"]
    clip: Annotated[float, Field(gt=0)] | None


def covered_rows(ends: IntArray, seq_len: int, rows: int) -> npt.NDArray[np.bool_]:
    """Which of the base rows `[R]` are in a window that ends at `ends`."""
    change = np.zeros(rows + 1, np.int64)
    np.add.at(change, ends - seq_len + 1, 1)
    np.add.at(change, ends + 1, -1)
    covered: npt.NDArray[np.bool_] = np.cumsum(change[:-1]) > 0
    return covered


def write_fold(folder: Path, dataset: TimeSeriesDataset, fold: Fold, scaler: FoldScaler) -> Path:
    """Write the rows of a fold's windows, scaled by a scaler fitted on its training windows only; returns the file."""
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
    """Write base rows `[R, F]`, scaled by a scaler fitted on some of them.

    Args:
        target: an `.npy` file of R rows; those not in `written` take no disk space and read as 0.
        rows: `[R, F]` as the scaler of the whole train split scaled them.
        clipped: `CLIPPED` records of the values that the clip changed in `rows`.
        fitted, written: `[R]` the rows to fit on, and those to write.
    """
    center, scale = _fit(rows, clipped, np.flatnonzero(fitted), scaler.kind)
    limit = np.inf if scaler.clip is None else scaler.clip
    clipped = clipped[np.argsort(clipped["row"], kind="stable")]
    scaled = open_memmap(target, mode="w+", dtype=np.float32, shape=rows.shape)
    for part in _runs(written):
        block = rows[part].astype(np.float64)
        unclipped = clipped[slice(*np.searchsorted(clipped["row"], [part.start, part.stop]))]
        block[unclipped["row"] - part.start, unclipped["column"]] = unclipped["value"]
        scaled[part] = np.clip((block - center) / scale, -limit, limit)
    scaled.flush()


def _fit(rows: FloatArray, clipped: npt.NDArray[np.void], chosen: IntArray, kind: str) -> tuple[Array, Array]:
    """Center and scale of each column over the chosen rows, `[F]` each."""
    position = np.full(len(rows), -1, np.int64)
    position[chosen] = np.arange(len(chosen))
    unclipped = clipped[position[clipped["row"]] >= 0]
    fitted = []
    for first in range(0, rows.shape[1], _COLUMNS_AT_ONCE):
        block = rows[chosen, first : first + _COLUMNS_AT_ONCE].astype(np.float64)  # [n, ≤ 16]
        here = unclipped[(unclipped["column"] >= first) & (unclipped["column"] < first + _COLUMNS_AT_ONCE)]
        block[position[here["row"]], here["column"] - first] = here["value"]
        fitted += [center_and_scale(column, kind) for column in block.T]
    center, scale = np.array(fitted).T
    return center, scale


def _runs(written: npt.NDArray[np.bool_]) -> Iterator[slice]:
    """The runs of True, in slices of at most `_ROWS_AT_ONCE`."""
    edges = np.flatnonzero(np.diff(written.astype(np.int8), prepend=0, append=0))
    for start, stop in edges.reshape(-1, 2).tolist():
        for first in range(start, stop, _ROWS_AT_ONCE):
            yield slice(first, min(first + _ROWS_AT_ONCE, stop))
