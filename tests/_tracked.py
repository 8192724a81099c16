"""Repositories with a store of their own: builders, queries, and fixtures for `pytest_plugins`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from barcast.cache.keys import cell_key
from barcast.files import atomic_file, write_json
from barcast.paths import Paths
from barcast.tracking import runs, store
from barcast.yaml_io import dump_yaml

CONFIG = {
    "model_name": "xgboost",
    "model_family": "gbdt",
    "horizon": 5,
    "max_depth": 6,
    "lags": [0, 1],
    "patience": None,
}
HISTORY = [{"train_log_loss": 1.0, "val_log_loss": 1.09}, {"train_log_loss": 0.9, "val_log_loss": 1.07}]
METRICS = {"val": {"log_loss": 1.07, "precision": {"up": 0.4}, "note": "x"}, "test": {"log_loss": 1.08, "sharpe": -0.5}}


def write(path: Path, data: bytes) -> None:
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


def build_inputs(paths: Paths, model: str = "xgboost", horizon: int = 5) -> None:
    spec = {"cell": f"{model}_h{horizon}", "model": model, "horizon": horizon, "config": CONFIG | {"model_name": model}}
    write(paths.spec(spec["cell"]), dump_yaml(spec).encode())
    for split in ("train", "val", "test"):
        for name in ("rows.npy", "ends.npy", "index.parquet", "columns.json"):
            write(paths.windows / split / name, f"{split} {name}".encode())
        for h in (5, 20):
            write(paths.windows / f"labels/{split}_h{h}.npy", f"{split} labels {h}".encode())


def build_training(paths: Paths, model: str = "xgboost", horizon: int = 5, key: str | None = None) -> None:
    cell = f"{model}_h{horizon}"
    history = [{"step": step, **metrics} for step, metrics in enumerate(HISTORY)]
    content = {"config": CONFIG | {"model_name": model, "horizon": horizon}, "training_history": history}
    write_json(paths.checkpoint(cell) / "model.json", content)
    write(paths.checkpoint(cell) / "booster.ubj", b"trees")
    key = key or cell_key(paths, model, horizon)
    write(paths.live(cell) / "params.yaml", dump_yaml({"cell_key": key}).encode())


def build_evaluation(paths: Paths, cell: str = "xgboost_h5", metrics: dict[str, Any] = METRICS) -> None:
    write_json(paths.cell_metrics(cell), metrics)
    for split in ("val", "test"):
        write(paths.predictions(cell, split), f"{split} predictions".encode())
    write(paths.plots(cell) / "confusion.png", b"png")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store with its tables: MLflow takes seconds to make one, so it is made once and copied."""
    database = tmp_path_factory.mktemp("store") / "mlflow.db"
    store._create(database, (database.parent / "artifacts").as_uri())
    return database


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "DVC_ROOT", "DVC_EXP_NAME", *store._ENVIRONMENT):
        monkeypatch.setenv(name, "")  # so that what the code sets is undone as well
        monkeypatch.delenv(name)


@pytest.fixture
def inputs(tmp_path: Path, clean_environment: None) -> Paths:
    """A repository with specs and windows, and no store."""
    paths = Paths(tmp_path / "repo with space")
    build_inputs(paths)
    return paths


@pytest.fixture
def paths(inputs: Paths, empty_store: Path) -> Paths:
    """The same with an empty store."""
    inputs.store.mkdir(parents=True)
    shutil.copy(empty_store, inputs.store / "mlflow.db")
    return inputs


def all_runs(paths: Paths) -> list[Any]:
    """Every run, the oldest first."""
    opened = store.connect(paths)
    return list(reversed(runs.search(opened, "attributes.run_id != ''")))


def statuses(paths: Paths) -> list[str]:
    return [run.info.status for run in all_runs(paths)]


def history(paths: Paths, run: Any, metric: str) -> list[tuple[int, float]]:
    points = store.connect(paths).client.get_metric_history(run.info.run_id, metric)
    return [(point.step, point.value) for point in points]


def artifacts(paths: Paths, run: Any, folder: str | None = None) -> list[str]:
    found = store.connect(paths).client.list_artifacts(run.info.run_id, folder)
    return [name for item in found for name in (artifacts(paths, run, item.path) if item.is_dir else [item.path])]
