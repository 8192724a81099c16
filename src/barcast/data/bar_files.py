"""Files of bars, read through Arrow into typed pandas columns; each row keeps its number in the file."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as arrow
import pyarrow.compute as compute
import pyarrow.csv as arrow_csv
import pyarrow.parquet as parquet

from barcast.data.frames import KEYS, OHLCV
from barcast.errors import DataError

SUFFIXES = (".parquet", ".csv")
EMPTY = "no bars; give a file with at least one row"
NAMELESS = "the symbol is missing; give every row its symbol"

# Usual names of another spelling: proposed, never used silently.
_ALIASES = {"datetime": ("date", "timestamp", "time", "open_time"), "symbol": ("ticker", "instrument", "name")}
# The range of nanoseconds in int64.
_FIRST, _LAST = pd.Timestamp("1678-01-01", tz="UTC"), pd.Timestamp("2262-01-01", tz="UTC")
# pandas reads "now" as the present and "2020" as a day, so a time must spell its date.
_DATE = r"\d{4}-?\d\d-?\d\d"
_UNREADABLE = (arrow.ArrowException, OSError, UnicodeDecodeError)
_CHUNK = 1_048_576  # rows read at a time


def list_files(path: Path) -> list[Path]:
    """The file itself, or a folder's files of bars; other files of a folder, such as a README, are ignored."""
    kinds = " or ".join(SUFFIXES)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
        if not files:
            raise DataError(f"{path}: the folder has no {kinds} file; put one file per symbol there")
        return files
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; set data.path in params.yaml")
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: files of bars end in {kinds}, not '{path.suffix}'; convert the file")
    return [path]


def read_file(file: Path, symbols: list[str], stem: str | None) -> tuple[pd.DataFrame, set[str]]:
    """One file's rows of the wanted `symbols`, converted but unchecked, and all symbols in the file.

    `stem` is the symbol of a file without a `symbol` column, None where only `symbols` can tell.

    Raises:
        DataError: the file is unreadable or empty, or a column is missing or can't be converted.
    """
    parts = list(stream_file(file, symbols, stem, _CHUNK))
    frames = [frame for frame, _ in parts if len(frame)]
    return pd.concat(frames) if frames else pd.DataFrame(), set().union(*(present for _, present in parts))


