"""Running the contestants of `forecasts` at one horizon, each in processes of its own, and reading what they said."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from barcast.data.dataset import DatasetConfig, TimeSeriesDataset
from barcast.evaluation.evaluator import UNCALIBRATED_COLUMNS
from barcast.evaluation.validation_split import SELECTION, cut_validation
from barcast.files import read_json
from barcast.paths import cell_name
from barcast.probabilities import PROBABILITY_COLUMNS
from benchmarks._forecast_peers import OWN, PEERS, SPLITS, read_forecast, write_windows
from benchmarks._forecast_scores import PRIOR, SCRIPT, Forecast, Rules, score
from benchmarks._measure import ROOT, say
from benchmarks._workspace import FREE, Cost, Workspace, watched

CELLS = "barcast"
ENSEMBLES = f"{CELLS}:ensembles"  # all rows of a horizon's ensemble stage
SCORED = ("val", "test")
SOURCES = ("_forecast_peers.py", "_forecast_networks.py")


def contestants(models: Sequence[str]) -> list[str]:
    """Every name that `--only` takes, in the order in which they run."""
    return [*PEERS, *(f"{CELLS}:{model}" for model in models), ENSEMBLES]


class Race:
    """All contestants at one horizon of a workspace whose windows are laid out."""

    def __init__(self, space: Workspace, horizon: int, python: Path, budget: float) -> None:
        self.space, self.horizon, self.python, self.budget = space, horizon, python, budget
        self.folder = space.root / f"forecasts/h{horizon}"
        self.found: dict[str, Forecast] = {}
        self.missing: dict[str, str] = {}

    @cached_property
    def dataset(self) -> TimeSeriesDataset:
        return TimeSeriesDataset(DatasetConfig(path=str(self.space.paths.windows), horizon=self.horizon))

    @cached_property
    def windows(self) -> dict[str, pd.DataFrame]:
        """All N windows of val and test: datetime, symbol, close, label."""
        splits = {name: self.dataset.split(name) for name in SCORED}
        return {
            name: split.meta[["datetime", "symbol", "close"]].assign(label=split.y) for name, split in splits.items()
        }

    @cached_property
    def ranked(self) -> dict[str, Any]:
        """Which windows are scored: all of test, and of val those that nothing of barcast's was fitted on."""
        params = self.space.params
        subsets = cut_validation(self.windows["val"], params.evaluate.calibration.share, params.split.purge_bars)
        return {"val": subsets == SELECTION, "test": np.ones(len(self.windows["test"]), np.bool_)}

    def run(self, names: Sequence[str]) -> dict[str, Any]:
        """Run them one after the other, then score them together.

        Raises:
            RuntimeError: `script` or `prior` failed, which all are compared with.
        """
        self.hand_out()
        for name in names:
            self.attempt(name)
        for needed in (SCRIPT, PRIOR):
            if needed in self.missing:
                raise RuntimeError(f"{needed}: {self.missing[needed]}")
        windows = {split: frame[self.ranked[split]].reset_index(drop=True) for split, frame in self.windows.items()}
        params = self.space.params
        rules = Rules(params.compare, params.evaluate.cost_bps, params.evaluate.calibration_bins, params.seed)
        found = score(self.found, windows, rules)
        found["contestants"] |= {name: {"not_measured": why} for name, why in self.missing.items()}
        return {"train_windows": len(self.dataset.split("train").y), **found}

    def hand_out(self) -> None:
        """Give the contestants the windows, and of test no labels."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in SPLITS:
            split = self.dataset.split(name)
            rows = self.space.paths.windows / name / "rows.npy"
            labels = None if name == "test" else split.y
            write_windows(self.folder, name, rows, split.X.seq_len, split.X.ends, labels)

    def attempt(self, name: str) -> None:
        """Run one contestant and read its forecasts; a failure is a fact about it."""
        where = f"h{self.horizon}, {name}"
        say(f"{where} …")
        way = self.peer if name in PEERS else self.ensembles if name == ENSEMBLES else self.cell
        try:
            found = way(name)
        except RuntimeError as error:
            self.missing[name] = str(error)
            say(f"{where}: not measured: {error}")
            return
        self.found |= found
        cost = next(iter(found.values())).cost
        say(f"{where}: {cost.seconds:.1f} s, {cost.peak_mib:.0f} MB")

    def once(self, name: str, specs: Sequence[str], run: Callable[[], Cost], settings: Sequence[str] = ()) -> Cost:
        key = self.space.key(["prepare", "window", *specs], settings)
        return self.space.once(f"{name.replace(':', '_')}_h{self.horizon}", key, run)

    def peer(self, name: str) -> dict[str, Forecast]:
        python = Path(sys.executable) if name in OWN else self.python
        if not python.exists():
            shown = str(python).removeprefix(f"{ROOT}/")
            raise RuntimeError(f"{shown}: no such Python; make the peers' environment as benchmarks/README.md shows")
        command = [str(python), "-m", "benchmarks._forecast_peers", name, str(self.folder), str(self.budget)]
        sources = [(ROOT / "benchmarks" / file).read_text() for file in SOURCES]
        log = self.folder / f"{name}.txt"
        cost = self.once(name, [], lambda: watched(command, log, ROOT), [str(self.budget), *sources])
        counts = {split: len(frame) for split, frame in self.windows.items()}
        return {name: Forecast(self.scored(read_forecast(self.folder / f"{name}.npz", counts)), cost)}

    def cell(self, name: str) -> dict[str, Forecast]:
        """Predictions out of fold, training, and evaluation, which calibrates and predicts val and test."""
        model, stage = name.removeprefix(f"{CELLS}:"), self.space.stage
        cell = cell_name(model, self.horizon)

        def run() -> Cost:
            self.once("baseline", ["baseline"], lambda: stage("baseline", self.horizon))
            shutil.rmtree(self.space.paths.unfinished(cell), ignore_errors=True)  # resumed, it would seem cheaper
            return sum((stage(step, model, self.horizon) for step in ("oof", "train", "evaluate")), start=FREE)

        cost = self.once(name, [f"oof_{cell}", cell, "evaluate"], run)
        return {name: self.read(self.space.paths.run(cell), cost, is_ranked=model != PRIOR)}

    def ensembles(self, name: str) -> dict[str, Forecast]:
        """The rows of the stage. They cost what it costs and what every cell does."""
        models, stage = self.space.params.models, self.space.stage
        cells = [f"{CELLS}:{model}" for model in models]
        failed = [cell for cell in cells if cell not in self.found]
        if failed:
            raise RuntimeError(f"{failed[0]} has no predictions")
        specs = [f"{kind}{cell_name(model, self.horizon)}" for model in models for kind in ("", "oof_")]
        specs += ["evaluate", f"ensembles_h{self.horizon}"]
        own = self.once(name, specs, lambda: stage("ensemble", self.horizon))
        cost = sum((self.found[cell].cost for cell in cells), start=own)
        rows = sorted(path for path in self.space.paths.ensemble(self.horizon).iterdir() if path.is_dir())
        return {f"{CELLS}:{row.name}": self.read(row, cost, is_ranked=False) for row in rows}

    def read(self, row: Path, cost: Cost, is_ranked: bool) -> Forecast:
        """A row of barcast's leaderboard, from the folder that holds its predictions and metrics.

        Raises:
            RuntimeError: they are of other windows.
        """
        frames = {split: pd.read_parquet(row / f"predictions/{split}_predictions.parquet") for split in SCORED}
        keys = ["datetime", "symbol", "label"]
        for split, frame in frames.items():
            if not frame[keys].equals(self.windows[split][keys]):
                raise RuntimeError(f"{row.name}: predictions of other windows than those of {split}")
        said, raw = (
            self.scored({split: frame[[*columns]].to_numpy(np.float64) for split, frame in frames.items()})
            for columns in (PROBABILITY_COLUMNS, UNCALIBRATED_COLUMNS)
        )
        return Forecast(said, cost, raw, read_json(row / "metrics/metrics.json"), is_ranked)

    def scored(self, said: Mapping[str, Any]) -> dict[str, Any]:
        return {split: probabilities[self.ranked[split]] for split, probabilities in said.items()}
