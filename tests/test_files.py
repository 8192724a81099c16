"""A write is whole or absent."""

import math
import os
import subprocess
import sys

import pytest

from barcast.errors import DataError
from barcast.files import atomic_dir, atomic_file, read_json, recover, write_json


def write_half(writing):
    with writing as path:
        (path / "b" if path.is_dir() else path).write_text("half")
        raise RuntimeError


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    target = tmp_path / "out/result.txt"
    with atomic_file(target) as path:
        path.write_text("old")
    with pytest.raises(RuntimeError):
        write_half(atomic_file(target))
    assert target.read_text() == "old"
    assert [p.name for p in target.parent.iterdir()] == ["result.txt"]


def test_a_failed_folder_leaves_the_old_one_and_no_litter(tmp_path):
    target = tmp_path / "out/model"
    with atomic_dir(target) as folder:
        (folder / "a").write_text("old")
    with pytest.raises(RuntimeError):
        write_half(atomic_dir(target))
    assert [p.name for p in target.iterdir()] == ["a"]
    with atomic_dir(target) as folder:
        (folder / "c").write_text("new")
    assert [p.name for p in target.iterdir()] == ["c"]
    assert [p.name for p in target.parent.iterdir()] == ["model"]


def test_the_old_folder_comes_back_when_the_new_one_cannot_follow(tmp_path, monkeypatch):
    target, replace = tmp_path / "model", os.replace
    with atomic_dir(target) as folder:
        (folder / "a").write_text("old")

    def stopped(source, destination):
        if source.name.endswith(".tmp"):
            raise KeyboardInterrupt
        replace(source, destination)

    monkeypatch.setattr(os, "replace", stopped)
    with pytest.raises(KeyboardInterrupt), atomic_dir(target):
        pass
    assert (target / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


KILLED_BETWEEN = """
import os, signal, sys
from pathlib import Path
from barcast.files import atomic_dir
replace = os.replace
def then_die(source, destination):
    replace(source, destination)
    os.kill(os.getpid(), signal.SIGKILL)
with atomic_dir(Path(sys.argv[1])) as folder:
    (folder / "a").write_text("new")
    os.replace = then_die
"""


@pytest.mark.parametrize("fails", [False, True])
def test_a_process_killed_between_the_renames_loses_neither_folder_nor_its_place(tmp_path, fails):
    target = tmp_path / "model"
    with atomic_dir(target) as folder:
        (folder / "a").write_text("old")
    subprocess.run([sys.executable, "-c", KILLED_BETWEEN, target], check=False)
    assert not target.exists()
    if fails:
        with pytest.raises(RuntimeError):
            write_half(atomic_dir(target))
    else:
        recover(target)
    assert (target / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_number_that_another_process_had_before_is_no_hindrance(tmp_path):
    target = tmp_path / "model"
    for kind in ("old", "tmp"):
        (tmp_path / f".model.{os.getpid()}.{kind}/x").mkdir(parents=True)
    target.mkdir()
    with atomic_dir(target) as folder:
        (folder / "a").touch()
    assert [p.name for p in target.iterdir()] == ["a"]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_json_is_the_same_bytes_whatever_the_order_of_keys(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [1.5, None]})
    write_json(tmp_path / "b.json", {"a": [1.5, None], "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert read_json(tmp_path / "a.json") == {"a": [1.5, None], "b": 1}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a": 1', "no valid JSON (Expecting ',' delimiter: line 1 column 8 (char 7))"),
        (b"", "no valid JSON (Expecting value: line 1 column 1 (char 0))"),
        (b'{"a": "\xff"}', "no valid JSON ('utf-8' codec can't decode byte 0xff in position 7"),
        (b"[1]", "expected a JSON object, got list"),
    ],
)
def test_json_that_is_damaged_is_named_with_the_remedy(tmp_path, content, reason):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError) as told:
        read_json(tmp_path / "a.json")
    assert str(told.value).startswith(f"{tmp_path / 'a.json'}: {reason}")
    assert str(told.value).endswith("; restore it with `dvc checkout -f`, or delete it and run again what wrote it")


def test_nan_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "a.json", {"a": math.nan})
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_swept_away_and_what_a_living_one_writes_is_not(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for pid in (gone.pid, os.getppid()):
        (tmp_path / f".out.{pid}.tmp").mkdir()
        (tmp_path / f".out.json.{pid}.tmp").touch()
    (tmp_path / ".out.notes").touch()
    with atomic_dir(tmp_path / "out"), atomic_file(tmp_path / "out.json") as file:
        file.touch()
    left = {path.name for path in tmp_path.iterdir()}
    alive = os.getppid()
    assert left == {"out", "out.json", f".out.{alive}.tmp", f".out.json.{alive}.tmp", ".out.notes"}
