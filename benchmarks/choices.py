"""Why the defaults of params.yaml are what they are: each against its alternatives, on purged walk-forward folds.

    python -m benchmarks.choices [--only weights units view stride trees networks] [--markets embedded drift sessions]
        [--horizons 5 20] [--into benchmarks/results/choices.json]

Only bars of train and val are used: the test period is cut off before features are computed. Early stopping watches a
slice of its own between what a fold trains on and what it is scored on. What a part does not vary is as committed.

The last line is a JSON object. Its `rows` have one entry per part, market, horizon, model and setting: the log-loss
over all scored windows and by fold, and that of the prior; the difference to the committed setting on the same windows,
with an interval of the block bootstrap as `compare:` says; the processor seconds of fitting and predicting in all
folds, on one thread. An interval covers the choice of windows, not the model's seed; `--seeds` averages several.

With `--into` the rows of a run replace those of the same part, market, horizon and model in a file, so a long run can
be done in parts, one after the other.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from barcast.comparison.intervals import Values, deltas
from barcast.comparison.resampling import block_length, draw
from barcast.data.bars import load_bars
from barcast.data.synthetic import FUTURES, synthetic_bars
from barcast.data.windows import IntArray
from barcast.files import read_json, write_json
from barcast.params import Params, load_params, resolve_model
from benchmarks._measure import ROOT, finish, machine, say
from benchmarks._walk_forward import ATR_14, Array, Fold, Market, Score, Setting, before_test

Row = dict[str, Any]

PARAMS = ROOT / "params.yaml"
MARKETS: dict[str, Mapping[str, Any]] = {  # of synthetic ones the arguments of `synthetic_bars`
    "embedded": {},
    "drift": {"seed": 11, "signal": 0.03},
    "sessions": {"seed": 12, "signal": 0.05, "sessions": FUTURES},
}
FOLDS = {"lightgbm": 5, "gru": 3, "lstm": 3}
# "Thinned": columns or windows are dropped until it takes at most about three times as long as the last bar does.
PARTS: dict[str, dict[str, Mapping[str, Any]]] = {
    "weights": {kind: {"weights": kind} for kind in ("none", "uniqueness", "quality", "both")},
    "units": {units: {"units": units} for units in ("price", "atr", ATR_14)},
    "view": {
        "lags 0": {"lags": [0], "spans": []},
        "lags 0 1 2 5": {"lags": [0, 1, 2, 5], "spans": []},
        "lags 0 1 2 5, thinned": {"lags": [0, 1, 2, 5], "spans": [], "colsample": 0.075},
        "lags 0 5 20": {"lags": [0, 5, 20], "spans": []},
        "lags 0 5 20, thinned": {"lags": [0, 5, 20], "spans": [], "colsample": 0.1},
        "lags 0, spans 5 20": {"lags": [0], "spans": [5, 20]},
        "lags 0, spans 5 20, thinned": {"lags": [0], "spans": [5, 20], "colsample": 0.1, "train_stride": 4},
        "all bars, thinned": {"lags": "all", "spans": [], "colsample": 0.01, "train_stride": 16},
    },
    "stride": {f"train_stride {stride}": {"train_stride": stride} for stride in (1, 4)},
    "trees": {
        "extra_trees": {"extra_trees": True},
        "extra_trees, min_child_samples 500": {"extra_trees": True, "min_child_samples": 500},
        "best splits": {"extra_trees": False},
        "best splits, min_child_samples 500": {"extra_trees": False, "min_child_samples": 500},
        "colsample 0.1": {"colsample": 0.1},  # what thinned views have too
        "learning_rate 0.1": {"learning_rate": 0.1, "max_rounds": 500, "patience": 30},
        "learning_rate 0.025": {"learning_rate": 0.025, "max_rounds": 2000, "patience": 120},
    },
    "networks": {
        "lookback 8": {"lookback": 8},
        "lookback 20": {"lookback": 20},
        "lookback 60": {"lookback": 60},
        "average_seeds 1": {"average_seeds": 1},
        "train_stride 8": {"train_stride": 8},
    },
}


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choices", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS), help="parts of the table")
    parser.add_argument("--markets", nargs="*", choices=list(MARKETS), default=list(MARKETS))
    parser.add_argument("--horizons", type=int, nargs="*", default=[5, 20])
    parser.add_argument("--folds", type=int, help="default: 5 of LightGBM, 3 of networks")
    parser.add_argument("--seeds", type=int, nargs="*", help="of each model, averaged; default: that of params.yaml")
    parser.add_argument("--bars", type=int, default=30_000, help="of each symbol of a synthetic market")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--into", type=Path, help="a file of earlier figures, whose rows are kept or replaced")
    return parser.parse_args(arguments)


def parts_of(model: str, asked: argparse.Namespace) -> list[str]:
    return [part for part in asked.only if (part == "networks") == (model != "lightgbm")]


def market_bars(params: Params, name: str, count: int) -> pd.DataFrame:
    """The market's bars before its test period."""
    if MARKETS[name]:
        return before_test(synthetic_bars(["AAA", "BBB"], count, **MARKETS[name]), params)
    return before_test(load_bars(ROOT / params.data.path, params.symbols), params)


