"""The form of tables of bars and splits: their columns, and rows sorted by symbol and then time."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from barcast.errors import DataError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

SPLITS = ("train", "val", "test")
KEYS = ("datetime", "symbol")
OHLCV = ("open", "high", "low", "close", "volume")


def label_columns(horizon: int) -> list[str]:
    """The seven columns of one horizon. `label_bars` makes the first six, `add_weights` the last."""
    kinds = ("label", "bars_to_hit", "mae", "mfe", "touch_type", "quality", "sample_weight")
    return [f"{kind}_h{horizon}" for kind in kinds]


def is_label_column(name: str) -> bool:
    """Whether a column looks into the future: its name ends in `_h<number>`."""
    return re.search(r"_h\d+$", name) is not None


def feature_columns(columns: Iterable[str]) -> list[str]:
    """The columns a model may see: no keys, no raw prices or volume, no label columns."""
    never = {*KEYS, *OHLCV}
    return [name for name in columns if name.lower() not in never and not is_label_column(name.lower())]


def nanoseconds(datetimes: pd.Series) -> IntArray:
    """UTC times as int64 nanoseconds `[R]`."""
    return datetimes.to_numpy("datetime64[ns]").astype(np.int64)


def isoformat(time_ns: int) -> str:
    """`2019-01-01T00:30:00+00:00`."""
    return pd.Timestamp(int(time_ns), unit="ns", tz="UTC").isoformat()


def symbol_slices(symbols: pd.Series) -> dict[str, slice]:
    """The rows of each symbol, for a table sorted by symbol.

    Raises:
        DataError: the rows of a symbol are not consecutive.
    """
    codes, names = pd.factorize(symbols)
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    if len(starts) != len(names):
        raise DataError("rows: the rows of a symbol are not consecutive; sort the table by symbol, then time")
    stops = [*starts[1:].tolist(), len(codes)]
    return {str(names[codes[start]]): slice(start, stop) for start, stop in zip(starts.tolist(), stops, strict=True)}


def by_symbol(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Each symbol's rows, for a table sorted by symbol."""
    return {symbol: frame.iloc[rows] for symbol, rows in symbol_slices(frame["symbol"]).items()}


def row_name(frame: pd.DataFrame, row: int) -> str:
    """`ETH 2019-01-01T00:30:00+00:00`: how messages name a row."""
    return f"{frame['symbol'].iloc[row]} {frame['datetime'].iloc[row].isoformat()}"


def refuse_rows(
    bad: BoolArray, frame: pd.DataFrame, file: Path, column: str, expected: str, remedy: str = "fix or drop the row"
) -> None:
    """Refuse a file of splits with bad rows.

    Raises:
        DataError: naming file, symbol, time, column and value of the first bad row, and the remedy.
    """
    if bad.any():
        row = int(bad.argmax())
        value = frame[column].iloc[row]
        shown = value.isoformat() if column == "datetime" else value
        raise DataError(f"{file}: {row_name(frame, row)}: {column} = {shown}: expected {expected}; {remedy}")
