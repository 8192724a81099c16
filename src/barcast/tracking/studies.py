"""A study in the store: one parent run, and a nested run for each trial that ended.

A parent is identified by its tag `study_key`, a trial by its number, so what the store has is not added again: a
resumed study continues in its own run, and `sync` adds what was run while the store was unreachable. A trial whose
writing was interrupted is written again.
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

from barcast.files import read_json, this_process
from barcast.paths import Paths
from barcast.tracking import runs
from barcast.tracking.record import Recorder
from barcast.tracking.store import Store, connect

_STATUS = {"complete": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}
_PARENT = "mlflow.parentRunId"


@dataclass(frozen=True)
class TrialRecord:
    """One trial that ended. Times are milliseconds since 1970, None if they are not known."""

    number: int
    state: str  # complete, pruned, failed
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    reason: str
    started_ms: int | None = None
    ended_ms: int | None = None


@contextlib.contextmanager
def open_study(paths: Paths, cell: str, key: str, settings: Mapping[str, Any]) -> Iterator[StudyRun]:
    """Open the run of a study, a new one or the one that a killed process left; yields what takes the trials.

    The run is FAILED if the body raises (KILLED on Ctrl-C). A store that can't be reached never stops the body.
    `key` identifies the study; `settings` are logged as parameters.
    """
    study = StudyRun(paths, cell, key, settings)
    with study.recorder.ending():
        yield study


class StudyRun:
    """One study that is being written."""

    def __init__(self, paths: Paths, cell: str, key: str, settings: Mapping[str, Any]) -> None:
        def begin(store: Store) -> str:
            run_id, self._known = _open(store, paths, cell, key, settings)
            return run_id

        self._paths, self._cell, self._known = paths, cell, set[int]()
        self.recorder = Recorder(paths, f"tune {cell}", begin)

    def log(self, trial: TrialRecord) -> None:
        """Add a trial, unless the store has it."""
        if trial.number not in self._known:
            self.recorder.write(lambda store, run_id: _log_trial(store, self._paths, run_id, self._cell, trial))
            self._known.add(trial.number)

    def finish(self, trials: Iterable[TrialRecord]) -> None:
        """Add the trials that are missing, and attach what the stage wrote."""
        for trial in trials:
            self.log(trial)
        self.recorder.write(lambda store, run_id: _attach(store, run_id, self._paths.tune / self._cell))


def sync_studies(paths: Paths) -> list[str]:
    """Make every study on disk complete in the store, also one that DVC restored; returns the names of those added.
    Raises TrackingError: the store can't be reached."""
    added = []
    for file in sorted(paths.tune.glob("*/study.json")):
        content, cell = read_json(file), file.parent.name
        trials = _records(file.with_name("trials.parquet"))
        with (store := connect(paths)).lock():
            if _is_complete(store, content["key"], {trial.number for trial in trials}):
                continue
            settings = {name: content[name] for name in ("metric", "direction")}
            run_id, known = _open(store, paths, cell, content["key"], settings)
            for trial in trials:
                if trial.number not in known:
                    _log_trial(store, paths, run_id, cell, trial)
            _attach(store, run_id, file.parent)
            runs.finish(store, run_id, "FINISHED")
        added.append(f"tune {cell}")
    return added


def _is_complete(store: Store, key: str, numbers: set[int]) -> bool:
    """Whether the store has a study with all its trials, or a living process is writing it now."""
    found = runs.search(store, f"tags.study_key = '{key}'")
    if not found or found[0].info.status != "FINISHED":
        return bool(found) and found[0].info.status == "RUNNING" and runs.is_alive(found[0])
    return numbers <= _written(_trials(store, found[0].info.run_id))


def _open(store: Store, paths: Paths, cell: str, key: str, settings: Mapping[str, Any]) -> tuple[str, set[int]]:
    """The id of a study's run, and the numbers of the trials in it; trials that are half written are deleted."""
    found = runs.search(store, f"tags.study_key = '{key}'")
    if not found:
        tags = {"study": cell, "study_key": key}
        parent = runs.create(store, paths, f"tune_{cell}_{datetime.now():{runs.STAMP}}", tags)
        runs.log_params(store, parent, settings)
        return parent, set()
    parent = str(found[0].info.run_id)
    trials = _trials(store, parent)
    with store.calls() as client:
        client.update_run(parent, "RUNNING")
        client.set_tag(parent, "process", this_process())
        for run in trials:
            if run.info.status == "RUNNING" and not runs.is_alive(run):
                client.delete_run(run.info.run_id)
    return parent, _written(trials)


def _trials(store: Store, parent: str) -> list[Any]:
    return runs.search(store, f"tags.`{_PARENT}` = '{parent}'")


def _written(trials: Iterable[Any]) -> set[int]:
    """The numbers of the trials that are completely written."""
    return {int(run.data.tags["trial"]) for run in trials if run.info.status != "RUNNING"}


def _log_trial(store: Store, paths: Paths, parent: str, cell: str, trial: TrialRecord) -> None:
    tags = {"study": cell, "trial": str(trial.number), "state": trial.state, _PARENT: parent}
    if trial.reason:
        tags["reason"] = trial.reason
    run_id = runs.create(store, paths, f"tune_{cell}_{trial.number:03d}", tags, trial.started_ms)
    runs.log_params(store, run_id, trial.params)
    ended = trial.ended_ms or int(time.time() * 1000)
    runs.log_points(store, run_id, [(name, float(value), ended, 0) for name, value in trial.metrics.items()])
    runs.finish(store, run_id, _STATUS[trial.state], ended)


def _attach(store: Store, run_id: str, folder: Path) -> None:
    with store.calls() as client:
        client.log_metric(run_id, "best_value", read_json(folder / "study.json")["best"]["value"])
        client.log_artifacts(run_id, str(folder))


def _records(file: Path) -> list[TrialRecord]:
    """The trials of a study on disk."""
    import pandas as pd

    frame = pd.read_parquet(file)
    scores = ("value", "log_loss", "sharpe_per_bar", *(name for name in frame.columns if name.startswith("fold_")))
    records = []
    for row in frame.to_dict("records"):
        known = {str(name): value for name, value in row.items() if not pd.isna(value)}
        params = {name.removeprefix("param."): value for name, value in known.items() if name.startswith("param.")}
        params = {k: json.loads(value) if isinstance(value, str) else value for k, value in params.items()}
        metrics = {name: float(known[name]) for name in scores if name in known}
        records.append(TrialRecord(int(row["number"]), str(row["state"]), params, metrics, str(row["reason"])))
    return records
