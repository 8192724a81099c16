"""Purged walk-forward folds inside the train split.

The bars of train, from the end of its first window to that of its last, are cut in two at `first_train`. The rest
is cut into `count` equal parts, the validation parts of the folds. A fold trains on what precedes its part: on all
of it (`expanding`), or on as much as the first fold has (`rolling`). The cuts are the same times for every symbol.

Purge and embargo are López de Prado's (Advances in Financial Machine Learning, 2018, 7.4), in bars of each
symbol. The purge uses each label's actual end: a window is dropped from training when its outcome was not known
before the first bar of validation. The embargo also drops the first bars of validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from barcast.data.dataset import Split, normalize_weights_per_class
from barcast.data.frames import nanoseconds, symbol_slices
from barcast.data.windows import FloatArray, IntArray, Windows
from barcast.errors import DataError
from barcast.section import Section


class FoldConfig(Section):
    """`tune.folds:` of params.yaml."""

    scheme: Literal["expanding", "rolling"]
    count: Annotated[int, Field(ge=1)]
    first_train: Annotated[float, Field(gt=0, lt=1)]
    embargo_bars: Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Fold:
    """Positions among the windows of train: those a fold trains on, and those it is scored on."""

    number: int  # from 1
    train: IntArray  # [n], ascending
    val: IntArray  # [m], ascending


def cut_folds(
    ends: IntArray,
    label_end_offset: npt.NDArray[np.integer],
    times: IntArray,
    symbols: Sequence[slice],
    config: FoldConfig,
) -> list[Fold]:
    """Cut the windows of train into folds.

    Args:
        ends: `[N]` the row of each window's last bar, ascending.
        label_end_offset: `[N]` bars after it until the window's outcome is known.
        times: `[R]` nanoseconds of the base rows, ascending within a symbol.
        symbols: the rows of each symbol, in order; together all R.

    Raises:
        DataError: a fold has no training or no validation window left.
    """
    ended = times[ends]
    moments = np.unique(times[(times >= ended.min()) & (times <= ended.max())])  # of all bars, so no stride moves a cut
    first, span = round(len(moments) * config.first_train), len(moments) * (1 - config.first_train)
    edges = [first + round(span * part / config.count) for part in range(config.count + 1)]
    edges[-1] = len(moments)
    folds = []
    for number, (start, stop) in enumerate(pairwise(edges), 1):
        if start >= stop:
            raise DataError(f"tune.folds: {len(moments)} bars of train are too few for {config.count} folds")
        limit = _first_rows(ends, times, symbols, int(moments[start]))  # [N], of validation, in the window's symbol
        oldest = moments[start - first] if config.scheme == "rolling" else moments[0]
        train = (ends + label_end_offset < limit) & (ended >= oldest)
        val = (ends >= limit + config.embargo_bars) & (ended <= moments[stop - 1])
        if not train.any():
            raise DataError(f"fold {number}: no training window is left; raise tune.folds.first_train")
        if not val.any():
            lower = "lower tune.folds.count or tune.folds.embargo_bars"
            raise DataError(f"fold {number}: no validation window is left; {lower}")
        folds.append(Fold(number, np.flatnonzero(train), np.flatnonzero(val)))
    return folds


def _first_rows(ends: IntArray, times: IntArray, symbols: Sequence[slice], time: int) -> IntArray:
    """For each window, the first row of its symbol at `time` or later (its last row + 1 where there is none)."""
    firsts = np.array([rows.start + np.searchsorted(times[rows], time) for rows in symbols], np.int64)
    owner = np.searchsorted([rows.stop for rows in symbols], ends, side="right")
    first_rows: IntArray = firsts[owner]
    return first_rows


@dataclass(frozen=True)
class FoldSplit(Split):
    """One side of a fold: windows over the fold's own scaled rows, which have the positions of train's rows."""

    index: pd.DataFrame  # of all base rows, read once for all folds

    @cached_property
    def meta(self) -> pd.DataFrame:
        return self.index.iloc[self.X.ends].reset_index(drop=True).assign(row=self.X.ends)


def read_index(split: Split) -> tuple[pd.DataFrame, IntArray, list[slice]]:
    """The keys and closes of a split's base rows `[R]`, their times, and the rows of each symbol."""
    index = pd.read_parquet(split.index_file)
    return index, nanoseconds(index["datetime"]), list(symbol_slices(index["symbol"]).values())


def open_fold(split: Split, index: pd.DataFrame, fold: Fold, rows: Path) -> tuple[FoldSplit, FoldSplit]:
    """Training and validation part over the scaled rows in the file `rows`, which processes share: it is mapped."""
    mapped: FloatArray = np.load(rows, mmap_mode="r")

    def side(name: str, chosen: IntArray) -> FoldSplit:
        y = split.y[chosen]
        return FoldSplit(
            name=f"fold {fold.number} {name}",
            X=Windows(mapped, split.X.ends[chosen], split.X.seq_len),
            y=y,
            weight=normalize_weights_per_class(split.weight[chosen].astype(np.float64), y),
            label_end_offset=split.label_end_offset[chosen],
            index_file=split.index_file,
            index=index,
        )

    return side("train", fold.train), side("val", fold.val)
