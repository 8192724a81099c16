"""Windows a second in training: the torch loop against its limit, a per-item DataLoader and the peers' own trainers.

    python -m benchmarks.sequence [--models lstm gru] [--peers build/peers/bin/python] [--no-peers]

Each contestant is a process of its own, and those of a heat take turns. The last line is a JSON object: for each model
`overhead` (seconds of the loop over those of forward, loss, backward and optimiser on one batch that never changes,
less 1), `vs_*` (how many times as many windows a second barcast trains on; `*_cpu`: in processor seconds, which hold on
a busy machine) and the memory that training adds over a process that has imported everything and trained on a tiny
set: `rss_ratio` over base rows, parameters, gradients and the optimiser's moments, `rss_over_bare` over that of `bare`,
which holds the same and what its network keeps for the backward pass; `rss_ratio_uncached` is `rss_ratio` where glibc
keeps no small freed pieces apart, and `cost_uncached_cpu` what that costs in seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from barcast.models.registry import ModelRegistry
from barcast.params import load_params, resolve_model
from benchmarks._measure import MIB, ROOT, fail, finish, machine, paired, rounded, say, worker
from benchmarks._trainings import HORIZON
from benchmarks.windows import write_split

NETWORKS = ("lstm", "gru", "transformer", "nhits", "tft", "patchtst")
COPIES = 4  # of a parameter: itself, its gradient and AdamW's two moments

Figures = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A contestant: where its way stands, whose turns its own are divided by, and what differs in the config."""

    module: str
    way: str
    against: str = "loop"
    over: Mapping[str, Any] = field(default_factory=dict)
    glibc: str = ""  # tunables of its allocator
    workers: int = 0
    batches: int | None = None  # a turn, where a batch takes much longer than with the others
    peer: bool = False


def own(way: str, **options: Any) -> Entry:
    return Entry("_trainings", way, **options)


def theirs(way: str, **options: Any) -> Entry:
    return Entry("_peer_trainings", way, **options)


UNCACHED = "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0"  # small pieces then join their neighbours once freed
LIMITS = {
    "loop": own("loop"),
    "bare": own("bare"),
    "per_item": own("per_item"),
    "per_item_2_workers": own("per_item", workers=2),
    "not_deterministic": own("loop", over={"deterministic": False}),
    "uncached": own("loop", glibc=UNCACHED),
    "two_threads": own("loop", over={"threads": 2}, batches=2),
}
NO_PEERS = {"loop", "bare", "fit", "not_deterministic", "uncached", "two_threads", "config"}
COMPILED = {"loop": own("loop"), "compiled": own("loop", over={"compile": True})}
QLIB = {
    "loop": own("loop"),
    "fit": own("fit"),
    "qlib": theirs("qlib", peer=True),
    "qlib_2_workers": theirs("qlib", workers=2, peer=True),
    "qlib_fit": theirs("qlib_fit", against="fit", peer=True),
}
NEURALFORECAST = {"loop": own("loop"), "neuralforecast": theirs("neuralforecast", batches=3)}
FORECASTING = {"loop": own("loop"), "pytorch_forecasting": theirs("pytorch_forecasting", batches=2, peer=True)}
PEERS = {
    "lstm": [QLIB, NEURALFORECAST],
    "gru": [QLIB, NEURALFORECAST],
    "transformer": [QLIB],
    "nhits": [NEURALFORECAST],
    "tft": [FORECASTING],
}
SHORT = ("lstm", "gru", "nhits", "patchtst")  # whose steps are so short that beginning a turn would count
WIDE = {"transformer": {"d_ff": 2048}}  # the width that qlib's Transformer can't change, in the heat against it


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    known = [name for name in NETWORKS if name in ModelRegistry.list_models()]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sequence", description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=known, default=known)
    parser.add_argument("--rows", type=int, default=87_094)
    parser.add_argument("--features", type=int, default=107)
    parser.add_argument("--seq-len", type=int, default=60)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1, help="more stall where anything else holds a core")
    parser.add_argument("--rounds", type=int, default=9, help="how often each is measured, all in turn")
    parser.add_argument("--batches", type=int, help="how many each trains on at a turn; default: 8, or 40 short ones")
    parser.add_argument("--peers", default="build/peers/bin/python", help="the peers' Python")
    parser.add_argument("--no-peers", action="store_true", help="the loop and its limits alone")
    parser.add_argument("--compile", action="store_true", help="the loop with torch.compile too, which takes minutes")
    return parser.parse_args(arguments)


def config(model: str, asked: argparse.Namespace, over: Mapping[str, Any]) -> Figures:
    """The model's block of params.yaml, one epoch long, in the shape asked for."""
    file = ROOT / "params.yaml"
    plain = resolve_model(load_params(file), model, HORIZON, file).model_dump()
    fixed = {"batch_size": asked.batch, "threads": asked.threads, "max_epochs": 1, "lookback": None}
    return {**plain, **fixed, **over}


def command(entry: Entry, model: str, asked: argparse.Namespace, folder: Path, shared: Mapping[str, Any]) -> list[str]:
    """How a contestant's process starts."""
    settings = {"model": model, "config": config(model, asked, {**shared, **entry.over}), "workers": entry.workers}
    python = str(ROOT / asked.peers) if entry.peer else sys.executable
    tuned = ["env", f"GLIBC_TUNABLES={entry.glibc}"] if entry.glibc else []
    return [*tuned, python, "-m", f"benchmarks.{entry.module}", entry.way, str(folder), json.dumps(settings)]


