"""Raw OHLCV bars: read them from Parquet or CSV, check every row, and report the gaps.

The common form is one table with the columns `datetime` (ns, UTC), `symbol`, `open, high, low, close, volume`
(float64), sorted by symbol and then time. A time without a time zone is read as UTC, one in another zone is
converted. Rows are numbered as in the file; the first row of data is 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from barcast.data.bar_files import EMPTY, NAMELESS, bad_row, closest, list_files, read_file, read_table, require_columns
from barcast.data.frames import KEYS, OHLCV, BoolArray, by_symbol
from barcast.errors import DataError

_TYPES = {"datetime": "datetime64[ns, UTC]", "symbol": "str", **dict.fromkeys(OHLCV, "float64")}
_FIX = "fix or drop the row"


def load_bars(path: Path, symbols: Sequence[str]) -> pd.DataFrame:
    """Read and check the bars of `symbols`, [rows, 7]; the rows of others are neither checked nor returned.

    The path is a Parquet or CSV file (its `symbol` column may be absent when there is one symbol), or a folder of such
    files, where a file without a `symbol` column holds the symbol that it is named for.

    Raises:
        DataError: naming file, symbol and first bad row.
    """
    if not (wanted := sorted(set(symbols))):
        raise DataError(f"{path}: no symbol is wanted; list some under symbols in params.yaml")
    bars: dict[str, pd.DataFrame] = {}
    origin: dict[str, Path] = {}
    for file in list_files(path):
        frame, present = read_file(file, wanted, file.stem if path.is_dir() else None)
        for symbol in sorted(present):
            if symbol in wanted and symbol in origin:
                raise DataError(f"{path}: symbol '{symbol}' is in {origin[symbol].name} and {file.name}; keep one")
            origin[symbol] = file
        if len(frame):
            check_bars(frame, str(file))
            bars |= {symbol: frame[frame["symbol"] == symbol] for symbol in present.intersection(wanted)}
    for symbol in wanted:
        if symbol not in origin:
            close = closest(symbol, origin)
            hint = f"did you mean '{close}'?" if close else f"it has: {', '.join(sorted(origin)[:20])}"
            raise DataError(f"{path}: symbol '{symbol}' is missing; {hint}")
    return pd.concat([bars[symbol] for symbol in wanted], ignore_index=True)


def check_bars(frame: pd.DataFrame, file: str) -> None:
    """Check bars in the common form. Each symbol's rows must ascend in time; symbols may be interleaved.

    The message names `file`, where the bars came from, and the row's number in the frame's index.

    Raises:
        DataError: naming file, symbol, first bad row and its time, and what to do.
    """
    require_columns(file, list(frame.columns), list(_TYPES))
    if frame.empty:
        raise DataError(f"{file}: {EMPTY}")
    for name, kind in _TYPES.items():
        if frame[name].dtype != kind:
            raise bad_row(file, frame, 0, f"{name} has type {frame[name].dtype}; convert it to {kind}")
    broken = [(int(bad.argmax()), rank, problem) for rank, (bad, problem) in enumerate(_rules(frame)) if bad.any()]
    if broken:
        row, _, problem = min(broken)  # the first bad row, and of its problems the first
        raise bad_row(file, frame, row, problem.format_map(frame[[*OHLCV]].iloc[row].to_dict()))


def _rules(frame: pd.DataFrame) -> Iterator[tuple[BoolArray, str]]:
    """Each rule's bad rows `[R]` and its message. Serving checks every bar with these, so they are plain NumPy."""
    codes, names = pd.factorize(frame["symbol"])
    nameless = (codes < 0) | (codes == (names.get_loc("") if "" in names else -1))
    times = pd.DatetimeIndex(frame["datetime"]).asi8
    order = np.argsort(codes, kind="stable")
    same_symbol = np.diff(codes[order]) == 0
    late = np.zeros(len(frame), bool)  # no later than the symbol's row above
    late[order[1:]] = same_symbol & (np.diff(times[order]) <= 0)
    repeated = late & frame.duplicated(["symbol", "datetime"]).to_numpy() if late.any() else late
    yield times == pd.NaT.value, "the time is missing; give every row its time"
    yield nameless, NAMELESS
    yield repeated, "the symbol has two rows with this time; drop one of them"
    yield late, "the time is before that of the symbol's row above; sort the file by datetime"
    numbers = {name: frame[name].to_numpy() for name in OHLCV}
    for name, values in numbers.items():
        yield ~np.isfinite(values), f"{name} = {{{name}}} is not a finite number; {_FIX}"
    for name in OHLCV[:4]:
        yield ~(numbers[name] > 0), f"{name} = {{{name}}} is not above 0; {_FIX}"
    yield ~(numbers["volume"] >= 0), f"volume = {{volume}} is below 0; {_FIX}"
    opened, high, low, close, _ = numbers.values()
    yield high < np.maximum(opened, close), f"high = {{high}} is below open = {{open}} or close = {{close}}; {_FIX}"
    yield low > np.minimum(opened, close), f"low = {{low}} is above open = {{open}} or close = {{close}}; {_FIX}"


