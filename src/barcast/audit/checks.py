"""All checks of the audit: of splits made from bars, or made elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field

from barcast.audit import borders, leakage
from barcast.audit.univariate_auc import check_univariate_auc
from barcast.data.bars import load_bars
from barcast.data.features import compute_features, warmup_bars
from barcast.data.frames import OHLCV, SPLITS, IntArray, by_symbol, nanoseconds, symbol_slices
from barcast.data.preparation import DataConfig, PrepareConfig
from barcast.data.scaler import Scaler
from barcast.data.split_files import load_splits
from barcast.data.splits import check_label_ends, check_purge
from barcast.data.window_ends import WindowConfig, window_ends
from barcast.errors import DataError
from barcast.section import Section

Frames = dict[str, pd.DataFrame]
Positions = dict[str, dict[str, IntArray]]  # by split and symbol: of the split's rows among the symbol's bars
Check = dict[str, Any]

CAUSAL, FITTED = "features know only the past", "the scaler is fitted on train alone"
AUDITED, PRICES = "the splits hold the audited features", "the splits hold the prices of the bars"
LABELS = "labels are those of a slow scan"
ORACLE_ROWS = 10_000  # of each split, about: plain Python takes seconds for a million
LAST_ROWS = 50  # of each symbol and split, compared as well


class AuditConfig(Section):
    """`data.audit:` of params.yaml."""

    cuts: Annotated[int, Field(ge=1)]
    max_feature_score: Annotated[float, Field(gt=0.5, le=1)]


class AuditedDataConfig(DataConfig):
    """`data:` of params.yaml."""

    audit: AuditConfig


class AuditStageConfig(PrepareConfig):
    """`config:` of the spec `audit.yaml`."""

    seed: int
    data: AuditedDataConfig
    window: WindowConfig


def run_checks(
    config: AuditStageConfig, source: Path, folder: Path, report: Mapping[str, Any] | None, scaler: Scaler | None
) -> list[Check]:
    """Run every check; returns for each its name, what was examined and the worst case. The first that fails raises.

    The bars are in `source`, the splits in `folder`. `report`, the content of `split.json`, and `scaler` are None for
    splits made elsewhere.

    Raises:
        LeakageError: something of the future was found; the message names column and row.
        DataError: the splits don't fit the bars or the configuration, or a symbol has no window.
    """
    splits = load_splits(folder, config.symbols, config.horizons, prepared=True)
    if report is None or scaler is None:
        checks = _without_bars(config, splits)
    else:
        checks = _against_bars(config, source, splits, report, scaler)
    checks.append(_windows(config, splits))
    limit = config.data.audit.max_feature_score
    examined, worst = check_univariate_auc(splits["train"], config.horizons, limit, config.seed)
    return [*checks, _passed("no feature alone tells the outcome", examined, worst)]


def _against_bars(
    config: AuditStageConfig, source: Path, splits: Frames, report: Mapping[str, Any], scaler: Scaler
) -> list[Check]:
    check_purge(config.split, config.label.longest_label_end_offset())
    if report.get("config") != config.split.model_dump():
        raise DataError("split.json: its `split:` is not that of params.yaml; run `dvc repro prepare`")
    table = load_bars(source, config.symbols)
    bars = {symbol: own.reset_index(drop=True) for symbol, own in by_symbol(table).items()}
    del table
    causality, features = _causality(config, bars)
    times = {symbol: nanoseconds(own["datetime"]) for symbol, own in bars.items()}
    at = {
        name: {
            symbol: borders.bar_positions(times[symbol], nanoseconds(part["datetime"]), f"{name}: {symbol}")
            for symbol, part in by_symbol(split).items()
        }
        for name, split in splits.items()
    }
    cuts = [int(pd.Timestamp(report["cuts"][name]).as_unit("ns").value) for name in SPLITS[1:]]
    return [
        causality,
        *_scaled_features(config, splits, features, at, scaler),
        *_borders(config, splits, times, at, cuts),
        *_prices_and_labels(config, splits, bars, at),
    ]


def _causality(config: AuditStageConfig, bars: Frames) -> tuple[Check, Frames]:
    """Returns the features of each symbol as well, in float32."""
    rng, warmup = np.random.default_rng(config.seed), warmup_bars(config.data.features)
    features, tried, compared = {}, 0, 0
    compute = partial(compute_features, config=config.data.features)
    for symbol, own in bars.items():
        full = compute(own)
        lasts = sorted(rng.integers(warmup, len(own) - 1, config.data.audit.cuts).tolist())
        compared += leakage.check_causality(own, full, compute, lasts, rng)
        tried += len(lasts)
        features[symbol] = full.astype(np.float32)
    examined = {"cuts": tried, "symbols": len(bars), "values": compared}
    return _passed(CAUSAL, examined, {"changed_values": 0}), features


def _scaled_features(
    config: AuditStageConfig, splits: Frames, features: Frames, at: Positions, scaler: Scaler
) -> list[Check]:
    """Refit the scaler on train rows, and compare every feature of every stored row with what it gives."""
    values = 0
    for name in SPLITS:  # train comes first, so the scaler is proven before it is used
        unscaled = pd.concat([features[symbol].iloc[rows] for symbol, rows in at[name].items()], ignore_index=True)
        if name == "train":
            leakage.check_scaler(scaler, Scaler.fit(unscaled, config.data.scaler))
        leakage.check_stored_features(splits[name], scaler.transform(unscaled), name)
        values += unscaled.size
    fitted = {"features": len(scaler.columns), "rows": len(splits["train"])}
    return [
        _passed(FITTED, fitted, {"difference": 0.0}),
        _passed(AUDITED, {"values": values}, {"difference": 0.0}),
    ]


def _borders(
    config: AuditStageConfig, splits: Frames, times: dict[str, IntArray], at: Positions, cuts: list[int]
) -> list[Check]:
    purged, embargoed, spare = list[int](), list[int](), list[int]()
    parts = {name: by_symbol(split) for name, split in splits.items()}
    for symbol, own in times.items():
        rows = {name: at[name][symbol] for name in SPLITS}
        left_out = borders.check_borders(symbol, own, rows, cuts, config.split.purge_bars, config.split.embargo_bars)
        purged += left_out["purge"]
        embargoed += left_out["embargo"]
        for name, limit in zip(SPLITS, [*np.searchsorted(own, cuts).tolist(), len(own)], strict=True):
            spare.append(check_label_ends(parts[name][symbol], rows[name], limit, config.horizons))
    examined = {"borders": len(purged), "symbols": len(times)}
    worst = {"purge_bars": min(purged), "embargo_bars": min(embargoed)}
    return [
        _passed("purge and embargo are whole", examined, worst),
        _label_ends(config, splits, {"fewest_bars_to_spare": min(spare)}),
    ]


def _label_ends(config: AuditStageConfig, splits: Frames, worst: Check) -> Check:
    longest = borders.check_longest_label(splits, config.horizons, config.split.purge_bars)
    labels = sum(int(split[f"label_h{h}"].notna().sum()) for split in splits.values() for h in config.horizons)
    return _passed("labels end before the next split", {"labels": labels}, worst | {"longest_reach_bars": longest})


def _prices_and_labels(config: AuditStageConfig, splits: Frames, bars: Frames, at: Positions) -> list[Check]:
    """Compare the stored prices with the bars, and a sample of the labels with the oracle."""
    rng, prices, labels = np.random.default_rng(config.seed), 0, 0
    slices = {name: symbol_slices(split["symbol"]) for name, split in splits.items()}
    sampled = {name: rng.random(len(split)) < ORACLE_ROWS / len(split) for name, split in splits.items()}
    for symbol, own in bars.items():
        oracle = leakage.LabelOracle(own, config.label.atr_period)
        for name, split in splits.items():
            part, mask = split.iloc[slices[name][symbol]], sampled[name][slices[name][symbol]]
            mask[-LAST_ROWS:] = True  # where outcomes begin to be unknown
            leakage.check_stored(part, own[list(OHLCV)].iloc[at[name][symbol]], name)
            prices += len(part) * len(OHLCV)
            for horizon in config.horizons:
                barrier, rows = config.label.barriers(symbol, horizon), np.flatnonzero(mask)
                labels += leakage.check_labels(part, at[name][symbol], rows, horizon, oracle, barrier, name)
    return [
        _passed(PRICES, {"values": prices}, {"difference": 0.0}),
        _passed(LABELS, {"labels": labels}, {"difference": 0.0}),
    ]


def _without_bars(config: AuditStageConfig, splits: Frames) -> list[Check]:
    """What can be proven of splits made elsewhere, whose bars in between are unknown."""
    for earlier, later in pairwise(SPLITS):
        first = splits[later]["datetime"].min()
        for part in by_symbol(splits[earlier]).values():
            borders.check_label_ends_by_time(part, first, config.horizons)
    between = borders.check_borders_by_time(splits, config.split.purge_bars, config.split.embargo_bars)
    examined = {"borders": 2 * len(config.symbols), "symbols": len(config.symbols)}
    reason = "needs raw bars, the splits were made elsewhere"
    return [
        *({"name": name, "skipped": reason} for name in (CAUSAL, FITTED, AUDITED, PRICES, LABELS)),
        _passed("purge and embargo are whole", examined, {"bars_between_splits": between}),
        _label_ends(config, splits, {}),
    ]


def _windows(config: AuditStageConfig, splits: Frames) -> Check:
    """Windows are made inside one split's rows; `load_splits` has proven that splits don't overlap."""
    length, gap = config.window.seq_len, config.window.max_gap_ns
    counts, longest = {}, 0
    for name, split in splits.items():
        ends = window_ends(pd.factorize(split["symbol"])[0], nanoseconds(split["datetime"]), length, gap)
        longest = max(longest, borders.check_windows(split, ends, length, gap, name))
        counts[name] = len(ends)
    return _passed("windows cross no symbol, gap or split", counts, {"longest_step_seconds": longest / 1e9})


def _passed(name: str, examined: Check, worst: Check) -> Check:
    return {"name": name, "examined": examined, "worst": worst, "passed": True}
