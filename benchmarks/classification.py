"""Real time-series classification sets, learnt from plain `[N, L, C]` arrays, beside published accuracies.

    python -m benchmarks.classification [--sets ArrowHead GunPoint] [--models gru lightgbm] [--seeds 0 1 2]
    python -m benchmarks.classification --folds 5 --over '{"dropout": 0.2}' …

The sets come inside the `aeon` wheel (`make sets`), train and test as their archive splits them. Channels are
standardised by the training set. Long series of one channel are read in bars of several samples by the models that go
from bar to bar. As in the review whose figures stand beside ours, nothing is held back of so few windows: the epoch
with the least loss in training is kept. Settings are those of params.yaml but for `SMALL` and `OWN`. A set of more
than three classes is learnt one against the rest, a model for each class. The last line is a JSON object: for each set
the accuracy on test of each model (mean, min and max over the seeds), that of the nearest neighbour by Euclidean
distance, and what others have published. With `--folds`, accuracies are those on parts of the training windows, each
answered by models of the others, and test is not looked at: so settings can be compared.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedKFold

from barcast.models.registry import ModelRegistry
from barcast.params import load_params, resolve_model
from benchmarks._measure import ROOT, fail, finish, machine, rounded, say

HORIZON = 1
MODELS = ("lstm", "gru", "transformer", "nhits", "tft", "patchtst", "logistic", "xgboost", "lightgbm", "catboost")
SMALL: dict[str, Any] = {  # what a set of some dozen windows asks for, of each model that has the key
    "threads": 1,
    "train_stride": 1,
    "lookback": None,
    "average_seeds": 1,
    "batch_size": 16,
    "early_stopping": True,
    "patience": 1000,
    "watch_stride": 1,
    "run_length": 1,
    "schedule": "cosine",
    "learning_rate": 0.003,
    "pooling": "mean",
    "max_rounds": 200,
    "colsample": 0.3,
    "subsample": 1.0,
    "min_child_samples": 2,
    "min_child_weight": 0.1,
    "lags": "all",
    "C": 0.1,
}
RECURRENT = {"learning_rate": 0.01, "hidden_size": 64, "bidirectional": True}
BOOSTED = {"learning_rate": 0.1}
OWN: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("lstm", "gru"), RECURRENT),
    "transformer": {"learning_rate": 0.0005},
    "nhits": {"pooling": "max"},  # as its paper; on folds of ArrowHead, GunPoint and BasicMotions better than the mean
    **dict.fromkeys(("xgboost", "lightgbm", "catboost"), BOOSTED),
}
FROM_BAR_TO_BAR = ("lstm", "gru", "transformer", "tft")  # the others pool, patch or flatten a window themselves

Series = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Published:
    """Accuracies in percent, as printed; `MLP` to `TWIESN` are means of ten runs.

    `epochs` is how many the networks are given: fewer where there are more windows, and a model for each class.
    `samples` is how many make a bar for those that go from bar to bar.
    """

    source: str
    accuracy: Mapping[str, float]
    epochs: int
    samples: int = 1


REVIEW = "Ismail Fawaz et al. 2019, Deep learning for time series classification: a review"
NAMES = ("MLP", "FCN", "ResNet", "Encoder", "MCDCNN", "Time-CNN", "TWIESN")


def review(*accuracy: float, epochs: int, samples: int = 1) -> Published:
    return Published(REVIEW, dict(zip(NAMES, accuracy, strict=True)), epochs, samples)


SETS = {
    "ArrowHead": review(77.8, 84.3, 84.5, 80.4, 68.5, 72.3, 65.9, epochs=600, samples=8),
    "GunPoint": review(92.7, 100.0, 99.1, 93.6, 86.7, 93.2, 96.1, epochs=600, samples=8),
    "ItalyPowerDemand": review(95.4, 96.1, 96.3, 96.5, 95.5, 95.5, 88.0, epochs=200),
    "JapaneseVowels": review(97.6, 99.3, 99.2, 97.6, 94.4, 95.6, 96.5, epochs=40),
    "BasicMotions": Published(
        "Bagnall et al. 2018, The UEA multivariate time series classification archive",
        {"1NN-DTW-I": 100.0, "1NN-DTW-D": 97.5},
        epochs=200,
    ),
}


@dataclass(frozen=True)
class Task:
    """Standardised windows `[N, L, C]` and class numbers `[N]` of train and test."""

    X_train: Series
    y_train: npt.NDArray[np.int64]
    X_test: Series
    y_test: npt.NDArray[np.int64]

    def in_bars(self, samples: int) -> Task:
        """Windows `[N, ⌈L/samples⌉, samples*C]`; the last sample is repeated where one bar is not full."""
        X_train, X_test = (_in_bars(X, samples) for X in (self.X_train, self.X_test))
        return replace(self, X_train=X_train, X_test=X_test)

    @property
    def classes(self) -> int:
        return int(self.y_train.max()) + 1


def _in_bars(X: Series, samples: int) -> Series:
    count, length, channels = X.shape
    padded = np.pad(X, ((0, 0), (0, -length % samples), (0, 0)), mode="edge")
    return padded.reshape(count, -1, samples * channels)  # [N, L, C] -> [N, ⌈L/samples⌉, samples*C]


def folder() -> Path | None:
    """Where aeon keeps its sets: in build/aeon (`make sets`), or where the package is installed. It is not imported."""
    unpacked = ROOT / "build/aeon/aeon/datasets/data"
    if unpacked.is_dir():
        return unpacked
    found = importlib.util.find_spec("aeon")
    return Path(found.submodule_search_locations[0]) / "datasets/data" if found and found.origin else None


def read(path: Path) -> tuple[list[Series], list[str]]:
    """The series `[L, C]` of a `.ts` file and their labels. Channels are parted by colons, the label comes last."""
    lines = path.read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if line.strip().lower() == "@data")
    series, labels = [], []
    for line in filter(None, lines[start + 1 :]):
        *channels, label = line.split(":")
        series.append(np.array([channel.split(",") for channel in channels], np.float64).T)  # [C, L] -> [L, C]
        labels.append(label.strip())
    return series, labels


def stretched(series: Sequence[Series], length: int) -> Series:
    """Series of any length on `length` bars `[N, L, C]`, linearly in between."""
    at = [np.linspace(0, len(each) - 1, length) for each in series]
    return np.stack(
        [
            np.stack([np.interp(x, np.arange(len(each)), channel) for channel in each.T], axis=1)
            for x, each in zip(at, series, strict=True)
        ]
    )


def load(name: str, home: Path) -> Task:
    train, known = read(home / name / f"{name}_TRAIN.ts")
    test, asked = read(home / name / f"{name}_TEST.ts")
    length, numbers = max(map(len, train)), sorted(set(known))
    X_train, X_test = stretched(train, length), stretched(test, length)
    mean, spread = X_train.mean(axis=(0, 1)), X_train.std(axis=(0, 1))
    y_train, y_test = (np.array([numbers.index(label) for label in labels]) for labels in (known, asked))
    return Task((X_train - mean) / spread, y_train, (X_test - mean) / spread, y_test)


def configure(model: str, seed: int, over: Mapping[str, Any]) -> dict[str, Any]:
    file = ROOT / "params.yaml"
    plain = resolve_model(load_params(file), model, HORIZON, file).model_dump()
    small = {**SMALL, **OWN.get(model, {}), **over}
    return {**plain, "random_seed": seed, **{key: value for key, value in small.items() if key in plain}}


def answer(model: str, task: Task, y: npt.NDArray[np.int64], config: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """Probabilities `[N, 3]` on test of a model fitted on labels −1, 0, 1."""
    one = ModelRegistry.create(model, config, HORIZON, [f"c{n}" for n in range(task.X_train.shape[2])])
    one.fit(task.X_train, y, task.X_train, y)
    return one.predict_proba(task.X_test)


def accuracy(model: str, task: Task, seed: int, over: Mapping[str, Any]) -> float:
    """On test: of one model up to three classes, of one against the rest for each class above."""
    config = configure(model, seed, over)
    if task.classes <= 3:
        found = answer(model, task, task.y_train - 1, config).argmax(axis=1)
    else:
        each = [answer(model, task, np.where(task.y_train == k, 1, -1), config)[:, 2] for k in range(task.classes)]
        found = np.stack(each, axis=1).argmax(axis=1)
    return float(np.mean(found == task.y_test))


def folds(task: Task, count: int) -> list[Task]:
    """The training windows in `count` parts of like classes, each as the test of the others."""
    parts = StratifiedKFold(count, shuffle=True, random_state=0).split(task.X_train, task.y_train)
    X, y = task.X_train, task.y_train
    return [Task(X[learnt], y[learnt], X[asked], y[asked]) for learnt, asked in parts]


def mean(accuracies: Sequence[float], tasks: Sequence[Task]) -> float:
    """Over the windows of all tests."""
    return float(np.average(accuracies, weights=[len(task.y_test) for task in tasks]))


def nearest_neighbour(task: Task) -> float:
    """The archives' own yardstick, with which they publish every set: it shows that the files are read right."""
    train, test = (X.reshape(len(X), -1) for X in (task.X_train, task.X_test))  # [N, L, C] -> [N, L*C]
    distance = ((test[:, None] - train[None]) ** 2).sum(axis=2)
    return float(np.mean(task.y_train[distance.argmin(axis=1)] == task.y_test))


