"""Raw OHLCV bars: read them from Parquet or CSV, check every row, and report the holes.

The common form is one table with the columns `datetime` (ns, UTC), `symbol`, `open, high, low, close, volume`
(float64), sorted by symbol and then time. A time without a time zone is taken as UTC, one in another zone is
converted. Rows are numbered as in the file, the first row of data being 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa

from barcast.config import nearest
from barcast.data._bar_files import (
    EMPTY,
    KEYS,
    NAMELESS,
    OHLCV,
    bad_row,
    list_files,
    read_file,
    read_table,
    require_columns,
    stream_file,
)
from barcast.data.tables import symbol_slices
from barcast.errors import DataError

__all__ = [
    "KEYS",
    "OHLCV",
    "bar_spacing",
    "check_bars",
    "find_gaps",
    "known_bars",
    "list_files",
    "load_bars",
    "require_rows",
    "stream_file",
    "unknown_symbol",
]

_MEND = "mend or drop the row"
_PROBLEMS = {  # by the name of the check, in the order in which one row's problems are reported
    "time": "the time is missing; give every row its time",
    "named": NAMELESS,
    "duplicate": "this time stands twice for the symbol; drop one of the two rows",
    "order": "the time is before that of the symbol's row above; sort the file by datetime",
    "finite": "{column} = {value} is not a finite number; " + _MEND,
    "positive": "{column} = {value} is not above 0; " + _MEND,
    "negative": "{column} = {value} is below 0; " + _MEND,
    "high": "high = {high} is below open = {open} or close = {close}; " + _MEND,
    "low": "low = {low} is above open = {open} or close = {close}; " + _MEND,
}


def _check(name: str, holds: Callable[[Any], Any]) -> pa.Check:
    """One vectorised rule; the first row that breaks it is enough for the message."""
    return pa.Check(holds, name=name, n_failure_cases=1, ignore_na=False)


_FINITE = _check("finite", np.isfinite)
_POSITIVE = _check("positive", lambda values: values > 0)
_SCHEMA = pa.DataFrameSchema(
    {
        "datetime": pa.Column(pd.DatetimeTZDtype("ns", "UTC"), _check("time", pd.Series.notna), nullable=True),
        "symbol": pa.Column("str", _check("named", lambda names: names.notna() & (names != "")), nullable=True),
        **{name: pa.Column("float64", [_FINITE, _POSITIVE], nullable=True) for name in OHLCV[:4]},
        "volume": pa.Column("float64", [_FINITE, _check("negative", lambda values: values >= 0)], nullable=True),
    },
    checks=[
        _check("duplicate", lambda frame: ~frame.duplicated(["symbol", "datetime"])),
        _check("order", lambda frame: ~(frame.groupby("symbol", sort=False)["datetime"].diff() < pd.Timedelta(0))),
        _check("high", lambda frame: ~(frame["high"] < np.maximum(frame["open"], frame["close"]))),
        _check("low", lambda frame: ~(frame["low"] > np.minimum(frame["open"], frame["close"]))),
    ],
)


def load_bars(path: Path, symbols: Sequence[str]) -> pd.DataFrame:
    """Read and check the bars of `symbols`.

    Args:
        path: a Parquet or CSV file (its `symbol` column may be absent when one symbol is asked for), or a folder of
            such files, where a file without a `symbol` column holds the symbol that it is named for.
        symbols: the symbols wanted; the rows of others are neither checked nor returned.

    Returns:
        The bars in the common form, [rows, 7].

    Raises:
        DataError: naming file, symbol and first bad row.
    """
    asked = sorted(set(symbols))
    if not asked:
        raise DataError(f"{path}: no symbol is asked for; list some under symbols in params.yaml")
    bars: dict[str, pd.DataFrame] = {}
    origin: dict[str, Path] = {}
    for file in list_files(path):
        frame, present = read_file(file, asked, file.stem if path.is_dir() else None)
        for symbol in sorted(present):
            if symbol in asked and symbol in origin:
                raise DataError(f"{path}: symbol '{symbol}' stands in {origin[symbol].name} and {file.name}; keep one")
            origin[symbol] = file
        if len(frame):
            check_bars(frame, str(file))
            bars |= {symbol: frame[frame["symbol"] == symbol] for symbol in present.intersection(asked)}
    _require_symbols(str(path), asked, list(origin))
    return pd.concat([bars[symbol] for symbol in asked], ignore_index=True)


def check_bars(frame: pd.DataFrame, file: str) -> None:
    """Check bars in the common form; each symbol's rows must ascend in time, symbols may be interleaved.

    Args:
        frame: the bars; its index holds the row numbers for the message.
        file: where they came from, for the message.

    Raises:
        DataError: naming file, symbol, first bad row and its time, and what to do.
    """
    require_columns(file, list(frame.columns), list(_SCHEMA.columns))
    if frame.empty:
        raise DataError(f"{file}: {EMPTY}")
    kinds = frame.dtypes
    for name, column in _SCHEMA.columns.items():
        if kinds[name] != column.dtype.type:
            raise bad_row(file, frame, 0, f"{name} has type {kinds[name]}; convert it to {column.dtype.type}")
    if _is_sound(frame):
        return
    try:
        _SCHEMA.validate(frame[list(_SCHEMA.columns)].reset_index(drop=True), lazy=True)
    except pa.errors.SchemaErrors as error:
        ranks = [*KEYS, *OHLCV]
        failures = error.failure_cases[["index", "check", "column"]].itertuples(index=False)
        row, rank, column = min((int(i), list(_PROBLEMS).index(c), ranks.index(n)) for i, c, n in failures)
        values = frame[ranks].iloc[row].to_dict() | {"column": ranks[column], "value": frame[ranks[column]].iloc[row]}
        raise bad_row(file, frame, row, list(_PROBLEMS.values())[rank].format_map(values)) from None


def _is_sound(frame: pd.DataFrame) -> bool:
    """Whether every rule of the schema holds, in a fraction of its time: an answer to one bar waits for this."""
    numbers = np.stack([frame[name].to_numpy() for name in OHLCV])  # [5, R]
    opened, high, low, close, volume = numbers
    if not (np.isfinite(numbers).all() and (numbers[:4] > 0).all() and (volume >= 0).all()):
        return False
    if not ((high >= np.maximum(opened, close)) & (low <= np.minimum(opened, close))).all():
        return False
    codes, names = pd.factorize(frame["symbol"])
    times = pd.DatetimeIndex(frame["datetime"]).asi8
    if (codes < 0).any() or "" in names or (times == pd.NaT.value).any():
        return False
    if len(names) > 1:
        order = np.argsort(codes, kind="stable")
        codes, times = codes[order], times[order]
    return bool(((np.diff(times) > 0) | (np.diff(codes) > 0)).all())


def known_bars(table: pd.DataFrame, symbols: Sequence[str], source: str) -> pd.DataFrame:
    """A table of bars from elsewhere, such as a request, in the common form; its values are unchecked.

    Args:
        table: the columns of the common form in any order, among others; times may be text.
        symbols: the symbols that may be in it.
        source: where it came from, for the message.

    Returns:
        [rows, 7], in the order of `table` and numbered from 0.

    Raises:
        DataError: a column is missing or can't be converted, there are no rows, or a symbol is none of `symbols`.
    """
    require_columns(source, [str(name) for name in table.columns], [*KEYS, *OHLCV])
    if table.empty:
        raise DataError(f"{source}: {EMPTY}")
    frame = table[[*KEYS, *OHLCV]].reset_index(drop=True)
    if any(kind != _SCHEMA.columns[name].dtype.type for name, kind in frame.dtypes.items()):
        frame, present = read_table(source, frame, list(symbols))
    else:
        present = set(frame["symbol"].dropna().unique()) - {""}
    strange = sorted(present.difference(symbols))
    if strange:
        raise unknown_symbol(source, strange[0], symbols)
    return frame


def unknown_symbol(source: str, symbol: str, known: Sequence[str]) -> DataError:
    """The refusal of a symbol that a model has not seen; the nearest known one is proposed, never taken."""
    folded = {name.casefold(): name for name in known}
    close = folded.get(nearest(symbol.casefold(), folded) or "")
    hint = f"did you mean '{close}'?" if close else f"leave its rows out; known: {', '.join(sorted(known))}"
    return DataError(f"{source}: symbol '{symbol}' is not one that the model was trained on; {hint}")


def require_rows(frame: pd.DataFrame, needed: int, file: str, why: str) -> None:
    """Refuse bars of which a symbol has fewer rows than `needed`.

    Raises:
        DataError: naming file, symbol, its count, the need and `why`.
    """
    for symbol, count in frame["symbol"].value_counts(sort=False).sort_index().items():
        if count < needed:
            remedy = "give longer bars, or ask for less in params.yaml"
            raise DataError(f"{file}: symbol '{symbol}' has {count} rows, {why} needs {needed}; {remedy}")


def bar_spacing(datetimes: pd.Series[Any] | pd.DatetimeIndex) -> pd.Timedelta:
    """The usual time from bar to bar: the (lower) median of the positive differences, always one that occurs.

    Raises:
        DataError: no two rows ascend in time.
    """
    steps = np.diff(pd.DatetimeIndex(datetimes).as_unit("ns").asi8)
    steps = np.sort(steps[steps > 0])
    if not len(steps):
        raise DataError(f"{len(datetimes)} bars have no spacing; give at least two bars of one symbol")
    return pd.Timedelta(int(steps[(len(steps) - 1) // 2]), unit="ns")


def find_gaps(frame: pd.DataFrame) -> pd.DataFrame:
    """The holes of each symbol: where two neighbours stand further apart than the symbol's usual spacing.

    Args:
        frame: bars sorted by symbol and time.

    Returns:
        One row a hole, [gaps, 4]: `symbol`, `start` (the last bar before it), `end` (the first after it) and
        `missing_bars` (how many would fit strictly between). Gaps are reported only; nothing fills them.

    Raises:
        DataError: a symbol has one bar alone.
    """
    own = [_own_gaps(frame.iloc[rows]) for rows in symbol_slices(frame["symbol"]).values()]
    return pd.concat(own, ignore_index=True)


def _own_gaps(bars: pd.DataFrame) -> pd.DataFrame:
    times, symbols = bars["datetime"], bars["symbol"]
    try:
        spacing = bar_spacing(times).value
    except DataError as error:
        raise DataError(f"{symbols.iloc[0]}: {error}") from None
    steps = np.diff(pd.DatetimeIndex(times).as_unit("ns").asi8)
    before = np.flatnonzero(steps > spacing)
    columns = {"symbol": symbols.iloc[before], "start": times.iloc[before], "end": times.iloc[before + 1]}
    missing = -(-steps[before] // spacing) - 1  # ceil, less the bar at the end
    return pd.DataFrame({name: values.array for name, values in columns.items()}).assign(missing_bars=missing)


def _require_symbols(file: str, asked: list[str], known: list[str]) -> None:
    for symbol in asked:
        if symbol not in known:
            folded = {name.casefold(): name for name in known}
            close = folded.get(nearest(symbol.casefold(), folded) or "")
            hint = f"did you mean '{close}'?" if close else f"it holds: {', '.join(sorted(known)[:20])}"
            raise DataError(f"{file}: symbol '{symbol}' is not there; {hint}")
