"""Learning curves of the networks on the real bars: epochs, thinned training windows, run length, sizes, channels.

    python -m benchmarks.curves [--models gru tft] [--horizon 5] [--strides 8 4 2 1] [--run-lengths 1 8 16 32]
        [--sized lstm] [--size-horizons 5 20]

Hyperparameters are those of params.yaml but for what a case varies, and each case has one network. Early stopping is
off, so that curves go on where it would have ended them. Run lengths and sizes are tried with several seeds: they weigh
less than a seed does.
The last line is a JSON object: for each case the log-loss on every watched validation window after each epoch, the best
of them, and the seconds of an epoch, validation included.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from barcast.config import validate
from barcast.data.dataset import DatasetConfig, TimeSeriesDataset
from barcast.models.registry import ModelRegistry
from barcast.params import Params, load_params, resolve_model
from barcast.paths import Paths
from barcast.stages.window import WindowStageConfig, write_windows
from benchmarks._measure import ROOT, fail, finish, machine, rounded, say

PARAMS = ROOT / "params.yaml"
NETWORKS = ("lstm", "gru", "transformer", "nhits", "tft", "patchtst")

Size = Mapping[str, int]
RECURRENT: tuple[Size, ...] = (
    {"hidden_size": 32},
    {"hidden_size": 64},
    {"hidden_size": 128},
    {"hidden_size": 64, "layers": 2},
    {"hidden_size": 64, "embed_size": 0},
    {"hidden_size": 64, "embed_size": 16},
)
ATTENTION: tuple[Size, ...] = (
    {"d_model": 16, "d_ff": 32},
    {"d_model": 32, "d_ff": 64},
    {"d_model": 64, "d_ff": 128},
    {"d_model": 32, "d_ff": 64, "layers": 1},
    {"d_model": 32, "d_ff": 64, "layers": 4},
)
SIZES: dict[str, tuple[Size, ...]] = {
    "lstm": RECURRENT,
    "gru": RECURRENT,
    "transformer": (*ATTENTION, {"d_model": 32, "d_ff": 64, "heads": 4}),
    "nhits": (
        {"hidden_size": 32},
        {"hidden_size": 64},
        {"hidden_size": 128},
        {"hidden_size": 256},
        {"hidden_size": 128, "layers": 1},
        {"hidden_size": 128, "layers": 4},
    ),
    "tft": ({"hidden_size": 8}, {"hidden_size": 16}, {"hidden_size": 32}),
    "patchtst": ATTENTION,
}

Case = tuple[str, str, Mapping[str, Any]]  # group, model, changes (of `horizon` too)
Curves = dict[str, dict[str, Any]]


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curves", description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=list(NETWORKS), help="curves at the committed settings")
    parser.add_argument("--thinned", nargs="*", default=["gru"], help="models that are tried with each stride")
    parser.add_argument("--strides", type=int, nargs="*", default=[8, 4, 2, 1])
    parser.add_argument("--runs", nargs="*", default=["gru", "tft"], help="models that are tried with each run length")
    parser.add_argument("--run-lengths", type=int, nargs="*", default=[1, 8, 16, 32])
    parser.add_argument("--sized", nargs="*", default=list(SIZES), help="models that are tried at each size")
    parser.add_argument("--size-horizons", type=int, nargs="*", default=[5, 20])
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2], help="of each run length and size")
    parser.add_argument("--channels", nargs="*", default=["mixed", "independent"], help="ways of PatchTST")
    parser.add_argument("--channel-epochs", type=int, default=3, help="of those, one of which is slow")
    parser.add_argument("--horizon", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--splits", default="data/splits/scaled", help="the splits that windows are cut from")
    return parser.parse_args(arguments)


def cut_windows(splits: Path, params: Params, folder: Path) -> Path:
    """The window files of the splits."""
    paths = Paths(folder)
    paths.splits.parent.mkdir(parents=True)
    paths.splits.symlink_to(splits)
    content = {"horizons": params.horizons, "weights": params.label.weights, "window": params.window.model_dump()}
    write_windows(validate(WindowStageConfig, content, "curves"), paths)
    return paths.windows


def cases(asked: argparse.Namespace) -> Iterator[Case]:
    for model in asked.models:
        yield "epochs", model, {}
    for model in asked.thinned:
        for stride in asked.strides:
            yield f"stride_{stride}", model, {"train_stride": stride}
    for model in asked.runs:
        for length in asked.run_lengths:
            for seed in asked.seeds:
                changes = {"run_length": length, "random_seed": seed}
                yield f"run_length_{length}_seed_{seed}", model, changes
    for model in asked.sized:
        for size in SIZES[model]:
            for horizon in asked.size_horizons:
                for seed in asked.seeds:
                    name = "_".join(f"{key}_{value}" for key, value in size.items())
                    changes = {**size, "horizon": horizon, "random_seed": seed}
                    yield f"size_{name}_h{horizon}_seed_{seed}", model, changes
    for way in asked.channels:
        changes = {"channels": way, "max_epochs": asked.channel_epochs}
        yield f"channels_{way}", "patchtst", changes


def curve(asked: argparse.Namespace, params: Params, model: str, windows: Path, changes: Mapping[str, Any]) -> Any:
    """Train once; the validation log-loss after each epoch, and the seconds of an epoch."""
    fixed = {"early_stopping": False, "average_seeds": 1}
    own = {**fixed, "horizon": asked.horizon, "max_epochs": asked.epochs, **changes}
    horizon = own["horizon"]
    config = resolve_model(params, model, horizon, PARAMS).model_dump() | own
    data = TimeSeriesDataset(DatasetConfig(path=str(windows), horizon=horizon))
    train, val = data.split("train"), data.split("val")
    network = ModelRegistry.create(model, config, horizon, data.feature_columns())
    start = time.perf_counter()
    network.fit(train.X, train.y, val.X, val.y, sample_weight=train.weight)
    seconds = (time.perf_counter() - start) / own["max_epochs"]
    losses = [rounded(entry["val_log_loss"], 5) for entry in network.training_history]
    return {
        "val_log_loss": losses,
        "best": min(losses),
        "best_epoch": losses.index(min(losses)) + 1,
        "seconds_an_epoch": rounded(seconds, 3),
        "train_windows": len(train.X.thinned(config["train_stride"])),
        "parameters": int(network.training_history[0]["parameters"]),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    asked = options(arguments)
    if not (ROOT / asked.splits).is_dir():
        fail(f"{asked.splits}: no splits; run `dvc repro prepare` first")
    params = load_params(PARAMS)
    found: dict[str, Curves] = {}
    with tempfile.TemporaryDirectory() as folder:
        windows = cut_windows((ROOT / asked.splits).resolve(), params, Path(folder))
        for group, model, changes in cases(asked):
            found.setdefault(group, {})[model] = answer = curve(asked, params, model, windows, changes)
            say(f"{group} {model}: best {answer['best']:.4f} at epoch {answer['best_epoch']}")
    finish({**found, "horizon": asked.horizon, "machine": machine()})


if __name__ == "__main__":
    main()
