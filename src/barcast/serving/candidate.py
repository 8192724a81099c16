"""A trained and evaluated cell that may become champion: its gates, its bundle, its metadata."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from barcast.comparison.ranking import rank_scores
from barcast.data.bars import bar_spacing, load_bars
from barcast.errors import ConfigError, DataError
from barcast.files import read_json, write_json
from barcast.params import Params
from barcast.paths import Paths, cell_name
from barcast.serving import gates
from barcast.serving.bundle import ServingConfig, code_of, folder_hash, serving_fingerprint, write_bundle
from barcast.serving.gates import Gate, Interval
from barcast.serving.registry_folder import METADATA_FILE, Champion, PromotionError, run_git
from barcast.tracking import Cell, cell_on_disk
from barcast.yaml_io import load_yaml


def best_model(paths: Paths, params: Params, horizon: int) -> str:
    """The model of the matrix that ranks first at a horizon.

    Raises:
        ConfigError: the horizon is not in the matrix.
        DataError: a cell of the horizon is not evaluated.
    """
    if horizon not in params.horizons:
        raise ConfigError(f"params.yaml: horizon {horizon} is not in the matrix; horizons: {_join(params.horizons)}")
    scores = rank_scores({name: _metrics(paths, name, horizon) for name in params.models})
    return min(scores, key=lambda name: (scores[name], name))


class Candidate:
    """A trained and evaluated cell.

    Raises:
        ConfigError: the cell is not in the matrix.
        DataError: it is not trained and evaluated.
    """

    def __init__(self, paths: Paths, params: Params, model: str, horizon: int) -> None:
        self.cell = cell_name(model, horizon)
        if (model, horizon) not in params.cells():
            raise ConfigError(
                f"params.yaml: {self.cell} is not in the matrix; models: {_join(params.models)}; "
                f"horizons: {_join(params.horizons)}"
            )
        self.paths, self.params, self.model, self.horizon = paths, params, model, horizon
        on_disk = cell_on_disk(paths, self.cell)
        if on_disk is None:
            run = f"`dvc repro evaluate@{model}-{horizon}`"
            raise DataError(f"{paths.run(self.cell)}: no trained model; run {run} first")
        self.tracked: Cell = on_disk
        self.metrics = _metrics(paths, model, horizon)
        self.fingerprint = serving_fingerprint(model)

    def run_gates(self, champion: Champion | None) -> tuple[list[Gate], dict[str, Any]]:
        """The outcome of each gate, and what is reported on test beside them.

        Raises:
            PromotionError: the champion can't be compared: its model or its code is not here.
        """
        config, seed = self.params.compare, self.params.seed
        val = gates.read_predictions(self.paths, self.model, self.horizon, "val")
        test = gates.read_predictions(self.paths, self.model, self.horizon, "test")
        prior = self.metrics["prior_probabilities"]
        compared, rows = (None, -1) if champion is None else self._against(champion, val)
        outcomes = [
            gates.audit_gate(self.paths),
            gates.status_gate(_out_of_date(self.paths)),
            gates.prior_gate(gates.against_prior(val, prior, config, seed), config.level),
            gates.calibration_gate(float(self.metrics["val"]["ece"]), self.params.promote.max_ece),
            gates.champion_gate(compared, rows, config.level),
        ]
        on_test = gates.against_prior(test, prior, config, seed)
        return outcomes, {"test_against_prior": asdict(on_test) | {"text": str(on_test)}}

    def serving_config(self) -> ServingConfig:
        """What predictions need beside the checkpoint, from the settings that `dvc.lock` has.

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
            bar_seconds=bar_spacing(self._train_times()).total_seconds(),
            seq_len=window["seq_len"],
            max_gap=window["max_gap"],
            features=self.params.data.features,
            scaler=read_json(scaler),
            max_request_rows=self.params.promote.max_request_rows,
            code=code_of(self.fingerprint),
        )

    def write(self, folder: Path, outcomes: list[Gate], report: dict[str, Any]) -> None:
        """Write what a champion is made of (see `registry_folder`) into an empty folder."""
        config, metrics = self.serving_config(), self.paths.cell_metrics(self.cell).parent
        write_bundle(folder / "model", self.paths.checkpoint(self.cell), metrics, config)
        write_json(folder / METADATA_FILE, self._metadata(config, outcomes, report, folder / "model"))

    def _metadata(
        self, config: ServingConfig, outcomes: list[Gate], report: dict[str, Any], model: Path
    ) -> dict[str, Any]:
        """Where the model came from and how it scored, without the time of day or a path of this machine."""
        lock = self.paths.root / "dvc.lock"
        commit = run_git(self.paths.root, "rev-parse", "--verify", "--quiet", "HEAD").stdout.strip()
        status = run_git(self.paths.root, "status", "--porcelain", "--untracked-files=no")
        return {
            "cell": self.cell,
            "model": self.model,
            "horizon": self.horizon,
            "git": {"revision": commit or None, "clean": status.returncode == 0 and not status.stdout},
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
            "trained_until": self._train_times().max().isoformat(),
            "metrics": {split: self.metrics[split] for split in ("val", "test")},
            "gates": [asdict(gate) for gate in outcomes],
            "forced": [gate.name for gate in outcomes if not gate.passed],
            "report": report,
        }

    def _train_times(self) -> pd.Series:
        file = self.paths.windows / "train/index.parquet"
        if not file.is_file():
            raise DataError(f"{file}: no such file; run `dvc repro window` first")
        return pd.read_parquet(file, columns=["datetime"])["datetime"]

    def _against(self, champion: Champion, val: pd.DataFrame) -> tuple[Interval | None, int]:
        """Candidate minus champion on today's bars up to the end of validation."""
        known = [symbol for symbol in champion.metadata["bars"]["symbols"] if symbol in self.params.symbols]
        bars = load_bars(self.paths.root / self.params.data.path, known)
        predicted = champion.predict(bars[bars["datetime"] <= val["datetime"].max()])
        trained_until = pd.Timestamp(champion.metadata["trained_until"])
        return gates.against_champion(val, predicted, trained_until, self.params.compare, self.params.seed)


def _out_of_date(paths: Paths) -> list[str]:
    """The stages that `dvc status` calls changed, without the registry that promoting is about to replace."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(paths.root)) as repo:
            changed = repo.status()
    except DvcException as error:
        raise PromotionError(f"`dvc status` failed: {' '.join(str(error).split())}") from None
    registry = Paths().registries.as_posix()
    return [stage for stage in changed if not stage.startswith(registry)]


def _metrics(paths: Paths, model: str, horizon: int) -> dict[str, Any]:
    file = paths.cell_metrics(cell_name(model, horizon))
    if not file.is_file():
        raise DataError(f"{file}: no such file; run `dvc repro evaluate@{model}-{horizon}` first")
    return read_json(file)


def _data_hash(lock: Path, path: str) -> str | None:
    """The hash of the bars in `dvc.lock`."""
    stages = load_yaml(lock).get("stages", {}) if lock.is_file() else {}
    entries = stages.get("prepare", {}).get("deps", [])
    return next((entry.get("md5") for entry in entries if entry["path"] == path), None)


def _join(values: list[Any]) -> str:
    return ", ".join(map(str, values))
