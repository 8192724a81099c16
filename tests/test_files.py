"""A write is whole or absent."""

import math
import os
import subprocess
import sys

import pytest

from barcast.files import atomic_dir, atomic_file, read_json, write_json


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


def test_json_is_the_same_bytes_whatever_the_order_of_keys(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [1.5, None]})
    write_json(tmp_path / "b.json", {"a": [1.5, None], "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert read_json(tmp_path / "a.json") == {"a": [1.5, None], "b": 1}


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
