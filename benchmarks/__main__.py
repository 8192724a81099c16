"""All benchmarks, one after the other; each one's figures go to benchmarks/results/<name>.json.

python -m benchmarks [windows prepare serving lags evaluation tft boosting curves coverage
    classification sequence choices forecasts]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from barcast.files import write_json
from benchmarks._measure import ROOT, say

NAMES = (
    "windows",
    "prepare",
    "serving",
    "lags",
    "ensembles",
    "evaluation",
    "tft",
    "boosting",
    "curves",
    "coverage",
    "classification",
    "sequence",
    "choices",
    "forecasts",
)  # the longest last
RESULTS = Path(__file__).resolve().parent / "results"


def run(name: str) -> bool:
    """Run one script, its progress on standard error as ever; whether it ended well and its figures were written."""
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return False
    write_json(RESULTS / f"{name}.json", json.loads(done.stdout.splitlines()[-1]))
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(NAMES)}; none: all of them")
    asked = parser.parse_args(arguments).names or list(NAMES)
    unknown = sorted(set(asked) - set(NAMES))
    if unknown:
        parser.error(f"unknown benchmark '{unknown[0]}'; known: {', '.join(NAMES)}")
    failed = []
    for position, name in enumerate(asked, start=1):
        start = time.monotonic()
        say(f"[{position}/{len(asked)}] {name} …")
        if run(name):
            say(f"[{position}/{len(asked)}] {name}: {time.monotonic() - start:.0f} s, benchmarks/results/{name}.json")
        else:
            failed.append(name)
    if failed:
        say(f"failed: {', '.join(failed)}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
