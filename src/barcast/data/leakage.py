"""The audit's checks: each looks for one way in which the future gets into features, splits or windows.

Every check returns what it examined and the worst it found, and raises a LeakageError that names column,
symbol and row. Purge, embargo, windows, prices and labels are proven by code that shares nothing with what made
them; features and scaler by running the code that made them again, on altered bars and on train rows alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, permutations
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from barcast.config import Section
from barcast.data._scan import SlowScan
from barcast.data.bars import OHLCV, bar_spacing
from barcast.data.labels import BarrierConfig
from barcast.data.splits import Scaler, feature_columns
from barcast.data.tables import isoformat, nanoseconds, symbol_slices
from barcast.errors import DataError, LeakageError
from barcast.paths import SPLITS

Finding = dict[str, Any]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

ALTERED_BARS = 200  # bars after the cut that are replaced; the past is kept from the first bar on


class AuditConfig(Section):
    """`data.audit:` of params.yaml."""

    cuts: Annotated[int, Field(ge=1)]
    max_feature_score: Annotated[float, Field(gt=0.5, le=1)]


def check_causality(
    bars: pd.DataFrame,
    features: pd.DataFrame,
    compute: Callable[[pd.DataFrame], pd.DataFrame],
    lasts: Sequence[int],
    rng: np.random.Generator,
) -> int:
    """Features up to bar t must stay the same, bit for bit, when the bars after t are cut off or altered.

    Args:
        bars: one symbol's bars `[R, 7]`.
        features: `compute(bars)`, `[R, F]`.
        compute: makes the features of one symbol from its bars.
        lasts: the rows t to try.
        rng: draws the altered bars.

    Returns:
        How many values were compared.

    Raises:
        LeakageError: naming feature, symbol and row of the first value that changed.
    """
    compared, times = 0, nanoseconds(bars["datetime"])
    for last in lasts:
        trials = {"cut off": bars.iloc[: last + 1], "altered": alter_future(bars, last, rng)}
        for what, trial in trials.items():
            changed = first_change(features, compute(trial.reset_index(drop=True)), last + 1)
            if changed:
                row = bars.iloc[changed[1]]
                raise LeakageError(
                    f"{row['symbol']} {row['datetime'].isoformat()}: feature '{changed[0]}' changes when the bars "
                    f"after {isoformat(times[last])} are {what}; compute it from bars up to its own row"
                )
            compared += (last + 1) * features.shape[1]
    return compared


def alter_future(bars: pd.DataFrame, last: int, rng: np.random.Generator) -> pd.DataFrame:
    """The bars up to row `last`, followed by some whose prices and volumes are others."""
    altered = bars.iloc[: last + 1 + ALTERED_BARS].copy()
    count = len(altered) - last - 1
    factor = np.ones(len(altered))
    factor[last + 1 :] = np.exp(1.0 + rng.normal(0.0, 0.05, count).cumsum())
    for name in ("open", "high", "low", "close"):  # one factor a bar: high and low still enclose open and close
        altered[name] = altered[name].to_numpy() * factor
    volume = altered["volume"].to_numpy().copy()
    volume[last + 1 :] = volume[last + 1 :] * np.exp(rng.normal(0.0, 1.0, count)) + 1.0
    altered["volume"] = volume
    return altered


def first_change(expected: pd.DataFrame, found: pd.DataFrame, rows: int) -> tuple[str, int] | None:
    """Column and row of the first value among the first `rows` that differs, NaN being equal to NaN."""
    earliest: tuple[str, int] | None = None
    for name in expected.columns:
        a, b = expected[name].to_numpy()[:rows], found[name].to_numpy()[:rows]
        differs = np.flatnonzero((a != b) & ~(np.isnan(a) & np.isnan(b)))
        if len(differs) and (earliest is None or differs[0] < earliest[1]):
            earliest = name, int(differs[0])
    return earliest


def locate(bar_times: IntArray, times: IntArray, where: str) -> IntArray:
    """Where the rows at `times` stand among a symbol's bars.

    Raises:
        DataError: a row stands at no bar.
    """
    rows = np.minimum(np.searchsorted(bar_times, times), len(bar_times) - 1)
    strange = np.flatnonzero(bar_times[rows] != times)
    if len(strange):
        time = isoformat(times[strange[0]])
        raise DataError(f"{where} {time}: the splits have a row for which there is no bar; run `dvc repro prepare`")
    return rows.astype(np.int64)


def check_scaler(stored: Scaler, refitted: Scaler) -> None:
    """The stored scaler must be, bit for bit, the one that train rows alone give.

    Raises:
        LeakageError: naming the first feature whose center or scale is another.
    """
    if (stored.kind, stored.clip, stored.columns) != (refitted.kind, refitted.clip, refitted.columns):
        raise DataError(
            "scaler.json: its kind, clip or features are not those of the configuration; run `dvc repro prepare`"
        )
    for position, name in enumerate(stored.columns):
        for what, a, b in (("center", stored.center, refitted.center), ("scale", stored.scale, refitted.scale)):
            if a[position] != b[position]:
                raise LeakageError(
                    f"scaler.json: {what} of feature '{name}' is {a[position]!r}, fitted on train alone it is "
                    f"{b[position]!r}; fit the scaler on train rows only, and on features of this code"
                )


def check_stored(stored: pd.DataFrame, expected: pd.DataFrame, split: str) -> None:
    """The features in a split's file must be those that the audited code gives, bit for bit.

    Raises:
        LeakageError: naming feature, symbol and row of the first value that differs.
    """
    names = feature_columns(stored.columns)
    if names != list(expected.columns):
        odd = sorted(set(names) ^ set(expected.columns)) or names
        raise LeakageError(f"{split}: feature '{odd[0]}' is not computed from the bars; run `dvc repro prepare`")
    changed = first_change(expected, stored, len(stored))
    if changed:
        row = stored.iloc[changed[1]]
        raise LeakageError(
            f"{split}: {row['symbol']} {row['datetime'].isoformat()}: feature '{changed[0]}' is {row[changed[0]]!r}, "
            f"computed from the bars it is {expected[changed[0]].iloc[changed[1]]!r}; run `dvc repro prepare`"
        )


def check_prices(part: pd.DataFrame, bars: pd.DataFrame, at: IntArray, split: str) -> int:
    """Prices and volume in a split's file must be those of the bars at the same symbol and time, bit for bit.

    Args:
        part: one symbol's rows of the split `[R, C]`.
        bars: the symbol's bars.
        at: `[R]` where the rows stand among the bars.
        split: its name, for the message.

    Returns:
        How many values were compared.

    Raises:
        LeakageError: naming symbol, time, column and both values.
    """
    changed = first_change(bars[list(OHLCV)].iloc[at], part[list(OHLCV)], len(part))
    if changed:
        column, place = changed
        bar = bars.iloc[at[place]]
        raise LeakageError(
            f"{split}: {bar['symbol']} {bar['datetime'].isoformat()}: {column} is {part[column].iloc[place]}, the bars "
            f"have {bar[column]}; run `dvc repro prepare`"
        )
    return len(part) * len(OHLCV)


def check_labels(
    part: pd.DataFrame, at: IntArray, rows: IntArray, horizon: int, scan: SlowScan, barrier: BarrierConfig, split: str
) -> int:
    """Labels and the bars until them must be those that a slow scan of the bars finds.

    Args:
        part: one symbol's rows of the split `[R, C]`.
        at: `[R]` where the rows stand among the symbol's bars.
        rows: which of the rows to try.
        horizon: which labels.
        scan: of the symbol's bars.
        barrier: of symbol and horizon.
        split: its name, for the message.

    Returns:
        How many labels were tried.

    Raises:
        LeakageError: naming symbol, time, column and both values.
    """
    columns = f"label_h{horizon}", f"bars_to_hit_h{horizon}"
    stored = zip(*(_plain(part[column].iloc[rows]) for column in columns), strict=True)
    for row, found in zip(rows.tolist(), stored, strict=True):
        if not scan.allows(found, int(at[row]), barrier):
            true = scan.outcome(int(at[row]), barrier)
            column, *pair = next(each for each in zip(columns, found, true, strict=True) if each[1] != each[2])
            a, b = ("null" if value is None else value for value in pair)
            raise LeakageError(
                f"{split}: {part['symbol'].iloc[row]} {part['datetime'].iloc[row].isoformat()}: {column} is {a}, a "
                f"scan of the bars gives {b}; run `dvc repro prepare`"
            )
    return len(rows)


def _plain(column: pd.Series) -> list[int | None]:
    return [None if pd.isna(value) else int(value) for value in column]


def check_borders(
    symbol: str, bar_times: IntArray, rows: Mapping[str, IntArray], cuts: Sequence[int], purge: int, embargo: int
) -> Finding:
    """Purge must lie before each cut and the embargo after it, both in bars of the symbol.

    Args:
        symbol: for the message.
        bar_times: `[R]` times of the symbol's bars.
        rows: for each split, where its rows stand among the bars.
        cuts: the first time of val and of test.
        purge: bars.
        embargo: bars.

    Raises:
        LeakageError: naming symbol, row and split where it is short.
    """
    found: Finding = {"purge": [], "embargo": []}
    for (earlier, later), cut in zip(pairwise(SPLITS), cuts, strict=True):
        limit = int(np.searchsorted(bar_times, cut))
        last, first = int(rows[earlier][-1]), int(rows[later][0])
        for what, row, between, needed, side in (
            ("purge", last, limit - 1 - last, purge, f"the last row of {earlier}"),
            ("embargo", first, first - limit, embargo, f"the first row of {later}"),
        ):
            if between < needed:
                raise LeakageError(
                    f"{symbol} {isoformat(bar_times[row])}: the {what} is short: {max(between, 0)} bars lie between "
                    f"{side} and the cut {isoformat(cut)}, split.{what}_bars = {needed}; run `dvc repro prepare`"
                )
            found[what].append(between)
    return found


def check_borders_by_time(splits: Mapping[str, pd.DataFrame], purge: int, embargo: int) -> int:
    """Purge and embargo of splits made elsewhere: how many bars fit between two splits, going by the usual spacing.

    They must fit between any two symbols, since these move together; of two spacings the shorter counts. Where
    markets close, fewer bars lie there than fit, so this finds what is surely short and no more.

    Returns:
        The fewest bars between two splits.

    Raises:
        LeakageError: naming symbol, row and splits where fewer than purge + embargo bars fit.
    """
    fewest = np.iinfo(np.int64).max
    for earlier, later in pairwise(SPLITS):
        before, after = _own_times(splits[earlier]), _own_times(splits[later])
        spacing = {symbol: bar_spacing(pd.DatetimeIndex(times)).value for symbol, times in before.items()}
        for ending, starting in [*zip(before, before, strict=True), *permutations(before, 2)]:
            first, last = int(after[starting][0]), int(before[ending][-1])
            between = max(0, -(-(first - last) // min(spacing[ending], spacing[starting])) - 1)
            if between < purge + embargo:
                whose = earlier if ending == starting else f"{earlier} of {ending}"
                raise LeakageError(
                    f"{starting} {isoformat(first)}: {between} bars fit between the last row of {whose} and the first "
                    f"of {later}, split.purge_bars + split.embargo_bars = {purge} + {embargo} ask for more; the gap "
                    "is short"
                )
            fewest = min(fewest, between)
    return int(fewest)


def _own_times(split: pd.DataFrame) -> dict[str, IntArray]:
    times = nanoseconds(split["datetime"])
    return {symbol: times[rows] for symbol, rows in symbol_slices(split["symbol"]).items()}


def check_reach_by_time(part: pd.DataFrame, next_first: pd.Timestamp, horizons: Sequence[int]) -> None:
    """Labels of splits made elsewhere must end before the next split starts, going by the usual spacing.

    Raises:
        LeakageError: naming the column and the first row that surely ends later.
    """
    last, rows = len(part) - 1, np.arange(len(part))
    spacing = bar_spacing(part["datetime"])
    fit = (next_first - part["datetime"].iloc[-1]) / spacing  # bars from the last row to the next split
    for horizon in horizons:
        column = f"bars_to_hit_h{horizon}"
        beyond = rows + part[column].to_numpy(np.float64, na_value=-np.inf) - last
        crossing = np.flatnonzero(beyond >= fit)
        if len(crossing):
            row = part.iloc[crossing[0]]
            raise LeakageError(
                f"{row['symbol']} {row['datetime'].isoformat()}: {column} = {row[column]} reaches into the next split, "
                f"which starts {next_first.isoformat()}; leave more bars between the splits"
            )


def check_longest_reach(splits: Mapping[str, pd.DataFrame], horizons: Sequence[int], purge: int) -> int:
    """No label that is there may look further ahead than the purge; returns the longest reach found, in bars.

    Raises:
        LeakageError: naming column and row of the label that looks furthest.
    """
    longest = 0
    for name, split in splits.items():
        for horizon in horizons:
            column = f"bars_to_hit_h{horizon}"
            hits = split[column].to_numpy(np.float64, na_value=0.0)
            row = split.iloc[int(hits.argmax())]
            if hits.max() > purge:
                raise LeakageError(
                    f"{name}: {row['symbol']} {row['datetime'].isoformat()}: {column} = {row[column]} is longer than "
                    f"split.purge_bars = {purge}; raise split.purge_bars to {row[column]} or more"
                )
            longest = max(longest, int(hits.max()))
    return longest


def check_windows(split: pd.DataFrame, ends: IntArray, seq_len: int, max_gap_ns: int, name: str) -> Finding:
    """Step back bar by bar from each window's end: same symbol, ascending time, no step longer than allowed.

    Args:
        split: one split's rows `[R, C]`.
        ends: `[N]` row of each window's last bar.
        seq_len: bars a window.
        max_gap_ns: nanoseconds.
        name: the split's, for the message.

    Raises:
        LeakageError: naming split, symbol and time of the first window that crosses a symbol, gap or split.
        DataError: a symbol has no window.
    """
    codes, times = pd.factorize(split["symbol"])[0], nanoseconds(split["datetime"])
    longest = 0
    _refuse_windows(split, ends, (ends < seq_len - 1) | (ends >= len(split)), "the split", name)
    for lag in range(1, seq_len):
        steps = times[ends - lag + 1] - times[ends - lag]
        _refuse_windows(split, ends, codes[ends - lag] != codes[ends], "a symbol", name)
        _refuse_windows(split, ends, (steps <= 0) | (steps > max_gap_ns), "a gap", name)
        longest = max(longest, int(steps.max(initial=0)))
    without = set(split["symbol"].unique()) - set(split["symbol"].iloc[ends].unique())
    if without:
        raise DataError(
            f"{name}: {min(without)}: no window of {seq_len} bars; lower window.seq_len, raise window.max_gap, or "
            "lower split.embargo_bars"
        )
    return {"windows": len(ends), "longest_step_seconds": longest / 1e9}


def _refuse_windows(split: pd.DataFrame, ends: IntArray, bad: BoolArray, what: str, name: str) -> None:
    if bad.any():
        row = split.iloc[min(int(ends[int(bad.argmax())]), len(split) - 1)]
        raise LeakageError(
            f"{name}: {row['symbol']} {row['datetime'].isoformat()}: the window that ends at this bar crosses {what}; "
            "mend window_ends"
        )