def heat(entries: Mapping[str, Entry], model: str, asked: argparse.Namespace, folder: Path, wide: bool) -> Figures:
    """Build each, then let them take turns; rates, ratios and memory of each."""
    shared = WIDE.get(model, {}) if wide else {}
    batches = asked.batches or (40 if model in SHORT else 8)
    with ExitStack() as stack:
        workers, facts, counts = {}, {}, {}
        for name, entry in entries.items():
            ask = workers[name] = stack.enter_context(worker(command(entry, model, asked, folder, shared)))
            facts[name] = ask(do="build")
            counts[name] = asked.batch * (entry.batches or batches)
            ask(do="turn", count=2 * asked.batch)  # the first steps pay for buffers
        turns: dict[str, list[Figures]] = {name: [] for name in workers}
        for _ in range(asked.rounds):
            for name, ask in workers.items():
                turns[name].append(ask(do="turn", count=counts[name]))
        memory = {name: ask(do="memory") for name, ask in workers.items()}
    found = {name: figures(name, entry, turns) for name, entry in entries.items()}
    for name in found:
        found[name] |= facts[name] | {f"{key}_mib": rounded(value / MIB) for key, value in memory[name].items()}
        say(f"{model}, {name}: {found[name]}")
    return {**found, **({"config": shared} if shared else {})}


def figures(name: str, entry: Entry, turns: Mapping[str, Sequence[Figures]]) -> Figures:
    """A contestant's rate, and how many times as fast its reference is.

    `ratio_cpu` is that of processor seconds, which no other program takes away: say what a busy machine's clock can't.
    """
    shown: Figures = {"windows_a_second": rounded(median(turn["windows_a_second"] for turn in turns[name]), 3)}
    if name == entry.against:
        return shown
    ours, found = turns[entry.against], turns[name]
    shown |= {"against": entry.against}
    for key, rate in {"ratio": "windows_a_second", "ratio_cpu": "windows_a_cpu_second"}.items():
        shown[key] = paired([turn[rate] for turn in ours], [turn[rate] for turn in found])
    if entry.workers:  # whose seconds are not counted
        del shown["ratio_cpu"]
    return shown


def summary(heats: Sequence[Figures], asked: argparse.Namespace) -> Figures:
    """The figures that have an aim, and all details."""
    limits = heats[0]
    whole = (asked.rows * asked.features * 4 + COPIES * 4 * limits["loop"]["parameters"]) / MIB
    found: Figures = {
        "overhead": rounded(1 / limits["bare"]["ratio"] - 1),
        "overhead_cpu": rounded(1 / limits["bare"]["ratio_cpu"] - 1),
        "two_threads_over_one": rounded(1 / limits["two_threads"]["ratio"]),
        "cost_of_determinism_cpu": rounded(1 / limits["not_deterministic"]["ratio_cpu"] - 1),
        "rss_ratio": rounded(limits["loop"]["rss_added_mib"] / whole),
        "rss_ratio_uncached": rounded(limits["uncached"]["rss_added_mib"] / whole),
        "cost_uncached_cpu": rounded(limits["uncached"]["ratio_cpu"] - 1),
        "rss_over_bare": rounded(limits["loop"]["rss_added_mib"] / limits["bare"]["rss_added_mib"]),
        "base_rows_and_model_mib": rounded(whole),
    }
    for entries in heats:
        for name in entries.keys() - NO_PEERS:
            kinds = [key for key in ("ratio", "ratio_cpu") if key in entries[name]]
            found |= {f"vs_{name}{key.removeprefix('ratio')}": entries[name][key] for key in kinds}
    return {**dict(found), "heats": list(heats)}


def measure(model: str, asked: argparse.Namespace, folder: Path) -> Figures:
    heats = [heat(LIMITS, model, asked, folder, wide=False)]
    for entries in [] if asked.no_peers else PEERS.get(model, []):
        heats.append(heat(entries, model, asked, folder, wide=entries is QLIB))
    if asked.compile:
        heats.append(heat(COMPILED, model, asked, folder, wide=False))
    return summary(heats, asked)


def main(arguments: Sequence[str] | None = None) -> None:
    asked = options(arguments)
    if not (asked.no_peers or (ROOT / asked.peers).exists()):
        fail(f"{asked.peers}: no such Python; make the peers' environment as benchmarks/README.md says, or --no-peers")
    with tempfile.TemporaryDirectory() as name:
        sizes = {"train": asked.rows, "val": asked.rows // 4 + asked.seq_len, "warm": 4 * asked.seq_len + 8}
        for split, rows in sizes.items():
            write_split(Path(name), split, rows, asked.features, asked.seq_len)
        try:
            models = {model: measure(model, asked, Path(name)) for model in asked.models}
        except (RuntimeError, BrokenPipeError) as error:
            fail(f"a contestant died: {error}")
    shape = {key: getattr(asked, key) for key in ("rows", "features", "seq_len", "batch", "threads", "rounds")}
    finish({"models": models, **shape, "machine": machine()})


if __name__ == "__main__":
    main()
