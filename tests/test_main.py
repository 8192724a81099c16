"""What a stage says and how it exits when something goes wrong."""

import errno
import os
import runpy
import sys
from pathlib import Path

import pytest

from barcast.errors import DataError
from barcast.files import write_json
from barcast.stages._main import run_stage


@pytest.fixture(autouse=True)
def _no_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["stage"])


def failing(error):
    def main():
        raise error

    return main


def test_success_exits_with_0():
    with pytest.raises(SystemExit) as stop:
        run_stage(lambda: None)
    assert stop.value.code == 0


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (DataError("bars.csv: row 3: close is below 0"), "error: bars.csv: row 3: close is below 0"),
        (OSError(errno.ENOSPC, "No space", "a.npy"), "error: a.npy: the disk is full; free some space"),
        (OSError(errno.EROFS, "Read-only", "a.npy"), "error: a.npy: the file system is read-only"),
        (PermissionError(errno.EACCES, "Denied", "a.npy"), "error: a.npy: no permission; make the folder writable"),
    ],
)
def test_an_error_that_a_user_can_mend_is_one_line(error, line, capsys):
    with pytest.raises(SystemExit) as stop:
        run_stage(failing(error))
    printed = capsys.readouterr().err
    assert stop.value.code == 1
    assert printed.startswith(line)
    assert printed.count("\n") == 1


def tried(cell, horizon):
    raise AssertionError("it should not have begun")


@pytest.mark.parametrize("given", [[], ["xgboost"], ["xgboost", "5", "6"]])
def test_the_wrong_number_of_arguments_is_one_line_with_the_usage(given, capsys):
    with pytest.raises(SystemExit) as stop:
        run_stage(tried, given)
    assert stop.value.code == 1
    usage = "usage: python -m barcast.stages.test_main CELL HORIZON"
    got = " ".join(given) or "nothing"
    assert capsys.readouterr().err == f"error: test_main: expected CELL HORIZON, got {got}; {usage}\n"


def test_debug_is_no_argument_of_the_stage():
    seen = []
    with pytest.raises(SystemExit) as stop:
        run_stage(lambda one: seen.append(one), ["--debug", "5"])
    assert (stop.value.code, seen) == (0, ["5"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("tune lightgbm abc", "error: horizon 'abc': expected a whole number of bars such as 5"),
        ("oof lightgbm abc", "error: horizon 'abc': expected a whole number of bars such as 5"),
        ("evaluate lightgbm -5", "error: horizon '-5': expected a whole number of bars such as 5"),
        ("ensemble abc", "error: horizon 'abc': expected a whole number of bars such as 5"),
        (
            "evaluate",
            "error: evaluate: expected MODEL HORIZON, got nothing; usage: python -m barcast.stages.evaluate MODEL",
        ),
        ("tune lightgbm", "error: tune: expected MODEL HORIZON, got lightgbm; usage: "),
        ("oof lightgbm 5 6", "error: oof: expected MODEL HORIZON, got lightgbm 5 6; "),
        ("repeat xgboost 5", "error: repeat: expected MODEL HORIZON SEED, got xgboost 5; "),
        ("ensemble 5 6", "error: ensemble: expected HORIZON, got 5 6; "),
        ("window 5", "error: window: expected nothing, got 5; "),
        ("compare 5", "error: compare: expected nothing, got 5; usage: python -m barcast.stages.compare\n"),
    ],
)
def test_what_a_stage_can_not_read_is_one_line(arguments, said, tmp_path, monkeypatch, capsys):
    name, *rest = arguments.split()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *rest])
    monkeypatch.delitem(sys.modules, f"barcast.stages.{name}", raising=False)
    with pytest.raises(SystemExit) as stop:
        runpy.run_module(f"barcast.stages.{name}", run_name="__main__")
    line = capsys.readouterr().err
    assert stop.value.code == 1
    assert line.startswith(said)
    assert line.count("\n") == 1


def test_debug_shows_the_traceback(monkeypatch, capsys):
    monkeypatch.setenv("BARCAST_DEBUG", "1")
    with pytest.raises(DataError):
        run_stage(failing(DataError("x")))
    with pytest.raises(SystemExit) as stop:
        run_stage(failing(KeyboardInterrupt()))
    assert stop.value.code == 130
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_is_one_line_and_has_its_own_exit_code(capsys):
    with pytest.raises(SystemExit) as stop:
        run_stage(failing(KeyboardInterrupt()))
    assert stop.value.code == 130
    assert capsys.readouterr().err == "interrupted; run the same command to resume\n"


def test_a_defect_is_never_hidden():
    with pytest.raises(ZeroDivisionError):
        run_stage(lambda: 1 / 0)
    with pytest.raises(OSError, match="odd"):
        run_stage(failing(OSError(errno.EIO, "odd")))


def test_a_really_full_disk_is_explained(capsys):
    def main():
        with open("/dev/full", "w") as file:
            file.write("x" * 100_000)

    if not os.path.exists("/dev/full"):
        main = failing(OSError(errno.ENOSPC, "No space"))
    with pytest.raises(SystemExit):
        run_stage(main)
    assert "the disk is full" in capsys.readouterr().err


def test_a_folder_that_takes_no_files_is_explained(tmp_path, capsys):
    """For root no folder is closed, but the kernel's own are."""
    closed = Path("/sys") if os.geteuid() == 0 else tmp_path
    if closed == tmp_path:
        tmp_path.chmod(0o500)

    def main():
        write_json(closed / "out.json", {})

    with pytest.raises(SystemExit):
        run_stage(main)
    line = capsys.readouterr().err
    assert line.startswith(f"error: {closed}")
    assert "run the same command again" in line or "work in another folder" in line
