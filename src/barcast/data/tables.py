"""Tables of bars and splits: sorted by symbol and then time, one Parquet file a split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from barcast.errors import DataError

IntArray = npt.NDArray[np.int64]
ROW_GROUP = 131_072  # rows; small enough to stream, large enough to compress


def split_file(folder: Path, name: str) -> Path:
    """Where the split `name` lies in a folder of splits."""
    return folder / f"{name}_scaled.parquet"


def clipped_file(folder: Path) -> Path:
    """Where a folder of splits has what the scaler's clip cut off in train."""
    return folder / "train_clipped.parquet"


def nanoseconds(datetimes: pd.Series) -> IntArray:
    """UTC times as int64 nanoseconds `[R]`."""
    return datetimes.to_numpy("datetime64[ns]").astype(np.int64)


def isoformat(time_ns: int) -> str:
    """`2019-01-01T00:30:00+00:00`."""
    return pd.Timestamp(int(time_ns), unit="ns", tz="UTC").isoformat()


def symbol_slices(symbols: pd.Series) -> dict[str, slice]:
    """The rows of each symbol, for a table sorted by symbol.

    Raises:
        DataError: a symbol's rows do not lie together.
    """
    codes, names = pd.factorize(symbols)
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    if len(starts) != len(names):
        raise DataError("rows: expected a table sorted by symbol, the rows of a symbol do not lie together")
    stops = [*starts[1:].tolist(), len(codes)]
    return {str(names[codes[start]]): slice(start, stop) for start, stop in zip(starts.tolist(), stops, strict=True)}


def write_split(split: pd.DataFrame, path: Path) -> None:
    """Write one split as zstd Parquet, the same bytes for the same table."""
    table = pa.Table.from_pandas(split, preserve_index=False)
    text = [name for name in split.columns if pd.api.types.is_string_dtype(split[name].dtype)]
    pq.write_table(table, path, compression="zstd", use_dictionary=text, row_group_size=ROW_GROUP)