def compare(name: str, home: Path, asked: argparse.Namespace) -> dict[str, Any]:
    task, known = load(name, home), SETS[name]
    over = {"max_epochs": known.epochs, **asked.over}
    if asked.epochs is not None:
        over |= {"max_epochs": asked.epochs, "max_rounds": asked.epochs}
    tasks = folds(task, asked.folds) if asked.folds else [task]
    models = {}
    for model in asked.models:
        seen = [each.in_bars(known.samples if model in FROM_BAR_TO_BAR else 1) for each in tasks]
        scores = [mean([accuracy(model, each, seed, over) for each in seen], tasks) for seed in asked.seeds]
        models[model] = {"mean": rounded(sum(scores) / len(scores)), "min": rounded(min(scores))}
        models[model]["max"] = rounded(max(scores))
        say(f"{name}, {model}: {models[model]}")
    shape = {"train": len(task.X_train), "test": len(task.X_test), "classes": task.classes}
    shape |= dict(zip(("length", "channels"), task.X_train.shape[1:], strict=True))
    nearest = mean([nearest_neighbour(each) for each in tasks], tasks)
    published = {"source": known.source, "percent": dict(known.accuracy)}
    yardstick = {"nearest_neighbour": rounded(nearest), "published": published}
    given = {"max_epochs": over["max_epochs"], "samples_a_bar": known.samples, "folds": asked.folds}
    return {**shape, **given, "models": models, **yardstick}


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    known = [name for name in MODELS if name in ModelRegistry.list_models()]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.classification", description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--models", nargs="+", choices=known, default=known)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--folds", type=int, default=0, help="of the training windows, in place of test")
    parser.add_argument("--over", type=json.loads, default={}, help="settings as JSON, above those of every model")
    parser.add_argument("--epochs", type=int, help="at most so many, or rounds, for a quick look")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    asked, home = options(arguments), folder()
    if home is None or not home.is_dir():
        fail("aeon is not installed, and its data sets with it; run `make sets`")
    sets = {name: compare(name, home, asked) for name in asked.sets}
    finish({"sets": sets, "seeds": asked.seeds, "settings": {"all": SMALL, **OWN}, "machine": machine()})


if __name__ == "__main__":
    main()
