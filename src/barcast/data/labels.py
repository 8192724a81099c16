"""Triple-barrier labels (López de Prado, Advances in Financial Machine Learning, 2018, ch. 3).

The label of bar t is the outcome of a long position entered at t's close. The upper (profit) and lower (stop)
barriers are k_up and k_down average true ranges of t away from the entry. The highs and lows of bars
t+1 … t+max_bars are searched for the first touch. Bars count as consecutive, whatever the gap between their times.

| outcome                                      | label | touch_type    | bars_to_hit   |
|----------------------------------------------|-------|---------------|---------------|
| high reaches the upper barrier first         | +1    | 1             | touching bar  |
| low reaches the lower barrier first          | -1    | -1            | touching bar  |
| both in one bar: the order is unknown, so the stop | -1 | 2   | touching bar  |
| neither within max_bars                      | 0     | 0             | max_bars      |
| the bars end first, or the ATR is not known yet or 0 | <NA> | <NA> | <NA> |

`mae` and `mfe` are the largest moves below and above the entry up to and including the touching bar, in ATR.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import AfterValidator, Field

from barcast.data._rolling import Array, average_true_range, compiled
from barcast.data.bar_files import closest
from barcast.data.frames import IntArray, label_columns
from barcast.data.label_weights import Weights
from barcast.errors import ConfigError
from barcast.section import Section

Touches = tuple[IntArray, IntArray, Array, Array]

_BOTH = 2  # touch_type of a bar that reached both barriers


def _horizon_name(key: str) -> str:
    if not re.fullmatch(r"h[1-9]\d*", key):
        raise ValueError("the name of a horizon, such as h5")
    return key


HorizonName = Annotated[str, AfterValidator(_horizon_name)]
Distance = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Bars = Annotated[int, Field(ge=1)]


class BarrierConfig(Section):
    """The barriers of one horizon: distances in units of ATR, and how many bars to search."""

    k_up: Distance
    k_down: Distance
    max_bars: Bars


class PartialBarrier(Section):
    """One symbol's overrides of a horizon's barriers; an absent key keeps the horizon's value."""

    k_up: Distance | None = None
    k_down: Distance | None = None
    max_bars: Bars | None = None


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
            close = closest(key, self.horizons) or next(iter(self.horizons), None)
            hint = f"the closest there is '{close}'" if close else "label.horizons is empty"
            problem = f"params.yaml: horizon {horizon} needs the block 'label.horizons.{key}', which is missing"
            raise ConfigError(f"{problem}; {hint}")
        override = self.symbols.get(symbol, {}).get(key, PartialBarrier())
        return self.horizons[key].model_copy(update=override.model_dump(exclude_none=True))

    def longest_label_end_offset(self) -> int:
        """The most bars that any label of any symbol looks ahead."""
        overrides = [block.max_bars or 0 for blocks in self.symbols.values() for block in blocks.values()]
        return max([barrier.max_bars for barrier in self.horizons.values()] + overrides)

    def check(self, symbols: Sequence[str], horizons: Sequence[int]) -> None:
        """Refuse horizons without barriers, and overrides of unknown symbols or horizons.

        Raises:
            ConfigError: naming the key and the closest known one.
        """
        for horizon in horizons:
            self.barriers("", horizon)
        used: list[tuple[str, str, Collection[str]]] = []
        for symbol, blocks in self.symbols.items():
            used += [(f"label.symbols.{symbol}", symbol, symbols)]
            used += [(f"label.symbols.{symbol}.{key}", key, self.horizons) for key in blocks]
        for path, name, known in used:
            if name not in known:
                close = closest(name, known)
                hint = f"did you mean '{close}'?" if close else f"known keys: {', '.join(sorted(known))}"
                raise ConfigError(f"params.yaml: unknown key '{path}'; {hint}")


class LabelSection(LabelConfig):
    """`label:` of params.yaml: how bars are labelled, and what a label weighs in training.

    `uniqueness` and `quality` are the two factors of `sample_weights`. `both` is their product, the column
    `sample_weight_h{h}`. With `none` every label weighs 1.
    """

    weights: Weights


