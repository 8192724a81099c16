"""Splits by time with purge and embargo (López de Prado, Advances in Financial Machine Learning, 2018, ch. 7).

The purge drops the rows before a cut whose labels could end after it. The embargo drops rows after the cut as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from barcast.data.frames import SPLITS, IntArray, by_symbol, isoformat, nanoseconds, row_name
from barcast.data.label_weights import add_weights
from barcast.errors import DataError, LeakageError
from barcast.section import Section

Fraction = Annotated[float, Field(gt=0, lt=1)]


class SplitConfig(Section):
    """`split:` of params.yaml."""

    train: Fraction
    val: Fraction
    test: Fraction
    purge_bars: Annotated[int, Field(ge=0)]
    embargo_bars: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _whole(self) -> SplitConfig:
        if not math.isclose(total := self.train + self.val + self.test, 1.0, abs_tol=1e-9):
            raise ValueError(f"train + val + test to be 1, they sum to {total:g}")
        return self


def check_purge(config: SplitConfig, longest: int) -> None:
    """Refuse a purge that is shorter than the longest label, in bars.

    Raises:
        LeakageError: it is shorter, so bars of one split would decide labels of the split before.
    """
    if config.purge_bars < longest:
        problem = f"expected at least {longest}, the longest label (max_bars under label)"
        remedy = f"raise split.purge_bars to {longest} or shorten the labels"
        raise LeakageError(f"split.purge_bars = {config.purge_bars}: {problem}; {remedy}")


def cut_times(times: Iterable[IntArray], config: SplitConfig) -> tuple[int, int]:
    """The first time of val and of test, the same for every symbol: quantiles of the union of all times."""
    union = np.unique(np.concatenate(list(times)))
    if len(union) < len(SPLITS):
        problem = f"{len(union)} different times after the warm-up, too few for three splits"
        raise DataError(f"bars: {problem}; give more bars")
    at = [round(len(union) * part) for part in (config.train, config.train + config.val)]
    val, test = (int(union[min(position, len(union) - 1)]) for position in at)
    return val, test


def split_rows(times: IntArray, cuts: tuple[int, int], config: SplitConfig) -> dict[str, slice]:
    """The rows that each split keeps of one symbol, whose ascending times are `[R]`, between `cut_times`.

    Purge and embargo are counted in rows of the symbol.
    """
    val, test = (int(row) for row in np.searchsorted(times, cuts))
    purge, embargo = config.purge_bars, config.embargo_bars
    starts = {"train": 0, "val": min(val + embargo, test), "test": min(test + embargo, len(times))}
    stops = {"train": max(val - purge, 0), "val": test - purge, "test": len(times)}
    return {name: slice(starts[name], max(starts[name], stops[name])) for name in SPLITS}


def split_frame(
    frame: pd.DataFrame, config: SplitConfig, horizons: Sequence[int], longest: int, min_rows: int
) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Cut the table of all symbols into train, val and test, and add the sample weights.

    `frame` has keys, bars, features and labels `[R, C]`, sorted by symbol and time, without warm-up rows. The longest
    label looks `longest` bars ahead. Returns the splits, and the report with every boundary, for JSON.

    Raises:
        LeakageError: the purge is shorter than the longest label, or a label ends at or after the next cut.
        DataError: a symbol keeps fewer than `min_rows` rows in a split, or a horizon has no label in train.
    """
    check_purge(config, longest)
    symbols, needed = by_symbol(frame), max(min_rows, 1)
    times = {symbol: nanoseconds(own["datetime"]) for symbol, own in symbols.items()}
    cuts = cut_times(times.values(), config)
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in SPLITS}
    report: dict[str, Any] = {name: {} for name in SPLITS}
    for symbol, own in symbols.items():
        kept = split_rows(times[symbol], cuts, config)
        edges = [0, *np.searchsorted(times[symbol], cuts).tolist(), len(own)]
        for name, (start, stop) in zip(SPLITS, pairwise(edges), strict=True):
            part = own.iloc[kept[name]]
            if len(part) < needed:
                remedy = _more_rows(stop - start >= needed, config, times[symbol], cuts)
                problem = f"{symbol}: {len(part)} rows are left in {name}, at least {needed} are needed"
                raise DataError(f"{problem}; {remedy}")
            if name != "test":
                check_label_ends(part, np.arange(kept[name].start, kept[name].stop), stop, horizons)
            parts[name].append(part)
            dropped = {"purged": stop - kept[name].stop, "embargoed": kept[name].start - start}
            report[name][symbol] = {**describe(part, horizons), **dropped}
    splits = {name: pd.concat(parts.pop(name), ignore_index=True) for name in SPLITS}
    add_weights(splits, horizons)
    boundaries = {"val": isoformat(cuts[0]), "test": isoformat(cuts[1])}
    return splits, {"cuts": boundaries, "config": config.model_dump(), "splits": report}


def _more_rows(dropped: bool, config: SplitConfig, times: IntArray, cuts: tuple[int, int]) -> str:
    """What to do about too few rows: purge and embargo have `dropped` them, or there are few between the cuts."""
    if dropped:
        settings = f"split.embargo_bars ({config.embargo_bars}) or split.purge_bars ({config.purge_bars})"
        return f"lower {settings}, or give more bars"
    span = f"after the warm-up its bars last from {isoformat(times[0])} to {isoformat(times[-1])}"
    borders = f"for every symbol val starts {isoformat(cuts[0])} and test {isoformat(cuts[1])}"
    return f"{span}, {borders}; give more of its bars or take it out of symbols in params.yaml"


def check_label_ends(
    part: pd.DataFrame, rows: IntArray, limit: float, horizons: Sequence[int], remedy: str = "raise split.purge_bars"
) -> int:
    """Check that labels end before bar `limit`, the first of the next split; returns the fewest bars in between.

    `part` has one symbol's rows of one split `[R, C]`, at the positions `rows [R]` among the symbol's bars. So is
    `limit` a position.

    Raises:
        LeakageError: naming the column and the first row whose label ends at `limit` or later.
    """
    spare = limit - 1
    for horizon in horizons:
        column = f"bars_to_hit_h{horizon}"
        ends = rows + part[column].to_numpy(np.float64, na_value=-np.inf)
        crossing = np.flatnonzero(ends >= limit)
        if len(crossing):
            row = int(crossing[0])
            value = part[column].iloc[row]
            raise LeakageError(f"{row_name(part, row)}: {column} = {value}: the label ends in the next split; {remedy}")
        spare = min(spare, limit - 1 - max(ends.max(initial=-np.inf), 0))
    return int(spare)


def describe(part: pd.DataFrame, horizons: Sequence[int]) -> dict[str, Any]:
    """One symbol in one split: first and last time, rows, labelled rows and class shares."""
    described = {}
    for horizon in horizons:
        labels = part[f"label_h{horizon}"].dropna().to_numpy(np.int64)
        shares = {str(c): float((labels == c).mean()) if len(labels) else 0.0 for c in (-1, 0, 1)}
        described[f"h{horizon}"] = {"labelled": len(labels), "shares": shares}
    first, last = (part["datetime"].iloc[row].isoformat() for row in (0, -1))
    return {"first": first, "last": last, "rows": len(part), "labels": described}
