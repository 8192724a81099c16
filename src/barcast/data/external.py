"""Splits made elsewhere: `{train,val,test}_scaled.parquet`, checked and otherwise left as they are.

Columns: `datetime` (UTC), `symbol`, raw `open, high, low, close, volume`, features, and for each horizon h
`label_h{h}` in {-1, 0, 1}, `bars_to_hit_h{h}`, `mae_h{h}`, `mfe_h{h}`, `quality_h{h}`, `sample_weight_h{h}`;
`touch_type_h{h}` may be there. An unknown outcome is null.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from barcast.data.bars import KEYS, OHLCV
from barcast.data.labels import label_columns
from barcast.data.splits import feature_columns
from barcast.data.tables import split_file, symbol_slices
from barcast.errors import DataError, LeakageError
from barcast.paths import SPLITS

Mask = npt.NDArray[np.bool_]
_MOST_BARS = np.iinfo(np.int32).max
_LABEL = re.compile(r"label_h(\d+)")


def load_splits(
    folder: Path, symbols: Sequence[str], horizons: Sequence[int], *, prepared: bool = False
) -> dict[str, pd.DataFrame]:
    """Read and check the three files of `folder`.

    Args:
        folder: where `train_scaled.parquet`, `val_scaled.parquet` and `test_scaled.parquet` lie.
        symbols: the symbols to keep; all must be in every file.
        horizons: the horizons whose label columns must be there; others are let through.
        prepared: the stage `prepare` writes the folder, so it is what to run when a file is missing.

    Returns:
        The splits, sorted by symbol and time. `datetime` is UTC in ns, labels are Int8 and bars to the hit Int32;
        every other column keeps the type it has in the file.

    Raises:
        DataError: naming file, column and row of the first value that breaks the schema.
        LeakageError: a split starts before the split before it has ended, of the same symbol or of another.
    """
    tables = {name: _open(split_file(folder, name), prepared) for name in SPLITS}
    _check_columns(folder, tables, horizons)
    splits = {}
    for name in SPLITS:
        file = split_file(folder, name)
        frame = _to_frame(tables.pop(name), file, symbols)
        _check_values(frame, file, horizons)
        splits[name] = _normalised(frame, horizons)
    check_order(splits, str(folder))
    return splits


def check_order(splits: Mapping[str, pd.DataFrame], where: str) -> None:
    """Train must end before val starts, and val before test, over all symbols: they move together.

    Raises:
        LeakageError: naming symbols, splits and the two times.
    """
    ranges = {name: _ranges(split) for name, split in splits.items()}
    for earlier, later in pairwise(SPLITS):
        for symbol, (first, _) in ranges[later].items():
            last = ranges[earlier][symbol][1]
            if first <= last:
                raise LeakageError(
                    f"{where}: {symbol}: {later} starts {first.isoformat()}, but {earlier} ends {last.isoformat()}; "
                    "split the rows by time: train, then val, then test"
                )
    for earlier, later in pairwise(SPLITS):
        last, ending = max((span[1], symbol) for symbol, span in ranges[earlier].items())
        first, starting = min((span[0], symbol) for symbol, span in ranges[later].items())
        if first <= last:
            raise LeakageError(
                f"{where}: {later} of {starting} starts {first.isoformat()}, but {earlier} of {ending} ends "
                f"{last.isoformat()}; symbols move together: split all of them at the same times"
            )


def _ranges(split: pd.DataFrame) -> dict[str, tuple[pd.Timestamp, pd.Timestamp]]:
    times = split["datetime"]
    slices = symbol_slices(split["symbol"]).items()
    return {symbol: (times.iloc[rows.start], times.iloc[rows.stop - 1]) for symbol, rows in slices}


def _open(file: Path, prepared: bool) -> pa.Table:
    if not file.is_file():
        names = ", ".join(split_file(Path(), name).name for name in SPLITS)
        needed = f"data.source: splits needs {names} in the folder data.path"
        raise DataError(f"{file}: no such file; {'run `dvc repro prepare`' if prepared else needed}")
    try:
        table = pq.ParquetFile(file).read()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: can't be read as Parquet: {str(error).splitlines()[0]}; write it anew") from None
    if not table.num_rows:
        raise DataError(f"{file}: no rows; every split needs some")
    return table


def _check_columns(folder: Path, tables: Mapping[str, pa.Table], horizons: Sequence[int]) -> None:
    reference = list(tables["train"].column_names)
    for name in SPLITS:
        file, columns = split_file(folder, name), tables[name].column_names
        repeated = [column for column in columns if columns.count(column) > 1]
        if repeated:
            raise DataError(f"{file}: column '{repeated[0]}' stands {columns.count(repeated[0])} times; keep one")
        odd = sorted(set(columns) ^ set(reference))
        if odd:
            lacking, having = (name, "train") if odd[0] in reference else ("train", name)
            raise DataError(
                f"{split_file(folder, lacking)}: column '{odd[0]}' is missing, {having} has it; "
                "write the same columns to all three files"
            )
    _require(split_file(folder, "train"), reference, horizons)


def _require(file: Path, columns: list[str], horizons: Sequence[int]) -> None:
    for column in (*KEYS, *OHLCV):
        if column not in columns:
            raise DataError(f"{file}: column '{column}' is missing; expected {', '.join((*KEYS, *OHLCV))}")
    there = sorted(int(found[1]) for column in columns if (found := _LABEL.fullmatch(column)))
    for horizon in horizons:
        if horizon not in there:
            names = ", ".join(map(str, there)) or "none"
            raise DataError(
                f"{file}: no label_h{horizon}; the horizons there are: {names}; set horizons in params.yaml"
            )
        for column in label_columns(horizon):
            if column not in columns and not column.startswith("touch_type_"):
                raise DataError(f"{file}: column '{column}' is missing, label_h{horizon} is there; add it")
    if not feature_columns(columns):
        raise DataError(f"{file}: no feature; all columns are keys, raw prices or labels (_h<number>)")


def _to_frame(table: pa.Table, file: Path, symbols: Sequence[str]) -> pd.DataFrame:
    """The rows of `symbols`, sorted; datetime in UTC ns, symbol as text."""
    frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
    for key in KEYS:
        if frame[key].isna().any():
            raise DataError(f"{file}: row {int(frame[key].isna().argmax())}: {key} is missing; drop or mend the row")
    frame["datetime"] = _to_utc(frame["datetime"], file)
    frame["symbol"] = frame["symbol"].astype("str")
    there = sorted(frame["symbol"].unique())
    missing = [symbol for symbol in symbols if symbol not in there]
    if missing:
        raise DataError(
            f"{file}: no rows of symbol '{missing[0]}'; it holds: {', '.join(there[:20])}; set symbols in params.yaml"
        )
    if len(symbols) < len(there):
        frame = frame[frame["symbol"].isin(list(symbols))]
    order = frame[["symbol", "datetime"]]
    if not pd.MultiIndex.from_frame(order).is_monotonic_increasing:
        frame = frame.sort_values(["symbol", "datetime"], kind="stable")
    frame = frame.reset_index(drop=True)
    _refuse(frame, file, "datetime", frame.duplicated(["symbol", "datetime"]).to_numpy(), "a time once a symbol")
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
    for column in OHLCV:
        _refuse(frame, file, column, ~np.isfinite(_numbers(frame, file, column)), "a finite number")
    for column in OHLCV[:4]:
        _refuse(frame, file, column, _numbers(frame, file, column) <= 0, "a raw price above 0")
    for column in feature_columns(frame.columns):
        _refuse(frame, file, column, ~_fits(_numbers(frame, file, column)), "a finite number, in float32 as well")
    for horizon in horizons:
        _check_labels(frame, file, horizon)


def _check_labels(frame: pd.DataFrame, file: Path, horizon: int) -> None:
    label = _numbers(frame, file, f"label_h{horizon}")
    known = ~np.isnan(label)
    _refuse(frame, file, f"label_h{horizon}", known & ~np.isin(label, (-1, 0, 1)), "-1, 0, 1 or null")
    if not known.any():
        raise DataError(
            f"{file}: label_h{horizon} is null in all {len(frame)} rows; give more rows, or drop {horizon} from "
            "horizons in params.yaml"
        )
    hits, expected = _numbers(frame, file, f"bars_to_hit_h{horizon}"), f"a whole number from 0 to {_MOST_BARS}"
    whole = (hits >= 0) & (hits <= _MOST_BARS) & (hits == np.floor(hits))
    _refuse(frame, file, f"bars_to_hit_h{horizon}", (known | ~np.isnan(hits)) & ~whole, expected)
    weight = _numbers(frame, file, f"sample_weight_h{horizon}")
    bad = known & ~(_fits(weight) & (weight >= 0))
    _refuse(frame, file, f"sample_weight_h{horizon}", bad, "a finite weight from 0 on a labelled row")
    for name in ("mae", "mfe", "quality"):
        infinite = np.isinf(_numbers(frame, file, f"{name}_h{horizon}"))
        _refuse(frame, file, f"{name}_h{horizon}", infinite, "a finite number or null")


def _fits(values: npt.NDArray[np.float64]) -> Mask:
    """Whether each is finite in float32, which windows and weights are held in."""
    with np.errstate(over="ignore"):
        return np.isfinite(values.astype(np.float32))


def _numbers(frame: pd.DataFrame, file: Path, column: str) -> npt.NDArray[np.float64]:
    values = frame[column]
    if not pd.api.types.is_numeric_dtype(values.dtype):
        raise DataError(f"{file}: column '{column}' has type {values.dtype}; convert it to a number or drop it")
    return values.to_numpy(np.float64, na_value=np.nan)


def _refuse(frame: pd.DataFrame, file: Path, column: str, bad: Mask, expected: str) -> None:
    if bad.any():
        row = frame.iloc[int(bad.argmax())]
        value = row[column].isoformat() if column == "datetime" else row[column]
        raise DataError(
            f"{file}: {row['symbol']} {row['datetime'].isoformat()}: {column} = {value}: "
            f"expected {expected}; mend or drop the row"
        )


def _normalised(frame: pd.DataFrame, horizons: Sequence[int]) -> pd.DataFrame:
    types = {f"label_h{h}": "Int8" for h in horizons} | {f"bars_to_hit_h{h}": "Int32" for h in horizons}
    return frame.astype(types)
