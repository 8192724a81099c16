"""Boosters on whole flattened windows: the streamed route against the dense one, and all lags against a list.

    python -m benchmarks.boosting [--rows 87094] [--models xgboost lightgbm catboost] [--no-dense]

Every fit runs alone in a process of its own, one after the other; the dense ones need 15 GB at full size. The last
line is a JSON object. `rss_ratio` (peak, streamed over dense), `log_loss_difference` (on test, streamed minus dense)
and `lag_list_seconds_ratio` (seconds a round, `all` over a lag list) are those of the first model named.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from barcast.data.synthetic import synthetic_splits, write_splits
from barcast.data.window_ends import WindowConfig
from barcast.paths import Paths
from barcast.stages.window import WindowStageConfig, write_windows
from benchmarks._measure import MIB, fail, finish, machine, rounded, run_once, say

HORIZON = 5
LAGS = [0, 1, 2, 5, 10, 20, 59]
DENSE = {
    "xgboost": ["xgboost_dense", "xgboost_quantile"],
    "lightgbm": ["lightgbm_dense"],
    "catboost": ["catboost_dense"],
}

Figures = dict[str, Any]


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.boosting", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=87_094, help="training windows")
    parser.add_argument("--features", type=int, default=107)
    parser.add_argument("--seq-len", type=int, default=60)
    parser.add_argument("--models", nargs="+", choices=list(DENSE), default=list(DENSE))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-bins", type=int, default=64)
    parser.add_argument("--no-dense", action="store_true", help="leave out the dense routes, and what needs them")
    return parser.parse_args(arguments)


def write_data(folder: Path, asked: argparse.Namespace, lags: Sequence[int] = (0, 3, 20)) -> Path:
    """Window files in the shape asked for, with a signal planted at `lags`; returns their folder."""
    shares = (1.0, 18_591 / 87_094, 18_592 / 87_094)
    first = 2 * (asked.seq_len - 1)  # of each symbol's rows, so many end no window
    counts = tuple(int(asked.rows * share) + first for share in shares)
    frames = synthetic_splits(
        seed=7, n_rows=counts, n_features=asked.features, horizons=[HORIZON], signal=0.7, signal_lags=lags
    )
    paths = Paths(folder)
    write_splits(frames, paths.splits)
    window = WindowConfig(seq_len=asked.seq_len, max_gap="30D")  # across closing hours too
    with redirect_stdout(sys.stderr):
        write_windows(WindowStageConfig(horizons=[HORIZON], weights="none", window=window), paths)
    return paths.windows


def settings(asked: argparse.Namespace, **over: Any) -> Figures:
    """Few rounds, each a long step, so that what the bins miss shows in the log-loss."""
    common = {
        "early_stopping": False,
        "learning_rate": 0.3,
        "colsample": 1.0,
        "subsample": 1.0,
        "train_stride": 1,
    }
    return {**common, "max_rounds": asked.rounds, "max_bins": asked.max_bins, "lags": "all", "spans": [], **over}


def fit(route: str, model: str, folder: Path, over: Figures, horizon: int = HORIZON, split: str = "test") -> Figures:
    """One fit in a process of its own, scored on a split."""
    request = {"route": route, "model": model, "folder": str(folder), "horizon": horizon, "settings": over}
    found = run_once("benchmarks._routes", {**request, "split": split})
    figures = {key: rounded(value, 6) for key, value in found.items() if key != "peak_rss"}
    figures["peak_rss_mib"] = rounded(found["peak_rss"] / MIB)
    say(f"{model}, {route}, lags {over['lags']}, spans {over['spans']}: {figures}")
    return figures


def compare(model: str, folder: Path, asked: argparse.Namespace) -> Figures:
    """All of a model's routes, and what follows from them."""
    short = [lag for lag in LAGS if lag < asked.seq_len]
    routes = {
        "streamed": fit("streamed", model, folder, settings(asked)),
        "lag_list": fit("streamed", model, folder, settings(asked, lags=short)),
        "lag_list_and_span": fit("streamed", model, folder, settings(asked, lags=short, spans=[asked.seq_len])),
    }
    for route in [] if asked.no_dense else DENSE[model]:
        routes[route] = fit(route, model, folder, settings(asked))
    whole = routes["streamed"]
    found: Figures = {
        "rss_ratio": None,
        "log_loss_difference": None,
        "lag_list_seconds_ratio": rounded(whole["seconds_a_round"] / routes["lag_list"]["seconds_a_round"]),
        "lag_list_and_span_seconds_ratio": rounded(
            whole["seconds_a_round"] / routes["lag_list_and_span"]["seconds_a_round"]
        ),
    }
    for position, route in enumerate([] if asked.no_dense else DENSE[model]):
        suffix = f"_{route}" if position else ""
        found[f"rss_ratio{suffix}"] = rounded(whole["peak_rss_mib"] / routes[route]["peak_rss_mib"])
        found[f"log_loss_difference{suffix}"] = rounded(whole["log_loss"] - routes[route]["log_loss"])
    return {**found, "routes": routes}


def main(arguments: Sequence[str] | None = None) -> None:
    asked = options(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = write_data(Path(name), asked)
        try:
            models = {model: compare(model, folder, asked) for model in asked.models}
        except RuntimeError as error:
            fail(str(error))
    headline = {key: value for key, value in models[asked.models[0]].items() if key != "routes"}
    shape = {"windows": asked.rows, "columns": asked.seq_len * asked.features, "max_bins": asked.max_bins}
    finish({**headline, "model": asked.models[0], "models": models, **shape, "machine": machine()})


if __name__ == "__main__":
    main()
