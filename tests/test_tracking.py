"""Runs in a real SQLite store: written while training, restored from files; and a store that is unreachable."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from _tracked import (
    CONFIG,
    HISTORY,
    METRICS,
    all_runs,
    artifacts,
    build_evaluation,
    build_inputs,
    build_training,
    history,
    statuses,
    write,
)
from barcast import tracking
from barcast.cache import keys
from barcast.cache.keys import cell_key
from barcast.errors import ConfigError, DataError
from barcast.paths import Paths
from barcast.tracking import record, runs, store
from barcast.tracking.cells import evaluation_digest, is_evaluated, locked_stages
from barcast.yaml_io import dump_yaml

pytest_plugins = ("_tracked",)


def build_lock(paths: Paths, wrote: str, read: str) -> None:
    checkpoint = "experiments/runs/xgboost_h5/checkpoints/model"
    stages = {
        "train@xgboost-5": {"outs": [{"path": checkpoint, "md5": wrote}]},
        "evaluate@xgboost-5": {"deps": [{"path": checkpoint, "md5": read}]},
    }
    write(paths.root / "dvc.lock", dump_yaml({"schema": "2.0", "stages": stages}).encode())


def train(paths: Paths, model: str = "xgboost") -> None:
    with tracking.open_run(paths, model, 5) as log:
        for step, metrics in enumerate(HISTORY):
            log(metrics, step)
        build_training(paths, model)


EVALUATION_ARTIFACTS = [
    "metrics/metrics.json",
    "plots/confusion.png",
    "predictions/test_predictions.parquet",
    "predictions/val_predictions.parquet",
]
MODEL_ARTIFACTS = ["model/booster.ubj", "model/model.json"]


class TestCellKey:
    @pytest.mark.parametrize("name", keys._inputs(5, ("train", "val")))
    def test_changes_with_every_file_that_training_reads(self, inputs: Paths, name: str) -> None:
        before = cell_key(inputs, "xgboost", 5)
        write(inputs.windows / name, b"changed")
        assert cell_key(inputs, "xgboost", 5) != before

    def test_changes_with_the_spec(self, inputs: Paths) -> None:
        before = cell_key(inputs, "xgboost", 5)
        write(
            inputs.spec("xgboost_h5"), inputs.spec("xgboost_h5").read_bytes().replace(b"max_depth: 6", b"max_depth: 8")
        )
        assert cell_key(inputs, "xgboost", 5) != before

    def test_ignores_every_other_file(self, inputs: Paths) -> None:
        before = cell_key(inputs, "xgboost", 5)
        read = {inputs.windows / name for name in keys._inputs(5, ("train", "val"))} | {inputs.spec("xgboost_h5")}
        others = [path for path in inputs.root.rglob("*") if path.is_file() and path not in read]
        assert len(others) == 4 + 1 + 3  # the test split and its labels, the other horizon's labels
        for path in others:
            write(path, b"changed")
        assert cell_key(inputs, "xgboost", 5) == before

    def test_is_the_same_at_another_place(self, inputs: Paths, tmp_path: Path) -> None:
        shutil.copytree(inputs.root, tmp_path / "copy")
        assert cell_key(Paths(tmp_path / "copy"), "xgboost", 5) == cell_key(inputs, "xgboost", 5)

    def test_names_what_is_missing(self, inputs: Paths) -> None:
        (inputs.windows / "val/ends.npy").unlink()
        with pytest.raises(DataError, match=r"val/ends\.npy: no such window file; run `dvc repro window` first"):
            cell_key(inputs, "xgboost", 5)
        with pytest.raises(ConfigError, match=r"specs/lstm_h5\.yaml: no such file; run `dvc repro spec` first"):
            cell_key(inputs, "lstm", 5)


class TestTraining:
    def test_run_is_complete(
        self, paths: Paths, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("DVC_EXP_NAME", "muddy-moth")
        subprocess.run(["git", "init", "-q"], cwd=paths.root, check=True)
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "x"], cwd=paths.root, check=True)
        command = ["git", "rev-parse", "HEAD"]
        revision = subprocess.run(command, cwd=paths.root, capture_output=True, text=True, check=True).stdout.strip()
        train(paths)
        (run,) = all_runs(paths)
        assert run.info.status == "FINISHED"
        assert re.fullmatch(r"xgboost_h5_\d{8}_\d{6}", run.info.run_name)
        local = time.strptime(run.info.run_name.removeprefix("xgboost_h5_"), "%Y%m%d_%H%M%S")
        assert abs(time.mktime(local) - run.info.start_time / 1000) < 5
        process = run.data.tags.pop("process").split(":")
        assert process[:2] == [socket.gethostname(), str(os.getpid())]
        assert {k: v for k, v in run.data.tags.items() if k != "mlflow.runName"} == {
            "model": "xgboost",
            "horizon": "5",
            "cell": "xgboost_h5",
            "cell_key": cell_key(paths, "xgboost", 5),
            "restored": "false",
            "dvc_exp_name": "muddy-moth",
            "git_revision": revision,
            "mlflow.source.git.commit": revision,
        }
        assert run.data.params["max_depth"] == "6"
        assert run.data.params["lags"] == "[0, 1]"
        assert run.data.params["patience"] == "null"
        assert run.data.params.keys() == CONFIG.keys()
        assert history(paths, run, "val_log_loss") == [(0, 1.09), (1, 1.07)]
        assert history(paths, run, "train_log_loss") == [(0, 1.0), (1, 0.9)]
        assert artifacts(paths, run) == MODEL_ARTIFACTS
        assert (paths.store / "artifacts" / run.info.run_id / "artifacts/model/model.json").is_file()
        assert capfd.readouterr() == ("", "")

    def test_no_commit_no_git_tags(self, paths: Paths) -> None:
        subprocess.run(["git", "init", "-q"], cwd=paths.root, check=True)
        train(paths)
        assert not {"git_revision", "mlflow.source.git.commit", "dvc_exp_name"} & all_runs(paths)[0].data.tags.keys()

    def test_metrics_are_sent_in_batches(self, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
        sent: list[int] = []
        log_points = runs.log_points
        monkeypatch.setattr(runs, "log_points", lambda s, r, p: (sent.append(len(p)), log_points(s, r, p)))
        with tracking.open_run(paths, "xgboost", 5) as log:
            for step in range(600):
                log({"train_log_loss": 1.0, "val_log_loss": 1.0}, step)
            build_training(paths)
        assert sent == [500, 500, 200]
        assert history(paths, all_runs(paths)[0], "val_log_loss") == [(step, 1.0) for step in range(600)]

    def test_waiting_metrics_are_sent_after_a_while(self, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(record, "_FLUSH_SECONDS", 0.0)
        with tracking.open_run(paths, "xgboost", 5) as log:
            log({"val_log_loss": 1.0}, 0)
            assert history(paths, all_runs(paths)[0], "val_log_loss") == [(0, 1.0)]
            build_training(paths)

    @pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
    def test_failure_is_recorded_and_raised(self, paths: Paths, error: type[BaseException], status: str) -> None:
        def body() -> None:
            with tracking.open_run(paths, "xgboost", 5) as log:
                log(HISTORY[0], 0)
                raise error("no memory")

        with pytest.raises(error, match="no memory"):
            body()
        (run,) = all_runs(paths)
        assert run.info.status == status
        assert history(paths, run, "val_log_loss") == [(0, 1.09)]
        assert artifacts(paths, run) == []

    def test_second_training_is_a_second_run(self, paths: Paths) -> None:
        train(paths)
        train(paths)
        assert statuses(paths) == ["FINISHED", "FINISHED"]

    def test_queued_experiment_writes_to_the_real_root(
        self, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        copy = Paths(tmp_path / "temporary copy")
        build_inputs(copy)
        monkeypatch.setenv("DVC_ROOT", str(paths.root))
        train(copy)
        assert not (copy.root / "experiments/mlflow").exists()
        monkeypatch.delenv("DVC_ROOT")
        assert artifacts(paths, all_runs(paths)[0]) == MODEL_ARTIFACTS


class TestDeadRuns:
    def start(self, paths: Paths, process: str | None) -> None:
        opened = store.connect(paths)
        cell = tracking.Cell("xgboost", 5, cell_key(paths, "xgboost", 5))
        run_id = runs.start(opened, paths, cell, restored=False)
        runs.own_runs.discard(run_id)
        if process:
            opened.client.set_tag(run_id, "process", process)

    def test_killed_process_leaves_a_run_that_is_closed(self, paths: Paths) -> None:
        code = """if True:
            import os, pathlib, signal, sys
            from barcast import paths, tracking
            with tracking.open_run(paths.Paths(pathlib.Path(sys.argv[1])), "xgboost", 5) as log:
                log({"val_log_loss": 1.0}, 0)
                os.kill(os.getpid(), signal.SIGKILL)
        """
        killed = subprocess.run([sys.executable, "-c", code, str(paths.root)], check=False)
        assert killed.returncode == -9
        assert statuses(paths) == ["RUNNING"]
        train(paths)
        assert statuses(paths) == ["KILLED", "FINISHED"]

    def test_sync_closes_them_too(self, paths: Paths) -> None:
        self.start(paths, None)
        assert tracking.sync(paths, ["xgboost_h5"]).unfinished == ("xgboost_h5",)
        assert statuses(paths) == ["KILLED"]

    def test_reused_process_number_is_not_taken_for_the_old_process(self, paths: Paths) -> None:
        self.start(paths, f"{socket.gethostname()}:{os.getppid()}:1000000000")
        train(paths)
        assert statuses(paths) == ["KILLED", "FINISHED"]

    def test_run_of_a_living_process_is_kept(self, paths: Paths) -> None:
        import psutil

        parent = psutil.Process(os.getppid())
        self.start(paths, f"{socket.gethostname()}:{parent.pid}:{parent.create_time():.0f}")
        build_training(paths)
        build_evaluation(paths)
        assert tracking.sync(paths, ["xgboost_h5"]).refreshed == ("xgboost_h5",)  # it has the cell's key
        assert statuses(paths) == ["RUNNING"]

    def test_run_of_another_machine_is_kept_for_a_day(self, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
        self.start(paths, "elsewhere:1:1000000000")
        tracking.sync(paths, ["xgboost_h5"])
        assert statuses(paths) == ["RUNNING"]
        monkeypatch.setattr(runs, "_DAY_MS", 0)
        tracking.sync(paths, ["xgboost_h5"])
        assert statuses(paths) == ["KILLED"]


class TestEvaluation:
    def test_is_attached_to_the_run_of_the_training(self, paths: Paths, capfd: pytest.CaptureFixture[str]) -> None:
        train(paths)
        build_evaluation(paths)
        tracking.log_evaluation(paths, "xgboost_h5")
        (run,) = all_runs(paths)
        assert {k: v for k, v in run.data.metrics.items() if "/" in k} == {
            "val/log_loss": 1.07,
            "val/precision/up": 0.4,
            "test/log_loss": 1.08,
            "test/sharpe": -0.5,
        }
        assert history(paths, run, "val_log_loss") == [(0, 1.09), (1, 1.07)]
        assert artifacts(paths, run) == sorted(EVALUATION_ARTIFACTS + MODEL_ARTIFACTS)
        assert capfd.readouterr() == ("", "")

    def test_logging_twice_adds_nothing_and_a_change_adds_one_value(self, paths: Paths) -> None:
        train(paths)
        build_evaluation(paths)
        for _ in range(2):
            tracking.log_evaluation(paths, "xgboost_h5")
        build_evaluation(paths, metrics={**METRICS, "test": {"log_loss": 1.06, "sharpe": -0.5}})
        tracking.log_evaluation(paths, "xgboost_h5")
        (run,) = all_runs(paths)
        assert history(paths, run, "test/log_loss") == [(0, 1.08), (0, 1.06)]
        assert history(paths, run, "test/sharpe") == [(0, -0.5)]
        assert run.data.metrics["test/log_loss"] == 1.06

    def test_creates_a_missing_run(self, paths: Paths) -> None:
        build_training(paths)
        build_evaluation(paths)
        tracking.log_evaluation(paths, "xgboost_h5")
        (run,) = all_runs(paths)
        assert (run.info.status, run.data.tags["restored"]) == ("FINISHED", "true")

    def test_without_a_training_it_warns(self, paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
        build_evaluation(paths)
        tracking.log_evaluation(paths, "xgboost_h5")
        assert "xgboost_h5: no finished training; nothing was logged" in capsys.readouterr().err
        assert statuses(paths) == []


class TestSync:
    def test_restored_cell_appears_once(self, paths: Paths) -> None:
        build_training(paths)
        build_evaluation(paths)
        shutil.rmtree(paths.windows)  # what DVC restored needs no windows
        assert tracking.sync(paths, ["xgboost_h5"]) == tracking.SyncReport(("xgboost_h5",), (), (), ())
        assert tracking.sync(paths, ["xgboost_h5"]) == tracking.SyncReport((), (), ("xgboost_h5",), ())
        (run,) = all_runs(paths)
        assert run.info.status == "FINISHED"
        assert run.data.tags["restored"] == "true"
        assert run.data.params["max_depth"] == "6"
        assert history(paths, run, "val_log_loss") == [(0, 1.09), (1, 1.07)]
        assert run.data.metrics["test/log_loss"] == 1.08
        assert artifacts(paths, run) == sorted(EVALUATION_ARTIFACTS + MODEL_ARTIFACTS)

    def test_trained_cell_is_not_added_again(self, paths: Paths) -> None:
        train(paths)
        build_evaluation(paths)
        assert tracking.sync(paths, ["xgboost_h5"]).refreshed == ("xgboost_h5",)
        assert tracking.sync(paths, ["xgboost_h5"]).unchanged == ("xgboost_h5",)
        assert [run.data.tags["restored"] for run in all_runs(paths)] == ["false"]

    def test_another_key_is_another_run(self, paths: Paths) -> None:
        for key in ("first", "second", "first"):
            build_training(paths, key=key)
            build_evaluation(paths)
            tracking.sync(paths, ["xgboost_h5"])
        assert [run.data.tags["cell_key"] for run in all_runs(paths)] == ["first", "second"]

    def test_failed_run_does_not_count(self, paths: Paths) -> None:
        with pytest.raises(ValueError, match="x"), tracking.open_run(paths, "xgboost", 5):
            raise ValueError("x")
        build_training(paths)
        build_evaluation(paths)
        assert tracking.sync(paths, ["xgboost_h5"]).created == ("xgboost_h5",)
        assert statuses(paths) == ["FAILED", "FINISHED"]

    def test_unfinished_cells_are_named(self, paths: Paths) -> None:
        build_training(paths, "lightgbm", 5, key="k")
        build_evaluation(paths, "catboost_h5")
        cells = ["lightgbm_h5", "catboost_h5", "prior_h5"]
        assert tracking.sync(paths, cells).unfinished == tuple(cells)
        assert statuses(paths) == []

    def test_evaluation_of_an_older_model_is_not_attached(self, paths: Paths) -> None:
        build_training(paths)
        build_evaluation(paths)
        build_lock(paths, wrote="new.dir", read="old.dir")
        assert tracking.sync(paths, ["xgboost_h5"]).unfinished == ("xgboost_h5",)
        build_lock(paths, wrote="new.dir", read="new.dir")
        assert tracking.sync(paths, ["xgboost_h5"]).created == ("xgboost_h5",)

    @pytest.mark.parametrize("part", ["predictions", "predictions/val_predictions.parquet", "plots", "metrics"])
    def test_a_half_evaluated_cell_is_unfinished(self, inputs: Paths, part: str) -> None:
        build_training(inputs)
        build_evaluation(inputs)
        cell = tracking.cell_on_disk(inputs, "xgboost_h5")
        assert cell is not None
        assert is_evaluated(inputs, cell, locked_stages(inputs))
        path = inputs.run("xgboost_h5") / part
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert not is_evaluated(inputs, cell, locked_stages(inputs))

    def test_evaluate_logs_before_the_lock_is_written(self, paths: Paths) -> None:
        train(paths)
        build_evaluation(paths)
        build_lock(paths, wrote="new.dir", read="old.dir")
        tracking.log_evaluation(paths, "xgboost_h5")
        assert all_runs(paths)[0].data.metrics["test/log_loss"] == 1.08

    def test_evaluation_digest_covers_every_file(self, paths: Paths) -> None:
        build_training(paths)
        build_evaluation(paths)
        seen = {evaluation_digest(paths, "xgboost_h5")}
        for name in EVALUATION_ARTIFACTS:
            write(paths.run("xgboost_h5") / name, b"changed")
            seen.add(evaluation_digest(paths, "xgboost_h5"))
        assert len(seen) == 1 + len(EVALUATION_ARTIFACTS)

    def test_one_process_at_a_time_adds_a_cell(self, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
        build_training(paths)
        build_evaluation(paths)
        monkeypatch.setattr(store, "_LOCK_SECONDS", 0.2)
        with (
            store.connect(paths).lock(),
            pytest.raises(tracking.TrackingError, match=r"sync\.lock.* could not be acquired"),
        ):
            tracking.sync(paths, ["xgboost_h5"])
        assert tracking.sync(paths, ["xgboost_h5"]).created == ("xgboost_h5",)

    def test_two_processes_on_a_fresh_store_make_one_run(self, inputs: Paths) -> None:
        build_training(inputs)
        build_evaluation(inputs)
        code = """if True:
            import pathlib, sys
            from barcast import paths, tracking
            print(*tracking.sync(paths.Paths(pathlib.Path(sys.argv[1])), ["xgboost_h5"]).created)
        """
        command = [sys.executable, "-c", code, str(inputs.root)]
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        answers = sorted(process.communicate(timeout=120) for process in both)
        assert answers == [("\n", ""), ("xgboost_h5\n", "")]
        assert statuses(inputs) == ["FINISHED"]


class TestUnreachable:
    @pytest.fixture
    def hanging(self) -> Iterator[str]:
        """A server that accepts connections and never responds."""
        with closing(socket.socket()) as server:
            server.bind(("127.0.0.1", 0))
            server.listen()
            yield f"http://127.0.0.1:{server.getsockname()[1]}"

    def check(self, paths: Paths, uri: str, reason: str, err: str) -> None:
        """One line after a complete training; `sync` gives the same reason."""
        remedy = "xgboost_h5 continues untracked, run `barcast sync` later"
        assert re.fullmatch(rf"warning: MLflow store {re.escape(uri)}: .*{reason}.*; {remedy}\n", err)
        with pytest.raises(tracking.TrackingError, match=reason):
            tracking.sync(paths, ["xgboost_h5"])

    @pytest.mark.parametrize(
        ("uri", "reason"),
        [
            ("http://127.0.0.1:9", "Connection refused"),
            ("http://no-such-host.invalid:5000", "Errno"),
            ("postgresql://127.0.0.1:9/db", "Connection refused"),
            ("sqlite:////proc/nothing/mlflow.db", "No such file or directory"),
            ("sqlite:////proc/mlflow.db", "No such file or directory"),
            ("postgresql+psycopg://me@/db?host=/no/such/folder", "No such file or directory"),
            ("postgresql://host:abc/db", "the port is not a number; set MLFLOW_TRACKING_URI to an address such as"),
            ("postgresql://a..b/db", "label empty or too long"),
            ("http://[::1", "Invalid IPv6 URL"),
            ("foo://bar", "unsupported URI 'foo://bar'"),
            ("/tmp/mlruns", "filesystem tracking backend"),
        ],
    )
    def test_training_finishes(
        self, inputs: Paths, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], uri: str, reason: str
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        import mlflow.tracking  # noqa: F401  # its import time is not the store's

        started = time.monotonic()
        train(inputs)
        assert time.monotonic() - started < 15  # MLflow's own defaults: minutes
        out, err = capfd.readouterr()
        assert out == ""
        self.check(inputs, uri, reason, err)

    def test_database_that_never_responds(self, inputs: Paths, monkeypatch: pytest.MonkeyPatch, hanging: str) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", hanging.replace("http", "postgresql+psycopg"))
        monkeypatch.setattr(store, "_PROBE_SECONDS", 1.0)
        started = time.monotonic()
        with pytest.raises(tracking.TrackingError, match="timeout expired"):
            store.connect(inputs)
        assert time.monotonic() - started < 15  # MLflow's own defaults: forever

    def test_server_that_never_responds(
        self, inputs: Paths, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], hanging: str
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", hanging)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        import mlflow.tracking  # noqa: F401  # its import time is not the store's

        started = time.monotonic()
        train(inputs)
        assert time.monotonic() - started < 15  # MLflow's own defaults: minutes
        self.check(inputs, hanging, "timed out", capfd.readouterr().err)

    def test_waits_are_short_unless_the_user_sets_them(self, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
        store.connect(paths)
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"

    def test_locked_store(
        self, paths: Paths, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(store, "_PROBE_SECONDS", 0.2)
        with closing(sqlite3.connect(paths.store / "mlflow.db")) as holder:
            holder.execute("BEGIN EXCLUSIVE")
            train(paths)
            self.check(paths, tracking.store_uri(paths), "database is locked", capfd.readouterr().err)

    def test_file_that_is_not_a_database(self, paths: Paths, capfd: pytest.CaptureFixture[str]) -> None:
        write(paths.store / "mlflow.db", b"no database" * 1000)
        train(paths)
        self.check(paths, tracking.store_uri(paths), "not a database", capfd.readouterr().err)

    def test_store_that_goes_away_midway(
        self, paths: Paths, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(record, "_FLUSH_SECONDS", 0.0)
        database, aside = paths.store / "mlflow.db", paths.store / "aside.db"
        with tracking.open_run(paths, "xgboost", 5) as log:
            log(HISTORY[0], 0)
            database.rename(aside)
            log(HISTORY[1], 1)
            log(HISTORY[1], 2)
            build_training(paths)
        assert capfd.readouterr().err == (
            f"warning: MLflow store sqlite:///{database}: unable to open database file; "
            "xgboost_h5 continues untracked, run `barcast sync` later\n"
        )
        assert not database.exists()
        aside.rename(database)
        build_evaluation(paths)
        assert tracking.sync(paths, ["xgboost_h5"]).created == ("xgboost_h5",)
        killed, restored = all_runs(paths)
        assert (killed.info.status, restored.info.status) == ("KILLED", "FINISHED")
        assert history(paths, killed, "val_log_loss") == [(0, 1.09)]
        assert history(paths, restored, "val_log_loss") == [(0, 1.09), (1, 1.07)]

    def test_error_of_the_training_itself_is_not_swallowed(
        self, inputs: Paths, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        with pytest.raises(OSError, match="disk full"), tracking.open_run(inputs, "xgboost", 5):
            raise OSError("disk full")

    def test_evaluation_only_warns(
        self, inputs: Paths, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        build_training(inputs)
        build_evaluation(inputs)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        tracking.log_evaluation(inputs, "xgboost_h5")
        self.check(inputs, "http://127.0.0.1:9", "Connection refused", capfd.readouterr().err)

    @pytest.mark.parametrize(
        ("uri", "shown"),
        [
            ("http://me:hush@127.0.0.1:9", "http://me:***@127.0.0.1:9: [Errno 111] Connection refused"),
            ("http://me:hush@[::1", "http://me:***@[::1: Invalid IPv6 URL"),
            ("mysql://me:hu/s@h@127.0.0.1:9/db", "mysql://me:***@127.0.0.1:9/db: "),
        ],
    )
    def test_password_is_not_shown(self, inputs: Paths, monkeypatch: pytest.MonkeyPatch, uri: str, shown: str) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(tracking.TrackingError) as caught:
            store.connect(inputs)
        assert str(caught.value).startswith(f"MLflow store {shown}")


class TestWhere:
    def test_default_and_given_uri(self, inputs: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
        assert tracking.store_uri(inputs) == f"sqlite:///{inputs.root.resolve()}/experiments/mlflow/mlflow.db"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
        assert tracking.store_uri(inputs) == "http://server:5000"

    def test_relative_sqlite_path_starts_at_the_real_root(self, inputs: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")
        assert tracking.store_uri(inputs) == f"sqlite:///{inputs.root.resolve()}/runs.db"
        monkeypatch.setenv("DVC_ROOT", "/real")
        assert tracking.store_uri(inputs) == "sqlite:////real/runs.db"

    def test_folder_with_special_characters(self, paths: Paths, tmp_path: Path) -> None:
        odd = Paths(tmp_path / "50%20 off? #1")
        paths.root.rename(odd.root)
        train(odd)
        assert artifacts(odd, all_runs(odd)[0]) == MODEL_ARTIFACTS
        assert len(list((odd.store / "artifacts").rglob("model.json"))) == 1

    def test_experiment_is_barcast_or_the_users(self, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
        opened = store.connect(paths)
        assert opened.client.get_experiment(opened.experiment_id).name == "barcast"
        assert store.connect(paths).experiment_id == opened.experiment_id
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
        assert store.connect(paths).experiment_id != opened.experiment_id

    def test_importing_tracking_imports_no_mlflow(self) -> None:
        code = "import sys, barcast.tracking; print('mlflow' in sys.modules, 'sqlalchemy' in sys.modules)"
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert answer.stdout.strip() == "False False"