def label_bars(bars: pd.DataFrame, config: LabelConfig, symbol: str, horizons: Sequence[int]) -> pd.DataFrame:
    """Label every bar of one symbol for every horizon: [n] checked bars in time order give [n, 6 × horizons].

    Label and touch_type are Int8, bars_to_hit is Int32, mae, mfe and quality are float32; <NA> or NaN where the outcome
    is unknown. Bars after t + bars_to_hit change nothing.

    Raises:
        ConfigError: a horizon has no block.
    """
    prices = (bars[name].to_numpy(dtype=np.float64) for name in ("high", "low", "close"))
    high, low, close = (np.ascontiguousarray(price) for price in prices)
    atr = average_true_range(high, low, close, config.atr_period)
    columns: dict[str, object] = {}
    for horizon in horizons:
        barrier = config.barriers(symbol, horizon)
        touches = _first_touches(high, low, close, atr, barrier.k_up, barrier.k_down, barrier.max_bars)
        columns |= zip(label_columns(horizon), _columns(touches, barrier), strict=False)
    return pd.DataFrame(columns, index=bars.index)


@compiled
def _first_touches(
    high: Array, low: Array, close: Array, atr: Array, k_up: float, k_down: float, max_bars: int
) -> Touches:
    """First touch after each bar, 4 × [n]: label_end_offset (0: unknown), touch_type, mae and mfe in ATR."""
    n = close.size
    label_end_offset, touch = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    mae, mfe = np.full(n, np.nan), np.full(n, np.nan)
    for t in range(n):
        entry, upper, lower = close[t], close[t] + k_up * atr[t], close[t] - k_down * atr[t]
        if not (lower < entry < upper):  # the ATR is NaN, or too small to move the price at all
            continue
        least = most = entry
        for s in range(t + 1, min(t + max_bars, n - 1) + 1):
            least, most = min(least, low[s]), max(most, high[s])
            if high[s] >= upper or low[s] <= lower:
                label_end_offset[t] = s - t
                touch[t] = 1 if low[s] > lower else (-1 if high[s] < upper else 2)
                break
        if label_end_offset[t] == 0 and t + max_bars < n:
            label_end_offset[t] = max_bars
        if label_end_offset[t] > 0:
            mae[t], mfe[t] = (entry - least) / atr[t], (most - entry) / atr[t]
    return label_end_offset, touch, mae, mfe


def _columns(touches: Touches, barrier: BarrierConfig) -> list[object]:
    """The six columns of one horizon in the order of `label_columns`."""
    label_end_offset, touch, mae, mfe = touches
    unknown, label = label_end_offset == 0, np.where(touch == _BOTH, -1, touch)
    return [
        pd.arrays.IntegerArray(label.astype(np.int8), unknown),
        pd.arrays.IntegerArray(label_end_offset.astype(np.int32), unknown),
        mae.astype(np.float32),
        mfe.astype(np.float32),
        pd.arrays.IntegerArray(touch.astype(np.int8), unknown),
        np.where(unknown, np.nan, _quality(label, touches, barrier)).astype(np.float32),
    ]


def _quality(label: IntArray, touches: Touches, barrier: BarrierConfig) -> Array:
    """How clear an outcome was, in 0 (excluded) to 1, [n].

    - Touched: the mean of speed and cleanness. Speed falls evenly from 1 (first bar) to 1 / max_bars (last).
      Cleanness is 1 less the share of the way to the other barrier that price went: 0 when it got there.
    - Not touched: 1 less half the larger share of the way that price went to either barrier. A path that
      stayed at the entry has 1, one that nearly touched has ½.
    """
    label_end_offset, _, mae, mfe = touches
    down, up = np.minimum(mae / barrier.k_down, 1.0), np.minimum(mfe / barrier.k_up, 1.0)
    speed = 1.0 - (label_end_offset - 1) / barrier.max_bars
    cleanness = 1.0 - np.where(label > 0, down, up)
    return np.where(label == 0, 1.0 - np.maximum(down, up) / 2.0, (speed + cleanness) / 2.0)
