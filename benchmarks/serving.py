"""From one new bar to its answer, features included, the model loaded: p50 and p99 of every model of the matrix.

    python -m benchmarks.serving [--horizon 5] [--calls 300]

Each call hands over a symbol's history up to a new bar and waits for that bar's answer: with as many bars as make it
the same as with the whole history (`exact`), and with the fewest that are taken (`least`). The models take turns, so
that whatever else the machine does falls on all; `cpu_p50_ms` is the time that the calling thread itself worked. The
last line is a JSON object; `boosters_p50_ms` is the slowest booster's p50 with the exact history.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from barcast.data.bars import load_bars
from barcast.errors import BarcastError
from barcast.models.registry import ModelRegistry
from barcast.params import load_params
from barcast.paths import Paths
from barcast.serving.bundle import write_bundle
from barcast.serving.candidate import Candidate
from barcast.serving.predictor import Predictor
from benchmarks._measure import ROOT, fail, finish, machine, rounded, say


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__.splitlines()[0])
    parser.add_argument("--root", default=str(ROOT), help="the repository whose cells are asked")
    parser.add_argument("--horizon", type=int, default=5)
    parser.add_argument("--models", nargs="+", metavar="MODEL", help="of the matrix; default: all")
    parser.add_argument("--calls", type=int, default=300, help="of each model with each history")
    return parser.parse_args(arguments)


def predictors(paths: Paths, horizon: int, models: list[str] | None, folder: Path) -> dict[str, Predictor]:
    """Models of the matrix as they would serve, warmed up."""
    params, loaded = load_params(paths.params), {}
    for model in models or params.models:
        candidate = Candidate(paths, params, model, horizon)
        metrics = paths.cell_metrics(candidate.cell).parent
        write_bundle(folder / model, paths.checkpoint(candidate.cell), metrics, candidate.serving_config())
        loaded[model] = Predictor(folder / model)
        loaded[model].warm_up()
    return loaded


def measure(loaded: dict[str, Predictor], bars: pd.DataFrame, calls: int) -> dict[str, dict[str, Any]]:
    """Seconds of every call, the models in turn and each call one bar later."""
    times: dict[str, dict[str, list[tuple[float, float]]]] = {m: {"exact": [], "least": []} for m in loaded}
    for turn in range(calls):
        for model, predictor in loaded.items():
            config = predictor.config
            for name, history in (("exact", config.exact_bars), ("least", config.needed_bars)):
                last = len(bars) - calls + turn
                asked = bars.iloc[max(last - history, 0) : last].reset_index(drop=True)
                wall, cpu = time.perf_counter(), time.thread_time()
                predictor.predict(asked, last_only=True)
                times[model][name].append((time.perf_counter() - wall, time.thread_time() - cpu))
    return {model: {name: _figures(pairs) for name, pairs in found.items()} for model, found in times.items()}


def _figures(pairs: list[tuple[float, float]]) -> dict[str, float]:
    wall, cpu = 1000.0 * np.array(pairs).T
    p50, p99 = np.percentile(wall, [50, 99])
    return {"p50_ms": rounded(p50, 3), "p99_ms": rounded(p99, 3), "cpu_p50_ms": rounded(float(np.median(cpu)), 3)}


def main(arguments: Sequence[str] | None = None) -> None:
    asked = options(arguments)
    paths = Paths(Path(asked.root))
    try:
        with tempfile.TemporaryDirectory() as name:
            loaded = predictors(paths, asked.horizon, asked.models, Path(name))
            config = next(iter(loaded.values())).config
            data = load_params(paths.params).data.path
            found = measure(loaded, load_bars(paths.root / data, config.symbols[:1]), asked.calls)
    except BarcastError as error:
        fail(f"{error}; this benchmark asks trained cells, `dvc repro` makes them")
    for model, figures in found.items():
        say(f"{model}: p50 {figures['exact']['p50_ms']} ms, p99 {figures['exact']['p99_ms']} ms")
    boosters = [figures["exact"]["p50_ms"] for model, figures in found.items() if _is_booster(model)]
    finish(
        {
            "boosters_p50_ms": max(boosters, default=None),
            "models": found,
            "history": {"exact": config.exact_bars, "least": config.needed_bars},
            "calls": asked.calls,
            "machine": machine(),
        }
    )


def _is_booster(model: str) -> bool:
    return ModelRegistry.get_metadata(model).family == "gbdt"


if __name__ == "__main__":
    main()
