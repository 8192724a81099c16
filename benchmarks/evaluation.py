"""Evaluating and comparing 22 cells: seconds, with a model that costs nothing to ask.

    python -m benchmarks.evaluation [--models 11] [--rows 10000]

Simulated markets (benchmarks/_markets.py) as window files; models that see the signal with noise of their own stand in
for trained ones, since what a prediction costs is the model's. `evaluate` of every cell and then `compare` run in this
process as the stages run, files and all. The last line is a JSON object: `evaluate_seconds` of all cells,
`compare_seconds` and `seconds` of both, `cpu_seconds` of both (what they would take were the machine not shared), and
`start_seconds`, which each stage's process pays for its imports before either.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from barcast.config import validate
from barcast.data.dataset import DatasetConfig, TimeSeriesDataset
from barcast.data.frames import SPLITS
from barcast.data.window_files import pack_labels
from barcast.evaluation.evaluator import EvaluateConfig, ScoringConfig
from barcast.files import write_json
from barcast.models.base import BaseModel, ModelConfig
from barcast.models.registry import ModelRegistry
from barcast.params import load_params
from barcast.paths import Paths, cell_name
from barcast.stages.baseline import baseline
from barcast.stages.compare import CompareConfig, compare
from barcast.stages.evaluate import evaluate
from barcast.yaml_io import dump_yaml
from benchmarks._markets import SYMBOLS, simulate
from benchmarks._measure import ROOT, finish, machine, rounded, say

HORIZONS = (5, 20)
BARS = "bars.parquet"
IMPORTS = "import barcast.stages.evaluate, barcast.stages.compare, barcast.tracking, arch.bootstrap, sklearn.metrics"


class SeerConfig(ModelConfig):
    """What a stand-in is told."""

    column: int


class Seer(BaseModel):
    """Answers from one column of the last bar, without learning anything."""

    config_class = SeerConfig

    def _fit(self, *_: Any) -> None:
        pass

    def _predict_proba(self, X: Any) -> Any:
        scores = np.outer(X.lag(0)[:, self.config.column].astype(np.float64), (-0.4, 0.0, 0.4))
        powers = np.exp(scores)
        return powers / powers.sum(axis=1, keepdims=True)

    def _save(self, folder: Path) -> None:
        pass

    def _load(self, folder: Path) -> None:
        pass


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation", description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=11)
    parser.add_argument("--rows", type=int, default=10_000, help="windows of each split, of two symbols")
    parser.add_argument("--resamples", type=int, help="default: as in params.yaml")
    return parser.parse_args(arguments)


def write_windows(paths: Paths, models: int, rows: int) -> None:
    """Window files of each split; column m is the signal as model m sees it."""
    (paths.windows / "labels").mkdir(parents=True)
    bars = rows // len(SYMBOLS)
    for number, split in enumerate(SPLITS):
        rng = np.random.default_rng(number)
        market = simulate(bars, HORIZONS[0], rng)
        folder = paths.windows / split
        folder.mkdir()
        seen = market.signal.reshape(-1, 1) + rng.normal(0, 1, (bars * len(SYMBOLS), models))
        np.save(folder / "rows.npy", seen.astype(np.float32))
        np.save(folder / "ends.npy", np.arange(bars * len(SYMBOLS)))
        times = pd.date_range(f"{2020 + number}-01-01", periods=bars, freq="30min", tz="UTC")
        index = {"datetime": np.tile(times, len(SYMBOLS)), "symbol": np.repeat(SYMBOLS, bars)}
        frame = pd.DataFrame({**index, "close": market.close.ravel()})
        frame["datetime"] = pd.to_datetime(frame["datetime"], utc=True)
        frame.to_parquet(folder / "index.parquet", index=False)
        write_json(folder / "columns.json", {"features": [f"f{n}" for n in range(models)], "seq_len": 1})
        ones = pd.Series(np.ones(market.label.size))
        labels = pack_labels(pd.Series(market.label.ravel()), ones, ones)
        for horizon in HORIZONS:
            np.save(paths.windows / f"labels/{split}_h{horizon}.npy", labels)


def write_sources(paths: Paths, names: Sequence[str]) -> None:
    """What the report page says of the data, and of what made each cell."""
    paths.splits.mkdir(parents=True)
    spans: dict[str, Any] = {}
    for split in SPLITS:
        index = pd.read_parquet(paths.windows / split / "index.parquet")
        spans[split] = {
            str(symbol): {"first": times.min().isoformat(), "last": times.max().isoformat(), "rows": len(times)}
            for symbol, times in index.groupby("symbol")["datetime"]
        }
    write_json(paths.splits / "split.json", {"source": "splits", "splits": spans})
    write_json(paths.audit, {"checks": [], "passed": True})
    (paths.root / BARS).write_bytes(b"bars")
    spec = {"config": {"data": {"path": BARS}, "alpha": 0.1}, "code": {}, "libraries": {}}
    cells = [cell_name(name, horizon) for name in names for horizon in HORIZONS]
    paths.specs.mkdir(parents=True)
    for name in ("prepare", "audit", "window", "evaluate", "compare", *cells):
        paths.spec(name).write_text(dump_yaml(spec))


def train(paths: Paths, names: Sequence[str]) -> None:
    """What training would have left behind."""
    for horizon in HORIZONS:
        dataset = TimeSeriesDataset(DatasetConfig(path=str(paths.windows), horizon=horizon))
        split = dataset.split("train")
        for column, name in enumerate(names):
            ModelRegistry.register(name, "benchmark", "a stand-in")(type(name, (Seer,), {}))
            values = {
                "model_name": name,
                "model_family": "benchmark",
                "horizon": horizon,
                "random_seed": 0,
                "threads": 1,
            }
            model = Seer(SeerConfig(**values, column=column), horizon, dataset.feature_columns())
            model.fit(split.X, split.y, split.X, split.y)
            model.save(paths.checkpoint(cell_name(name, horizon)))


def settings(names: Sequence[str], resamples: int | None) -> tuple[EvaluateConfig, CompareConfig]:
    """Those of params.yaml, for these cells."""
    params = load_params(ROOT / "params.yaml").model_dump()
    scoring = {key: params["evaluate"][key] for key in ScoringConfig.model_fields}
    values = params["compare"] | {key: scoring[key] for key in ("cost_bps", "calibration_bins")}
    values |= {"cells": [{"model": name, "horizon": horizon} for name in names for horizon in HORIZONS]}
    values |= {"label_end_offset": {f"h{horizon}": horizon for horizon in HORIZONS}}
    values |= {"seeds": [], "seed": params["seed"]}
    values |= {} if resamples is None else {"resamples": resamples}
    return (
        validate(EvaluateConfig, scoring | {"purge_bars": params["split"]["purge_bars"]}, "benchmarks.evaluation"),
        validate(CompareConfig, values, "benchmarks.evaluation"),
    )


def start_seconds() -> float:
    """How long a process takes to import what the stages import."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True, env=dict(os.environ), cwd=ROOT)
    return time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> None:
    asked = options(arguments)
    names = [f"seer{number:02d}" for number in range(asked.models)]
    evaluating, comparing = settings(names, asked.resamples)
    with tempfile.TemporaryDirectory() as folder:
        paths = Paths(Path(folder))
        write_windows(paths, asked.models, asked.rows)
        ModelRegistry.list_models()  # registers the real ones first
        train(paths, names)
        write_sources(paths, names)
        say(f"{len(names) * len(HORIZONS)} cells of {asked.rows:,} windows a split")
        start, used = time.perf_counter(), time.process_time()
        for horizon in HORIZONS:
            baseline(horizon, evaluating, paths)
            for name in names:
                evaluate(name, horizon, evaluating, paths)
        evaluated = time.perf_counter()
        say(f"evaluate: {evaluated - start:.1f} s")
        compare(comparing, paths)
        compared, used = time.perf_counter(), time.process_time() - used
    figures = {
        "evaluate_seconds": rounded(evaluated - start),
        "compare_seconds": rounded(compared - evaluated),
        "seconds": rounded(compared - start),
        "cpu_seconds": rounded(used),
        "start_seconds": rounded(start_seconds()),
    }
    size = {"cells": len(names) * len(HORIZONS), "rows": asked.rows, "resamples": comparing.resamples}
    finish({**figures, **size, "machine": machine()})


if __name__ == "__main__":
    main()