def known_bars(table: pd.DataFrame, symbols: Sequence[str], source: str) -> pd.DataFrame:
    """A table of bars from elsewhere, such as a request, in the common form; its values are unchecked.

    The table has the columns of the common form in any order, among others; times may be text. Its rows [rows, 7] keep
    their order and are numbered from 0. `source` is where it came from, for the message.

    Raises:
        DataError: a column is missing or can't be converted, there are no rows, or a symbol is not in `symbols`.
    """
    require_columns(source, [str(name) for name in table.columns], [*KEYS, *OHLCV])
    if table.empty:
        raise DataError(f"{source}: {EMPTY}")
    frame = table[[*KEYS, *OHLCV]].reset_index(drop=True)
    if any(kind != _TYPES[str(name)] for name, kind in frame.dtypes.items()):
        frame, present = read_table(source, frame, list(symbols))
    else:
        present = set(frame["symbol"].dropna().unique()) - {""}
    unknown = sorted(present.difference(symbols))
    if unknown:
        raise unknown_symbol(source, unknown[0], symbols)
    return frame


def unknown_symbol(source: str, symbol: str, known: Sequence[str]) -> DataError:
    """The error for a symbol that a model has not seen; the nearest known one is proposed, never used."""
    close = closest(symbol, known)
    hint = f"did you mean '{close}'?" if close else f"leave its rows out; known: {', '.join(sorted(known))}"
    return DataError(f"{source}: symbol '{symbol}' is not one that the model was trained on; {hint}")


def require_rows(frame: pd.DataFrame, needed: int, file: str, why: str) -> None:
    """Refuse bars if a symbol has fewer rows than `needed`.

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
    """Where two neighbours are further apart than their symbol's usual spacing, for bars sorted by symbol and time.

    One row per gap, [gaps, 4]: `symbol`, `start` (the last bar before it), `end` (the first after it) and
    `missing_bars` (how many would fit strictly between). Gaps are reported only; nothing fills them.

    Raises:
        DataError: a symbol has only one bar.
    """
    gaps = []
    for symbol, bars in by_symbol(frame).items():
        times = bars["datetime"]
        try:
            spacing = bar_spacing(times).value
        except DataError as error:
            raise DataError(f"{symbol}: {error}") from None
        steps = np.diff(pd.DatetimeIndex(times).as_unit("ns").asi8)
        before = np.flatnonzero(steps > spacing)
        columns = {"symbol": bars["symbol"].iloc[before], "start": times.iloc[before], "end": times.iloc[before + 1]}
        missing = -(-steps[before] // spacing) - 1  # ceil, less the bar at the end
        gaps.append(pd.DataFrame({name: values.array for name, values in columns.items()}).assign(missing_bars=missing))
    return pd.concat(gaps, ignore_index=True)
