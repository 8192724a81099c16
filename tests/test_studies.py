"""Studies in the store: written while tuning, completed after a kill or an outage, added from files."""

from __future__ import annotations

import contextlib
import json
import socket
import sqlite3
from typing import Any

import pandas as pd
import pytest

from _tracked import all_runs, artifacts, statuses
from barcast import tracking
from barcast.files import write_json
from barcast.paths import Paths
from barcast.tracking import store, studies

pytest_plugins = ("_tracked",)


def record(number, state="complete", **metrics):
    reason = "why" if state == "failed" else ""
    return tracking.TrialRecord(number, state, {"C": 0.5, "lags": [0, 1]}, metrics, reason, 1000, 3000)


def runs_in(store):
    """(name, status, parent, state, value) of every run, by name."""
    query = """select r.name, r.status, p.value, s.value, m.value from runs r
        left join tags p on p.run_uuid = r.run_uuid and p.key = 'mlflow.parentRunId'
        left join tags s on s.run_uuid = r.run_uuid and s.key = 'state'
        left join metrics m on m.run_uuid = r.run_uuid and m.key = 'value' order by r.name"""
    with contextlib.closing(sqlite3.connect(store)) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A finished study's files, and a repository with a store of its own."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    paths = Paths(tmp_path / "repository")
    folder = paths.tune / "logistic_h5"
    (folder / "plots").mkdir(parents=True)
    study = {"best": {"value": 1.05}, "metric": "log_loss", "direction": "minimize", "key": "abc"}
    (folder / "study.json").write_text(json.dumps(study))
    trials = {"number": [0, 1], "state": ["complete", "failed"], "value": [1.05, None], "reason": ["", "why"]}
    pd.DataFrame({**trials, "param.C": [0.5, 0.5], "param.lags": ["[0, 1]"] * 2}).to_parquet(folder / "trials.parquet")
    return paths


def test_a_study_is_one_run_with_one_nested_run_per_trial_also_after_a_kill(stored):
    def interrupted():
        with tracking.open_study(stored, "logistic_h5", "abc", {"n_trials": 2}) as study:
            study.log(record(0, value=1.05))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    store = stored.store / "mlflow.db"
    assert [row[1] for row in runs_in(store)] == ["FINISHED", "KILLED"]
    with tracking.open_study(stored, "logistic_h5", "abc", {"n_trials": 2}) as study:
        study.finish([record(0, value=1.05), record(1, "failed")])
    first, second, parent = runs_in(store)
    assert (first[0], first[1], first[3:]) == ("tune_logistic_h5_000", "FINISHED", ("complete", 1.05))
    assert (second[1], second[3:]) == ("FAILED", ("failed", None))
    assert parent[0].startswith("tune_logistic_h5_2")
    assert parent[1] == "FINISHED"
    assert first[2] == second[2] is not None
    assert tracking.sync_studies(stored) == []


def test_a_study_from_the_cache_is_added_once(stored):
    assert tracking.sync_studies(stored) == ["tune logistic_h5"]
    assert tracking.sync_studies(stored) == []
    assert [row[3] for row in runs_in(stored.store / "mlflow.db")] == ["complete", "failed", None]


def test_an_unreachable_store_costs_one_line_and_no_trial(stored, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with tracking.open_study(stored, "logistic_h5", "abc", {}) as study:
        study.finish([record(0, value=1.05)])
    warning = capsys.readouterr().err.splitlines()
    assert len(warning) == 1
    assert "tune logistic_h5 continues untracked, run `barcast sync` later" in warning[0]


class TestStudies:
    """What `tune` writes if the store becomes unreachable, and what `sync` adds afterwards."""

    @pytest.fixture
    def tuned(self, paths: Paths) -> Paths:
        """A study of three trials on disk."""
        folder = paths.tune / "gru_h5"
        study = {"best": {"value": 1.05}, "metric": "log_loss", "direction": "minimize", "key": "abc"}
        write_json(folder / "study.json", study)
        columns = {"number": [0, 1, 2], "state": ["complete"] * 3, "value": [1.07, 1.05, 1.06], "reason": [""] * 3}
        pd.DataFrame({**columns, "param.depth": ["1", "2", "3"]}).to_parquet(folder / "trials.parquet")
        return paths

    def interrupt(self, paths: Paths, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
        """Tune three trials; the store fails in the second, when `at` is called."""
        with monkeypatch.context() as away, tracking.open_study(paths, "gru_h5", "abc", {}) as study:
            for trial in studies._records(paths.tune / "gru_h5/trials.parquet"):
                study.log(trial)
                away.setattr(at, self.fail)

    def fail(self, *arguments: Any) -> None:
        raise tracking.TrackingError("gone")

    def numbers(self, paths: Paths) -> list[tuple[str, str, float]]:
        trials = [run for run in all_runs(paths) if "trial" in run.data.tags]
        found = [(run.data.tags["trial"], run.info.status, run.data.metrics["value"]) for run in trials]
        return sorted(found)

    @pytest.mark.parametrize("at", ["studies._log_trial", "runs.log_params", "runs.log_points"])
    def test_an_interrupted_study_is_completed(
        self, tuned: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], at: str
    ) -> None:
        self.interrupt(tuned, monkeypatch, f"barcast.tracking.{at}")
        assert "tune gru_h5 continues untracked, run `barcast sync` later" in capsys.readouterr().err
        assert tracking.sync_studies(tuned) == ["tune gru_h5"]
        whole = [("0", "FINISHED", 1.07), ("1", "FINISHED", 1.05), ("2", "FINISHED", 1.06)]
        assert self.numbers(tuned) == whole
        (parent,) = [run for run in all_runs(tuned) if "trial" not in run.data.tags]
        assert (parent.info.status, parent.data.metrics) == ("FINISHED", {"best_value": 1.05})
        assert artifacts(tuned, parent) == ["study.json", "trials.parquet"]
        assert tracking.sync_studies(tuned) == []
        assert self.numbers(tuned) == whole

    def test_a_study_that_lacks_a_trial_is_completed(self, tuned: Paths) -> None:
        with tracking.open_study(tuned, "gru_h5", "abc", {}) as study:
            study.log(studies._records(tuned.tune / "gru_h5/trials.parquet")[0])
        assert tracking.sync_studies(tuned) == ["tune gru_h5"]
        assert len(self.numbers(tuned)) == 3

    def test_a_study_that_is_being_tuned_now_is_not_touched(self, tuned: Paths) -> None:
        opened = store.connect(tuned)
        with pytest.raises(KeyboardInterrupt), tracking.open_study(tuned, "gru_h5", "abc", {}):
            raise KeyboardInterrupt
        (parent,) = all_runs(tuned)
        opened.client.set_tag(parent.info.run_id, "process", f"{socket.gethostname()}:999999999:0")
        with tracking.open_study(tuned, "gru_h5", "abc", {}):  # continues in this process
            assert tracking.sync_studies(tuned) == []
            assert statuses(tuned) == ["RUNNING"]
