"""Reading files of bars through Arrow into typed pandas columns, each row keeping its number in the file."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as arrow
import pyarrow.compute as compute
import pyarrow.csv as arrow_csv
import pyarrow.parquet as parquet

from barcast.config import nearest
from barcast.errors import DataError

KEYS = ("datetime", "symbol")
OHLCV = ("open", "high", "low", "close", "volume")
SUFFIXES = (".parquet", ".csv")
EMPTY = "no bars; give a file with at least one row"
NAMELESS = "the symbol is missing; give every row its symbol"

# Usual names of another spelling: never taken silently, but worth proposing.
_ALIASES = {"datetime": ("date", "timestamp", "time", "open_time"), "symbol": ("ticker", "instrument", "name")}
# What nanoseconds can hold.
_FIRST, _LAST = pd.Timestamp("1678-01-01", tz="UTC"), pd.Timestamp("2262-01-01", tz="UTC")
# pandas reads "now" as the present and "2020" as a day: a time must spell its date.
_DATE = r"\d{4}-?\d\d-?\d\d"
_UNREADABLE = (arrow.ArrowException, OSError, UnicodeDecodeError)


def list_files(path: Path) -> list[Path]:
    """The file itself, or a folder's files of bars; other files of a folder (a README) are passed over."""
    kinds = " or ".join(SUFFIXES)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
        if not files:
            raise DataError(f"{path}: the folder holds no {kinds} file; put one file a symbol there")
        return files
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; set data.path in params.yaml")
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: files of bars end in {kinds}, not '{path.suffix}'; convert the file")
    return [path]


def read_file(file: Path, asked: list[str], stem: str | None) -> tuple[pd.DataFrame, set[str]]:
    """One file's rows of the symbols asked for, converted but unchecked, and all symbols that it holds.

    Args:
        file: a file of bars.
        asked: the symbols wanted.
        stem: the symbol that a file without a `symbol` column holds, None where only `asked` can tell.

    Raises:
        DataError: the file is unreadable or empty, or a column is missing or can't be converted.
    """
    try:
        wanted, symbol = _plan(file, asked, stem)
        if symbol is not None and symbol not in asked:
            return pd.DataFrame(), {symbol}
        table = _read_csv(file, wanted) if file.suffix == ".csv" else parquet.ParquetFile(file).read(wanted)
    except _UNREADABLE as error:
        raise _unreadable(file, error) from None
    if not table.num_rows:
        raise DataError(f"{file}: {EMPTY}")
    return select_rows(str(file), _with_symbol(table, symbol), asked)


def stream_file(file: Path, asked: list[str], stem: str | None, rows: int) -> Iterator[tuple[pd.DataFrame, set[str]]]:
    """What `read_file` answers, at most `rows` rows at a time: the file may be larger than memory.

    Raises:
        DataError: as `read_file`, once the rows are reached.
    """
    done = 0
    try:
        wanted, symbol = _plan(file, asked, stem)
        for table in _csv_tables(file, wanted) if file.suffix == ".csv" else _parquet_tables(file, wanted, rows):
            for start in range(0, table.num_rows, rows):
                part = _with_symbol(table.slice(start, rows), symbol)
                yield select_rows(str(file), part, asked, done + start)
            done += table.num_rows
    except _UNREADABLE as error:
        raise _unreadable(file, error) from None
    if not done:
        raise DataError(f"{file}: {EMPTY}")


def require_columns(file: str, names: list[str], wanted: list[str]) -> None:
    """Refuse a header that lacks a wanted column or repeats it; a close name is proposed, never taken.

    Raises:
        DataError: naming the column and what to rename or add.
    """
    for name in wanted:
        if names.count(name) > 1:
            raise DataError(f"{file}: column '{name}' stands {names.count(name)} times; keep one")
        if name not in names:
            others = {other.casefold(): other for other in names if other not in wanted}
            alias = next((others[a] for a in _ALIASES.get(name, ()) if a in others), None)
            close = alias or others.get(nearest(name, others) or "")
            remedy = f"rename '{close}' to '{name}'" if close else f"add it, the columns are: {', '.join(names)}"
            raise DataError(f"{file}: column '{name}' is missing; {remedy}")


def bad_row(file: str, frame: pd.DataFrame, position: int, problem: str) -> DataError:
    """The error of one row, named by its number in the file, its symbol and, where it is known, its time."""
    row = frame.iloc[position]
    time = f" ({row['datetime']})" if pd.notna(row.get("datetime")) else ""
    return DataError(f"{file}: {row['symbol']}, row {frame.index[position]}{time}: {problem}")


