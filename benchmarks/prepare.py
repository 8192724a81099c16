"""The prepare stage on many bars: seconds, and the most memory that it holds.

    python -m benchmarks.prepare [--bars 1000000]

Two symbols of synthetic 1-minute bars, features, labels, split and scaler as params.yaml has them. The last line is a
JSON object with `seconds` and `peak_rss_gb` of a process that runs the stage alone, imports included.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from barcast.data.synthetic import synthetic_bars
from benchmarks._measure import fail, finish, machine, rounded, run_once, say
from benchmarks._prepare import BARS, SYMBOLS


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prepare", description=__doc__.splitlines()[0])
    parser.add_argument("--bars", type=int, default=1_000_000, help="of each of the two symbols")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    asked = options(arguments)
    with tempfile.TemporaryDirectory() as name:
        bars = synthetic_bars(SYMBOLS, asked.bars, seed=0, spacing="1min")
        bars.to_parquet(Path(name) / BARS, compression="zstd", index=False)
        say(f"{len(bars):,} bars made")
        del bars
        start = time.perf_counter()
        try:
            found = run_once("benchmarks._prepare", {"folder": name})
        except RuntimeError as error:
            fail(str(error))
        seconds = time.perf_counter() - start
    figures = {"seconds": rounded(seconds), "peak_rss_gb": rounded(found["peak_rss"] / 1e9)}
    finish({**figures, "bars": asked.bars, "symbols": len(SYMBOLS), "machine": machine()})


if __name__ == "__main__":
    main()
