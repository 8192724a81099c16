"""Runs inside a store: tags that tell them apart, finding them, closing dead ones, filling them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import psutil  # type: ignore[import-untyped]

from barcast.files import read_json
from barcast.paths import Paths
from barcast.tracking.cells import Cell, evaluation_digest, evaluation_files, flatten
from barcast.tracking.store import Store

# MLflow's limits for one request
_METRICS_A_BATCH = 1000
_PARAMS_A_BATCH = 100
_DAY_MS = 24 * 3600 * 1000
_CLOCK_SECONDS = 60.0

own_runs: set[str] = set()  # runs that this process has open right now

Point = tuple[str, float, int, int]  # name, value, milliseconds since 1970, step


def points(metrics: Mapping[str, float], step: int) -> list[Point]:
    """Metrics of one step, stamped with the present time."""
    now = int(time.time() * 1000)
    return [(name, float(value), now, step) for name, value in metrics.items()]


def start(store: Store, paths: Paths, cell: Cell, restored: bool) -> str:
    """Create a run such as `xgboost_h5_20261123_143022` (local time) and return its id."""
    name = f"{cell.name}_{datetime.now():%Y%m%d_%H%M%S}"
    with store.calls() as client:
        run = client.create_run(store.experiment_id, run_name=name, tags=_tags(paths, cell, restored))
    own_runs.add(run.info.run_id)
    return str(run.info.run_id)


def finish(store: Store, run_id: str, status: str) -> None:
    """End a run as FINISHED, FAILED or KILLED."""
    with store.calls() as client:
        client.set_terminated(run_id, status)
    own_runs.discard(run_id)


def find(store: Store, cell: Cell) -> Any | None:
    """The newest finished run of exactly these inputs, else one that is being trained now, else None."""
    finished = _search(store, f"tags.cell_key = '{cell.key}' and attributes.status = 'FINISHED'")
    if finished:
        return finished[0]
    running = _search(store, f"tags.cell_key = '{cell.key}' and attributes.status = 'RUNNING'")
    return next((run for run in running if alive(run)), None)


def close_dead(store: Store, name: str) -> None:
    """End as KILLED the cell's runs whose process is gone without having ended them."""
    for run in _search(store, f"tags.cell = '{name}' and attributes.status = 'RUNNING'"):
        if not alive(run):
            finish(store, run.info.run_id, "KILLED")


def log_params(store: Store, run_id: str, config: Mapping[str, Any]) -> None:
    """The resolved config, nested keys joined by dots."""
    from mlflow.entities import Param

    values = {k: v if isinstance(v, str) else json.dumps(v) for k, v in flatten(config, ".").items()}
    params = [Param(key, value) for key, value in values.items()]
    with store.calls() as client:
        for first in range(0, len(params), _PARAMS_A_BATCH):
            client.log_batch(run_id, params=params[first : first + _PARAMS_A_BATCH])


def log_points(store: Store, run_id: str, logged: Iterable[Point]) -> None:
    """Metrics in as few requests as MLflow allows."""
    from mlflow.entities import Metric

    metrics = [Metric(*point) for point in logged]
    with store.calls() as client:
        for first in range(0, len(metrics), _METRICS_A_BATCH):
            client.log_batch(run_id, metrics=metrics[first : first + _METRICS_A_BATCH])


def log_model(store: Store, run_id: str, paths: Paths, cell: Cell) -> None:
    """The checkpoint folder, in the library's own format, as artifact `model`."""
    with store.calls() as client:
        client.log_artifacts(run_id, str(paths.checkpoint(cell.name)), "model")


def restore(store: Store, paths: Paths, cell: Cell) -> str:
    """A finished run made from the cell's files alone, tagged `restored`; returns its id."""
    model = read_json(paths.checkpoint(cell.name) / "model.json")
    run_id = start(store, paths, cell, restored=True)
    try:
        log_params(store, run_id, model["config"])
        history = [dict(entry) for entry in model["training_history"]]
        log_points(store, run_id, [p for entry in history for p in points(entry, int(entry.pop("step")))])
        log_model(store, run_id, paths, cell)
        finish(store, run_id, "FINISHED")
    finally:
        own_runs.discard(run_id)
    return run_id


def refresh_evaluation(store: Store, paths: Paths, run_id: str, cell: Cell) -> bool:
    """Attach what `evaluate` wrote, unless the run has exactly that already; True where something was new."""
    digest = evaluation_digest(paths, cell.name)
    with store.calls() as client:
        data = client.get_run(run_id).data
    if data.tags.get("evaluation") == digest:
        return False
    values = _numbers(read_json(paths.cell_metrics(cell.name)))
    changed = {name: value for name, value in values.items() if data.metrics.get(name) != value}
    log_points(store, run_id, points(changed, 0))
    with store.calls() as client:
        for path in evaluation_files(paths, cell.name):
            client.log_artifact(run_id, str(path), path.parent.relative_to(paths.run(cell.name)).as_posix())
        client.set_tag(run_id, "evaluation", digest)  # last: what was cut short is done again
    return True


def _search(store: Store, query: str) -> list[Any]:
    with store.calls() as client:
        return list(client.search_runs([store.experiment_id], query, order_by=["attributes.start_time DESC"]))


def _tags(paths: Paths, cell: Cell, restored: bool) -> dict[str, str]:
    return {
        "model": cell.model,
        "horizon": str(cell.horizon),
        "cell": cell.name,
        "cell_key": cell.key,
        "restored": str(restored).lower(),
        **origin(paths),
    }


def origin(paths: Paths) -> dict[str, str]:
    """Tags that say where a run comes from: process, commit, experiment."""
    tags = {"process": f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.0f}"}
    if revision := _git_revision(paths):
        tags |= {"git_revision": revision, "mlflow.source.git.commit": revision}
    if experiment := os.environ.get("DVC_EXP_NAME"):
        tags["dvc_exp_name"] = experiment
    return tags


def _git_revision(paths: Paths) -> str | None:
    """The commit that is checked out; None without git, outside a repository, or before the first commit."""
    command = ["git", "rev-parse", "--verify", "--quiet", "HEAD"]
    try:
        answer = subprocess.run(command, cwd=paths.root, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return answer.stdout.strip() or None


def alive(run: Any) -> bool:
    """Whether the process that opened a run still works on it; of another machine's it is believed for a day."""
    host, pid, created = run.data.tags["process"].rsplit(":", 2)
    if host != socket.gethostname():
        return bool(time.time() * 1000 - run.info.start_time < _DAY_MS)
    if int(pid) == os.getpid():
        return run.info.run_id in own_runs
    try:
        process = psutil.Process(int(pid))
        same = abs(process.create_time() - float(created)) < _CLOCK_SECONDS
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """`{"val": {"log_loss": 1.0}}` as `{"val/log_loss": 1.0}`; what is no number is left out."""
    flat = flatten(metrics, "/")
    return {k: float(v) for k, v in flat.items() if isinstance(v, int | float) and not isinstance(v, bool)}
