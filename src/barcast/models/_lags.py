"""Windows as a table: what the `lags` and `spans` keys let a model of tables see of `[N, L, F]`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import AfterValidator, PlainValidator, ValidationInfo

from barcast.data.windows import FloatArray, IntArray, Windows
from barcast.errors import ModelError

STATISTICS = ("mean", "std", "min", "max", "slope")
WHOLE = -1  # in place of a lag: a column over many bars
CHUNK_BYTES = 32 * 2**20
SAMPLED_ROWS = 20_000


def _check_lags(value: Any) -> Any:
    if value == "all":
        return value
    numbers = isinstance(value, list) and all(type(lag) is int and lag >= 0 for lag in value)
    if not numbers or not value or len(set(value)) < len(value):
        raise ValueError("'all', or a list of bars before the last one such as [0, 1, 5], none twice")
    return value


def _check_spans(spans: list[int], info: ValidationInfo) -> list[int]:
    if any(span < 2 for span in spans) or len(set(spans)) < len(spans):
        raise ValueError("a list of at least 2 bars each, none twice, such as [5, 20, 60]")
    if spans and info.data.get("lags") == "all":
        raise ValueError("no spans beside lags = 'all'; spans need a lag list such as lags = [0, 1, 5]")
    return spans


Lags = Annotated[Literal["all"] | list[int], PlainValidator(_check_lags)]
Spans = Annotated[list[int], AfterValidator(_check_spans)]  # after `lags` in a config class


class FlatTable:
    """`[N, L*F]`, the flattened windows, oldest bar first; a slice of rows is copied when asked for."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows

    @property
    def shape(self) -> tuple[int, int]:
        count, length, width = self.windows.shape
        return count, length * width

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, key: slice) -> FloatArray:
        return self.windows[key].reshape(-1, self.shape[1])  # [n, L, F] -> [n, L*F]


Table: TypeAlias = FlatTable | FloatArray


