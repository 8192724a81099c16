"""`barcast diff` on two revisions whose locks and caches are written by hand, as DVC writes them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from dvc.repo.experiments.refs import ExpRefInfo
from rich.console import Console
from typer.testing import CliRunner

from barcast.cli import app
from barcast.errors import DataError
from barcast.revisions import diff_render
from barcast.revisions.diff import Change, diff, same_windows
from barcast.revisions.revision import Revision
from barcast.yaml_io import dump_yaml

MODELS = ("prior", "good", "same")
SETTINGS = {
    "cells": [],
    "level": 0.95,
    "resamples": 200,
    "block_factor": 1.0,
    "cost_bps": 5.0,
    "calibration_bins": 10,
    "seed": 1,
}
WINDOWS = 400


def predictions(skill: float, seed: int = 0) -> pd.DataFrame:
    """Windows of two symbols; labels and prices are the same for every skill."""
    rng = np.random.default_rng(7)
    label = rng.integers(-1, 2, WINDOWS)
    noise = np.random.default_rng(seed).normal(0, 0.3, (WINDOWS, 3))
    scores = skill * np.eye(3)[label + 1] + noise
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    times = pd.date_range("2024-01-01", periods=WINDOWS // 2, freq="h", tz="UTC")
    frame = pd.DataFrame({"datetime": np.repeat(times, 2), "symbol": ["A", "B"] * (WINDOWS // 2), "horizon": 5})
    frame[["p_down", "p_flat", "p_up"]] = p
    frame["prediction"], frame["label"] = p.argmax(axis=1) - 1, label
    frame["close"] = 100 * np.exp(np.cumsum(rng.normal(0, 0.002, WINDOWS)))
    return frame


def test_log_loss(frame: pd.DataFrame) -> float:
    p = frame[["p_down", "p_flat", "p_up"]].to_numpy()
    return float(-np.log(p[np.arange(len(frame)), frame["label"].to_numpy() + 1]).mean())


test_log_loss.__test__ = False


class Repository:
    """A Git repository with DVC's cache, where `record` writes what `dvc repro` leaves."""

    def __init__(self, root: Path):
        self.root = root
        self.git("init", "-q", "-b", "main")
        (root / ".dvc").mkdir()
        (root / ".dvc/config").write_text("[core]\n    analytics = false\n")
        (root / ".dvc/.gitignore").write_text("/config.local\n/tmp\n/cache\n")
        (root / "dvc.yaml").write_text("stages: {}\n")
        self.specs = {"compare": self.spec({**SETTINGS, "reference": "prior"}), "evaluate": self.spec({"alpha": 0.1})}
        self.frames, self.ensemble = {}, predictions(0.5, seed=9)
        for model in MODELS:
            self.specs[f"{model}_h5"] = self.spec({"max_depth": 4}, code={"barcast.models": "1"})
            self.frames[model] = predictions(0.0 if model == "prior" else 0.6, seed=len(model))
        self.data = {"data/windows/train": "d1.dir", "data/windows/labels/train_h5.npy": "l1"}

    @staticmethod
    def spec(config, code=None, libraries=None):
        return {"config": config, "code": code or {"barcast.config": "0"}, "libraries": libraries or {"numpy": "2.4.6"}}

    def git(self, *arguments):
        identity = {f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        subprocess.run(["git", *arguments], cwd=self.root, env={**os.environ, **identity}, check=True)

    def store(self, content: bytes) -> str:
        hash_ = hashlib.md5(content).hexdigest()
        self._write(hash_, content)
        return hash_

    def store_folder(self, files: dict[str, bytes]) -> str:
        entries = [{"md5": self.store(content), "relpath": name} for name, content in sorted(files.items())]
        content = json.dumps(entries).encode()
        hash_ = hashlib.md5(content).hexdigest() + ".dir"
        self._write(hash_, content)
        return hash_

    def object(self, hash_: str) -> Path:
        return self.root / ".dvc/cache/files/md5" / hash_[:2] / hash_[2:]

    def _write(self, hash_: str, content: bytes) -> None:
        self.object(hash_).parent.mkdir(parents=True, exist_ok=True)
        self.object(hash_).write_bytes(content)

    def record(self) -> dict:
        """Write dvc.lock and the cache for the current specs, predictions and data."""
        specs = {f"{name}.yaml": dump_yaml(content).encode() for name, content in self.specs.items()}
        rows = [{"model": model} for model in self.frames]
        report = {"leaderboard.json": json.dumps({"horizons": {"h5": rows}}).encode()}
        stages = {
            "spec": {"outs": [self.out("experiments/specs", self.store_folder(specs))]},
            "prepare": {
                "deps": [self.out("data/raw/bars.parquet", self.data["data/windows/train"])],
                "outs": [self.out("data/splits/scaled", "0" * 32 + ".dir")],
            },
            "compare": {"outs": [self.out("experiments/report", self.store_folder(report))]},
        }
        if self.ensemble is not None:
            stages["ensemble@5"] = self.ensemble_stage()
            report["leaderboard.json"] = json.dumps({"horizons": {"h5": [*rows, {"model": "ensemble"}]}}).encode()
            stages["compare"]["outs"] = [self.out("experiments/report", self.store_folder(report))]
        for model, frame in self.frames.items():
            stages |= self.cell(model, frame, specs[f"{model}_h5.yaml"], specs["evaluate.yaml"])
        (self.root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
        return stages

    def ensemble_stage(self):
        """The ensemble's one folder, with a folder for each of its rows in it."""
        buffer = io.BytesIO()
        self.ensemble.to_parquet(buffer, index=False)
        metrics = {"test": {"log_loss": test_log_loss(self.ensemble)}}
        files = {
            "weights.json": b"{}",
            "ensemble/metrics/metrics.json": json.dumps(metrics).encode(),
            "ensemble/predictions/test_predictions.parquet": buffer.getvalue(),
        }
        deps = [self.out("experiments/runs", hashlib.md5(buffer.getvalue()).hexdigest())]
        return {"deps": deps, "outs": [self.out("experiments/ensembles/h5", self.store_folder(files))]}

    def cell(self, model, frame, spec, evaluate):
        run = f"experiments/runs/{model}_h5"
        deps = [self.out(path, hash_) for path, hash_ in self.data.items()]
        deps.append(self.out(f"experiments/specs/{model}_h5.yaml", hashlib.md5(spec).hexdigest()))
        scored = [*deps, self.out("experiments/specs/evaluate.yaml", hashlib.md5(evaluate).hexdigest())]
        metrics = {"test": {"log_loss": test_log_loss(frame), "macro_f1": 0.4, "sharpe": None}}
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        return {
            f"train@{model}-5": {"deps": deps, "outs": [self.out(f"{run}/checkpoints/model", "c" * 32)]},
            f"evaluate@{model}-5": {
                "deps": scored,
                "outs": [
                    self.out(f"{run}/metrics", self.store_folder({"metrics.json": json.dumps(metrics).encode()})),
                    self.out(f"{run}/predictions", self.store_folder({"test_predictions.parquet": buffer.getvalue()})),
                ],
            },
        }

    @staticmethod
    def out(path, hash_):
        return {"path": path, "hash": "md5", "md5": hash_}

    def commit(self):
        self.git("add", "-A")
        self.git("commit", "-qm", "a")

    def diff(self):
        return diff(Revision(self.root, "main"), Revision(self.root))

    def cells(self):
        return {cell.model: cell for cell in self.diff().cells}


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    repository = Repository(tmp_path_factory.mktemp("repository"))
    repository.record()
    repository.commit()
    return repository.root


@pytest.fixture
def repository(committed, tmp_path, monkeypatch):
    """A copy of the committed repository, to be changed."""
    root = tmp_path / "copy"
    shutil.copytree(committed, root)
    monkeypatch.chdir(root)
    copy = Repository.__new__(Repository)
    template = Repository(tmp_path / "template" if (tmp_path / "template").mkdir() is None else tmp_path)
    copy.__dict__ |= {**template.__dict__, "root": root}
    return copy


def test_nothing_changed(repository):
    repository.record()
    found = repository.diff()
    assert [cell.run for cell in found.cells] == ["unchanged"] * 4
    assert all(cell.deltas is None and not cell.changes for cell in found.cells)
    assert found.stages == {}
    assert "4 cells: 4 unchanged." in diff_render.render_markdown(found)


def test_a_parameter_that_helps_is_named_and_called_better(repository):
    repository.specs["good_h5"] = repository.spec({"max_depth": 8}, code={"barcast.models": "1"})
    before, repository.frames["good"] = repository.frames["good"], predictions(1.2, seed=4)
    repository.record()
    cells = repository.cells()
    good = cells["good"]
    assert good.run == "trained again"
    assert good.changes == (Change("parameter", "max_depth", "4", "8"),)
    expected = test_log_loss(repository.frames["good"]) - test_log_loss(before)
    assert good.deltas["log_loss"].value == pytest.approx(expected)
    assert good.deltas["log_loss"].high < 0
    assert good.deltas["log_loss"].verdict == "better"
    assert good.windows == WINDOWS
    assert cells["same"].run == cells["prior"].run == "unchanged"


def test_the_reverse_change_is_worse_by_the_same_amount(repository):
    good = repository.frames["good"]
    repository.frames["good"] = predictions(1.2, seed=4)
    repository.record()
    repository.commit()
    forth = Revision(repository.root)
    repository.frames["good"] = good
    repository.record()
    back = repository.cells()["good"].deltas["log_loss"]
    there = {cell.model: cell for cell in diff(Revision(repository.root), forth).cells}["good"]
    assert back.verdict == "worse"
    assert back.value == pytest.approx(-there.deltas["log_loss"].value)
    assert (back.low, back.high) == pytest.approx((-there.deltas["log_loss"].high, -there.deltas["log_loss"].low))


def test_other_noise_in_the_predictions_is_noise(repository):
    repository.frames["good"] = predictions(0.6, seed=99)
    repository.specs["good_h5"]["config"]["seed"] = 99
    repository.record()
    assert repository.cells()["good"].deltas["log_loss"].verdict == "noise"


def test_what_kind_of_change_made_a_cell_run(repository):
    repository.specs["good_h5"] = repository.spec(
        {"max_depth": 4, "lags": "all"}, code={"barcast.models": "2", "barcast.new": "1"}, libraries={"numpy": "2.5.0"}
    )
    repository.record()
    good = repository.cells()["good"]
    assert set(good.changes) == {
        Change("parameter", "lags", None, "all"),
        Change("code", "barcast.models", "1", "2"),
        Change("code", "barcast.new", None, "1"),
        Change("library", "numpy", "2.4.6", "2.5.0"),
    }
    assert good.run == "trained again"
    assert good.deltas is None, "the same results need no intervals"
    text = diff_render.render_markdown(repository.diff())
    assert "| parameter | `lags` = all (new) | good_h5 |" in text
    assert "| library | `numpy` 2.4.6 → 2.5.0 | good_h5 |" in text
    assert "| code | `models`, `new` | good_h5 |" in text
    assert "`good_h5`: trained again, with the same results" in text


def test_a_cell_whose_settings_changed_without_a_run_is_not_unchanged(repository):
    stages = repository.record()
    repository.specs["good_h5"] = repository.spec({"max_depth": 8}, code={"barcast.models": "1"})
    stages["spec"] = repository.record()["spec"]  # only `spec` ran
    (repository.root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
    assert {model: cell.run for model, cell in repository.cells().items()} == {
        **dict.fromkeys(("prior", "same", "ensemble"), "unchanged"),
        "good": "not run yet",
    }
    text = diff_render.render_markdown(repository.diff())
    assert "4 cells: 1 not run yet, 3 unchanged." in text
    assert "- `good_h5`: not run yet\n" in text
    assert "| parameter | `max_depth` 4 → 8 | good_h5 |" in text


def test_specs_are_read_as_dvc_writes_them(repository):
    repository.specs["good_h5"] = repository.spec({"max_depth": 4, "rate": 1e-05}, code={"barcast.models": "1"})
    repository.record()
    assert Change("parameter", "rate", None, "1e-05") in repository.cells()["good"].changes


def test_new_data_reach_every_cell_and_the_source_is_named(repository):
    repository.data["data/windows/train"] = "d2.dir"
    repository.record()
    found = repository.diff()
    assert {cell.model: cell.run for cell in found.cells} == {
        **dict.fromkeys(MODELS, "trained again"),
        "ensemble": "unchanged",
    }
    assert found.stages["prepare"] == (Change("data", "data/raw/bars.parquet", "d1.dir", "d2.dir"),)
    text = diff_render.render_markdown(found)
    assert "| data | `data/windows/train` | prior_h5, good_h5, same_h5 |" in text
    assert "| data | `data/raw/bars.parquet` | prepare |" in text


def test_a_change_of_only_the_evaluation(repository):
    repository.specs["evaluate"] = repository.spec({"alpha": 0.2})
    repository.record()
    found = repository.diff()
    assert {cell.run for cell in found.cells if cell.model in MODELS} == {"evaluated again"}
    assert found.stages["evaluate"] == (Change("parameter", "alpha", "0.1", "0.2"),)


def test_an_ensemble_is_compared_like_a_cell(repository):
    repository.ensemble = predictions(1.2, seed=9)
    repository.specs["ensembles_h5"] = repository.spec({"weights": {"good": 1.0}})
    repository.record()
    ensemble = repository.cells()["ensemble"]
    assert ensemble.run == "evaluated again"
    assert ensemble.deltas["log_loss"].verdict == "better"
    assert ensemble.changes[0] == Change("parameter", "weights.good", None, "1.0")
    assert ensemble.before["log_loss"] > ensemble.after["log_loss"]


def test_different_results_from_the_same_inputs_are_reported(repository):
    repository.frames["good"] = predictions(0.6, seed=99)
    repository.record()
    good = repository.cells()["good"]
    assert good.run == "unchanged"
    assert (
        good.note == "the results differ although the inputs are the same: something in this cell is not deterministic"
    )


def test_cells_are_added_and_removed(repository):
    repository.frames["fresh"] = repository.frames.pop("same")
    repository.specs["fresh_h5"] = repository.specs.pop("same_h5")
    repository.record()
    assert {model: cell.run for model, cell in repository.cells().items()} == {
        "prior": "unchanged",
        "good": "unchanged",
        "fresh": "new",
        "ensemble": "unchanged",
        "same": "removed",
    }


def test_only_windows_with_the_same_label_are_compared(repository):
    moved = predictions(1.2, seed=4)
    moved.loc[:49, "label"] = 0 - moved.loc[:49, "label"] + (moved.loc[:49, "label"] == 0)
    repository.frames["good"] = moved
    repository.record()
    good = repository.cells()["good"]
    assert good.windows == WINDOWS - 50
    assert f"compared on the {WINDOWS - 50} of {WINDOWS} windows with the same label in both" in good.note
    assert good.note in diff_render.render_markdown(repository.diff())


def test_no_common_window_is_reported(repository):
    later = predictions(1.2)
    later["datetime"] += pd.Timedelta("1000D")
    repository.frames["good"] = later
    repository.record()
    good = repository.cells()["good"]
    assert good.deltas is None
    assert "no test window has the same label in both: the metrics can't be compared" in good.note
    assert same_windows(later, predictions(1.2))[0] is None


# Markdown


def test_markdown_stays_short_and_counts_what_was_left_out(repository):
    repository.frames["good"] = predictions(1.2, seed=4)
    repository.frames["same"] = predictions(0.1, seed=4)
    repository.record()
    found = repository.diff()
    whole = diff_render.render_markdown(found)
    for room in (400, len(whole) - 1, len(whole) + 200):
        text = diff_render.render_markdown(found, room)
        assert len(text) <= room
        assert ("did not fit" in text) == (room < len(whole))
    big = type(found)(found.before, found.after, found.stages, found.cells * 200)
    text = diff_render.render_markdown(big)
    assert len(text) < 60_000
    assert text.count("<details>") == text.count("</details>") > 10
    assert "300 more cells moved." in text
    assert "more parts did not fit; `barcast diff main` shows all of them." in text


def test_values_do_not_break_a_table(repository):
    repository.specs["good_h5"] = repository.spec(
        {"max_depth": "a|`b`\nc", "long": "x" * 500}, code={"barcast.models": "1"}
    )
    repository.record()
    text = diff_render.render_markdown(repository.diff())
    assert "| parameter | `max_depth` 4 → a\\|'b' c | good_h5 |" in text
    assert f"= {'x' * 80}… (new)" in text
    console = Console(width=200, record=True, file=io.StringIO())
    diff_render.render_terminal(repository.diff(), console)
    assert "parameter · max_depth 4 → a|'b' c · good_h5\n" in console.export_text(clear=False)
    assert "good_h5: trained again, with the same results\n" in console.export_text()


def test_a_difference_that_rounds_to_zero_has_no_sign():
    assert diff_render.shown(-0.00001, "log_loss", signed=True) == "0.0000"
    assert diff_render.shown(-0.5, "max_drawdown", signed=True) == "−50.0%"
    assert diff_render.shown(None, "sharpe") == "–"


def test_markdown_tables_are_complete(repository):
    repository.frames["good"] = predictions(1.2, seed=4)
    repository.record()
    text = diff_render.render_markdown(repository.diff())
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) >= 2
    for lines in blocks:
        assert len({line.count("|") for line in lines if line}) == 1, lines
    assert "🟢 better" in text
    assert "1 better" in text
    assert "| Sharpe | – | – |" in text


# the command line


def test_the_command_prints_each_form(repository):
    repository.frames["good"] = predictions(1.2, seed=4)
    repository.record()
    run = CliRunner().invoke
    assert run(app, ["diff", "main", "--md"]).stdout == diff_render.render_markdown(repository.diff()) + "\n"
    cells = json.loads(run(app, ["diff", "main", "--json"]).stdout)["cells"]
    assert [cell["deltas"]["log_loss"]["verdict"] for cell in cells if cell["deltas"]] == ["better"]
    shown = run(app, ["diff", "main"]).stdout
    assert "main → workspace" in shown
    assert "good_h5" in shown
    assert "unchanged" in run(app, ["diff", "main", "HEAD"]).stdout


def test_the_terminal_shows_the_interval(repository):
    repository.frames["good"] = predictions(1.2, seed=4)
    repository.record()
    found = repository.diff()
    console = Console(width=120, record=True, file=io.StringIO())
    diff_render.render_terminal(found, console)
    cell = next(cell for cell in found.cells if cell.deltas)
    interval = diff_render.metric_row(cell, "log_loss")[3]
    assert interval.startswith("[")
    assert interval in console.export_text()


# what can be missing


def test_the_workspace_does_not_change(repository):
    repository.frames["good"] = predictions(1.2, seed=4)
    repository.record()
    before = {path: path.stat().st_mtime_ns for path in repository.root.rglob("*") if ".dvc/tmp" not in str(path)}
    repository.diff()
    after = {path: path.stat().st_mtime_ns for path in repository.root.rglob("*") if ".dvc/tmp" not in str(path)}
    assert {p for p in after if p not in before} == set()
    assert {p for p in before if p.is_file() and before[p] != after[p]} == set()


@pytest.mark.parametrize("name", ["experiments/specs", "experiments/report"])
def test_an_output_that_the_cache_lacks_is_named_with_the_remedy(repository, name):
    stages = repository.record()
    outs = {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}
    repository.object(outs[name]).unlink()
    with pytest.raises(DataError, match=rf"^main: {name} not in DVC's cache; run `dvc fetch --all-branches` if"):
        repository.diff()


def test_a_file_missing_inside_a_folder_is_missing(repository):
    old = Revision(repository.root, "main")
    repository.frames["good"] = predictions(1.2, seed=4)
    repository.record()
    out = "experiments/runs/good_h5/predictions"
    (file,) = old.files(out).values()
    repository.object(file).unlink()
    with pytest.raises(DataError, match=rf"^main: {out} not in DVC's cache"):
        repository.diff()


def test_what_the_cache_lacks_comes_from_the_remote(repository, tmp_path):
    old = Revision(repository.root, "main")
    repository.frames["good"] = predictions(1.2, seed=4)
    repository.record()
    expected = repository.cells()["good"].deltas
    folder = old.outs["experiments/runs/good_h5/predictions"]
    (file,) = old.files("experiments/runs/good_h5/predictions").values()
    remote = tmp_path / "remote"
    for hash_ in (folder, file):
        target = remote / "files/md5" / hash_[:2] / hash_[2:]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(repository.object(hash_), target)
    config = f"[core]\n    remote = there\n['remote \"there\"']\n    url = {remote}\n"
    (repository.root / ".dvc/config").write_text(config)
    assert repository.cells()["good"].deltas == expected


@pytest.mark.parametrize("name", ["mian", "HEAD~99", "HEAD^{tree}"])
def test_an_unknown_revision(repository, name):
    with pytest.raises(
        DataError, match=rf"^'{re.escape(name)}': Git knows no such revision; `git branch --all` .*`dvc exp list"
    ):
        Revision(repository.root, name)


@pytest.fixture
def experiment(repository):
    """The commit of `quick`, a better experiment on the current commit, under the reference that DVC gives it."""
    return save(repository, predictions(1.2, seed=4))


def save(repository, frame):
    def head():
        return (repository.root / ".git/refs/heads/main").read_text().strip()

    base = head()
    repository.frames["good"] = frame
    repository.record()
    repository.commit()
    made = head()
    repository.git("update-ref", str(ExpRefInfo(base, "quick")), made)
    repository.git("reset", "-q", "--hard", base)
    return made


def test_an_experiment_is_found_by_its_name(repository, experiment):
    cells = json.loads(CliRunner().invoke(app, ["diff", "main", "quick", "--json"]).stdout)["cells"]
    assert [cell["deltas"]["log_loss"]["verdict"] for cell in cells if cell["deltas"]] == ["better"]
    named = Revision(repository.root, "quick")
    assert (named.name, named.stages) == ("quick", Revision(repository.root, experiment).stages)


def test_of_experiments_with_one_name_the_one_on_the_current_commit_is_used(repository, experiment):
    first = Revision(repository.root, "quick")
    repository.git("commit", "-q", "--allow-empty", "-m", "later")
    assert Revision(repository.root, "quick").stages == first.stages
    second = save(repository, predictions(0.1, seed=4))
    assert Revision(repository.root, "quick").stages != first.stages
    repository.git("commit", "-q", "--allow-empty", "-m", "latest")
    with pytest.raises(DataError, match=r"^'quick': several experiments have this name; give one of ") as error:
        Revision(repository.root, "quick")
    refs = str(error.value).partition("give one of ")[2].split(", ")
    found = [Revision(repository.root, ref).stages for ref in refs]
    assert len(found) == 2
    assert first.stages in found
    assert Revision(repository.root, second).stages in found


def test_a_revision_from_before_the_pipeline(repository):
    repository.git("rm", "-q", "dvc.lock")
    repository.commit()
    with pytest.raises(DataError, match=r"^HEAD: has no dvc.lock; commit the one that `dvc repro` wrote"):
        Revision(repository.root, "HEAD")
    with pytest.raises(DataError, match=r"dvc.lock: no such file; run `dvc repro` first"):
        Revision(repository.root)


def test_a_repository_in_a_subfolder_of_git(tmp_path):
    root = tmp_path / "sub folder"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc/config").touch()
    (root / "dvc.lock").write_text("schema: '2.0'\nstages: {spec: {cmd: x}}\n")
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "a"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    assert Revision(root, "HEAD").stages == {"spec": {"cmd": "x"}}


def test_a_lock_without_a_report(repository):
    (repository.root / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    with pytest.raises(DataError, match=r"^workspace: its dvc.lock has no experiments/specs; run `dvc repro`"):
        repository.diff()
