"""A study in the store: one parent run, and a nested run for each trial that ended.

A parent is told apart by its tag `study_key`, a trial by its number, so bringing in what is there already adds
nothing: a resumed study goes on in its own run, and `sync` brings in what was run while the store was away. A
trial that was cut short while it was written is written anew.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from barcast.files import read_json
from barcast.paths import Paths
from barcast.tracking import runs
from barcast.tracking.record import or_warn
from barcast.tracking.store import Store, TrackingError, connect

_STATUS = {"complete": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}
_PARENT = "mlflow.parentRunId"


@dataclass(frozen=True)
class TrialRecord:
    """One trial that ended. Times are milliseconds since 1970, None where they are not known."""

    number: int
    state: str  # complete, pruned, failed
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    reason: str
    started_ms: int | None
    ended_ms: int | None


@contextlib.contextmanager
def open_study(paths: Paths, cell: str, key: str, settings: Mapping[str, Any]) -> Iterator[StudyRun]:
    """The run of a study, new or the one that a killed process left; yields what trials are handed to.

    The run is FAILED when the body raises (KILLED on Ctrl-C). A store out of reach never stops the body.

    Args:
        paths: the repository.
        cell: the cell that is tuned.
        key: tells studies apart; the same key is the same study.
        settings: logged as parameters.
    """
    study = StudyRun(paths, cell, key)
    study.open(settings)
    try:
        yield study
    except BaseException as error:
        study.close("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    study.close("FINISHED")


class StudyRun:
    """One study being written; after the first failure of the store it takes everything and does nothing."""

    def __init__(self, paths: Paths, cell: str, key: str) -> None:
        self._paths, self._cell, self._key = paths, cell, key
        self._store: Store | None = None
        self._run_id = ""
        self._known: set[int] = set()

    def open(self, settings: Mapping[str, Any]) -> None:
        """Find or create the parent run."""
        with self._reporting():
            store = connect(self._paths)
            found = _find(store, self._key)
            if found is None:
                self._run_id = _create(store, self._paths, self._cell, self._key, settings)
            else:
                self._run_id = str(found.info.run_id)
                _resume(store, self._paths, self._run_id)
                self._known = _written(_trials(store, self._run_id))
            runs.own_runs.add(self._run_id)
            self._store = store

    def log(self, trial: TrialRecord) -> None:
        """Add a trial, unless it is there."""
        if self._store is None or trial.number in self._known:
            return
        with self._reporting():
            _log_trial(self._store, self._paths, self._run_id, self._cell, trial)
            self._known.add(trial.number)

    def finish(self, trials: Iterable[TrialRecord]) -> None:
        """Add the trials that are missing, and attach what the stage wrote."""
        for trial in trials:
            self.log(trial)
        if self._store is None:
            return
        with self._reporting(), self._store.calls() as client:
            folder = self._paths.tune / self._cell
            best = read_json(folder / "study.json")["best"]
            client.log_metric(self._run_id, "best_value", best["value"])
            client.log_artifacts(self._run_id, str(folder))

    def close(self, status: str) -> None:
        """End the parent run."""
        if self._store is not None:
            with self._reporting():
                runs.finish(self._store, self._run_id, status)

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        reached = False
        with or_warn(f"tune {self._cell}"):
            try:
                yield
                reached = True
            finally:
                if not reached:
                    self._store = None
                    runs.own_runs.discard(self._run_id)


def sync_studies(paths: Paths) -> list[str]:
    """Make every study on disk appear whole in the store, also one restored from DVC's cache; names those that did not.

    Raises:
        TrackingError: the store can't be reached.
    """
    brought = []
    for file in sorted(paths.tune.glob("*/study.json")):
        content, cell = read_json(file), file.parent.name
        store = connect(paths)
        with store.lock():
            if _is_whole(store, content["key"], file.with_name("trials.parquet")):
                continue
            settings = {name: content[name] for name in ("metric", "direction")}
            _restore(paths, cell, content["key"], settings)
        brought.append(f"tune {cell}")
    return brought


def _is_whole(store: Store, key: str, trials: Path) -> bool:
    """Whether the store has a study with all its `trials`, or a process that lives is writing it now."""
    import pandas as pd

    found = _find(store, key)
    if found is None or found.info.status != "FINISHED":
        return found is not None and found.info.status == "RUNNING" and runs.alive(found)
    numbers = {int(number) for number in pd.read_parquet(trials, columns=["number"])["number"]}
    return numbers <= _written(_trials(store, found.info.run_id))


def _restore(paths: Paths, cell: str, key: str, settings: Mapping[str, Any]) -> None:
    study = StudyRun(paths, cell, key)
    study.open(settings)
    study.finish(_records(paths.tune / cell / "trials.parquet"))
    study.close("FINISHED")
    if study._store is None:
        raise TrackingError(f"tune {cell}: the store went away; run `barcast sync` again")


def _records(file: Path) -> Iterator[TrialRecord]:
    import pandas as pd

    frame = pd.read_parquet(file)
    scores = ("value", "log_loss", "sharpe_per_bar", *(name for name in frame.columns if name.startswith("fold_")))
    for row in frame.to_dict("records"):
        known = {str(name): value for name, value in row.items() if not pd.isna(value)}
        yield TrialRecord(
            number=int(row["number"]),
            state=str(row["state"]),
            params={name.removeprefix("param."): _plain(v) for name, v in known.items() if name.startswith("param.")},
            metrics={name: float(known[name]) for name in scores if name in known},
            reason=str(row["reason"]),
            started_ms=None,
            ended_ms=None,
        )


def _plain(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _find(store: Store, key: str) -> Any | None:
    with store.calls() as client:
        found = client.search_runs([store.experiment_id], f"tags.study_key = '{key}'", max_results=1)
    return found[0] if found else None


def _create(store: Store, paths: Paths, cell: str, key: str, settings: Mapping[str, Any]) -> str:
    tags = {"study": cell, "study_key": key, **runs.origin(paths)}
    with store.calls() as client:
        name = f"tune_{cell}_{datetime.now():%Y%m%d_%H%M%S}"
        run = client.create_run(store.experiment_id, run_name=name, tags=tags)
    runs.log_params(store, run.info.run_id, settings)
    return str(run.info.run_id)


def _resume(store: Store, paths: Paths, parent: str) -> None:
    """Go on with a parent run in this process, without the trials that were cut short while they were written."""
    with store.calls() as client:
        client.update_run(parent, "RUNNING")
        client.set_tag(parent, "process", runs.origin(paths)["process"])
    for run in _trials(store, parent):
        if run.info.status == "RUNNING" and not runs.alive(run):
            with store.calls() as client:
                client.delete_run(run.info.run_id)


def _trials(store: Store, parent: str) -> list[Any]:
    """The nested runs of a parent run."""
    trials: list[Any] = []
    token = None
    while True:
        with store.calls() as client:
            page = client.search_runs([store.experiment_id], f"tags.`{_PARENT}` = '{parent}'", page_token=token)
        trials += page
        token = page.token
        if not token:
            return trials


def _written(trials: Iterable[Any]) -> set[int]:
    """The numbers of the trials that are written to the end."""
    return {int(run.data.tags["trial"]) for run in trials if run.info.status != "RUNNING"}


def _log_trial(store: Store, paths: Paths, parent: str, cell: str, trial: TrialRecord) -> None:
    tags = {"study": cell, "trial": str(trial.number), "state": trial.state, _PARENT: parent, **runs.origin(paths)}
    if trial.reason:
        tags["reason"] = trial.reason
    with store.calls() as client:
        run = client.create_run(
            store.experiment_id, trial.started_ms, run_name=f"tune_{cell}_{trial.number:03d}", tags=tags
        )
    run_id = str(run.info.run_id)
    runs.log_params(store, run_id, trial.params)
    at = trial.ended_ms or int(time.time() * 1000)
    runs.log_points(store, run_id, [(name, float(value), at, 0) for name, value in trial.metrics.items()])
    with store.calls() as client:
        client.set_terminated(run_id, _STATUS[trial.state], at)
