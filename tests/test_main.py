"""What a stage says and how it exits when something goes wrong."""

import errno
import os
from pathlib import Path

import pytest

from barcast.errors import DataError
from barcast.files import write_json
from barcast.stages._main import run_stage


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


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("BARCAST_DEBUG", "1")
    with pytest.raises(DataError):
        run_stage(failing(DataError("x")))


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