def _plan(file: Path, asked: list[str], stem: str | None) -> tuple[list[str], str | None]:
    """The columns to read, and the symbol of all rows where the file has no column for it."""
    if not file.stat().st_size:
        raise DataError(f"{file}: {EMPTY}")
    names = _column_names(file)
    symbol = None if "symbol" in names else _only_symbol(file, names, asked, stem)
    wanted = [name for name in (*KEYS, *OHLCV) if name != "symbol" or symbol is None]
    if symbol is None or symbol in asked:
        require_columns(str(file), names, wanted)
    return wanted, symbol


def _with_symbol(table: arrow.Table, symbol: str | None) -> arrow.Table:
    return table if symbol is None else table.append_column("symbol", arrow.repeat(symbol, table.num_rows))


def _unreadable(file: Path, error: Exception) -> DataError:
    reason = str(error).splitlines()[0]
    return DataError(
        f"{file}: can't be read as {file.suffix[1:]}: {reason}; check that the file is whole and may be read"
    )


def _column_names(file: Path) -> list[str]:
    if file.suffix == ".parquet":
        return list(parquet.read_schema(file).names)
    with file.open(encoding="utf-8-sig", newline="") as lines:
        return next(csv.reader(lines), [])


def _only_symbol(file: Path, names: list[str], asked: list[str], stem: str | None) -> str:
    """The symbol of a file that has no column for it."""
    if {name.casefold() for name in names}.intersection(("symbol", *_ALIASES["symbol"])):
        require_columns(str(file), names, ["symbol"])
    if stem is None and len(asked) > 1:
        remedy = "add it, or give a folder with one file a symbol"
        raise DataError(f"{file}: column 'symbol' is missing where {len(asked)} symbols are asked for; {remedy}")
    return stem or asked[0]


def _read_csv(file: Path, wanted: list[str]) -> arrow.Table:
    """Numbers are parsed on the way; if one isn't a number the columns stay text, for the message to name the row."""
    text = dict.fromkeys(wanted, arrow.string())
    try:
        return _parse_csv(file, text | {name: arrow.float64() for name in OHLCV})
    except arrow.ArrowInvalid:
        return _parse_csv(file, text)


def _parse_csv(file: Path, types: dict[str, arrow.DataType]) -> arrow.Table:
    return arrow_csv.read_csv(file, convert_options=_columns(types))


def _columns(types: dict[str, arrow.DataType]) -> arrow_csv.ConvertOptions:
    # Types are always given: Arrow guesses them from the first block, and fails where a later one differs.
    return arrow_csv.ConvertOptions(column_types=types, include_columns=list(types))


def _csv_tables(file: Path, wanted: list[str]) -> Iterator[arrow.Table]:
    """A CSV file block by block; where a block has no numbers, from there on as text, as `_read_csv` does."""
    text = dict.fromkeys(wanted, arrow.string())
    done = 0
    try:
        for batch in arrow_csv.open_csv(file, convert_options=_columns(text | dict.fromkeys(OHLCV, arrow.float64()))):
            done += batch.num_rows
            yield arrow.Table.from_batches([batch])
        return
    except arrow.ArrowInvalid:
        pass
    for batch in arrow_csv.open_csv(file, convert_options=_columns(text)):
        new = batch.slice(min(done, batch.num_rows))
        done -= batch.num_rows - new.num_rows
        yield arrow.Table.from_batches([new])


def _parquet_tables(file: Path, wanted: list[str], rows: int) -> Iterator[arrow.Table]:
    for batch in parquet.ParquetFile(file).iter_batches(rows, columns=wanted):
        yield arrow.Table.from_batches([batch])


def read_table(source: str, table: pd.DataFrame, asked: list[str]) -> tuple[pd.DataFrame, set[str]]:
    """The rows of a table in memory, with the columns of bars, as `read_file` answers those of a file.

    Raises:
        DataError: a column can't be converted.
    """
    columns = {}
    for name in table.columns:
        try:
            columns[name] = arrow.chunked_array([arrow.Array.from_pandas(table[name])])
        except (arrow.ArrowException, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{source}: column '{name}' holds values of different types: {reason}; write one") from None
    return select_rows(source, arrow.table(columns), asked)


def select_rows(file: str, table: arrow.Table, asked: list[str], first: int = 0) -> tuple[pd.DataFrame, set[str]]:
    """The rows of the symbols asked for as pandas columns of the right types, and all symbols of the table.

    Rows are numbered from `first` on, the number of the table's first row in its file.
    """
    symbols = _symbol_column(file, table["symbol"], first)
    mask = compute.is_in(symbols, value_set=arrow.array(asked, arrow.string()))
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
    bad = (~times.between(_FIRST, _LAST)).to_numpy()
    if bad.any():
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
        problem = f"{name} = '{values.iloc[row]}' has type {kind}, not number; write numbers alone into the column"
        raise bad_row(file, frame, row, problem)
    return values.astype("float64")
