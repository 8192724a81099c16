"""The whole pipeline through real DVC and a real MLflow store, on tiny bars, in a repository of its own.

The tests of this file follow one another in one repository: first a full run, then edits to it.
"""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

import _served
from _preloaded import preloaded
from barcast.data.synthetic import synthetic_bars

REPOSITORY = Path(__file__).resolve().parents[1]
MODELS, HORIZON = ["prior", "logistic", "xgboost", "lightgbm"], 5
TREES, ALL = {"xgboost", "lightgbm"}, set(MODELS)
SHARED = {"spec", "prepare", "audit", "window", "tune@logistic-5", "baseline@5", "ensemble@5", "compare"}
SMALL = {
    "models": MODELS,
    "horizons": [HORIZON],
    "symbols": ["AAA", "BBB"],
    "label.horizons": {
        "h5": {"k_up": 1.0, "k_down": 1.0, "max_bars": 8},
        "h20": {"k_up": 2.0, "k_down": 2.0, "max_bars": 10},
    },
    "split.purge_bars": 10,
    "split.embargo_bars": 20,
    "window.seq_len": 12,
    "model.train_stride": 1,
    "model.learning_rate": 0.15,
    "model.max_rounds": 4,
    "model.max_depth": 4,
    "model.threads": 1,
    "model.xgboost.max_depth": None,  # this and the next two: the shared ones
    "model.xgboost.colsample": None,
    "model.xgboost.subsample": None,
    "model.xgboost.min_child_weight": 5.0,
    "model.xgboost.lags": [0, 1, 2],
    "model.lightgbm.lags": [0, 1, 2],
    "data.audit.cuts": 1,
    "data.audit.max_feature_score": 0.95,  # the planted signal is stronger than any market's
    "tune.models": ["logistic"],
    "tune.n_trials": 3,
    "tune.folds": {"scheme": "expanding", "count": 2, "first_train": 0.5, "embargo_bars": 2},
    "evaluate.out_of_fold": "all",
    "compare.resamples": 200,
}


class Repository:
    """A barcast repository with its own sources, and what a user types in it."""

    def __init__(self, root, bin_folder):
        self.root = root
        who = {f"GIT_{role}_{key}": "t" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
        self.environment = _served.shell(PYTHONPATH=str(root / "src"), COLUMNS="120", **who)
        self.quick = {**self.environment, "PATH": f"{bin_folder}:{self.environment['PATH']}"}  # see `_preloaded`

    def run(self, *command, ok=True, plain=False):
        environment = self.environment if plain else self.quick
        done = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, check=False)
        output = done.stdout + done.stderr
        if ok:
            assert done.returncode == 0, output
        else:
            assert done.returncode != 0, output
        return output

    def repro(self, *arguments, ok=True):
        """`dvc repro`; the stages that really ran."""
        output = self.run("dvc", "repro", *arguments, ok=ok)
        return set(re.findall(r"Running stage '([^']+)'", output)), output

    def commit(self, message):
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", message)

    def lock(self):
        return (self.root / "dvc.lock").read_bytes()

    def set(self, **changes):
        _served.change(self.root, changes)

    def edit(self, name, old, new):
        path = self.root / "src/barcast" / name
        assert old in path.read_text(), f"{name} has no {old!r}"
        path.write_text(path.read_text().replace(old, new, 1))

    def cells_to_train(self):
        """The models whose cells would train again, once specs and windows have seen the change."""
        self.run("dvc", "repro", "--quiet", "spec", "window")
        status = json.loads(self.run("dvc", "status", "--json"))
        return set(re.findall(r"train@(\w+)-5\b", " ".join(status)))

    def runs(self):
        """(cell, status) of every MLflow run that is not deleted."""
        with sqlite3.connect(self.root / "experiments/mlflow/mlflow.db") as store:
            query = (
                "select t.value, r.status from runs r join tags t on t.run_uuid = r.run_uuid "
                "where t.key = 'cell' and r.lifecycle_stage = 'active'"
            )
            return sorted(store.execute(query).fetchall())


