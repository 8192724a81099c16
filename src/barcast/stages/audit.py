"""Stage `audit`: proves that nothing of the future is in features, splits or windows, or stops the pipeline."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field

from barcast.config import Section, load_yaml, validate
from barcast.data import leakage
from barcast.data._scan import SlowScan
from barcast.data.bars import load_bars
from barcast.data.external import load_splits
from barcast.data.features import compute_features, warmup_bars
from barcast.data.labels import LabelConfig
from barcast.data.scores import check_scores
from barcast.data.splits import Scaler, SplitConfig, check_purge, check_reach
from barcast.data.tables import nanoseconds, symbol_slices
from barcast.data.windows import WindowConfig, window_ends
from barcast.errors import DataError
from barcast.files import read_json, write_json
from barcast.paths import SPLITS, Paths
from barcast.stages._main import run_stage
from barcast.stages.prepare import REPORT_FILE, SCALER_FILE, DataConfig

Splits = dict[str, pd.DataFrame]
Check = dict[str, Any]

SCANNED_ROWS = 10_000  # of each split, about: plain Python takes seconds for a million
LAST_ROWS = 50  # of each symbol and split, scanned as well


class AuditedDataConfig(DataConfig):
    """`data:` of params.yaml."""

    audit: leakage.AuditConfig


class AuditStageConfig(Section):
    """`config:` of the spec `audit.yaml`."""

    seed: int
    symbols: Annotated[list[str], Field(min_length=1)]
    horizons: Annotated[list[int], Field(min_length=1)]
    data: AuditedDataConfig
    label: LabelConfig
    split: SplitConfig
    window: WindowConfig


def audit(config: AuditStageConfig, paths: Paths) -> None:
    """Run every check and write `experiments/audit.json`; the first that fails raises, and nothing is written.

    Raises:
        LeakageError: something of the future was found; the message names column and row.
        DataError: the splits don't fit the bars or the configuration, or a symbol has no window.
    """
    splits = load_splits(paths.splits, config.symbols, config.horizons, prepared=True)
    checks = _against_bars(config, paths, splits) if config.data.source == "bars" else _by_themselves(config, splits)
    checks += [_windows(config, splits), _scores(config, splits["train"])]
    write_json(paths.audit, {"source": config.data.source, "passed": True, "checks": checks})
    for check in checks:
        print(f"{check['name']}: {check.get('skipped', 'passed')}")


def _against_bars(config: AuditStageConfig, paths: Paths, splits: Splits) -> list[Check]:
    check_purge(config.split, config.label.longest_reach())
    report = _made(paths, REPORT_FILE)
    if report.get("config") != config.split.model_dump():
        raise DataError(
            f"{paths.splits / REPORT_FILE}: made with another `split:` than asked for; run `dvc repro prepare`"
        )
    bars = load_bars(paths.root / config.data.path, config.symbols)
    by_symbol = {s: bars.iloc[rows].reset_index(drop=True) for s, rows in symbol_slices(bars["symbol"]).items()}
    del bars
    causality, features = _causality(config, by_symbol)
    rows = {name: _rows_in(split, by_symbol, name) for name, split in splits.items()}
    return [
        causality,
        *_scaler(config, paths, splits, features, rows),
        *_borders(config, splits, by_symbol, rows, report["cuts"]),
        *_outcomes(config, splits, by_symbol, rows),
    ]


def _causality(config: AuditStageConfig, by_symbol: dict[str, pd.DataFrame]) -> tuple[Check, dict[str, pd.DataFrame]]:
    rng, warmup = np.random.default_rng(config.seed), warmup_bars(config.data.features)
    features, tried, compared = {}, 0, 0
    for symbol, bars in by_symbol.items():
        full = _compute(bars, config)
        lasts = sorted(rng.integers(warmup, len(bars) - 1, config.data.audit.cuts).tolist())
        compared += leakage.check_causality(bars, full, lambda part: _compute(part, config), lasts, rng)
        tried += len(lasts)
        features[symbol] = full.astype(np.float32)
    examined = {"cuts": tried, "symbols": len(by_symbol), "values": compared}
    return _passed("features know only the past", examined, {"changed_values": 0}), features


def _compute(bars: pd.DataFrame, config: AuditStageConfig) -> pd.DataFrame:
    return compute_features(bars, config.data.features)


def _rows_in(split: pd.DataFrame, by_symbol: dict[str, pd.DataFrame], name: str) -> dict[str, leakage.IntArray]:
    """Where each symbol's rows of a split stand among its bars."""
    times = {symbol: nanoseconds(bars["datetime"]) for symbol, bars in by_symbol.items()}
    return {
        symbol: leakage.locate(times[symbol], nanoseconds(split["datetime"].iloc[rows]), f"{name}: {symbol}")
        for symbol, rows in symbol_slices(split["symbol"]).items()
    }


