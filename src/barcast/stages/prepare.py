"""Stage `prepare`: raw bars to labelled, scaled splits; or splits made elsewhere, checked and passed on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from barcast.config import Section, load_yaml, validate
from barcast.data.bars import KEYS, OHLCV, find_gaps, load_bars, require_rows
from barcast.data.external import load_splits
from barcast.data.features import FeatureConfig, feature_names, fill_features, warmup_bars
from barcast.data.labels import LabelConfig, label_bars, label_columns
from barcast.data.splits import (
    Scaler,
    ScalerConfig,
    SplitConfig,
    check_purge,
    describe,
    split_frame,
)
from barcast.data.tables import clipped_file, split_file, symbol_slices, write_split
from barcast.files import atomic_dir, write_json
from barcast.paths import SPLITS, Paths
from barcast.stages._main import run_stage

SCALER_FILE, REPORT_FILE = "scaler.json", "split.json"


class DataConfig(Section):
    """`data:` of params.yaml, as far as it shapes the splits."""

    source: Literal["bars", "splits"]
    path: str
    features: FeatureConfig
    scaler: ScalerConfig


class PrepareConfig(Section):
    """`config:` of the spec `prepare.yaml`. Splits made elsewhere use neither features, scaler, label nor split."""

    symbols: Annotated[list[str], Field(min_length=1)]
    horizons: Annotated[list[int], Field(min_length=1)]
    data: DataConfig
    label: LabelConfig
    split: SplitConfig


def prepare(config: PrepareConfig, paths: Paths) -> None:
    """Write `{train,val,test}_scaled.parquet`, `split.json` and, from bars, `scaler.json` and what its clip
    cut off in train; all of them or none.

    Raises:
        DataError: the input breaks a rule of its form, or is too short.
        LeakageError: the purge is shorter than the longest label reach, or the given splits overlap in time.
    """
    source = paths.root / config.data.path
    with atomic_dir(paths.splits) as folder:
        report = (
            _from_bars(config, source, folder) if config.data.source == "bars" else _pass_on(config, source, folder)
        )
        write_json(folder / REPORT_FILE, report)
    print("\n".join(summary(report)))


def _from_bars(config: PrepareConfig, source: Path, folder: Path) -> dict[str, Any]:
    check_purge(config.split, config.label.longest_reach())
    bars = load_bars(source, config.symbols)
    warmup, names = warmup_bars(config.data.features), feature_names(config.data.features)
    require_rows(bars, warmup + len(SPLITS), str(source), f"the warm-up of {warmup} bars and three splits")
    counts = {symbol: rows.stop - rows.start for symbol, rows in symbol_slices(bars["symbol"]).items()}
    rows, gaps = build_rows(bars, config), find_gaps(bars)
    del bars
    splits, report = split_frame(rows, config.split, config.horizons, config.label.longest_reach(), min_rows=1)
    del rows  # the splits are copies; two million rows are 1 GB
    scaler = Scaler.fit(splits["train"][names], config.data.scaler)
    write_json(folder / SCALER_FILE, scaler.to_dict())
    labels = [name for horizon in config.horizons for name in label_columns(horizon)]
    scaler.cut_off(splits["train"]).to_parquet(clipped_file(folder), compression="zstd", index=False)
    for name in SPLITS:
        part = splits.pop(name)
        scaled = [part[[*KEYS, *OHLCV]], scaler.transform(part), part[labels]]
        write_split(pd.concat(scaled, axis=1), split_file(folder, name))
    symbols = {s: {"bars": counts[s], "warmup": warmup, "gaps": _gaps(gaps, s)} for s in counts}
    return {"source": "bars", "features": len(names), "horizons": config.horizons, "symbols": symbols, **report}


def build_rows(bars: pd.DataFrame, config: PrepareConfig) -> pd.DataFrame:
    """Bars `[R, 7]` to keys, bars, float32 features and labels, warm-up rows dropped, one symbol at a time.

    Raises:
        DataError: a feature is not finite after the warm-up.
    """
    names, warmup = feature_names(config.data.features), warmup_bars(config.data.features)
    symbols = symbol_slices(bars["symbol"])
    block = np.empty((len(names), len(bars) - warmup * len(symbols)), np.float32)  # [F, R], as pandas holds it
    kept, start = [], 0
    for symbol, where in symbols.items():
        one = bars.iloc[where].reset_index(drop=True)
        rows = one.iloc[warmup:].reset_index(drop=True)
        fill_features(one, config.data.features, block[:, start : start + len(rows)])
        labels = label_bars(one, config.label, symbol, config.horizons).iloc[warmup:].reset_index(drop=True)
        kept.append(pd.concat([rows, labels], axis=1))
        start += len(rows)
    features = pd.DataFrame(block.T, columns=names, copy=False)
    return pd.concat([pd.concat(kept, ignore_index=True), features], axis=1)


def _gaps(gaps: pd.DataFrame, symbol: str) -> dict[str, Any]:
    own = gaps[gaps["symbol"] == symbol]
    if own.empty:
        return {"count": 0, "missing_bars": 0, "longest": None}
    longest = own.iloc[int(own["missing_bars"].argmax())]
    span = {"start": longest["start"].isoformat(), "end": longest["end"].isoformat()}
    return {
        "count": len(own),
        "missing_bars": int(own["missing_bars"].sum()),
        "longest": {**span, "missing_bars": int(longest["missing_bars"])},
    }


def _pass_on(config: PrepareConfig, source: Path, folder: Path) -> dict[str, Any]:
    splits = load_splits(source, config.symbols, config.horizons)
    report: dict[str, Any] = {"source": "splits", "horizons": config.horizons, "splits": {}}
    for name, split in splits.items():
        write_split(split, split_file(folder, name))
        slices = symbol_slices(split["symbol"]).items()
        report["splits"][name] = {symbol: describe(split.iloc[rows], config.horizons) for symbol, rows in slices}
    return report


def summary(report: dict[str, Any]) -> Sequence[str]:
    """The report in a few lines."""
    lines = []
    for symbol, content in report.get("symbols", {}).items():
        gaps, longest = content["gaps"], content["gaps"]["longest"]
        word = "gap" if gaps["count"] == 1 else "gaps"
        at = f", the longest of {longest['missing_bars']:,} bars after {longest['start']}" if longest else ""
        lines.append(
            f"{symbol}: {content['bars']:,} bars, {content['warmup']} of them warm-up, {gaps['count']} {word}{at}"
        )
    for name, symbols in report["splits"].items():
        rows = ", ".join(f"{symbol} {content['rows']:,}" for symbol, content in symbols.items())
        first = min(content["first"] for content in symbols.values())
        last = max(content["last"] for content in symbols.values())
        lines.append(f"{name}: {first} to {last}, rows: {rows}")
    return lines


def main() -> None:
    """Run the stage at the repository root."""
    paths = Paths()
    file = paths.spec("prepare")
    prepare(validate(PrepareConfig, load_yaml(file)["config"], file, "config"), paths)


if __name__ == "__main__":
    run_stage(main)