class LagView:
    """The columns that a model sees of windows of `seq_len` bars and `width` features.

    `lags="all"` is the flattened window: column k·F + j is feature j at bar k, oldest first, so at lag L−1−k. A lag
    list is one block of F columns per lag, in its order; then for each span its trailing mean, population standard
    deviation, minimum, maximum and least-squares slope per bar, one block of F columns each.

    Raises:
        ModelError: a lag or a span reaches beyond the window.
    """

    def __init__(self, lags: Literal["all"] | list[int], spans: list[int], seq_len: int, width: int) -> None:
        for lag in [] if lags == "all" else lags:
            if lag >= seq_len:
                raise ModelError(f"lags: lag {lag} is outside a window of seq_len {seq_len}; use 0 … {seq_len - 1}")
        for span in spans:
            if span > seq_len:
                raise ModelError(f"spans: span {span} is longer than a window of seq_len {seq_len}; shorten it")
        self.flat = lags == "all"
        self.lags = list(range(seq_len - 1, -1, -1)) if lags == "all" else list(lags)
        self.spans = spans
        self.width = width

    @property
    def columns(self) -> tuple[IntArray, IntArray]:
        """Feature number and lag of each column, `[C]` twice; the lag of a span's column is `WHOLE`."""
        lags = self.lags + [WHOLE] * (len(self.spans) * len(STATISTICS))
        return np.tile(np.arange(self.width), len(lags)), np.repeat(lags, self.width)

    def table(self, windows: Windows) -> Table:
        """`[N, C]` float32: lazy for the flattened window, computed and held whole for a lag list."""
        if self.flat:
            return FlatTable(windows)
        table = np.empty((len(windows), len(self.columns[0])), np.float32)
        for part in row_chunks(*table.shape):
            self._fill(windows.select(part), table[part])
        return table

    def blocks(self, windows: Windows) -> Iterator[FloatArray]:
        """The table in blocks of rows, `[n, C]` each, none of which is kept."""
        for part in row_chunks(len(windows), len(self.columns[0])):
            yield self.table(windows.select(part))[:]

    def _fill(self, windows: Windows, out: FloatArray) -> None:
        blocks = np.split(out, out.shape[1] // self.width, axis=1)  # views [n, F]
        for lag, block in zip(self.lags, blocks, strict=False):
            block[:] = windows.lag(lag)
        if self.spans:
            _fill_spans(windows, self.spans, blocks[len(self.lags) :])


def _fill_spans(windows: Windows, spans: list[int], blocks: list[FloatArray]) -> None:
    """Write each span's statistics, bar by bar from the last one back.

    Every window is summed by itself, in one order, so its columns are the same bits beside any other windows. Sums
    are of distances to the last bar: a constant feature has a deviation of exactly 0.
    """
    last = windows.lag(0).astype(np.float64)  # [n, F]
    total, squares, moment, low, high = (np.zeros_like(last) for _ in range(5))
    for lag in range(max(spans)):
        distance = windows.lag(lag) - last
        total += distance
        squares += distance * distance
        moment -= lag * distance
        np.minimum(low, distance, out=low)
        np.maximum(high, distance, out=high)
        if lag + 1 in spans:
            span = lag + 1
            mean = total / span
            deviation = np.sqrt(np.maximum(squares / span - mean * mean, 0))
            slope = (moment + (span - 1) / 2 * total) / (span * (span * span - 1) / 12)
            start = spans.index(span) * len(STATISTICS)
            statistics = (last + mean, deviation, last + low, last + high, slope)
            for block, values in zip(blocks[start:], statistics, strict=False):
                block[:] = values


def row_chunks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of `rows` rows, each of at most `CHUNK_BYTES` as float32."""
    size = max(1, CHUNK_BYTES // (4 * columns))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def bin_table(table: Table, points: int, seed: int) -> FloatArray:
    """`[points, C]`, the even quantiles of each column from the least value to the greatest.

    A library finds its bin edges in these few rows instead of in all; for a flattened window once per feature, over
    all its lags. A long table is sampled by position, so lazy windows and a plain array give the same edges.
    """
    rng = np.random.default_rng(seed)
    sample = _sampled_bars(table.windows, rng) if isinstance(table, FlatTable) else _sampled_rows(table, rng)
    quantiles = np.quantile(sample, np.linspace(0, 1, points), axis=0, method="nearest").astype(np.float32)
    return np.tile(quantiles, (1, table.shape[1] // quantiles.shape[1]))


def _sampled_bars(windows: Windows, rng: np.random.Generator) -> FloatArray:
    count, length, width = windows.shape
    if count * length <= SAMPLED_ROWS:
        return windows[:].reshape(-1, width)  # [N, L, F] -> [N*L, F]
    ends = windows.ends[rng.integers(0, count, SAMPLED_ROWS)]
    sample: FloatArray = windows.rows[ends - rng.integers(0, length, SAMPLED_ROWS)]
    return sample


def _sampled_rows(table: FloatArray, rng: np.random.Generator) -> FloatArray:
    return table if len(table) <= SAMPLED_ROWS else table[rng.integers(0, len(table), SAMPLED_ROWS)]


def importance_frame(view: LagView, scores: npt.ArrayLike, features: list[str]) -> pd.DataFrame:
    """Scores of the columns `[C]`, non-negative, as `feature`, `lag` and `importance`, summing to 1; without zeros.
    A feature's span columns are one row without a lag."""
    number, lag = view.columns
    frame = pd.DataFrame({"number": number, "lag": lag, "importance": np.asarray(scores, np.float64)})
    summed = frame[frame["importance"] > 0].groupby(["number", "lag"])["importance"].sum().reset_index()
    frame = summed.sort_values(["importance", "number", "lag"], ascending=[False, True, True], ignore_index=True)
    return pd.DataFrame(
        {
            "feature": np.asarray(features, object)[frame["number"]],
            "lag": frame["lag"].astype("Int64").where(frame["lag"] != WHOLE),
            "importance": frame["importance"] / frame["importance"].sum(),
        }
    )