def _scaler(
    config: AuditStageConfig,
    paths: Paths,
    splits: Splits,
    features: dict[str, pd.DataFrame],
    rows: dict[str, dict[str, leakage.IntArray]],
) -> list[Check]:
    """Refit the scaler on train rows, and compare every feature of every stored row with what it gives."""
    stored = Scaler.from_dict(_made(paths, SCALER_FILE))
    values = 0
    for name in SPLITS:  # train comes first, so the scaler is proven before it is used
        unscaled = pd.concat([features[s].iloc[own] for s, own in rows[name].items()], ignore_index=True)
        if name == "train":
            leakage.check_scaler(stored, Scaler.fit(unscaled, config.data.scaler))
        leakage.check_stored(splits[name], stored.transform(unscaled), name)
        values += unscaled.size
    fitted = {"features": len(stored.columns), "rows": len(splits["train"])}
    return [
        _passed("the scaler is fitted on train alone", fitted, {"difference": 0.0}),
        _passed("the splits hold the audited features", {"values": values}, {"difference": 0.0}),
    ]


def _borders(
    config: AuditStageConfig,
    splits: Splits,
    by_symbol: dict[str, pd.DataFrame],
    rows: dict[str, dict[str, leakage.IntArray]],
    cut_texts: dict[str, str],
) -> list[Check]:
    cuts = [int(pd.Timestamp(cut_texts[name]).as_unit("ns").value) for name in SPLITS[1:]]
    purged: list[int] = []
    embargoed: list[int] = []
    spare: list[int] = []
    for symbol, bars in by_symbol.items():
        times, own = nanoseconds(bars["datetime"]), {name: rows[name][symbol] for name in SPLITS}
        found = leakage.check_borders(symbol, times, own, cuts, config.split.purge_bars, config.split.embargo_bars)
        purged, embargoed = purged + found["purge"], embargoed + found["embargo"]
        limits = [*np.searchsorted(times, cuts).tolist(), len(times)]
        for name, limit in zip(SPLITS, limits, strict=True):
            part = splits[name].iloc[symbol_slices(splits[name]["symbol"])[symbol]]
            spare.append(check_reach(part, own[name], limit, config.horizons))
    longest = leakage.check_longest_reach(splits, config.horizons, config.split.purge_bars)
    examined = {"borders": len(purged), "symbols": len(by_symbol)}
    reach = {"fewest_bars_to_spare": min(spare), "longest_reach_bars": longest}
    return [
        _passed("purge and embargo are whole", examined, {"purge_bars": min(purged), "embargo_bars": min(embargoed)}),
        _passed("labels end before the next split", {"labels": _labelled(config, splits)}, reach),
    ]