def stream_file(file: Path, symbols: list[str], stem: str | None, rows: int) -> Iterator[tuple[pd.DataFrame, set[str]]]:
    """What `read_file` returns, at most `rows` rows at a time: the file may be larger than memory.

    Raises:
        DataError: as `read_file`, once the rows are reached.
    """
    done = 0
    try:
        columns, symbol = _plan(file, symbols, stem)
        if symbol is not None and symbol not in symbols:
            yield pd.DataFrame(), {symbol}
            return
        if file.suffix == ".csv":
            batches = _csv_batches(file, columns)
        else:
            batches = parquet.ParquetFile(file).iter_batches(rows, columns=columns)
        for batch in batches:
            for start in range(0, batch.num_rows, rows):
                table = arrow.Table.from_batches([batch.slice(start, rows)])
                if symbol is not None:
                    table = table.append_column("symbol", arrow.repeat(symbol, table.num_rows))
                yield select_rows(str(file), table, symbols, done + start)
            done += batch.num_rows
    except _UNREADABLE as error:
        reason = f"can't be read as {file.suffix[1:]}: {str(error).splitlines()[0]}"
        raise DataError(f"{file}: {reason}; check that the file is whole and may be read") from None
    if not done:
        raise DataError(f"{file}: {EMPTY}")


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, upper and lower case being equal, or None where none is close."""
    folded = {other.casefold(): other for other in known}
    return folded.get(next(iter(difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)), ""))


def require_columns(file: str, names: list[str], wanted: list[str]) -> None:
    """Refuse a header that lacks a wanted column or repeats it; a close name is proposed, never used.

    Raises:
        DataError: naming the column and what to rename or add.
    """
    for name in wanted:
        if names.count(name) > 1:
            raise DataError(f"{file}: column '{name}' occurs {names.count(name)} times; keep one")
        if name not in names:
            others = {other.casefold(): other for other in names if other not in wanted}
            alias = next((others[a] for a in _ALIASES.get(name, ()) if a in others), None)
            close = alias or closest(name, others.values())
            remedy = f"rename '{close}' to '{name}'" if close else f"add it, the columns are: {', '.join(names)}"
            raise DataError(f"{file}: column '{name}' is missing; {remedy}")


def bad_row(file: str, frame: pd.DataFrame, position: int, problem: str) -> DataError:
    """The error of one row, named by its number in the file, its symbol and its time, if that is known."""
    row = frame.iloc[position]
    time = f" ({row['datetime']})" if pd.notna(row.get("datetime")) else ""
    return DataError(f"{file}: {row['symbol']}, row {frame.index[position]}{time}: {problem}")


def _plan(file: Path, symbols: list[str], stem: str | None) -> tuple[list[str], str | None]:
    """The columns to read, and the symbol of all rows if the file has no column for it."""
    if not file.stat().st_size:
        raise DataError(f"{file}: {EMPTY}")
    if file.suffix == ".parquet":
        names = list(parquet.read_schema(file).names)
    else:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            names = next(csv.reader(lines), [])
    symbol = None if "symbol" in names else _only_symbol(file, names, symbols, stem)
    columns = [name for name in (*KEYS, *OHLCV) if name != "symbol" or symbol is None]
    if symbol is None or symbol in symbols:
        require_columns(str(file), names, columns)
    return columns, symbol


def _only_symbol(file: Path, names: list[str], symbols: list[str], stem: str | None) -> str:
    """The symbol of a file that has no column for it."""
    if {name.casefold() for name in names}.intersection(("symbol", *_ALIASES["symbol"])):
        require_columns(str(file), names, ["symbol"])
    if stem is None and len(symbols) > 1:
        remedy = "add it, or give a folder with one file per symbol"
        raise DataError(f"{file}: column 'symbol' is missing, and {len(symbols)} symbols are wanted; {remedy}")
    return stem or symbols[0]


def _csv_batches(file: Path, columns: list[str]) -> Iterator[arrow.RecordBatch]:
    """A CSV file block by block. From the first block with bad numbers on it is text, so that messages name the row."""
    text = dict.fromkeys(columns, arrow.string())
    done = 0
    for types in (text | dict.fromkeys(OHLCV, arrow.float64()), text):
        # Types are always given: Arrow guesses them from the first block, and fails if a later one differs.
        options, seen = arrow_csv.ConvertOptions(column_types=types, include_columns=list(types)), 0
        try:
            for batch in arrow_csv.open_csv(file, convert_options=options):
                seen += batch.num_rows
                if seen > done:
                    yield batch.slice(batch.num_rows - (seen - done))
                    done = seen
            return
        except arrow.ArrowInvalid:
            if types is text:
                raise


def read_table(source: str, table: pd.DataFrame, symbols: list[str]) -> tuple[pd.DataFrame, set[str]]:
    """The rows of a table in memory that has the columns of bars, as `read_file` returns those of a file.

    Raises:
        DataError: a column can't be converted.
    """
    columns = {}
    for name in table.columns:
        try:
            columns[name] = arrow.chunked_array([arrow.Array.from_pandas(table[name])])
        except (arrow.ArrowException, TypeError) as error:
            problem = f"column '{name}' has values of different types: {str(error).splitlines()[0]}"
            raise DataError(f"{source}: {problem}; write one type") from None
    return select_rows(source, arrow.table(columns), symbols)


def select_rows(file: str, table: arrow.Table, wanted: list[str], first: int = 0) -> tuple[pd.DataFrame, set[str]]:
    """The rows of the wanted symbols as pandas columns of the right types, and all symbols of the table.

    Rows are numbered from `first`, the number of the table's first row in its file.
    """
    symbols = _symbol_column(file, table["symbol"], first)
    mask = compute.is_in(symbols, value_set=arrow.array(wanted, arrow.string()))
    frame = pd.DataFrame({"symbol": symbols.filter(mask).to_pandas().astype("str").array})
    frame.index = pd.Index(np.flatnonzero(mask.to_numpy(zero_copy_only=False)) + first)
    if len(frame):
        frame.insert(0, "datetime", _to_utc(file, frame, table["datetime"].filter(mask)))
        for name in OHLCV:
            frame[name] = _to_number(file, frame, name, table[name].filter(mask))
    return frame, set(symbols.unique().to_pylist())


def _symbol_column(file: str, column: arrow.ChunkedArray, first: int) -> arrow.Array:
    kind = column.type.value_type if arrow.types.is_dictionary(column.type) else column.type
    if not (arrow.types.is_string(kind) or arrow.types.is_large_string(kind)):
        raise DataError(f"{file}: row {first}: symbol = {column[0]} has type {kind}; write the symbols as text")
    symbols = column.cast(arrow.string()).combine_chunks()
    named = compute.fill_null(compute.not_equal(symbols, ""), False)
    if not compute.all(named).as_py():
        raise DataError(f"{file}: row {first + compute.index(named, False).as_py()}: {NAMELESS}")
    return symbols


def _to_utc(file: str, frame: pd.DataFrame, column: arrow.ChunkedArray) -> pd.Series[Any]:
    """Text, dates or timestamps as UTC nanoseconds."""
    if arrow.types.is_timestamp(column.type) and column.type.tz:
        column = column.cast(arrow.timestamp(column.type.unit, "UTC"))  # the instants are stored in UTC already
    values: pd.Series[Any] = column.to_pandas(date_as_object=False).set_axis(frame.index)
    if pd.api.types.is_string_dtype(values.dtype):
        dated = values.str.match(_DATE).fillna(False).astype(bool)
        times = pd.to_datetime(values.where(dated), utc=True, format="ISO8601", errors="coerce")
    elif pd.api.types.is_datetime64_any_dtype(values.dtype):
        times = pd.to_datetime(values, utc=True)
    else:
        problem = f"datetime = {values.iloc[0]} has type {column.type}; write timestamps or ISO 8601 text"
        raise bad_row(file, frame, 0, problem)
    if (bad := (~times.between(_FIRST, _LAST)).to_numpy()).any():
        row = int(bad.argmax())
        problem = f"datetime = '{values.iloc[row]}' can't be read as a UTC time; write it like 2020-01-31T09:30:00Z"
        raise bad_row(file, frame, row, problem)
    return times.dt.as_unit("ns")


def _to_number(file: str, frame: pd.DataFrame, name: str, column: arrow.ChunkedArray) -> pd.Series[Any]:
    """Numbers of any width, or a CSV's text, as float64."""
    kind = column.type
    if arrow.types.is_integer(kind) or arrow.types.is_floating(kind) or arrow.types.is_decimal(kind):
        column = column.cast(arrow.float64(), safe=False)
    values: pd.Series[Any] = column.to_pandas().set_axis(frame.index)
    if values.dtype == "float64":
        return values
    bad = pd.to_numeric(values, errors="coerce").isna().to_numpy() if arrow.types.is_string(kind) else np.ones(1)
    if bad.any() or not file.endswith(".csv"):
        row = int(bad.argmax())
        problem = f"{name} = '{values.iloc[row]}' has type {kind}, not number; write only numbers into the column"
        raise bad_row(file, frame, row, problem)
    return values.astype("float64")
