"""Progress lines and bars, dvclive files that are the same bytes every time, and combined logs."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from barcast.training import callbacks
from barcast.training import progress as progress_module
from barcast.training.callbacks import LiveLog, combine_logs
from barcast.training.progress import Progress, with_speed


class Clock:
    """`time.monotonic` under the test's control."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    return clock


def run_out_of_memory(log: callbacks.Log) -> None:
    log({"val_log_loss": 1.1}, 0)
    raise RuntimeError("no memory")


def test_combine_logs_hands_every_call_to_all_in_order() -> None:
    seen: list[tuple[str, float, int]] = []
    log = combine_logs(lambda m, s: seen.append(("a", m["x"], s)), lambda m, s: seen.append(("b", m["x"], s)))
    log({"x": 1.0}, 0)
    log({"x": 2.0}, 1)
    assert seen == [("a", 1.0, 0), ("b", 1.0, 0), ("a", 2.0, 1), ("b", 2.0, 1)]


def test_plain_lines_are_the_first_some_between_and_the_last(clock: Clock) -> None:
    out = io.StringIO()
    with Progress("xgboost_h5", 60, stream=out) as progress:
        clock.now += 30  # binning: must not count as the pace of a round
        for step in range(46):
            progress({"train_log_loss": 1.0, "val_log_loss": 1.0712 + step / 1e4}, step)
            clock.now += 0.25
    assert out.getvalue().splitlines() == [
        "xgboost_h5  round 1/60  loss 1.0000  val_log_loss 1.0712",
        "xgboost_h5  round 21/60  loss 1.0000  val_log_loss 1.0732  ETA 10 s",
        "xgboost_h5  round 41/60  loss 1.0000  val_log_loss 1.0752  ETA 5 s",
        "xgboost_h5  round 46/60  loss 1.0000  val_log_loss 1.0757  done in 42 s",
    ]


def test_speed_counts_only_the_steps_of_this_run(clock: Clock) -> None:
    seen: list[dict[str, float]] = []
    log = with_speed(lambda metrics, step: seen.append(dict(metrics)), replayed=2)
    clock.now += 7  # reading the resume checkpoint
    for step in range(4):
        clock.now += 4 if step >= 2 else 0
        log({"windows": 100.0} if step < 3 else {}, step)
    assert seen == [{"windows": 100.0}, {"windows": 100.0}, {"windows": 100.0, "windows_per_second": 25.0}, {}]


def test_time_left_of_a_resumed_training_ignores_the_earlier_rounds(clock: Clock) -> None:
    out = io.StringIO()
    with Progress("gru_h5", 10, unit="epoch", stream=out, replayed=6) as progress:
        for step in range(8):
            clock.now += 15 if step >= 6 else 0
            progress({"val_log_loss": 1.0}, step)
    assert out.getvalue().splitlines() == [
        "gru_h5  epoch 6/10  val_log_loss 1.0000",
        "gru_h5  epoch 7/10  val_log_loss 1.0000",
        "gru_h5  epoch 8/10  val_log_loss 1.0000  ETA 30 s",
        "gru_h5  epoch 8/10  val_log_loss 1.0000  done in 30 s",
    ]


def test_plain_lines_are_never_wrapped_or_marked_up(clock: Clock) -> None:
    out = io.StringIO()
    with Progress("[bold]x" + "y" * 150, None, unit="epoch", stream=out) as progress:
        progress({"loss": 1.0}, 0)
    assert out.getvalue().splitlines()[0] == "[bold]x" + "y" * 150 + "  epoch 1"


def test_model_without_rounds_gets_one_line(clock: Clock) -> None:
    out = io.StringIO()
    with Progress("prior_h5", stream=out):
        clock.now += 1.4
    assert out.getvalue() == "prior_h5  done in 1 s\n"


def test_failed_training_is_not_reported_as_done(clock: Clock) -> None:
    out = io.StringIO()
    with pytest.raises(RuntimeError, match="no memory"), Progress("lstm_h5", 9, stream=out) as progress:
        run_out_of_memory(progress)
    assert out.getvalue().splitlines()[-1] == "lstm_h5  round 1/9  val_log_loss 1.1000  stopped after 0 s"


