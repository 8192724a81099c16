"""Does barcast forecast better than what a researcher would write first, and than AutoML on the same windows?

    python -m benchmarks.forecasts [--bars FILE] [--symbols A,B] [--only NAME,NAME] [--budget 150]
        [--peers build/forecast-peers/bin/python] [--workspace DIR] [--save NAME]

Contestants, for each horizon of params.yaml on exactly the same windows: `script` (LightGBM's defaults on the last
bar's features), `prior` (class frequencies), AutoGluon, TabM and MiniRocket (`_forecast_peers`), and every row of
barcast's leaderboard, with calibrated probabilities and with the models' own (`raw`). All fit on train and may stop
early by val. Barcast calibrates, weighs and ranks its rows as its leaderboard does, so val is scored in the part that
nothing was fitted on. Test is predicted once.

Progress and a table for each horizon go to standard error. The last line is a JSON object: by horizon and contestant
the seconds and peak memory of the whole processes, log-loss, skill over `prior` and MCC, the differences in test
log-loss to `script` and to the row that barcast ranks first, with paired intervals, and the p-value in the model
confidence set; and how well the ranking of barcast's cells predicts that of test.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from barcast.errors import BarcastError
from barcast.files import write_json
from barcast.params import load_params
from benchmarks._forecast_runs import CELLS, ENSEMBLES, Race, contestants
from benchmarks._forecast_scores import table, tidy
from benchmarks._measure import ROOT, fail, finish, machine, say
from benchmarks._workspace import Workspace


def names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forecasts", description=__doc__.splitlines()[0])
    parser.add_argument("--bars", type=Path, help="other bars than those of params.yaml, a file or a folder of files")
    parser.add_argument("--symbols", type=names, default=[], help="some of the bars' symbols; default: all of a file")
    parser.add_argument("--only", type=names, default=[], help=f"contestants beside script and prior, or {CELLS}")
    parser.add_argument("--budget", type=float, default=150, help="seconds that each peer may train")
    parser.add_argument("--peers", default="build/forecast-peers/bin/python", help="the peers' Python")
    parser.add_argument(
        "--workspace", type=Path, help="a folder to keep; what it has of the same inputs isn't run again"
    )
    parser.add_argument("--save", metavar="NAME", help="write the figures to benchmarks/results/NAME.json too")
    asked = parser.parse_args(arguments)
    known = contestants(load_params(ROOT / "params.yaml").models)
    unknown = sorted(set(asked.only) - {*known, CELLS})
    if unknown:
        parser.error(f"unknown contestant '{unknown[0]}'; known: {', '.join([*known, CELLS])}")
    asked.only = chosen(asked.only, known)
    return asked


def chosen(only: Sequence[str], known: Sequence[str]) -> list[str]:
    """The contestants to run, in the order of `known`; those that all others are compared with are among them."""
    wanted = {"script", "prior", *(only or known)}
    if wanted & {CELLS, ENSEMBLES}:  # an ensemble needs every cell
        wanted |= {name for name in known if name.startswith(CELLS) and (CELLS in wanted or name != ENSEMBLES)}
    return [name for name in known if name in wanted]


def measure(asked: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Lay out the windows, then let all contestants run at each horizon."""
    space = Workspace.build(root, asked.bars, asked.symbols)
    for stage in ("spec", "prepare", "window"):
        say(f"{stage} …")
        space.stage(stage)
    horizons = {}
    for horizon in space.params.horizons:
        found = Race(space, horizon, ROOT / asked.peers, asked.budget).run(asked.only)
        say(table(f"h{horizon}", found))
        horizons[f"h{horizon}"] = tidy(found)
    return {
        "horizons": horizons,
        "bars": asked.bars.name if asked.bars else space.params.data.path.removeprefix(f"{ROOT}/"),
        "symbols": space.params.symbols,
        "budget": asked.budget,
        "machine": machine(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    asked = options(arguments)
    with ExitStack() as stack:
        root = asked.workspace or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            figures = measure(asked, root.resolve())
        except (BarcastError, RuntimeError) as error:
            fail(str(error))
    if asked.save:
        write_json(ROOT / f"benchmarks/results/{asked.save}.json", figures)
    finish(figures)


if __name__ == "__main__":
    main()
