"""A repository's files as the stages before the report write them, for any number of models and horizons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from barcast.comparison.results import CellResult, Results
from barcast.data.frames import SPLITS
from barcast.data.window_files import pack_labels
from barcast.evaluation.metrics import CLASS_NAMES
from barcast.evaluation.plots import importance_table
from barcast.files import write_json
from barcast.paths import Paths, cell_name
from barcast.yaml_io import dump_yaml, load_yaml

SYMBOLS = ("BTC", "ETH")
EPOCHS = 20  # of each network of `lstm`
FEATURES = [f"feature_{number}_of_many" for number in range(30)]
SPANS = {
    "train": ("2021-01-01", "2022-02-20"),
    "val": ("2022-03-24", "2022-05-20"),
    "test": ("2022-06-21", "2022-10-01"),
}
CUTS = {"val": "2022-02-22T00:00:00+00:00", "test": "2022-05-22T00:00:00+00:00"}


def write_report_files(
    root: Path, models: list[str], horizons: list[int], windows: int = 600, steps: int = 60, lags: int = 60
) -> Results:
    """Write all that the page reads; returns what `compare` would pass to it."""
    paths, rng = Paths(root), np.random.default_rng(0)
    _write_data(paths, horizons, rng)
    write_specs(paths, models, horizons)
    cells = {}
    for horizon in horizons:
        for model in _ranked(models):
            trained, seen = 0 if model == "prior" else steps, 1 if model == models[1] else lags
            cell = _write_cell(paths, model, horizon, rng, windows, trained, seen)
            cells[cell.name] = cell
    rows = {f"h{h}": [_row(rank, model, rng) for rank, model in enumerate(_ranked(models), 1)] for h in horizons}
    return results({"reference": "prior", "level": 0.95, "horizons": rows}, cells, models)


def results(leaderboard: dict[str, Any], cells: dict[str, CellResult], models: Sequence[str]) -> Results:
    """The leaderboard with results of tests that it could have."""
    tests = {"resamples": 1000, "block_length": 23.4, "spa": {"lower": 0.001, "consistent": 0.002, "upper": 0.003}}
    tests["rank_correlation"] = {"score": interval(0.62, 0.3), "val": interval(0.41, 0.5)}
    overfitting = {key: {"pbo": {"pbo": 0.31}} for key in leaderboard["horizons"]}
    significance = dict.fromkeys(leaderboard["horizons"], tests)
    return Results(leaderboard, significance, {}, {"trials": {"total": 12}, **overfitting}, cells, models)


def _ranked(models: list[str]) -> list[str]:
    return [*models[1:], models[0]]


def interval(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def _row(rank: int, model: str, rng: np.random.Generator) -> dict[str, Any]:
    gain = -0.034 + 0.007 * rank
    word = "better" if gain < -0.008 else "worse" if gain > 0.008 else "noise"
    delta = None if model == "prior" else {**interval(gain, 0.008), "verdict": word}
    best = None if rank == 1 else {**interval(0.007 * (rank - 1), 0.009), "verdict": "worse" if rank > 2 else "noise"}
    return {
        "rank": rank,
        "model": model,
        "score": 1.05 + 0.003 * rank,
        "val_log_loss": 1.06 + 0.004 * rank,
        "test_log_loss": interval(1.0978 + gain, 0.006),
        "brier": interval(0.64, 0.01),
        "macro_f1": interval(0.4, 0.02),
        "mcc": interval(0.13, 0.03),
        "auc_ovr": interval(0.6, 0.015),
        "ece": interval(0.014, 0.006),
        "sharpe": interval(float(rng.normal(0, 2)), 2.5)
        if model != "prior"
        else dict.fromkeys(("value", "low", "high")),
        "max_drawdown": interval(-0.3, 0.1),
        "delta_reference": delta,
        "delta_best": best,
        "in_confidence_set": rank <= 2,
        "mcs_p": 1.0 if rank == 1 else 0.31 if rank == 2 else 0.01,
        "psr": 0.41,
        "dsr": 0.07,
        "trades": 1234,
        "coverage": 0.893,
        "set_size": 2.31,
        "calibration": "temperature",
        "raw_log_loss": 1.07,
        "seeds": {"runs": 3, "mean": 1.06, "sd": 0.0007, "share": 0.02} if rank == 1 else None,
    }


def _write_data(paths: Paths, horizons: list[int], rng: np.random.Generator) -> None:
    report: dict[str, Any] = {"source": "bars", "cuts": CUTS, "splits": {}, "symbols": {}}
    for split, (first, last) in SPANS.items():
        times = pd.date_range(first, last, freq="1h", tz="UTC")
        times = times.delete([40, 41, 42, 300]) if split == "train" else times
        index = pd.concat([pd.DataFrame({"datetime": times, "symbol": s, "close": 1.0}) for s in SYMBOLS])
        (paths.windows / split).mkdir(parents=True)
        (paths.windows / "labels").mkdir(exist_ok=True)
        index.to_parquet(paths.windows / split / "index.parquet", index=False)
        for horizon in horizons:
            label = pd.Series(rng.choice([-1, 0, 1], len(index), p=[0.36, 0.32, 0.32])).astype("Int8")
            label[: horizon // 5] = pd.NA
            ones = pd.Series(np.ones(len(label)))
            np.save(paths.windows / f"labels/{split}_h{horizon}.npy", pack_labels(label, ones, ones))
        part = {"first": times[0].isoformat(), "last": times[-1].isoformat(), "rows": len(times)}
        report["splits"][split] = {s: {**part, "purged": 48 * (split != "test"), "embargoed": 720} for s in SYMBOLS}
    longest = {"start": "2021-01-02T15:00:00+00:00", "end": "2021-01-02T19:00:00+00:00", "missing_bars": 3}
    for symbol in SYMBOLS:
        report["symbols"][symbol] = {"bars": 15000, "gaps": {"count": 2, "missing_bars": 4, "longest": longest}}
    _write_reports(paths, report)


def write_sources(paths: Paths) -> None:
    """`split.json` and `audit.json` of splits made elsewhere for the windows in `paths`, and the raw file."""
    report: dict[str, Any] = {"source": "splits", "splits": {}}
    for split in SPLITS:
        index = pd.read_parquet(paths.windows / split / "index.parquet")
        report["splits"][split] = {
            str(symbol): {"first": rows.min().isoformat(), "last": rows.max().isoformat(), "rows": len(rows)}
            for symbol, rows in index.groupby("symbol")["datetime"]
        }
    _write_reports(paths, report, [{"name": "the scaler is fitted on train only", "skipped": "needs raw bars"}])


def _write_reports(paths: Paths, report: dict[str, Any], skipped: Sequence[dict[str, Any]] = ()) -> None:
    checks: list[dict[str, Any]] = [
        *skipped,
        {
            "name": "features know only the past",
            "passed": True,
            "examined": {"cuts": 6},
            "worst": {"changed_values": 0},
        },
        {
            "name": "no single feature gives the label away",
            "passed": True,
            "examined": {"rows": 40},
            "worst": {"label": {"score": 0.56}},
        },
    ]
    paths.splits.mkdir(parents=True)
    write_json(paths.splits / "split.json", report)
    write_json(paths.audit, {"checks": checks, "passed": True})
    (paths.root / "data/raw").mkdir(parents=True)
    (paths.root / "data/raw/bars.parquet").write_bytes(b"bars")


def write_specs(paths: Paths, models: Sequence[str], horizons: Sequence[int]) -> None:
    """A spec for each stage and cell; `lstm` averages three networks."""
    paths.specs.mkdir(parents=True)
    libraries = {"numpy": "2.4.6", "xgboost": "3.2.0"}
    for stage in ("prepare", "audit", "window", "evaluate", "compare"):
        config = {"data": {"path": "data/raw/bars.parquet"}, "alpha": 0.1}
        content = {"stage": stage, "config": config, "code": {"barcast": "0" * 16}, "libraries": libraries}
        paths.spec(stage).write_text(dump_yaml(content))
    for model in models:
        for horizon in horizons:
            config = {"model_name": model, "horizon": horizon, "max_depth": 4, "learning_rate": 0.1, "threads": 1}
            if model == "lstm":
                config |= {"average_seeds": 3, "max_epochs": EPOCHS}
            spec = {"config": config, "code": {"barcast.models": "1" * 16}, "libraries": libraries}
            paths.spec(cell_name(model, horizon)).write_text(dump_yaml(spec))


def _write_cell(
    paths: Paths, model: str, horizon: int, rng: np.random.Generator, windows: int, steps: int, lags: int
) -> CellResult:
    name = cell_name(model, horizon)
    for folder in (paths.plots(name), paths.cell_metrics(name).parent, paths.checkpoint(name)):
        folder.mkdir(parents=True)
    decay = np.exp(-np.arange(steps) / (steps / 4 + 1))
    history = [
        {"step": i, "train_log_loss": 0.95 + 0.15 * d, "val_log_loss": 1.06 + 0.03 * d + 0.0002 * i}
        for i, d in enumerate(decay.tolist())
    ]
    write_json(paths.checkpoint(name) / "model.json", {"training_history": history})
    metrics = _metrics(windows)
    write_json(paths.cell_metrics(name), metrics)
    times = pd.date_range("2022-06-21", "2022-10-01", periods=windows, tz="UTC").floor("s")
    _write_plots(paths, name, rng, times, lags)
    (paths.run(name) / "predictions").mkdir()
    frame = pd.DataFrame({"datetime": times, "symbol": [SYMBOLS[i % 2] for i in range(windows)]})
    frame.to_parquet(paths.predictions(name, "test"), index=False)
    return CellResult(name, model, horizon, metrics, frame, paths.run(name), load_yaml(paths.spec(name)))


def _metrics(windows: int) -> dict[str, Any]:
    traded = {"total_return": -0.12, "sharpe": -0.4, "max_drawdown": -0.3, "trades": 1234, "exposure": 0.71}
    return {
        "test": {"ece": 0.009, **traded},
        "abstention": {rule: {"test": traded} for rule in ("sets", "threshold")},
        "buy_hold": {"test": {**traded, "sharpe": None, "trades": 2}},
        "raw": {"test": {"ece": 0.023}},
        "calibration": {"method": "temperature"},
        "folds": None,
        "ended_by_limit": None,
        "conformal": {"test": {"coverage": 0.893, "mean_size": 2.31, "singletons": 0.11, "windows": windows}},
    }


def _write_plots(paths: Paths, name: str, rng: np.random.Generator, times: pd.DatetimeIndex, lags: int) -> None:
    folder, points = paths.plots(name), 500
    actual, predicted = (rng.choice(list(CLASS_NAMES), len(times)) for _ in range(2))
    pd.DataFrame({"actual": actual, "predicted": predicted}).to_csv(folder / "test_confusion.csv", index=False)
    bins = np.linspace(0.345, 0.6, 8)
    tables = [
        pd.DataFrame({"kind": kind, "low": bins, "high": bins + 0.03, "count": np.linspace(900, 20, 8).astype(int),
                      "confidence": bins, "accuracy": bins * slope + (1 - slope) * 0.35 + rng.normal(0, 0.01, 8)})
        for kind, slope in (("raw", 0.6), ("published", 0.95))
    ]  # fmt: skip
    pd.concat(tables).to_csv(folder / "test_reliability.csv", index=False)
    months = [f"2022-{month:02d}" for month in range(6, 11)]
    coverage = {
        "month": months,
        "windows": 150,
        "coverage": rng.uniform(0.86, 0.93, 5),
        "mean_size": 2.3,
        "singletons": 0.1,
    }
    pd.DataFrame(coverage).to_csv(folder / "test_coverage.csv", index=False)
    shown = times[np.linspace(0, len(times) - 1, min(points, len(times))).astype(int)]
    walks = {
        key: np.exp(np.cumsum(rng.normal(0, 0.006, len(shown))))
        for key in ("equity", "sets", "threshold", "buy_hold", "prior")
    }
    equity = pd.DataFrame({"datetime": shown, **walks})
    equity["drawdown"] = equity["equity"] / equity["equity"].cummax() - 1
    equity.to_csv(folder / "test_equity.csv", index=False)
    grid = pd.MultiIndex.from_product([FEATURES, range(lags)], names=["feature", "lag"]).to_frame(index=False)
    weight = rng.pareto(1.2, len(grid)) * np.exp(-grid["lag"] / 15) / (1 + grid["feature"].factorize()[0])
    if name.startswith("prior"):
        grid, weight = grid.head(0), weight[:0]
    importance_table(grid.assign(importance=weight / weight.sum())).to_csv(folder / "importance.csv", index=False)
