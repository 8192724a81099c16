"""Random batches of windows: barcast against qlib, pytorch-forecasting and plain copying, in one run.

    python -m benchmarks.windows [--rows 87094] [--batch 256 1024] [--peers build/peers/bin/python]

The last line is a JSON object. `vs_*` is how many times as many windows a second barcast serves, at the batch size
that is worst for it; `rss_ratio` is the memory that opening the data set adds, over the bytes of the base rows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from barcast.data.window_ends import window_ends
from barcast.data.window_files import pack_labels
from barcast.files import write_json
from benchmarks._measure import MIB, ROOT, fail, finish, machine, paired, rounded, say, worker

OWN = ("barcast", "memcpy", "memcpy_blocks")
PEERS = ("qlib", "qlib_loader", "pytorch_forecasting")
HOUR = 3_600_000_000_000

Rates = dict[str, dict[int, list[float]]]


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.windows", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=87_094)
    parser.add_argument("--features", type=int, default=107)
    parser.add_argument("--seq-len", type=int, default=60)
    parser.add_argument("--batch", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--rounds", type=int, default=15, help="how often each is measured, all in turn")
    parser.add_argument("--seconds", type=float, default=0.4, help="how long each is measured at a time")
    parser.add_argument("--peers", default="build/peers/bin/python", help="the peers' Python")
    return parser.parse_args(arguments)


def write_split(folder: Path, split: str, rows: int, features: int, seq_len: int) -> None:
    """The window files of two symbols; every label known, one horizon."""
    target, rng = folder / split, np.random.default_rng(0)
    target.mkdir(parents=True)
    counts = [len(part) for part in np.array_split(np.arange(rows), 2)]
    times = pd.date_range("2020", periods=max(counts), freq="1h", tz="UTC", unit="ns")
    datetime = times[: counts[0]].append(times[: counts[1]])
    symbols = np.repeat([0, 1], counts)
    ends = window_ends(symbols, datetime.asi8, seq_len, HOUR)
    np.save(target / "rows.npy", rng.standard_normal((rows, features), dtype=np.float32))
    np.save(target / "ends.npy", ends)
    np.save(target / "keys.npy", np.stack([symbols, datetime.asi8]))
    index = pd.DataFrame({"datetime": datetime, "symbol": np.repeat(["A", "B"], counts), "close": 100.0})
    index.to_parquet(target / "index.parquet", index=False, compression="zstd")
    write_json(target / "columns.json", {"features": [f"f{n:03d}" for n in range(features)], "seq_len": seq_len})
    labels = pack_labels(pd.Series(rng.integers(-1, 2, rows)), pd.Series(np.ones(rows)), pd.Series(np.ones(rows)))
    (folder / "labels").mkdir(exist_ok=True)
    np.save(folder / f"labels/{split}_h1.npy", labels)


def commands(peers: str, folder: Path) -> dict[str, list[str]]:
    """How each contestant's process starts."""
    pythons = dict.fromkeys(OWN, sys.executable) | dict.fromkeys(PEERS, str(ROOT / peers))
    return {name: [python, "-m", "benchmarks._contestants", name, str(folder)] for name, python in pythons.items()}


def measure(asked: argparse.Namespace, folder: Path) -> tuple[dict[str, dict[str, Any]], Rates]:
    """Build each once, then let them take turns, so that whatever else the machine does falls on all."""
    with ExitStack() as stack:
        started = commands(asked.peers, folder).items()
        workers = {name: stack.enter_context(worker(command)) for name, command in started}
        built = {}
        for name, ask in workers.items():
            built[name] = ask(do="build")
            say(f"{name}: built in {built[name]['build_seconds']:.3f} s")
        rates: Rates = {name: {size: [] for size in asked.batch} for name in workers}
        for turn in range(asked.rounds):
            for size in asked.batch:
                for name, ask in workers.items():
                    answer = ask(do="rate", size=size, seconds=asked.seconds)
                    rates[name][size].append(answer["windows_a_second"])
            say(f"round {turn + 1} of {asked.rounds}")
        for name, ask in workers.items():
            built[name] |= ask(do="memory")
    return built, rates


def summary(asked: argparse.Namespace, built: Mapping[str, Mapping[str, Any]], rates: Rates) -> dict[str, Any]:
    base = asked.rows * asked.features * 4
    ratios = {
        name: {size: paired(rates["barcast"][size], found[size]) for size in asked.batch}
        for name, found in rates.items()
        if name != "barcast"
    }
    details = {
        name: {
            "build_seconds": rounded(built[name]["build_seconds"]),
            "rss_added_mib": rounded(built[name]["rss_added"] / MIB),
            "peak_rss_mib": rounded(built[name]["peak_rss"] / MIB),
            "windows_a_second": {size: rounded(median(found[size]), 3) for size in asked.batch},
            "ratio": ratios.get(name),
        }
        for name, found in rates.items()
    }
    return {
        **{f"vs_{name}": min(found.values()) for name, found in ratios.items()},
        "rss_ratio": rounded(built["barcast"]["rss_added"] / base),
        "base_rows_mib": rounded(base / MIB),
        "details": details,
        "rows": asked.rows,
        "features": asked.features,
        "seq_len": asked.seq_len,
        "rounds": asked.rounds,
        "machine": machine(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    asked = options(arguments)
    if not (ROOT / asked.peers).exists():
        fail(f"{asked.peers}: no such Python; make the peers' environment with the command in benchmarks/README.md")
    with tempfile.TemporaryDirectory() as name:
        write_split(Path(name), "train", asked.rows, asked.features, asked.seq_len)
        write_split(Path(name), "warm", 4 * asked.seq_len + 8, asked.features, asked.seq_len)
        try:
            built, rates = measure(asked, Path(name))
        except (RuntimeError, BrokenPipeError) as error:
            fail(f"a contestant died: {error}")
    finish(summary(asked, built, rates))


if __name__ == "__main__":
    main()
