"""From raw bars to labelled, scaled splits; or splits made elsewhere, checked and kept as they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from barcast.data.bars import find_gaps, load_bars, require_rows
from barcast.data.features import FeatureConfig, feature_names, fill_features, warmup_bars
from barcast.data.frames import KEYS, OHLCV, SPLITS, by_symbol, label_columns
from barcast.data.labels import LabelConfig, label_bars
from barcast.data.scaler import Scaler, ScalerConfig
from barcast.data.split_files import load_splits
from barcast.data.splits import SplitConfig, check_purge, describe, split_frame
from barcast.section import Section


class DataConfig(Section):
    """`data:` of params.yaml, without `audit`."""

    source: Literal["bars", "splits"]
    path: str
    features: FeatureConfig
    scaler: ScalerConfig

    @property
    def from_bars(self) -> bool:
        """Whether features, labels and scaler are made here; if not, the splits come with them."""
        return self.source != "splits"


class PrepareConfig(Section):
    """`config:` of the spec `prepare.yaml`. Splits made elsewhere use neither features, scaler, label nor split."""

    symbols: Annotated[list[str], Field(min_length=1)]
    horizons: Annotated[list[int], Field(min_length=1)]
    data: DataConfig
    label: LabelConfig
    split: SplitConfig


@dataclass(frozen=True)
class PreparedSplits:
    """What the stage writes. `splits` yields each split once, scaled when it is reached, to save memory."""

    splits: Iterator[tuple[str, pd.DataFrame]]
    report: dict[str, Any]
    scaler: Scaler | None = None
    clipped_values: pd.DataFrame | None = None  # of train


def prepare_splits(config: PrepareConfig, source: Path) -> PreparedSplits:
    """Read `source` and make the three splits of it.

    Raises:
        DataError: the input breaks a rule of its form, or is too short.
        LeakageError: the purge is shorter than the longest label, or the given splits overlap in time.
    """
    if config.data.from_bars:
        return _from_bars(config, source)
    splits = load_splits(source, config.symbols, config.horizons)
    described = {
        name: {symbol: describe(part, config.horizons) for symbol, part in by_symbol(split).items()}
        for name, split in splits.items()
    }
    report = {"source": "splits", "horizons": config.horizons, "splits": described}
    return PreparedSplits(iter(splits.items()), report)


def _from_bars(config: PrepareConfig, source: Path) -> PreparedSplits:
    longest = config.label.longest_label_end_offset()
    check_purge(config.split, longest)
    bars = load_bars(source, config.symbols)
    warmup, names = warmup_bars(config.data.features), feature_names(config.data.features)
    require_rows(bars, warmup + len(SPLITS), str(source), f"the warm-up of {warmup} bars and three splits")
    counts = {symbol: len(own) for symbol, own in by_symbol(bars).items()}
    rows, gaps = build_rows(bars, config), find_gaps(bars)
    del bars
    splits, report = split_frame(rows, config.split, config.horizons, longest, min_rows=1)
    del rows  # the splits are copies; two million rows are 1 GB
    scaler = Scaler.fit(splits["train"][names], config.data.scaler)
    clipped_values = scaler.clipped_values(splits["train"])
    symbols = {s: {"bars": counts[s], "warmup": warmup, "gaps": _describe_gaps(gaps, s)} for s in counts}
    report |= {"source": config.data.source, "features": len(names), "horizons": config.horizons, "symbols": symbols}
    return PreparedSplits(_scaled(splits, scaler, config), report, scaler, clipped_values)


def build_rows(bars: pd.DataFrame, config: PrepareConfig) -> pd.DataFrame:
    """Bars `[R, 7]` to keys, bars, float32 features and labels, without warm-up rows, one symbol at a time.

    Raises:
        DataError: a feature is not finite after the warm-up.
    """
    names, warmup, symbols = feature_names(config.data.features), warmup_bars(config.data.features), by_symbol(bars)
    block = np.empty((len(names), len(bars) - warmup * len(symbols)), np.float32)  # [F, R], as pandas holds it
    kept, start = [], 0
    for symbol, own in symbols.items():
        one = own.reset_index(drop=True)
        rows = one.iloc[warmup:].reset_index(drop=True)
        fill_features(one, config.data.features, block[:, start : start + len(rows)])
        labels = label_bars(one, config.label, symbol, config.horizons).iloc[warmup:].reset_index(drop=True)
        kept.append(pd.concat([rows, labels], axis=1))
        start += len(rows)
    features = pd.DataFrame(block.T, columns=names, copy=False)
    return pd.concat([pd.concat(kept, ignore_index=True), features], axis=1)


def _scaled(
    splits: dict[str, pd.DataFrame], scaler: Scaler, config: PrepareConfig
) -> Iterator[tuple[str, pd.DataFrame]]:
    labels = [name for horizon in config.horizons for name in label_columns(horizon)]
    for name in SPLITS:
        split = splits.pop(name)
        yield name, pd.concat([split[[*KEYS, *OHLCV]], scaler.transform(split), split[labels]], axis=1)


def _describe_gaps(gaps: pd.DataFrame, symbol: str) -> dict[str, Any]:
    gaps = gaps[gaps["symbol"] == symbol]
    if gaps.empty:
        return {"count": 0, "missing_bars": 0, "longest": None}
    most = gaps.iloc[int(gaps["missing_bars"].argmax())]
    start, end, missing = most["start"].isoformat(), most["end"].isoformat(), int(most["missing_bars"])
    longest = {"start": start, "end": end, "missing_bars": missing}
    return {"count": len(gaps), "missing_bars": int(gaps["missing_bars"].sum()), "longest": longest}