def _outcomes(
    config: AuditStageConfig,
    splits: Splits,
    by_symbol: dict[str, pd.DataFrame],
    rows: dict[str, dict[str, leakage.IntArray]],
) -> list[Check]:
    """Compare the stored prices with the bars, and a sample of the labels with a slow scan of these."""
    rng, prices, labels = np.random.default_rng(config.seed), 0, 0
    slices = {name: symbol_slices(split["symbol"]) for name, split in splits.items()}
    drawn = {name: rng.random(len(split)) < SCANNED_ROWS / len(split) for name, split in splits.items()}
    for symbol, bars in by_symbol.items():
        scan = SlowScan(bars, config.label.atr_period)
        for name, split in splits.items():
            own, at = slices[name][symbol], rows[name][symbol]
            drawn[name][own][-LAST_ROWS:] = True  # where outcomes begin to be unknown
            prices += leakage.check_prices(split.iloc[own], bars, at, name)
            some = np.flatnonzero(drawn[name][own])
            for horizon in config.horizons:
                barrier = config.label.barriers(symbol, horizon)
                labels += leakage.check_labels(split.iloc[own], at, some, horizon, scan, barrier, name)
    return [
        _passed("the splits hold the prices of the bars", {"values": prices}, {"difference": 0.0}),
        _passed("labels are those of a slow scan", {"labels": labels}, {"difference": 0.0}),
    ]


def _by_themselves(config: AuditStageConfig, splits: Splits) -> list[Check]:
    """What can be proven of splits made elsewhere, whose bars in between are unknown."""
    for earlier, later in pairwise(SPLITS):
        first = splits[later]["datetime"].min()
        for rows in symbol_slices(splits[earlier]["symbol"]).values():
            leakage.check_reach_by_time(splits[earlier].iloc[rows], first, config.horizons)
    between = leakage.check_borders_by_time(splits, config.split.purge_bars, config.split.embargo_bars)
    longest = leakage.check_longest_reach(splits, config.horizons, config.split.purge_bars)
    names = (
        "features know only the past",
        "the scaler is fitted on train alone",
        "the splits hold the audited features",
        "the splits hold the prices of the bars",
        "labels are those of a slow scan",
    )
    examined = {"borders": 2 * len(config.symbols), "symbols": len(config.symbols)}
    return [
        *({"name": name, "skipped": "needs raw bars, the splits were made elsewhere"} for name in names),
        _passed("purge and embargo are whole", examined, {"bars_between_splits": between}),
        _passed(
            "labels end before the next split", {"labels": _labelled(config, splits)}, {"longest_reach_bars": longest}
        ),
    ]


def _windows(config: AuditStageConfig, splits: Splits) -> Check:
    """Windows are made inside one split's rows; `load_splits` has proven that splits don't overlap."""
    length, gap = config.window.seq_len, config.window.max_gap_ns
    found = {}
    for name, split in splits.items():
        codes = pd.factorize(split["symbol"])[0]
        ends = window_ends(codes, nanoseconds(split["datetime"]), length, gap)
        found[name] = leakage.check_windows(split, ends, length, gap, name)
    longest = max(content["longest_step_seconds"] for content in found.values())
    examined = {name: content["windows"] for name, content in found.items()}
    return _passed("windows cross no symbol, gap or split", examined, {"longest_step_seconds": longest})


def _scores(config: AuditStageConfig, train: pd.DataFrame) -> Check:
    found = check_scores(train, config.horizons, config.data.audit.max_feature_score, config.seed)
    return _passed("no feature alone tells the outcome", found["examined"], found["worst"])


def _passed(name: str, examined: Check, worst: Check) -> Check:
    return {"name": name, "examined": examined, "worst": worst, "passed": True}


def _labelled(config: AuditStageConfig, splits: Splits) -> int:
    return sum(int(split[f"label_h{h}"].notna().sum()) for split in splits.values() for h in config.horizons)


def _made(paths: Paths, name: str) -> dict[str, Any]:
    file = paths.splits / name
    if not file.is_file():
        raise DataError(f"{file}: no such file; run `dvc repro prepare`")
    return read_json(file)


def main() -> None:
    """Run the stage at the repository root."""
    paths = Paths()
    file = paths.spec("audit")
    audit(validate(AuditStageConfig, load_yaml(file)["config"], file, "config"), paths)


if __name__ == "__main__":
    run_stage(main)
