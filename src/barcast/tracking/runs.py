"""Runs in a store: creates them, finds them by their tags, fills them, and closes dead ones."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from barcast.files import read_json, still_runs, this_process
from barcast.paths import Paths
from barcast.tracking.cells import Cell, evaluation_digest, evaluation_files
from barcast.tracking.store import Store
from barcast.yaml_io import flatten

_DAY_MS = 24 * 3600 * 1000
_MOST_RUNS = 50_000  # MLflow's limit for one search
STAMP = "%Y%m%d_%H%M%S"

own_runs: set[str] = set()  # runs that this process has open now

Point = tuple[str, float, int, int]  # name, value, milliseconds since 1970, step


def points(metrics: Mapping[str, float], step: int) -> list[Point]:
    """Metrics of one step, with the current time."""
    now = int(time.time() * 1000)
    return [(name, float(value), now, step) for name, value in metrics.items()]


def create(store: Store, paths: Paths, name: str, tags: Mapping[str, str], started_ms: int | None = None) -> str:
    """Create a run with these tags and those of its origin: process, commit, experiment; returns its id."""
    origin = {"process": this_process()}
    command = ["git", "rev-parse", "--verify", "--quiet", "HEAD"]  # fails outside a repository, or before a commit
    with contextlib.suppress(FileNotFoundError):  # no git
        found = subprocess.run(command, cwd=paths.root, capture_output=True, text=True, check=False)
        if revision := found.stdout.strip():
            origin |= {"git_revision": revision, "mlflow.source.git.commit": revision}
    if experiment := os.environ.get("DVC_EXP_NAME"):
        origin["dvc_exp_name"] = experiment
    with store.calls() as client:
        run = client.create_run(store.experiment_id, started_ms, {**tags, **origin}, run_name=name)
    return str(run.info.run_id)


def start(store: Store, paths: Paths, cell: Cell, restored: bool) -> str:
    """Create a run such as `xgboost_h5_20261123_143022` (local time); returns its id."""
    tags = {"model": cell.model, "horizon": str(cell.horizon), "cell": cell.name, "cell_key": cell.key}
    tags["restored"] = str(restored).lower()
    return create(store, paths, f"{cell.name}_{datetime.now():{STAMP}}", tags)


def finish(store: Store, run_id: str, status: str, ended_ms: int | None = None) -> None:
    """End a run as FINISHED, FAILED or KILLED."""
    with store.calls() as client:
        client.set_terminated(run_id, status, ended_ms)
    own_runs.discard(run_id)


def search(store: Store, query: str) -> list[Any]:
    """The runs that match a query, the newest first."""
    order = ["attributes.start_time DESC"]
    with store.calls() as client:
        return list(client.search_runs([store.experiment_id], query, max_results=_MOST_RUNS, order_by=order))


def find(store: Store, cell: Cell) -> Any | None:
    """The newest finished run of exactly these inputs, else one that is being trained now, else None."""
    found = search(store, f"tags.cell_key = '{cell.key}'")
    finished = (run for run in found if run.info.status == "FINISHED")
    running = (run for run in found if run.info.status == "RUNNING" and is_alive(run))
    return next(finished, None) or next(running, None)


def close_dead(store: Store, name: str) -> None:
    """End the cell's runs whose process is gone without having ended them, as KILLED."""
    for run in search(store, f"tags.cell = '{name}' and attributes.status = 'RUNNING'"):
        if not is_alive(run):
            finish(store, run.info.run_id, "KILLED")


def log_params(store: Store, run_id: str, config: Mapping[str, Any]) -> None:
    """Log the resolved config; nested keys are joined by dots."""
    from mlflow.entities import Param

    values = {k: v if isinstance(v, str) else json.dumps(v) for k, v in flatten(config).items()}
    with store.calls() as client:
        client.log_batch(run_id, params=[Param(key, value) for key, value in values.items()])


def log_points(store: Store, run_id: str, logged: Iterable[Point]) -> None:
    """Log metrics in as few requests as MLflow allows."""
    from mlflow.entities import Metric

    with store.calls() as client:
        client.log_batch(run_id, metrics=[Metric(*point) for point in logged])


def log_model(store: Store, run_id: str, paths: Paths, cell: Cell) -> None:
    """Attach the checkpoint folder, in the library's own format, as artifact `model`."""
    with store.calls() as client:
        client.log_artifacts(run_id, str(paths.checkpoint(cell.name)), "model")


def restore(store: Store, paths: Paths, cell: Cell) -> str:
    """Create a finished run from the cell's files, tagged `restored`; returns its id."""
    model = read_json(paths.checkpoint(cell.name) / "model.json")
    run_id = start(store, paths, cell, restored=True)
    log_params(store, run_id, model["config"])
    log_points(store, run_id, [p for entry in model["training_history"] for p in points(entry, int(entry.pop("step")))])
    log_model(store, run_id, paths, cell)
    finish(store, run_id, "FINISHED")
    return run_id


def refresh_evaluation(store: Store, paths: Paths, run_id: str, cell: Cell) -> bool:
    """Attach what `evaluate` wrote, unless the run has exactly that; returns whether anything was new."""
    digest = evaluation_digest(paths, cell.name)
    with store.calls() as client:
        data = client.get_run(run_id).data
    if data.tags.get("evaluation") == digest:
        return False
    values = flatten(read_json(paths.cell_metrics(cell.name)), "/")  # `val/log_loss`
    numbers = {k: float(v) for k, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    changed = {name: value for name, value in numbers.items() if data.metrics.get(name) != value}
    log_points(store, run_id, points(changed, 0))
    with store.calls() as client:
        for path in evaluation_files(paths, cell.name):
            client.log_artifact(run_id, str(path), path.parent.relative_to(paths.run(cell.name)).as_posix())
        client.set_tag(run_id, "evaluation", digest)  # last: an interrupted refresh is repeated
    return True


def is_alive(run: Any) -> bool:
    """Whether the process that opened a run still works on it; another machine's is assumed to, for a day."""
    process = run.data.tags["process"]
    runs = still_runs(process)
    if runs is None:
        return bool(time.time() * 1000 - run.info.start_time < _DAY_MS)
    return run.info.run_id in own_runs if int(process.split(":")[-2]) == os.getpid() else runs
