"""What a label weighs in training: its uniqueness, its quality, or both (López de Prado, AFML, 2018, ch. 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from barcast.data.frames import SPLITS, BoolArray, FloatArray, IntArray, refuse_rows, symbol_slices
from barcast.errors import DataError

Weights = Literal["none", "uniqueness", "quality", "both"]


def sample_weights(label_end_offset: npt.ArrayLike, quality: npt.ArrayLike) -> FloatArray:
    """Average uniqueness of each label (AFML 4.3-4.4) times its quality, not normalised.

    A label of bar t uses the returns of bars t+1 … t+label_end_offset. Its uniqueness is the mean over these bars
    of one over the number of labels that share the bar; bars beyond the last row count too. The offsets [n] are of
    consecutive rows of one symbol, NaN or <NA> where there is no label. Quality [n] and weights [n] are in 0..1; a
    weight is NaN where there is no label.

    Raises:
        DataError: the arrays differ in length, or an offset is not a whole number of at least 1.
    """
    offset, worth = (pd.Series(x).to_numpy(np.float64, na_value=np.nan) for x in (label_end_offset, quality))
    if offset.shape != worth.shape:
        raise DataError(f"sample weights: {offset.size} values of bars_to_hit but {worth.size} of quality")
    known = ~np.isnan(offset)
    wrong = known & ~_is_offset(offset)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(f"sample weights: bars_to_hit in row {row} is {offset[row]}; expected a whole number from 1 up")
    return np.where(known, _average_uniqueness(np.where(known, offset, 0.0).astype(np.int64)) * worth, np.nan)


def _is_offset(values: npt.NDArray[Any]) -> BoolArray:
    valid: BoolArray = (values >= 1.0) & (values == np.floor(values)) & np.isfinite(values)
    return valid


def _average_uniqueness(offset: IntArray) -> FloatArray:
    """Mean of 1 / concurrency over bars t+1 … t+offset[t], [n] -> [n]; 0 where the offset is 0. O(n)."""
    rows = np.flatnonzero(offset)
    first, end = rows + 1, rows + offset[rows] + 1
    bars = len(offset) + offset.max(initial=0) + 1  # no label includes the last of these
    concurrent = np.cumsum(np.bincount(first, minlength=bars) - np.bincount(end, minlength=bars))
    shares = np.divide(1.0, concurrent, out=np.zeros(bars), where=concurrent > 0)
    sums = np.concatenate([[0.0], np.cumsum(shares)])  # sums[s]: over the bars before s
    uniqueness = np.zeros(len(offset))
    uniqueness[rows] = np.minimum((sums[end] - sums[first]) / offset[rows], 1.0)
    return uniqueness


def add_weights(splits: dict[str, pd.DataFrame], horizons: Sequence[int]) -> None:
    """Add `sample_weight_h{h}` (float32): computed inside each split and symbol, mean 1 over train's labelled rows.

    Raises:
        DataError: train has no labelled row of a horizon.
    """
    for horizon in horizons:
        divisor = math.nan
        for name in SPLITS:
            quality = splits[name][f"quality_h{horizon}"].to_numpy(np.float64, na_value=np.nan)
            raw = _by_symbol(splits[name], horizon, quality)
            if name == "train":
                divisor = float(np.mean(raw[~np.isnan(raw)])) if not np.isnan(raw).all() else 0.0
            if divisor == 0.0:
                raise DataError(f"train: no row has a label_h{horizon} of weight above 0; give more bars or shorten it")
            splits[name][f"sample_weight_h{horizon}"] = (raw / divisor).astype(np.float32)


def label_weights(split: pd.DataFrame, horizon: int, kind: Weights) -> pd.Series:
    """What each row's label weighs in training, `[R]`; any value where there is no label."""
    if kind == "both":
        return split[f"sample_weight_h{horizon}"]
    if kind == "quality":
        return split[f"quality_h{horizon}"]
    ones = np.ones(len(split))
    return pd.Series(_by_symbol(split, horizon, ones) if kind == "uniqueness" else ones, split.index)


def _by_symbol(split: pd.DataFrame, horizon: int, quality: FloatArray) -> FloatArray:
    offset = split[f"bars_to_hit_h{horizon}"].to_numpy(np.float64, na_value=np.nan)
    return np.concatenate([sample_weights(offset[at], quality[at]) for at in symbol_slices(split["symbol"]).values()])


def check_weights(split: pd.DataFrame, file: Path, horizon: int, kind: Weights) -> None:
    """Refuse labels that `label.weights` can't weigh; labels made elsewhere may lack what it needs.

    Raises:
        DataError: naming file, symbol, time, column and value of the first such row.
    """
    labelled = split[f"label_h{horizon}"].notna().to_numpy()
    remedy = f"fix or drop the row, or set label.weights to another value than '{kind}'"
    if kind == "uniqueness":
        offset = split[f"bars_to_hit_h{horizon}"].to_numpy(np.float64, na_value=np.nan)
        bad = (labelled | ~np.isnan(offset)) & ~_is_offset(offset)
        refuse_rows(bad, split, file, f"bars_to_hit_h{horizon}", "a whole number from 1 up, or no label", remedy)
    if kind == "quality":
        quality = split[f"quality_h{horizon}"].to_numpy(np.float64, na_value=np.nan)
        bad = labelled & ~(np.isfinite(quality) & (quality >= 0))
        refuse_rows(bad, split, file, f"quality_h{horizon}", "a finite number from 0 up, or no label", remedy)
