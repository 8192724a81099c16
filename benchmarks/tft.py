"""TFT on a CPU: neuralforecast's own network against barcast's, in training by run length and in prediction.

    python -m benchmarks.tft [--rows 87094] [--hidden-size 16] [--run-lengths 1 8 16 32]

Each is a process of its own; they take turns, some steps at a time, and an epoch is what its steps would take. The
last line is a JSON object: `train_ratio` and `predict_ratio` say how many times as long neuralforecast takes, in
training at the run length of params.yaml.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from statistics import median
from typing import Any

from barcast.params import load_params
from benchmarks._measure import MIB, ROOT, Ask, fail, finish, machine, paired, rounded, say, worker

THEIRS = "neuralforecast"

Times = dict[str, list[float]]


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tft", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=87_094, help="windows of an epoch")
    parser.add_argument("--features", type=int, default=107)
    parser.add_argument("--seq-len", type=int, default=60)
    parser.add_argument("--hidden-size", type=int, default=16)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--run-lengths", type=int, nargs="+", default=[1, 8, 16, 32])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured, all in turn")
    parser.add_argument("--steps", type=int, default=6, help="of barcast in a round; neuralforecast has one")
    return parser.parse_args(arguments)


def start(stack: ExitStack, way: str, asked: argparse.Namespace) -> Ask:
    """A process with the network and the windows in it, one step and one prediction done."""
    ask = stack.enter_context(worker([sys.executable, "-m", "benchmarks._tft", way]))
    shape = {"rows": asked.rows, "seq_len": asked.seq_len, "width": asked.features, "threads": asked.threads}
    built = ask(do="build", **shape, hidden_size=asked.hidden_size, heads=asked.heads)
    ask(do="predict", windows=asked.batch)
    say(f"{way}: {built['parameters']} parameters")
    return ask


def measure(asked: argparse.Namespace) -> tuple[Times, Times, dict[str, int]]:
    """Seconds a step and seconds a window predicted, in each round, and peak memory, of each contestant."""
    with ExitStack() as stack:
        lengths = {THEIRS: 1} | {f"run_length_{length}": length for length in asked.run_lengths}
        workers = {name: start(stack, THEIRS if name == THEIRS else "barcast", asked) for name in lengths}
        train: Times = {name: [] for name in workers}
        predict: Times = {THEIRS: [], "barcast": []}
        batch = {"batch_size": asked.batch}
        for name, ask in workers.items():  # the first step pays for buffers
            ask(do="train", steps=1, run_length=lengths[name], **batch)
        for turn in range(asked.rounds):
            for name, ask in workers.items():
                steps = 1 if name == THEIRS else asked.steps
                train[name].append(ask(do="train", steps=steps, run_length=lengths[name], **batch)["seconds"])
            predict[THEIRS].append(workers[THEIRS](do="predict", windows=4 * asked.batch)["seconds"])
            predict["barcast"].append(ask(do="predict", windows=16 * asked.batch)["seconds"])
            say(f"round {turn + 1} of {asked.rounds}")
        peaks = {name: ask(do="memory")["peak_rss"] for name, ask in workers.items()}
    return train, predict, peaks


def summary(asked: argparse.Namespace, train: Times, predict: Times, peaks: Mapping[str, int]) -> dict[str, Any]:
    steps = asked.rows / asked.batch
    ratios = {name: paired(train[THEIRS], found) for name, found in train.items() if name != THEIRS}
    committed = f"run_length_{load_params(ROOT / 'params.yaml').model['tft']['run_length']}"
    return {
        "train_ratio": ratios.get(committed, max(ratios.values())),
        "predict_ratio": paired(predict[THEIRS], predict["barcast"]),
        "train_ratios": ratios,
        "seconds_an_epoch": {name: rounded(median(found) * steps) for name, found in train.items()},
        "seconds_to_predict": {name: rounded(median(found) * asked.rows) for name, found in predict.items()},
        "peak_rss_mib": {name: rounded(found / MIB) for name, found in peaks.items()},
        **{key: getattr(asked, key) for key in ("rows", "features", "seq_len", "hidden_size", "batch", "threads")},
        "machine": machine(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    asked = options(arguments)
    try:
        found = measure(asked)
    except (RuntimeError, BrokenPipeError) as error:
        fail(f"a contestant died: {error}")
    finish(summary(asked, *found))


if __name__ == "__main__":
    main()
