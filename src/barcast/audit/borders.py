"""Checks of times: purge, embargo, labels and windows keep the splits apart.

Each check returns the worst case it saw, and raises a LeakageError that names symbol, split and row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise, permutations

import numpy as np
import pandas as pd

from barcast.data.bars import bar_spacing
from barcast.data.frames import SPLITS, BoolArray, IntArray, by_symbol, isoformat, nanoseconds, row_name
from barcast.data.splits import check_label_ends
from barcast.errors import DataError, LeakageError

Splits = Mapping[str, pd.DataFrame]


def bar_positions(bar_times: IntArray, times: IntArray, where: str) -> IntArray:
    """The positions of the rows at `times` among a symbol's bars.

    Raises:
        DataError: a row has no bar.
    """
    rows = np.minimum(np.searchsorted(bar_times, times), len(bar_times) - 1)
    missing = np.flatnonzero(bar_times[rows] != times)
    if len(missing):
        time = isoformat(times[missing[0]])
        raise DataError(f"{where} {time}: the splits have a row for which there is no bar; run `dvc repro prepare`")
    return rows.astype(np.int64)


def check_borders(
    symbol: str, bar_times: IntArray, rows: Mapping[str, IntArray], cuts: Sequence[int], purge: int, embargo: int
) -> dict[str, list[int]]:
    """At least `purge` of the symbol's bars must be left out before each cut, and `embargo` after it.

    `bar_times [R]` are those of the symbol's bars, `rows` the positions of each split's rows among them, `cuts` the
    first times of val and of test. Returns `purge` and `embargo`: the bars left out at each cut.
    """
    left_out: dict[str, list[int]] = {"purge": [], "embargo": []}
    for (earlier, later), cut in zip(pairwise(SPLITS), cuts, strict=True):
        limit = int(np.searchsorted(bar_times, cut))
        last, first = int(rows[earlier][-1]), int(rows[later][0])
        before = ("purge", last, limit - 1 - last, purge, f"the last row of {earlier}")
        after = ("embargo", first, first - limit, embargo, f"the first row of {later}")
        for what, row, between, needed, side in (before, after):
            if between < needed:
                raise LeakageError(
                    f"{symbol} {isoformat(bar_times[row])}: the {what} is short: {max(between, 0)} bars are between "
                    f"{side} and the cut {isoformat(cut)}, split.{what}_bars = {needed}; run `dvc repro prepare`"
                )
            left_out[what].append(between)
    return left_out


def check_borders_by_time(splits: Splits, purge: int, embargo: int) -> int:
    """Purge and embargo of splits made elsewhere: the fewest bars that fit between two splits, at the usual spacing.

    They must fit between any two symbols, since symbols move together; of two spacings the shorter counts. Where
    markets close, there are fewer bars than fit, so this finds only what is surely too short.
    """
    fewest = np.iinfo(np.int64).max
    for earlier, later in pairwise(SPLITS):
        before, after = by_symbol(splits[earlier]), by_symbol(splits[later])
        spacing = {symbol: bar_spacing(part["datetime"]).value for symbol, part in before.items()}
        for ending, starting in [*zip(before, before, strict=True), *permutations(before, 2)]:
            first, last = after[starting]["datetime"].iloc[0].value, before[ending]["datetime"].iloc[-1].value
            between = max(0, -(-(first - last) // min(spacing[ending], spacing[starting])) - 1)
            if between < purge + embargo:
                whose = earlier if ending == starting else f"{earlier} of {ending}"
                problem = f"{between} bars fit between the last row of {whose} and the first of {later}"
                needed = f"split.purge_bars + split.embargo_bars = {purge} + {embargo}"
                remedy = "leave more bars between the splits"
                raise LeakageError(f"{starting} {isoformat(first)}: {problem}, but {needed}; {remedy}")
            fewest = min(fewest, between)
    return int(fewest)


def check_label_ends_by_time(part: pd.DataFrame, next_first: pd.Timestamp, horizons: Sequence[int]) -> None:
    """Labels of splits made elsewhere must end before the next split starts, at the usual spacing."""
    last = len(part) - 1
    limit = last + (next_first - part["datetime"].iloc[-1]) / bar_spacing(part["datetime"])
    remedy = f"it starts {next_first.isoformat()}: leave more bars between the splits"
    check_label_ends(part, np.arange(len(part)), limit, horizons, remedy)


def check_longest_label(splits: Splits, horizons: Sequence[int], purge: int) -> int:
    """No label may look further ahead than the purge; returns the longest, in bars."""
    longest = 0
    for name, split in splits.items():
        for horizon in horizons:
            column = f"bars_to_hit_h{horizon}"
            offset = split[column].to_numpy(np.float64, na_value=0.0)
            row = int(offset.argmax())
            if offset[row] > purge:
                value = split[column].iloc[row]
                problem = f"{column} = {value} is longer than split.purge_bars = {purge}"
                remedy = f"raise split.purge_bars to {value} or more"
                raise LeakageError(f"{name}: {row_name(split, row)}: {problem}; {remedy}")
            longest = max(longest, int(offset[row]))
    return longest


def check_windows(split: pd.DataFrame, ends: IntArray, seq_len: int, max_gap_ns: int, name: str) -> int:
    """Step back bar by bar from each window's end: same symbol, ascending time, no step longer than allowed.

    `ends` is the row `[N]` of each window's last bar in the split `name`, `[R, C]`. Returns the longest step between
    two bars of a window, in nanoseconds.

    Raises:
        DataError: a symbol has no window.
    """

    codes, times = pd.factorize(split["symbol"])[0], nanoseconds(split["datetime"])
    longest = 0

    def refuse(bad: BoolArray, what: str) -> None:
        if bad.any():
            where = row_name(split, min(int(ends[int(bad.argmax())]), len(split) - 1))
            raise LeakageError(f"{name}: {where}: the window that ends at this bar crosses {what}; fix window_ends")

    refuse((ends < seq_len - 1) | (ends >= len(split)), "the split")
    for lag in range(1, seq_len):
        steps = times[ends - lag + 1] - times[ends - lag]
        refuse(codes[ends - lag] != codes[ends], "a symbol")
        refuse((steps <= 0) | (steps > max_gap_ns), "a gap")
        longest = max(longest, int(steps.max(initial=0)))
    without = set(split["symbol"].unique()) - set(split["symbol"].iloc[ends].unique())
    if without:
        remedy = "lower window.seq_len, raise window.max_gap, or lower split.embargo_bars"
        raise DataError(f"{name}: {min(without)}: no window of {seq_len} bars; {remedy}")
    return longest