def build(root, bin_folder):
    for name in ("dvc.yaml", "requirements.lock", "params.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(REPOSITORY / name, root / name)
    shutil.copytree(REPOSITORY / "config", root / "config")
    shutil.copytree(REPOSITORY / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copytree(REPOSITORY / ".ci", root / ".ci", ignore=shutil.ignore_patterns("__pycache__"))
    repository = Repository(root, bin_folder)
    repository.set(**SMALL)
    (root / "data/raw").mkdir(parents=True)
    bars = synthetic_bars(["AAA", "BBB"], 900, seed=3, signal=1.0)
    bars.to_parquet(root / "data/raw/bars.parquet", index=False)
    repository.run("git", "init", "-q", "-b", "main")
    repository.run("dvc", "init", "-q")
    for setting in ("analytics", "check_update"):
        repository.run("dvc", "config", f"core.{setting}", "false")
    shutil.copytree(REPOSITORY / ".dvc/plots", root / ".dvc/plots")
    repository.commit("start")
    return repository


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    with preloaded(tmp_path_factory.mktemp("bin") / "bin") as bin_folder:
        repository = build(tmp_path_factory.mktemp("repository"), bin_folder)
        ran, output = repository.repro()
        repository.first_run, repository.first_output = ran, output
        repository.commit("first run")
        yield repository


@pytest.fixture
def edited(repository):
    """The repository, put back as it was committed when the test ends."""
    yield repository
    repository.run("git", "reset", "-q", "--hard")
    repository.run("dvc", "checkout", "--force", "--quiet")


def test_one_command_runs_every_stage_and_leaves_nothing_out_of_date(repository):
    cells = {f"{stage}@{model}-5" for stage in ("train", "oof", "evaluate") for model in MODELS}
    assert repository.first_run == cells | SHARED
    assert "up to date" in repository.run("dvc", "status")
    assert repository.repro()[0] == set()
    for model in MODELS:
        assert re.search(rf"{model}_h5: validation log-loss \d\.\d+ in", repository.first_output)


def test_every_cell_has_its_files(repository):
    for model in MODELS:
        run = repository.root / f"experiments/runs/{model}_h5"
        metrics = json.loads((run / "metrics/metrics.json").read_text())
        prior = json.loads((repository.root / "experiments/runs/prior_h5/metrics/metrics.json").read_text())
        for split in ("val", "test"):
            predictions = pd.read_parquet(run / f"predictions/{split}_predictions.parquet")
            assert predictions[["p_down", "p_flat", "p_up"]].sum(axis=1).between(1 - 1e-9, 1 + 1e-9).all()
            assert len(predictions) > 50
            assert metrics["prior"][split] == prior[split]
        assert {p.name for p in run.iterdir()} == {"checkpoints", "live", "metrics", "plots", "predictions"}
        folds = pd.read_parquet(repository.root / f"experiments/oof/{model}_h5/predictions.parquet")
        assert metrics["folds"]["windows"] == len(folds) > 50
        assert len(metrics["folds"]["by_fold"]) == 2
    assert json.loads((repository.root / "experiments/audit.json").read_text())["passed"] is True


def test_no_output_holds_a_machine_path(repository):
    tracked = [*(repository.root / "experiments/runs").rglob("*"), *(repository.root / "experiments/report").rglob("*")]
    for path in [*tracked, *(repository.root / "data/splits").rglob("*"), repository.root / "dvc.lock"]:
        if path.is_file():
            assert str(repository.root).encode() not in path.read_bytes(), path


def test_the_trees_find_the_planted_signal(repository):
    board = {
        model: json.loads((repository.root / f"experiments/runs/{model}_h5/metrics/metrics.json").read_text())
        for model in MODELS
    }
    for model in TREES:
        assert board[model]["val"]["log_loss"] < board["prior"]["val"]["log_loss"]


def test_rows_are_ranked_out_of_fold_and_on_validation_and_the_ensemble_is_one(repository):
    board = json.loads((repository.root / "experiments/report/leaderboard.json").read_text())["horizons"]["h5"]
    assert {row["model"] for row in board} == {*MODELS, "ensemble"}
    assert [row["score"] for row in board] == sorted(row["score"] for row in board)
    for row in board:
        folder = "ensembles/h5/ensemble" if row["model"] == "ensemble" else f"runs/{row['model']}_h5"
        metrics = json.loads((repository.root / f"experiments/{folder}/metrics/metrics.json").read_text())
        folds, ranked = metrics["folds"], metrics["windows"]["ranked"]
        total = folds["log_loss"] * folds["windows"] + metrics["val"]["log_loss"] * ranked
        assert row["score"] == pytest.approx(total / (folds["windows"] + ranked))
    weights = json.loads((repository.root / "experiments/ensembles/h5/weights.json").read_text())["ensemble"]
    assert set(weights["weights"]) == set(MODELS) - {"prior"}
    assert sum(weights["weights"].values()) == pytest.approx(1)


def test_every_trial_is_counted(repository):
    trials = json.loads((repository.root / "experiments/report/overfitting.json").read_text())["trials"]
    assert trials["tuning"] == 3
    assert trials["total"] == len(MODELS) + 1 + 3


def test_adopting_a_study_trains_that_cell_alone(edited):
    output = edited.run("barcast", "adopt", "tune@logistic-5", "--params")
    assert "+++ b/params.yaml" in output
    best = yaml.safe_load((edited.root / "experiments/tune/logistic_h5/best_params.yaml").read_text())
    adopted = yaml.safe_load((edited.root / "params.yaml").read_text())["model"]["logistic"]
    assert adopted["h5"] == best["model"]["logistic"]["h5"]
    shared = {key: adopted[key] for key in adopted["h5"]}
    assert edited.cells_to_train() == (set() if shared == adopted["h5"] else {"logistic"})


def test_metrics_are_few_enough_to_read(repository):
    shown = repository.run("dvc", "metrics", "show")
    assert "h5.best" in shown
    assert "h5.score" in shown
    assert max(map(len, shown.splitlines())) <= 120


def test_an_edit_trains_just_the_cells_that_it_can_change(edited):
    """`test_exactness.py` has the whole table; here DVC decides."""
    edited.set(**{"model.xgboost.max_depth": 2, "evaluate.cost_bps": 1.0})
    edited.edit("models/base.py", "\nclass ", "\n# why\nclass ")
    edited.edit("evaluation/metrics.py", "\nimport numpy", "\nimport csv\nimport numpy")
    assert edited.cells_to_train() == {"xgboost"}


def test_seeds_repeat_the_cells_and_train_none_of_them_again(edited):
    models = ["prior", "xgboost"]
    edited.set(models=models, **{"evaluate.seeds": [1]})
    ran, _ = edited.repro()
    assert ran == {"spec", "ensemble@5", "compare", *(f"repeat@{model}-5-1" for model in models)}
    for model in models:  # of the cell's own seed
        own, other = (
            json.loads((edited.root / f"experiments/runs/{model}_h5/{folder}/metrics/metrics.json").read_text())
            for folder in ("", "repeats/s1")
        )
        assert own["folds"]["windows"] == other["folds"]["windows"]
    rows = json.loads((edited.root / "experiments/report/leaderboard.json").read_text())["horizons"]["h5"]
    spread = {row["model"]: row["seeds"] for row in rows}
    assert spread["prior"]["sd"] < 1e-12 < spread["xgboost"]["sd"]
    edited.set(**{"evaluate.seeds": []})
    assert edited.repro()[0] == {"spec", "ensemble@5", "compare"}
    assert not list((edited.root / "experiments/runs").glob("*/repeats/s1"))


def test_an_experiment_runs_only_what_its_override_changes(edited):
    output = edited.run("dvc", "exp", "run", "--name", "deeper", "-S", "model.xgboost.max_depth=5")
    ran = set(re.findall(r"Running stage '([^']+)'", output))
    assert ran == {"spec", "train@xgboost-5", "oof@xgboost-5", "evaluate@xgboost-5", "ensemble@5", "compare"}
    assert "deeper" in edited.run("dvc", "exp", "show", "--only-changed", "--no-pager")
    diff = edited.run("dvc", "metrics", "diff", "main", "--md").splitlines()
    assert re.match(r"\| Path +\| Metric +\| main +\| workspace +\| Change", diff[0])
    assert all("experiments/metrics.json" in line for line in diff[2:] if line)
    assert max(map(len, diff)) <= 120


def test_a_change_is_run_told_in_one_comment_and_drawn_by_dvc(edited):
    edited.set(**{"model.xgboost.max_depth": 3})
    output = edited.run(".ci/experiment", "main", "build/experiment", plain=True)
    assert set(re.findall(r"Running stage '([^']+)'", output)) >= {"spec", "train@xgboost-5", "compare"}
    comment = (edited.root / "build/experiment/comment.md").read_text()
    assert comment.startswith("<!-- barcast -->\n> **dvc.lock is out of date.**")
    assert "### `main` → `workspace`" in comment
    # the ensemble is evaluated again: it has a new member
    assert "5 cells: 1 trained again, 1 evaluated again, 3 unchanged." in comment
    assert re.search(r"\| `xgboost_h5` \| trained again \| \d\.\d+ \| \d\.\d+ \|.*(better|worse|noise)", comment)
    assert "| parameter | `max_depth` 4 → 3 | xgboost_h5 |" in comment
    picture = edited.root / "build/experiment/leaderboard.png"
    assert picture.exists() == bool(shutil.which("chromium") or shutil.which("google-chrome"))
    edited.run("dvc", "plots", "diff", "main", "--out", "build/plots")
    page = (edited.root / "build/plots/index.html").read_text()
    assert all(f"plots/confusion/{model}_h5.csv" in page for model in MODELS)
    assert "plots/learning/h5.tsv" in page
    assert '"rev": "main"' in page
    assert '"rev": "workspace"' in page


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.max_dept=8", "Could not override 'model.max_dept'"),
        ("+model.max_dept=8", "params.yaml: unknown key 'model.max_dept'; did you mean 'max_depth'?"),
        ("model.max_depth=deep", "params.yaml: model.max_depth = 'deep': expected a valid integer"),
    ],
)
def test_a_bad_override_is_refused_before_any_training(edited, override, message):
    output = edited.run("dvc", "exp", "run", "-S", override, ok=False)
    assert message in output
    assert "Traceback" not in output
    assert "Running stage 'train" not in output


