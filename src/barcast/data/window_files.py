"""The window files: base rows, window ends and labels, laid out to be memory-mapped.

data/windows/{train,val,test}/rows.npy      [R, F] float32, sorted by symbol and time
                              ends.npy      [N] int64, the row of each window's last bar
                              index.parquet [R] datetime, symbol, close
                              columns.json  names of the F features, seq_len
data/windows/train/clipped.npy              records: row, column, value: what the scaler clips
data/windows/labels/{split}_h{n}.npy        [R] records: known, label, sample_weight, label_end_offset
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from barcast.data.frames import feature_columns, nanoseconds
from barcast.data.label_weights import Weights, label_weights
from barcast.data.window_ends import WindowConfig, window_ends
from barcast.errors import DataError
from barcast.section import Section

Records = npt.NDArray[np.void]

LABELS = np.dtype([("known", "?"), ("label", "i1"), ("sample_weight", "<f4"), ("label_end_offset", "<i4")])
CLIPPED = np.dtype([("row", "<i4"), ("column", "<i2"), ("value", "<f4")])


class WindowStageConfig(Section):
    """`config:` of the spec `window.yaml`."""

    horizons: list[Annotated[int, Field(ge=1)]]
    weights: Weights
    window: WindowConfig


def split_windows(frame: pd.DataFrame, split: str, config: WindowConfig) -> dict[str, Any]:
    """The content of each file in the folder of a split: arrays, a frame and a JSON object, by file name.

    `frame` is the split `[R, C]`, sorted by symbol and time.

    Raises:
        DataError: the split has no whole window.
    """
    features, codes = feature_columns(frame.columns), pd.factorize(frame["symbol"])[0]
    ends = window_ends(codes, nanoseconds(frame["datetime"]), config.seq_len, config.max_gap_ns)
    if len(ends) == 0:
        problem = f"no run of {config.seq_len} bars without a gap above {config.max_gap}"
        raise DataError(f"{split}: {problem}; lower window.seq_len or raise window.max_gap")
    return {
        "rows.npy": np.ascontiguousarray(frame[features].to_numpy(np.float32)),  # [R, F]
        "ends.npy": ends,
        "index.parquet": frame[["datetime", "symbol", "close"]],
        "columns.json": {"features": features, "seq_len": config.seq_len},
    }


def split_labels(frame: pd.DataFrame, horizon: int, weights: Weights) -> Records:
    """One horizon's labels of a split, `[R]` records."""
    weight = label_weights(frame, horizon, weights)
    return pack_labels(frame[f"label_h{horizon}"], weight, frame[f"bars_to_hit_h{horizon}"])


def pack_labels(label: pd.Series, sample_weight: pd.Series, label_end_offset: pd.Series) -> Records:
    """One horizon's labels as `[R]` records, the same bytes in the file as in memory.

    Args:
        label: `[R]` in {−1, 0, 1}, missing where the outcome is unknown. Where it is, the others may have any value.
        sample_weight: `[R]`.
        label_end_offset: `[R]` bars until the outcome is known.
    """
    known = label.notna()
    packed = np.zeros(len(label), LABELS)
    packed["known"], packed["label"] = known, label.fillna(0)
    packed["sample_weight"] = sample_weight.where(known, 0.0)
    packed["label_end_offset"] = label_end_offset.where(known, 0).fillna(0)
    return packed


def pack_clipped_values(clipped_values: pd.DataFrame | None, features: list[str]) -> Records:
    """The values of train that the scaler clips, as records; none are known of splits made elsewhere."""
    packed = np.zeros(0 if clipped_values is None else len(clipped_values), CLIPPED)
    if clipped_values is not None:
        packed["row"], packed["value"] = clipped_values["row"], clipped_values["value"]
        packed["column"] = pd.Index(features).get_indexer(pd.Index(clipped_values["column"]))
    return packed
