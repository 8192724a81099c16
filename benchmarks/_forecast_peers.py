"""What barcast's forecasts are compared with: `python -m benchmarks._forecast_peers NAME FOLDER SECONDS`.

Nothing of barcast is imported: most of these run in the peers' environment. FOLDER has the windows of one horizon, a
file for each of train, val and test; the one of test has no labels. Each contestant fits on train, may stop early by
val, then predicts val and test, and writes NAME.npz: `val` and `test`, probabilities [N, 3] ordered (-1, 0, +1).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]

CLASSES = (-1, 0, 1)
SPLITS = ("train", "val", "test")
OWN = ("script", "prior")  # need no environment of their own
_OFF = 1e-3  # how far from 1 a row of probabilities may sum: float32, and libraries that round


@dataclass(frozen=True)
class Windows:
    """N windows: the base rows `[R, F]`, the row of each window's last bar, and the labels; those of test are None."""

    rows: Floats  # [R, F]
    ends: Ints  # [N]
    seq_len: int
    y: Ints | None  # [N] in {-1, 0, 1}

    @property
    def last(self) -> Floats:
        """The features of each window's last bar, [N, F]."""
        return np.asarray(self.rows[self.ends])

    def whole(self, part: slice = slice(None)) -> Floats:
        """Whole windows, channels first as aeon takes them, [n, F, L]."""
        lags = np.arange(1 - self.seq_len, 1)
        return np.ascontiguousarray(self.rows[self.ends[part][:, None] + lags].transpose(0, 2, 1))

    def thinned(self, count: int) -> Windows:
        """At most `count` of them, every k-th: windows that follow each other share nearly all their bars."""
        step = -(-len(self.ends) // max(count, 1))
        return replace(self, ends=self.ends[::step], y=None if self.y is None else self.y[::step])


Forecast = tuple[Floats, Floats]  # of val and test, [N, 3]
Contestant = Callable[[Windows, Windows, Windows, float], Forecast]


def write_windows(folder: Path, split: str, rows: Path, seq_len: int, ends: Ints, y: Ints | None) -> None:
    """Write a split for the contestants; the base rows stay in their file `rows`."""
    labels = {} if y is None else {"y": y}
    np.savez(folder / f"{split}.npz", rows=str(rows), seq_len=seq_len, ends=ends, **labels)


def read_windows(folder: Path, split: str) -> Windows:
    with np.load(folder / f"{split}.npz") as found:
        rows = np.load(str(found["rows"]), mmap_mode="r")
        return Windows(rows, found["ends"], int(found["seq_len"]), found.get("y"))


def write_forecast(file: Path, val: Floats, test: Floats) -> None:
    np.savez(file, val=np.asarray(val, np.float64), test=np.asarray(test, np.float64))


def read_forecast(file: Path, counts: Mapping[str, int]) -> dict[str, npt.NDArray[np.float64]]:
    """The probabilities of val and test, rows scaled to sum to 1.

    Raises:
        RuntimeError: they are not [N, 3] for `counts` windows, or no probabilities.
    """
    with np.load(file) as found:
        said = {split: found[split] for split in counts}
    for split, p in said.items():
        if p.shape != (counts[split], len(CLASSES)):
            raise RuntimeError(f"{file.name}, {split}: expected [{counts[split]}, {len(CLASSES)}], got {list(p.shape)}")
        if not (p >= 0).all() or not (np.abs(p.sum(axis=1) - 1) < _OFF).all():
            raise RuntimeError(f"{file.name}, {split}: rows that are no probabilities")
    return {split: p / p.sum(axis=1, keepdims=True) for split, p in said.items()}


def in_order(probabilities: Floats, classes: Sequence[Any]) -> Floats:
    """`[N, K]` of the classes that a library has seen -> `[N, 3]` ordered (-1, 0, +1)."""
    ordered = np.zeros((len(probabilities), len(CLASSES)))
    ordered[:, [CLASSES.index(int(label)) for label in classes]] = probabilities
    return ordered


def script(train: Windows, val: Windows, test: Windows, seconds: float) -> Forecast:
    """What a researcher writes first: LightGBM's defaults on the last bar's features, 100 rounds whatever val shows."""
    import lightgbm as lgb

    model = lgb.LGBMClassifier()
    model.fit(train.last, train.y)
    said = [in_order(model.predict_proba(windows.last), model.classes_) for windows in (val, test)]
    return said[0], said[1]


def prior(train: Windows, val: Windows, test: Windows, seconds: float) -> Forecast:
    """The frequencies of the classes in train."""
    shares = np.bincount(train.y + 1, minlength=len(CLASSES)) / len(train.y)
    return np.tile(shares, (len(val.ends), 1)), np.tile(shares, (len(test.ends), 1))


def autogluon(preset: str, **options: Any) -> Contestant:
    """AutoGluon with a preset on the last bar's features; val stops its models early and weighs its ensemble."""

    def fit(train: Windows, val: Windows, test: Windows, seconds: float) -> Forecast:
        import pandas as pd
        from autogluon.tabular import TabularPredictor

        def table(windows: Windows, **label: Any) -> pd.DataFrame:
            return pd.DataFrame(windows.last).add_prefix("x").assign(**label)

        with tempfile.TemporaryDirectory() as folder:
            predictor = TabularPredictor("y", problem_type="multiclass", eval_metric="log_loss", path=folder)
            told = {"train_data": table(train, y=train.y), "tuning_data": table(val, y=val.y)}
            predictor.fit(**told, presets=preset, time_limit=seconds, **options)
            print(predictor.leaderboard().to_string())
            said = [predictor.predict_proba(table(windows)) for windows in (val, test)]
        ordered = [in_order(frame.to_numpy(), list(frame.columns)) for frame in said]
        return ordered[0], ordered[1]

    return fit


def network(name: str) -> Contestant:
    """A function of `_forecast_networks`, which needs torch."""

    def fit(train: Windows, val: Windows, test: Windows, seconds: float) -> Forecast:
        from benchmarks import _forecast_networks

        found: Forecast = getattr(_forecast_networks, name)(train, val, test, seconds)
        return found

    return fit


# good_quality: tuning data beside bagging must be a holdout. The preset's refit is off, since it would train on val;
# the bagged models that it would replace are kept, which AutoGluon calls the stronger ones.
PEERS: dict[str, Contestant] = {
    "script": script,
    "prior": prior,
    "autogluon_medium": autogluon("medium_quality"),
    "autogluon_good": autogluon(
        "good_quality", use_bag_holdout=True, refit_full=False, set_best_to_refit_full=False, save_bag_folds=True
    ),
    "tabm": network("tabm"),
    "minirocket": network("minirocket"),
}


def run(name: str, folder: Path, seconds: float) -> None:
    """Fit one contestant within about `seconds` and write its forecast."""
    train, val, test = (read_windows(folder, split) for split in SPLITS)
    write_forecast(folder / f"{name}.npz", *PEERS[name](train, val, test, seconds))


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