def test_barcast_run_names_the_nearest_key(edited):
    output = edited.run("barcast", "run", "-S", "model.max_dept=8", ok=False)
    assert output == "error: params.yaml: unknown key 'model.max_dept'; did you mean 'max_depth'?\n"


def test_running_everything_again_leaves_the_lock_as_it_was(repository):
    before = repository.lock()
    ran, _ = repository.repro("--force")
    assert ran == repository.first_run
    assert repository.lock() == before


@pytest.fixture
def forgetful(edited):
    """The repository without its lock and run cache, which is given back when the test ends."""
    (edited.root / "dvc.lock").unlink()
    cache = edited.root / ".dvc/cache/runs"
    cache.rename(cache.with_name("aside"))
    yield edited
    shutil.copytree(cache.with_name("aside"), cache, dirs_exist_ok=True)
    shutil.rmtree(cache.with_name("aside"))


def test_killed_in_the_middle_of_a_cell_it_goes_on_from_there(forgetful):
    targets, started = ("train@prior-5", "train@xgboost-5"), []
    process = subprocess.Popen(
        ["dvc", "repro", *targets],
        cwd=forgetful.root,
        env=forgetful.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    for line in process.stdout:
        started += re.findall(r"Running stage '([^']+)'", line)
        if "train@xgboost-5" in started:
            time.sleep(1)
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (forgetful.root / "experiments/runs/xgboost_h5/checkpoints/model").exists()
    ran, _ = forgetful.repro(*targets)
    assert ran & set(started) == {"train@xgboost-5"}
    assert ran | set(started) == {"spec", "prepare", "audit", "window", *targets}
    forgetful.run("git", "checkout", "-q", "dvc.lock")
    assert "up to date" in forgetful.run("dvc", "status", *targets)


def test_every_cell_is_in_mlflow_and_sync_adds_nothing_twice(repository):
    repository.run("barcast", "sync")
    runs = repository.runs()
    finished = {cell for cell, status in runs if status == "FINISHED"}
    assert finished == {f"{model}_h5" for model in MODELS}
    repository.run("barcast", "sync")
    assert repository.runs() == runs


def test_a_cell_restored_from_the_cache_appears_in_mlflow_once(edited):
    shutil.rmtree(edited.root / "experiments/mlflow")
    (edited.root / "dvc.lock").unlink()
    ran, output = edited.repro()
    assert not ran
    assert output.count("is cached - skipping run") == len(edited.first_run)
    edited.run("barcast", "sync")
    edited.run("barcast", "sync")
    assert edited.runs() == [(cell, "FINISHED") for cell in sorted(f"{model}_h5" for model in MODELS)]


def test_training_ends_well_while_mlflow_is_unreachable(edited):
    edited.quick["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    try:
        edited.set(seed=11)
        ran, output = edited.repro("train@prior-5")
    finally:
        del edited.quick["MLFLOW_TRACKING_URI"]
    assert "train@prior-5" in ran
    assert "barcast sync" in output
    assert "Traceback" not in output


def test_a_failed_audit_stops_the_pipeline(edited):
    edited.set(**{"data.audit.max_feature_score": 0.501})
    _, output = edited.repro(ok=False)
    assert "Running stage 'window'" not in output
    assert re.search(r"error: .*predicts label_h5", output)


def test_queued_experiments_share_the_cache_and_the_store(edited):
    edited.run("dvc", "exp", "run", "--queue", "-S", "model.xgboost.max_depth=6,7", "train@xgboost-5")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # the workers would keep a pipe open
    subprocess.run(["dvc", "queue", "start", "-j", "2"], cwd=edited.root, env=edited.environment, check=True, **quiet)
    deadline = time.monotonic() + 150
    while "Queued" in (status := edited.run("dvc", "queue", "status")) or "Running" in status:
        assert time.monotonic() < deadline, status
        time.sleep(2)
    assert status.count("Success") == 2, edited.run("dvc", "queue", "logs", "1")
    shown = edited.run("dvc", "exp", "show", "--only-changed", "--csv")
    assert "model.xgboost.max_depth" in shown
    assert [cell for cell, status in edited.runs()].count("xgboost_h5") == 3
