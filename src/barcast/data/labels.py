"""Triple-barrier labels and their weights (López de Prado, Advances in Financial Machine Learning, 2018, ch. 3-4).

A label of bar t is the outcome of a long position entered at t's close. Upper (profit) and lower (stop) barrier lie
k_up and k_down average true ranges of t from the entry; bars t+1 … t+max_bars are searched, by their highs and
lows, for the first touch. Bars count as consecutive, whatever gap lies between their times.

| outcome                                      | label | touch_type    | bars_to_hit   |
|----------------------------------------------|-------|---------------|---------------|
| high reaches the upper barrier first         | +1    | 1             | touching bar  |
| low reaches the lower barrier first          | -1    | -1            | touching bar  |
| both in one bar: which came first is unknown, so the stop | -1 | 2   | touching bar  |
| neither within max_bars                      | 0     | 0             | max_bars      |
| the bars end before any of these, or the ATR is not yet known or 0 | <NA> | <NA> | <NA> |

`mae` and `mfe` are the largest moves below and above the entry up to and including the touching bar, in ATR.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import AfterValidator, Field

from barcast.config import Section, nearest, unknown_key
from barcast.data._rolling import Array, average_true_range, compiled
from barcast.errors import ConfigError, DataError

Integers = npt.NDArray[np.int64]
Scan = tuple[Integers, Integers, Array, Array]

_PARAMS = "params.yaml"
_LABEL_COLUMN = re.compile(r"_h\d+$")
_BOTH = 2  # touch_type of a bar that reached both barriers


def _horizon_name(key: str) -> str:
    if not re.fullmatch(r"h[1-9]\d*", key):
        raise ValueError("the name of a horizon, such as h5")
    return key


HorizonName = Annotated[str, AfterValidator(_horizon_name)]
Distance = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Reach = Annotated[int, Field(ge=1)]
Weights = Literal["none", "uniqueness", "quality", "both"]


class BarrierConfig(Section):
    """The barriers of one horizon: distances in units of ATR, reach in bars."""

    k_up: Distance
    k_down: Distance
    max_bars: Reach


class PartialBarrier(Section):
    """What one symbol has different from a horizon's barriers; an absent key keeps the horizon's own value."""

    k_up: Distance | None = None
    k_down: Distance | None = None
    max_bars: Reach | None = None


class LabelConfig(Section):
    """How bars are labelled: for each horizon its barriers, with overrides for single symbols."""

    atr_period: int = Field(ge=1, le=100_000)  # TA-Lib's own limit
    horizons: dict[HorizonName, BarrierConfig]
    symbols: dict[str, dict[HorizonName, PartialBarrier]]

    def barriers(self, symbol: str, horizon: int) -> BarrierConfig:
        """The barriers of one symbol and horizon, overrides applied.

        Raises:
            ConfigError: the horizon has no block.
        """
        key = f"h{horizon}"
        if key not in self.horizons:
            raise ConfigError(self._missing_horizon(horizon))
        override = self.symbols.get(symbol, {}).get(key, PartialBarrier())
        return self.horizons[key].model_copy(update=override.model_dump(exclude_none=True))

    def longest_reach(self) -> int:
        """The most bars that any label of any symbol looks ahead."""
        overrides = [block.max_bars or 0 for blocks in self.symbols.values() for block in blocks.values()]
        return max([barrier.max_bars for barrier in self.horizons.values()] + overrides)

    def check(self, symbols: Sequence[str], horizons: Sequence[int]) -> None:
        """Refuse horizons without barriers, and overrides that nothing reads.

        Raises:
            ConfigError: naming the key and the closest known one.
        """
        for horizon in horizons:
            self.barriers("", horizon)
        for symbol, blocks in self.symbols.items():
            if symbol not in symbols:
                raise ConfigError(unknown_key(_PARAMS, f"label.symbols.{symbol}", symbol, symbols))
            for key in blocks:
                if key not in self.horizons:
                    raise ConfigError(unknown_key(_PARAMS, f"label.symbols.{symbol}.{key}", key, self.horizons))

    def _missing_horizon(self, horizon: int) -> str:
        problem = f"{_PARAMS}: horizon {horizon} needs the block 'label.horizons.h{horizon}', which is missing"
        close = nearest(f"h{horizon}", self.horizons) or next(iter(self.horizons), None)
        return problem + (f"; the closest there is '{close}'" if close else "; label.horizons is empty")


class LabelSection(LabelConfig):
    """`label:` of params.yaml: how bars are labelled, and what a label weighs in training.

    `uniqueness` and `quality` are the two factors of `sample_weights`, `both` is their product, the column
    `sample_weight_h{h}`. With `none` every label weighs 1.
    """

    weights: Weights


def label_columns(horizon: int) -> list[str]:
    """The seven columns of one horizon; `label_bars` makes the first six, the weight is known after the split."""
    kinds = ("label", "bars_to_hit", "mae", "mfe", "touch_type", "quality", "sample_weight")
    return [f"{kind}_h{horizon}" for kind in kinds]


def is_label_column(name: str) -> bool:
    """Whether a column looks into the future, which its suffix `_h<number>` says."""
    return _LABEL_COLUMN.search(name) is not None


def label_bars(bars: pd.DataFrame, config: LabelConfig, symbol: str, horizons: Sequence[int]) -> pd.DataFrame:
    """Label every bar of one symbol for every horizon.

    Args:
        bars: [n] checked bars of the symbol in the order of time.
        config: the barriers.
        symbol: whose overrides apply.
        horizons: which blocks of `config.horizons` to use.

    Returns:
        [n, 6 × horizons] with the index of `bars`: label, touch_type (Int8), bars_to_hit (Int32), mae, mfe and
        quality (float32); <NA> or NaN where the outcome is not known. Bars after t + bars_to_hit change nothing.

    Raises:
        ConfigError: a horizon has no block.
    """
    prices = (bars[name].to_numpy(dtype=np.float64) for name in ("high", "low", "close"))
    high, low, close = (np.ascontiguousarray(price) for price in prices)
    atr = average_true_range(high, low, close, config.atr_period)
    columns: dict[str, object] = {}
    for horizon in horizons:
        barrier = config.barriers(symbol, horizon)
        scan = _scan(high, low, close, atr, barrier.k_up, barrier.k_down, barrier.max_bars)
        columns |= zip(label_columns(horizon), _columns(scan, barrier), strict=False)
    return pd.DataFrame(columns, index=bars.index)


def sample_weights(bars_to_hit: npt.ArrayLike, quality: npt.ArrayLike) -> Array:
    """Average uniqueness of each label (AFML 4.3-4.4) times its quality, not normalised.

    A label of t is made of the returns of bars t+1 … t+bars_to_hit. Its uniqueness is the mean over these bars
    of one over the number of labels that share the bar; bars beyond the last row count too.

    Args:
        bars_to_hit: [n] of consecutive rows of one symbol, NaN or <NA> where there is no label.
        quality: [n] in 0..1.

    Returns:
        [n] in 0..1, NaN where there is no label.

    Raises:
        DataError: the arrays differ in length, or a reach is no whole number of at least one bar.
    """
    reach = pd.Series(bars_to_hit).to_numpy(dtype=np.float64, na_value=np.nan)
    worth = pd.Series(quality).to_numpy(dtype=np.float64, na_value=np.nan)
    if reach.shape != worth.shape:
        raise DataError(f"sample weights: {reach.size} values of bars_to_hit but {worth.size} of quality")
    known = ~np.isnan(reach)
    wrong = known & ~((reach >= 1.0) & (reach == np.floor(reach)) & np.isfinite(reach))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(f"sample weights: bars_to_hit in row {row} is {reach[row]}; expected a whole number from 1 up")
    bars = np.where(known, reach, 0.0).astype(np.int64)
    return np.where(known, _average_uniqueness(bars) * worth, np.nan)


@compiled
def _scan(high: Array, low: Array, close: Array, atr: Array, k_up: float, k_down: float, max_bars: int) -> Scan:
    """First touch of each bar, 4 × [n]: bars to it (0: outcome unknown), its touch_type, mae and mfe in ATR."""
    n = close.size
    bars, touch = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    mae, mfe = np.full(n, np.nan), np.full(n, np.nan)
    for t in range(n):
        entry, upper, lower = close[t], close[t] + k_up * atr[t], close[t] - k_down * atr[t]
        if not (lower < entry < upper):  # the ATR is NaN, or too small to move the price at all
            continue
        least = most = entry
        for s in range(t + 1, min(t + max_bars, n - 1) + 1):
            least, most = min(least, low[s]), max(most, high[s])
            if high[s] >= upper or low[s] <= lower:
                bars[t] = s - t
                touch[t] = 1 if low[s] > lower else (-1 if high[s] < upper else 2)
                break
        if bars[t] == 0 and t + max_bars < n:
            bars[t] = max_bars
        if bars[t] > 0:
            mae[t], mfe[t] = (entry - least) / atr[t], (most - entry) / atr[t]
    return bars, touch, mae, mfe


def _columns(scan: Scan, barrier: BarrierConfig) -> list[object]:
    """The six columns of one horizon in the order of `label_columns`."""
    bars, touch, mae, mfe = scan
    unknown = bars == 0
    label = np.where(touch == _BOTH, -1, touch)
    return [
        pd.arrays.IntegerArray(label.astype(np.int8), unknown),
        pd.arrays.IntegerArray(bars.astype(np.int32), unknown),
        mae.astype(np.float32),
        mfe.astype(np.float32),
        pd.arrays.IntegerArray(touch.astype(np.int8), unknown),
        np.where(unknown, np.nan, _quality(label, scan, barrier)).astype(np.float32),
    ]


def _quality(label: Integers, scan: Scan, barrier: BarrierConfig) -> Array:
    """How clear an outcome was, in 0 (excluded) to 1, [n].

    - Touched: the mean of speed and cleanness. Speed falls evenly from 1 (first bar) to 1 / max_bars (last).
      Cleanness is 1 less the share of the way to the other barrier that price went: 0 when it got there.
    - Not touched: 1 less half the larger share of the way that price went to either barrier. A path that
      stayed at the entry has 1, one that nearly touched has ½.
    """
    bars, _, mae, mfe = scan
    down, up = np.minimum(mae / barrier.k_down, 1.0), np.minimum(mfe / barrier.k_up, 1.0)
    speed = 1.0 - (bars - 1) / barrier.max_bars
    cleanness = 1.0 - np.where(label > 0, down, up)
    return np.where(label == 0, 1.0 - np.maximum(down, up) / 2.0, (speed + cleanness) / 2.0)


@compiled
def _average_uniqueness(bars: Integers) -> Array:
    """Mean of 1 / concurrency over bars t+1 … t+bars[t], [n] -> [n]; 0 where bars is 0. O(n) time and memory."""
    n = bars.size
    end = n + (bars.max() if n > 0 else 0) + 1  # no label reaches this bar
    change = np.zeros(end, dtype=np.int64)
    for t in range(n):
        if bars[t] > 0:
            change[t + 1] += 1
            change[t + bars[t] + 1] -= 1
    sums = np.zeros(end + 1)  # sums[s]: of 1 / concurrency over the bars before s
    concurrent = 0
    for s in range(end):
        concurrent += change[s]
        sums[s + 1] = sums[s] + (1.0 / concurrent if concurrent > 0 else 0.0)
    uniqueness = np.zeros(n)
    for t in range(n):
        if bars[t] > 0:
            uniqueness[t] = min((sums[t + bars[t] + 1] - sums[t + 1]) / bars[t], 1.0)
    return uniqueness