def compare(params: Params, asked: argparse.Namespace, case: tuple[str, int, str]) -> list[Row]:
    """The rows of one market, horizon and model, of all parts asked for."""
    market_name, horizon, model = case
    config = resolve_model(params, model, horizon, PARAMS).model_copy(update={"threads": 1})
    prior = Setting.of(params, resolve_model(params, "prior", horizon, PARAMS), {})
    committed = Setting.of(params, config, {})
    scored, table = [committed, prior], []
    for part in parts_of(model, asked):
        named = {name: Setting.of(params, config, changes) for name, changes in PARTS[part].items()}
        named |= {} if committed in named.values() else {"committed": committed}
        table += [(part, name, setting) for name, setting in named.items()]
        scored += [setting for setting in named.values() if setting not in scored]
    market = Market(market_bars(params, market_name, asked.bars), params, horizon)
    folds, seeds = list(market.folds(asked.folds or FOLDS[model])), asked.seeds or [params.seed]
    few = Fold(*(part[:500] for part in folds[0]))
    market.scores([committed], [few], seeds[:1])  # so that no seconds are of imports and compiling
    scores = market.scores(scored, folds, seeds)
    apart = differences(scores, np.concatenate([market.times(fold.scored) for fold in folds]), params)
    own = {"market": market_name, "horizon": horizon, "model": model, "prior": scores[1].figures()["log_loss"]}
    rows = []
    for part, name, setting in table:
        place = scored.index(setting)
        varied = setting.values(sorted({key for changes in PARTS[part].values() for key in changes}))
        row = {**own, "part": part, "setting": name, "values": varied, "committed": place == 0}
        rows.append({**row, **scores[place].figures(), **apart[place]})
    return rows


def differences(scores: Sequence[Score], times: IntArray, params: Params) -> list[Row]:
    """Each setting's log-loss less the first's, from one set of resamples of the scored windows' times `[N]`."""
    place = np.unique(times, return_inverse=True)[1]
    windows = np.bincount(place)  # [T]
    by_time = [np.bincount(place, np.concatenate(score.losses)).astype(np.float64) for score in scores]  # [T] each
    length = block_length([by_time[0], *(losses - by_time[0] for losses in by_time[2:])])  # the prior is not compared
    sample = draw(len(windows), params.compare.block_factor * length, params.compare, params.seed)

    def values(losses: Array) -> Values:
        counts = sample.indices.counts  # [B, T]
        return {"log_loss": losses.sum() / windows.sum()}, {"log_loss": counts @ losses / (counts @ windows)}

    found = [deltas(values(losses), values(by_time[0]), sample)["log_loss"] for losses in by_time]
    return [{"difference": d.value, "low": d.low, "high": d.high, "verdict": d.verdict} for d in found]


def merged(rows: Sequence[Row], file: Path) -> list[Row]:
    """Write rows into a file, in place of those of the same part, market, horizon and model; all that it has then."""
    keys = ("part", "market", "horizon", "model")
    fresh = {tuple(row[key] for key in keys) for row in rows}
    before = read_json(file)["rows"] if file.is_file() else []
    whole = [row for row in before if tuple(row[key] for key in keys) not in fresh] + list(rows)
    write_json(file, {"rows": whole, "machine": machine()})
    return whole


def main(arguments: Sequence[str] | None = None) -> None:
    asked = options(arguments)
    work = partial(compare, load_params(PARAMS), asked)
    cases = [case for case in product(asked.markets, asked.horizons, FOLDS) if parts_of(case[2], asked)]
    rows: list[Row] = []
    with ProcessPoolExecutor(asked.jobs, get_context("spawn")) as pool:
        done = pool.map(work, cases) if asked.jobs > 1 else map(work, cases)
        for case, found in zip(cases, done, strict=True):
            rows = merged(found, asked.into) if asked.into else [*rows, *found]
            say(f"{case}: {sum(row['seconds'] for row in found):.0f} s")
    finish({"rows": rows, "machine": machine()})


if __name__ == "__main__":
    main()
