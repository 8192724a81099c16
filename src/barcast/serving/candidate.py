"""A trained and evaluated cell on its way to champion: its gates, its bundle's settings, its metadata."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from barcast.config import load_yaml
from barcast.data.bars import bar_spacing, load_bars
from barcast.errors import BarcastError, ConfigError, DataError
from barcast.evaluation.ranking import rank_scores
from barcast.files import read_json
from barcast.params import Params
from barcast.paths import Paths, cell_name
from barcast.serving import gates as gating
from barcast.serving.bundle import ServingConfig, code_of, folder_hash, is_own_code, read_config, serving_fingerprint
from barcast.serving.gates import Gate, Interval
from barcast.serving.predictor import Predictor
from barcast.serving.versions import Versions, code_in, registry_of
from barcast.tracking import Cell, cell_on_disk

METADATA_FILE = "metadata.json"


class PromotionError(BarcastError):
    """A cell can't become champion, or there is none to roll back to; says which gate failed and by how much."""


def best_model(paths: Paths, params: Params, horizon: int) -> str:
    """The model of the matrix that ranks first at a horizon.

    Raises:
        ConfigError: the horizon is not in the matrix.
        DataError: a cell of it is not evaluated.
    """
    if horizon not in params.horizons:
        raise ConfigError(f"params.yaml: horizon {horizon} is not in the matrix; horizons: {_join(params.horizons)}")
    scores = rank_scores({name: _metrics(paths, name, horizon) for name in params.models})
    return min(scores, key=lambda name: (scores[name], name))


class Candidate:
    """A trained and evaluated cell, looked at before it is promoted.

    Raises:
        ConfigError: the cell is not in the matrix.
        DataError: it is not trained and evaluated, or its features are not those of the scaler.
    """

    def __init__(self, paths: Paths, params: Params, model: str, horizon: int) -> None:
        if (model, horizon) not in params.cells():
            raise ConfigError(
                f"params.yaml: {cell_name(model, horizon)} is not in the matrix; models: {_join(params.models)}; "
                f"horizons: {_join(params.horizons)}"
            )
        self.paths, self.params, self.model, self.horizon = paths, params, model, horizon
        self.cell = cell_name(model, horizon)
        on_disk = cell_on_disk(paths, self.cell)
        if on_disk is None:
            raise DataError(
                f"{paths.run(self.cell)}: no trained model; run `dvc repro evaluate@{model}-{horizon}` first"
            )
        self.tracked: Cell = on_disk
        self.metrics = _metrics(paths, model, horizon)
        self.fingerprint = serving_fingerprint(model)

    def examine(self, versions: Versions, champion: Any | None) -> tuple[list[Gate], dict[str, Any]]:
        """Every gate's outcome, and what is reported of test beside them."""
        config, seed = self.params.compare, self.params.seed
        val = gating.read_predictions(self.paths, self.model, self.horizon, "val")
        test = gating.read_predictions(self.paths, self.model, self.horizon, "test")
        prior = self.metrics["prior_probabilities"]
        compared, rows = (None, -1) if champion is None else self._against(versions, champion, val)
        found = [
            gating.audit_gate(self.paths),
            gating.status_gate(_out_of_date(self.paths)),
            gating.prior_gate(gating.against_prior(val, prior, config, seed), config.level),
            gating.calibration_gate(float(self.metrics["val"]["ece"]), self.params.promote.max_ece),
            gating.champion_gate(compared, rows, config.level),
        ]
        on_test = gating.against_prior(test, prior, config, seed)
        return found, {"test_against_prior": _interval(on_test)}

    def serving_config(self) -> ServingConfig:
        """What its answers need beside the checkpoint, taken from the settings that the lock holds.

        Raises:
            DataError: the scaler or the windows are missing.
        """
        prepare = load_yaml(self.paths.spec("prepare"))["config"]
        window = load_yaml(self.paths.spec("window"))["config"]["window"]
        scaler = self.paths.splits / "scaler.json"
        if not scaler.is_file():
            raise DataError(f"{scaler}: no such file; run `dvc repro prepare` first")
        return ServingConfig(
            model=self.model,
            horizon=self.horizon,
            symbols=sorted(prepare["symbols"]),
            bar_seconds=bar_spacing(self._times("train")).total_seconds(),
            seq_len=window["seq_len"],
            max_gap=window["max_gap"],
            features=self.params.data.features,
            scaler=read_json(scaler),
            max_request_rows=self.params.promote.max_request_rows,
            code=code_of(self.fingerprint),
        )

    def example(self, config: ServingConfig) -> pd.DataFrame:
        """The last bars of validation, enough for one exact answer where there are so many."""
        symbol, until = config.symbols[0], self._times("val").max()
        bars = load_bars(self.paths.root / self.params.data.path, [symbol])
        known: pd.DataFrame = bars[bars["datetime"] <= until]
        return known.tail(config.exact_bars).reset_index(drop=True)

    def metadata(self, config: ServingConfig, found: list[Gate], report: dict[str, Any], model: Path) -> dict[str, Any]:
        """Where the model came from and what it showed; no time of day and no path of this machine."""
        lock = self.paths.root / "dvc.lock"
        failed = [gate.name for gate in found if not gate.passed]
        return {
            "cell": self.cell,
            "model": self.model,
            "horizon": self.horizon,
            "git": _git(self.paths),
            "lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else None,
            "data": {"path": self.params.data.path, "md5": _data_hash(lock, self.params.data.path)},
            "model_sha256": folder_hash(model),
            "cell_key": self.tracked.key,
            "spec": load_yaml(self.paths.spec(self.cell)),
            "serving": {"code": self.fingerprint.code, "libraries": self.fingerprint.libraries},
            "bars": {
                "needed": config.needed_bars,
                "exact": config.exact_bars,
                "seconds": config.bar_seconds,
                "symbols": config.symbols,
            },
            "features": list(config.scaler["columns"]),
            "trained_until": self._times("train").max().isoformat(),
            "metrics": {split: self.metrics[split] for split in ("val", "test")},
            "gates": [gate.to_dict() for gate in found],
            "forced": failed,
            "report": report,
        }

    def _times(self, split: str) -> pd.Series:
        file = self.paths.windows / split / "index.parquet"
        if not file.is_file():
            raise DataError(f"{file}: no such file; run `dvc repro window` first")
        return pd.read_parquet(file, columns=["datetime"])["datetime"]

    def _against(self, versions: Versions, champion: Any, val: pd.DataFrame) -> tuple[Interval | None, int]:
        until = val["datetime"].max()
        with versions.files(champion) as files:
            metadata = read_json(registry_of(files) / METADATA_FILE)
            answers = self._champion_answers(files, until)
        trained_until = pd.Timestamp(metadata["trained_until"])
        return gating.against_champion(val, answers, trained_until, self.params.compare, self.params.seed)

    def _champion_answers(self, files: Path, until: pd.Timestamp) -> pd.DataFrame:
        """The champion's answers to the present bars up to the end of validation, given by the code it came with."""
        bundle = registry_of(files) / "model"
        config = read_config(bundle)
        known = [symbol for symbol in config.symbols if symbol in self.params.symbols]
        bars = load_bars(self.paths.root / self.params.data.path, known)
        bars = bars[bars["datetime"] <= until]
        return Predictor(bundle).predict(bars) if is_own_code(config) else answers_by(code_in(files), bundle, bars)


