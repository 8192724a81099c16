"""What a lag list costs in accuracy: `all` against the list, on real bars and on planted signals.

    python -m benchmarks.lags [--windows data/windows] [--model xgboost]

The model keeps the hyperparameters of params.yaml; only `lags` and `spans` differ. Real bars are scored on the
validation split (which early stopping watched, for each way alike), planted signals on test. The last line is a JSON
object: the log-loss of the prior and of each way, for each case.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks._measure import ROOT, fail, finish, machine, say
from benchmarks.boosting import DENSE, HORIZON, LAGS, Figures, fit, write_data

UNLISTED = [3, 7, 13, 33]
SPANS = [5, 20, 60]


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lags", description=__doc__.splitlines()[0])
    parser.add_argument("--windows", default="data/windows", help="window files of the real bars")
    parser.add_argument("--horizons", type=int, nargs="*", default=[5, 20], help="of the real bars; none: leave out")
    parser.add_argument("--model", choices=list(DENSE), default="xgboost")
    parser.add_argument("--rows", type=int, default=30_000, help="training windows of the planted cases")
    parser.add_argument("--features", type=int, default=30, help="features of the planted cases")
    parser.add_argument("--seq-len", type=int, default=60)
    parser.add_argument("--rounds", type=int, help="default: as in params.yaml")
    return parser.parse_args(arguments)


def ways(asked: argparse.Namespace) -> dict[str, Figures]:
    """The settings of each way to see a window."""
    rounds = {} if asked.rounds is None else {"max_rounds": asked.rounds}
    listed = [lag for lag in LAGS if lag < asked.seq_len]
    spans = [span for span in SPANS if span <= asked.seq_len]
    return {
        "all": {**rounds, "lags": "all", "spans": []},
        "list": {**rounds, "lags": listed, "spans": []},
        "list_and_spans": {**rounds, "lags": listed, "spans": spans},
    }


def case(folder: Path, asked: argparse.Namespace, horizon: int, split: str) -> Figures:
    """Each way's log-loss, rounds and seconds a round."""
    found = {name: fit("streamed", asked.model, folder, over, horizon, split) for name, over in ways(asked).items()}
    losses = {name: figures["log_loss"] for name, figures in found.items()}
    return {
        "prior": found["all"]["prior_log_loss"],
        **losses,
        "seconds_a_round": {name: figures["seconds_a_round"] for name, figures in found.items()},
        "rounds": {name: figures["rounds"] for name, figures in found.items()},
    }


def planted(asked: argparse.Namespace, lags: Sequence[int]) -> Figures:
    """A signal at the given lags; those outside the window are left out."""
    with tempfile.TemporaryDirectory() as name:
        folder = write_data(Path(name), asked, [lag for lag in lags if lag < asked.seq_len])
        return case(folder, asked, HORIZON, "test")


def main(arguments: Sequence[str] | None = None) -> None:
    asked = options(arguments)
    windows = ROOT / asked.windows
    if asked.horizons and not (windows / "labels").is_dir():
        fail(f"{asked.windows}: no window files; run `dvc repro window`, or pass --horizons without a number")
    cases = {}
    try:
        for horizon in asked.horizons:
            say(f"real bars, horizon {horizon}")
            cases[f"real_h{horizon}"] = case(windows, asked, horizon, "val")
        for name, lags in (("planted_at_listed_lags", LAGS), ("planted_at_unlisted_lags", UNLISTED)):
            say(name)
            cases[name] = planted(asked, lags)
    except RuntimeError as error:
        fail(str(error))
    finish({**cases, "model": asked.model, "lags": LAGS, "spans": SPANS, "machine": machine()})


if __name__ == "__main__":
    main()