def test_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    out = Terminal()
    with Progress("xgboost_h5", 2, stream=out) as progress:
        progress({"val_log_loss": 1.05}, 0)
        progress({"val_log_loss": 1.04}, 1)
    text = out.getvalue()
    assert "━" in text
    assert "round 2/2  val_log_loss 1.0400  ETA 0 s" in text
    assert text.rstrip().endswith("xgboost_h5  round 2/2  val_log_loss 1.0400  done in 0 s")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7380, "2 h 03 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert progress_module._duration(seconds) == text


def train(folder: Path, rounds: int = 3) -> None:
    with LiveLog(folder, "abc123") as live:
        for step in range(rounds):
            live({"train_log_loss": np.float64(1.0 / (step + 1)), "val_log_loss": 1.1}, step)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_live_files_contain_what_was_logged(tmp_path: Path) -> None:
    train(tmp_path / "live")
    files = contents(tmp_path / "live")
    assert sorted(files) == [
        "metrics.json",
        "params.yaml",
        "plots/metrics/train_log_loss.tsv",
        "plots/metrics/val_log_loss.tsv",
    ]
    assert json.loads(files["metrics.json"]) == {"train_log_loss": 1.0 / 3, "val_log_loss": 1.1, "step": 2}
    assert yaml.safe_load(files["params.yaml"]) == {"cell_key": "abc123"}
    lines = files["plots/metrics/train_log_loss.tsv"].decode().split()
    assert lines == ["step", "train_log_loss", "0", "1.0", "1", "0.5", "2", repr(1.0 / 3)]


def test_live_files_are_the_same_bytes_in_every_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "plain")
    repo = tmp_path / "repo"  # a Git and DVC repository without a commit
    repo.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=repo, check=True)
    (repo / ".dvc").mkdir()
    (repo / ".dvc/config").touch()
    monkeypatch.chdir(repo)
    monkeypatch.setenv("DVC_ROOT", str(repo))
    monkeypatch.setenv("DVC_EXP_NAME", "muddy-moth")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "0" * 40)
    monkeypatch.setenv("DVC_STUDIO_TOKEN", "secret")
    monkeypatch.setenv("DVCLIVE_RESUME", "1")
    before = contents(repo)
    train(repo / "live", rounds=7)
    train(repo / "live")
    monkeypatch.setenv("DVCLIVE_TEST", "1")
    train(repo / "again")
    monkeypatch.undo()
    assert contents(repo / "live") == contents(repo / "again") == contents(tmp_path / "plain")
    after = {name: data for name, data in contents(repo).items() if not name.startswith(("live/", "again/"))}
    assert after == before


def test_model_without_rounds_still_has_a_live_folder(tmp_path: Path) -> None:
    train(tmp_path / "live", rounds=0)
    assert sorted(contents(tmp_path / "live")) == ["metrics.json", "params.yaml"]


def test_failed_training_keeps_the_previous_live_folder(tmp_path: Path) -> None:
    train(tmp_path / "live")
    before = contents(tmp_path)
    with pytest.raises(RuntimeError, match="no memory"), LiveLog(tmp_path / "live", "new") as live:
        run_out_of_memory(live)
    assert contents(tmp_path) == before


def test_a_model_is_replaced_without_the_key_of_the_previous_one(tmp_path: Path) -> None:
    stamp = tmp_path / "live/params.yaml"
    with LiveLog(tmp_path / "live", "first") as live, live.replacing_model():
        assert not stamp.exists()
    before = contents(tmp_path)
    with (
        pytest.raises(RuntimeError, match="no memory"),
        LiveLog(tmp_path / "live", "new") as live,
        live.replacing_model(),
    ):
        run_out_of_memory(live)
    assert contents(tmp_path) == before
    with LiveLog(tmp_path / "live", "second") as live:
        with live.replacing_model():
            pass
        assert not stamp.exists()
    assert contents(tmp_path) == {**before, "live/params.yaml": b"cell_key: second\n"}


def test_importing_callbacks_imports_no_tracker() -> None:
    heavy = "{'mlflow', 'dvclive', 'barcast.tracking'}"
    code = f"import sys, barcast.training.callbacks; print(sorted({heavy} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