def answers_by(code: Path, bundle: Path, bars: pd.DataFrame) -> pd.DataFrame:
    """Answers of a bundle by another version of this package, in a process of its own.

    Raises:
        PromotionError: that process failed; with its last words.
    """
    with tempfile.TemporaryDirectory() as temporary:
        source, out = Path(temporary) / "bars.parquet", Path(temporary) / "answers.parquet"
        bars.to_parquet(source, index=False)
        command = [sys.executable, "-m", "barcast.cli", "predict", str(source), "--out", str(out)]
        done = subprocess.run(
            [*command, "--bundle", str(bundle)],
            env={**os.environ, "PYTHONPATH": str(code)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            words = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
            raise PromotionError(f"the champion can't answer today's bars: {words}")
        return pd.read_parquet(out)


def _out_of_date(paths: Paths) -> list[str]:
    """The stages that `dvc status` calls changed; what promoting is about to replace is none of them."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(paths.root)) as repo:
            changed = repo.status()
    except DvcException as error:
        raise PromotionError(f"`dvc status` failed: {' '.join(str(error).split())}") from None
    return [stage for stage in changed if not stage.startswith("experiments/registry")]


def _metrics(paths: Paths, model: str, horizon: int) -> dict[str, Any]:
    file = paths.cell_metrics(cell_name(model, horizon))
    if not file.is_file():
        raise DataError(f"{file}: no such file; run `dvc repro evaluate@{model}-{horizon}` first")
    return read_json(file)


def _interval(interval: Interval) -> dict[str, Any]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high, "text": str(interval)}


def _git(paths: Paths) -> dict[str, Any]:
    """The commit that is checked out, and whether the tracked files are as it has them."""

    def git(*arguments: str) -> str | None:
        done = subprocess.run(["git", *arguments], cwd=paths.root, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    changed = git("status", "--porcelain", "--untracked-files=no")
    return {"revision": git("rev-parse", "--verify", "--quiet", "HEAD"), "clean": changed == ""}


def _data_hash(lock: Path, path: str) -> str | None:
    """What `dvc.lock` says the bars hash to."""
    stages = load_yaml(lock).get("stages", {}) if lock.is_file() else {}
    entries = stages.get("prepare", {}).get("deps", [])
    return next((entry.get("md5") for entry in entries if entry["path"] == path), None)


def _join(values: list[Any]) -> str:
    return ", ".join(map(str, values))
