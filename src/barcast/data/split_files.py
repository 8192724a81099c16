"""Files of splits, `{train,val,test}_scaled.parquet`: made by `prepare`, or elsewhere and only checked.

Columns: `datetime` (UTC), `symbol`, raw `open, high, low, close, volume`, features, and for each horizon h
`label_h{h}` in {-1, 0, 1}, `bars_to_hit_h{h}`, `mae_h{h}`, `mfe_h{h}`, `quality_h{h}`, `sample_weight_h{h}`;
`touch_type_h{h}` is optional. An unknown outcome is null.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from barcast.data.frames import KEYS, OHLCV, SPLITS, BoolArray, FloatArray, feature_columns, label_columns, refuse_rows
from barcast.errors import DataError, LeakageError

_MOST_BARS = np.iinfo(np.int32).max
_LABEL = re.compile(r"label_h(\d+)")
_ROW_GROUP = 131_072  # rows; small enough to stream, large enough to compress


def split_file(folder: Path, name: str) -> Path:
    """The file of the split `name` in a folder of splits."""
    return folder / f"{name}_scaled.parquet"


def write_split(split: pd.DataFrame, path: Path) -> None:
    """Write one split as zstd Parquet, the same bytes for the same table."""
    table = pa.Table.from_pandas(split, preserve_index=False)
    text = [name for name in split.columns if pd.api.types.is_string_dtype(split[name].dtype)]
    pq.write_table(table, path, compression="zstd", use_dictionary=text, row_group_size=_ROW_GROUP)


def load_splits(
    folder: Path, symbols: Sequence[str], horizons: Sequence[int], *, prepared: bool = False
) -> dict[str, pd.DataFrame]:
    """Read and check the three files of `folder`: the rows of `symbols`, which must all be in every file.

    The label columns of `horizons` must be there; those of other horizons may be. The splits are sorted by symbol and
    time. `datetime` is UTC in ns, labels are Int8 and bars to the hit Int32; every other column keeps its type. If the
    folder is `prepared` by the stage, the error of a missing file says to run it.

    Raises:
        DataError: naming file, column and row of the first value that breaks the schema.
        LeakageError: a split starts before the split before it has ended, of the same symbol or of another.
    """
    tables = {name: _open(split_file(folder, name), prepared) for name in SPLITS}
    _check_columns(folder, tables, horizons)
    types = {f"label_h{h}": "Int8" for h in horizons} | {f"bars_to_hit_h{h}": "Int32" for h in horizons}
    splits = {}
    for name in SPLITS:
        frame = _to_frame(tables.pop(name), split_file(folder, name), symbols)
        _check_values(frame, split_file(folder, name), horizons)
        splits[name] = frame.astype(types)
    _check_order(splits, folder)
    return splits


def _check_order(splits: Mapping[str, pd.DataFrame], folder: Path) -> None:
    """Train must end before val starts, and val before test, over all symbols, since symbols move together."""
    for earlier, later in pairwise(SPLITS):
        last, first = splits[earlier]["datetime"].argmax(), splits[later]["datetime"].argmin()
        before, after = splits[earlier].iloc[last], splits[later].iloc[first]
        if after["datetime"] <= before["datetime"]:
            starts = f"{later} of {after['symbol']} starts {after['datetime'].isoformat()}"
            ends = f"{earlier} of {before['symbol']} ends {before['datetime'].isoformat()}"
            remedy = "split all symbols at the same times: train, then val, then test"
            raise LeakageError(f"{folder}: {starts}, but {ends}; {remedy}")


def _open(file: Path, prepared: bool) -> pa.Table:
    if not file.is_file():
        names = ", ".join(split_file(Path(), name).name for name in SPLITS)
        needed = f"data.source: splits needs {names} in the folder data.path"
        raise DataError(f"{file}: no such file; {'run `dvc repro prepare`' if prepared else needed}")
    try:
        table = pq.ParquetFile(file).read()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: can't be read as Parquet: {str(error).splitlines()[0]}; write it again") from None
    if not table.num_rows:
        raise DataError(f"{file}: no rows; every split needs some")
    return table


def _check_columns(folder: Path, tables: Mapping[str, pa.Table], horizons: Sequence[int]) -> None:
    reference = list(tables["train"].column_names)
    for name in SPLITS:
        file, columns = split_file(folder, name), tables[name].column_names
        repeated = [column for column in columns if columns.count(column) > 1]
        if repeated:
            raise DataError(f"{file}: column '{repeated[0]}' occurs {columns.count(repeated[0])} times; keep one")
        odd = sorted(set(columns) ^ set(reference))
        if odd:
            without, having = (name, "train") if odd[0] in reference else ("train", name)
            problem = f"column '{odd[0]}' is missing, {having} has it"
            raise DataError(f"{split_file(folder, without)}: {problem}; write the same columns to all three files")
    file, columns = split_file(folder, "train"), reference
    for column in (*KEYS, *OHLCV):
        if column not in columns:
            raise DataError(f"{file}: column '{column}' is missing; expected {', '.join((*KEYS, *OHLCV))}")
    labelled = sorted(int(match[1]) for column in columns if (match := _LABEL.fullmatch(column)))
    for horizon in horizons:
        if horizon not in labelled:
            names = ", ".join(map(str, labelled)) or "none"
            raise DataError(f"{file}: no label_h{horizon}; its horizons are: {names}; set horizons in params.yaml")
        for column in label_columns(horizon):
            if column not in columns and not column.startswith("touch_type_"):
                raise DataError(f"{file}: column '{column}' is missing, but label_h{horizon} is there; add it")
    if not feature_columns(columns):
        raise DataError(f"{file}: no feature; all columns are keys, raw prices or labels (_h<number>); add features")


def _to_frame(table: pa.Table, file: Path, symbols: Sequence[str]) -> pd.DataFrame:
    """The rows of `symbols`, sorted; datetime in UTC ns, symbol as text."""
    frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
    for key in KEYS:
        if frame[key].isna().any():
            raise DataError(f"{file}: row {int(frame[key].isna().argmax())}: {key} is missing; fix or drop the row")
    frame["datetime"] = _to_utc(frame["datetime"], file)
    frame["symbol"] = frame["symbol"].astype("str")
    present = sorted(frame["symbol"].unique())
    missing = [symbol for symbol in symbols if symbol not in present]
    if missing:
        has = ", ".join(present[:20])
        raise DataError(f"{file}: no rows of symbol '{missing[0]}'; it has: {has}; set symbols in params.yaml")
    if len(symbols) < len(present):
        frame = frame[frame["symbol"].isin(list(symbols))]
    order = ["symbol", "datetime"]
    if not pd.MultiIndex.from_frame(frame[order]).is_monotonic_increasing:
        frame = frame.sort_values(order, kind="stable")
    frame = frame.reset_index(drop=True)
    refuse_rows(frame.duplicated(order).to_numpy(), frame, file, "datetime", "each time once per symbol")
    return frame


def _to_utc(column: pd.Series[Any], file: Path) -> pd.Series[Any]:
    text = pd.api.types.is_string_dtype(column.dtype)
    if not text and not pd.api.types.is_datetime64_any_dtype(column.dtype):
        raise DataError(f"{file}: datetime has type {column.dtype}; write timestamps or ISO 8601 text")
    times = pd.to_datetime(column, utc=True, errors="coerce", format="ISO8601" if text else None)
    if times.isna().any():
        row = int(times.isna().argmax())
        raise DataError(f"{file}: row {row}: datetime = {column.iloc[row]!r} can't be read; write ISO 8601 text in UTC")
    return times.dt.as_unit("ns")


def _check_values(frame: pd.DataFrame, file: Path, horizons: Sequence[int]) -> None:
    def refuse(column: str, bad: Callable[[FloatArray], BoolArray], expected: str) -> None:
        refuse_rows(bad(_numbers(frame, file, column)), frame, file, column, expected)

    for column in OHLCV:
        refuse(column, lambda values: ~np.isfinite(values), "a finite number")
    for column in OHLCV[:4]:
        refuse(column, lambda values: values <= 0, "a raw price above 0")
    for column in feature_columns(frame.columns):
        refuse(column, lambda values: ~_fits_float32(values), "a finite number, in float32 as well")
    for horizon in horizons:
        label = _numbers(frame, file, f"label_h{horizon}")
        known = ~np.isnan(label)
        refuse_rows(known & ~np.isin(label, (-1, 0, 1)), frame, file, f"label_h{horizon}", "-1, 0, 1 or null")
        if not known.any():
            remedy = f"give more rows, or drop {horizon} from horizons in params.yaml"
            raise DataError(f"{file}: label_h{horizon} is null in all {len(frame)} rows; {remedy}")
        offset = _numbers(frame, file, f"bars_to_hit_h{horizon}")
        whole = (offset >= 0) & (offset <= _MOST_BARS) & (offset == np.floor(offset))
        bad = (known | ~np.isnan(offset)) & ~whole
        refuse_rows(bad, frame, file, f"bars_to_hit_h{horizon}", f"a whole number from 0 to {_MOST_BARS}")
        weight = _numbers(frame, file, f"sample_weight_h{horizon}")
        bad = known & ~(_fits_float32(weight) & (weight >= 0))
        refuse_rows(bad, frame, file, f"sample_weight_h{horizon}", "a finite weight from 0 up on a labelled row")
        for kind in ("mae", "mfe", "quality"):
            refuse(f"{kind}_h{horizon}", np.isinf, "a finite number or null")


def _fits_float32(values: FloatArray) -> BoolArray:
    """Whether each is finite in float32, the type of windows and weights."""
    with np.errstate(over="ignore"):
        return np.isfinite(values.astype(np.float32))


def _numbers(frame: pd.DataFrame, file: Path, column: str) -> FloatArray:
    values = frame[column]
    if not pd.api.types.is_numeric_dtype(values.dtype):
        raise DataError(f"{file}: column '{column}' has type {values.dtype}; convert it to a number or drop it")
    return values.to_numpy(np.float64, na_value=np.nan)
