"""A tiny repository with trained cells and an up-to-date lock, built in this process to save the imports."""

import os
import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import yaml
from dvc.repo import Repo

from barcast.cache.specs import write_specs
from barcast.config import validate
from barcast.data.synthetic import synthetic_bars
from barcast.evaluation.ensemble import EnsembleConfig
from barcast.evaluation.evaluator import EvaluateConfig
from barcast.paths import Paths
from barcast.stages.audit import AuditStageConfig, audit
from barcast.stages.baseline import baseline
from barcast.stages.compare import CompareConfig, compare
from barcast.stages.ensemble import ensemble
from barcast.stages.evaluate import evaluate
from barcast.stages.oof import oof
from barcast.stages.prepare import PrepareConfig, prepare
from barcast.stages.train import train
from barcast.stages.window import WindowStageConfig, write_windows
from barcast.yaml_io import load_yaml

REPOSITORY = Path(__file__).resolve().parents[1]
MODELS, HORIZON, SYMBOLS = ["prior", "logistic", "xgboost", "lightgbm", "catboost", "gru"], 5, ["AAA", "BBB"]
CHANGES = {
    "models": MODELS,
    "horizons": [HORIZON],
    "symbols": SYMBOLS,
    "label.horizons": {"h5": {"k_up": 1.0, "k_down": 1.0, "max_bars": 8}},
    "split.purge_bars": 10,
    "split.embargo_bars": 20,
    "window.seq_len": 12,
    "model.train_stride": 1,
    "model.lookback": 10,
    "model.average_seeds": 2,
    "model.learning_rate": 0.15,
    "model.max_rounds": 8,
    "model.threads": 1,
    "model.max_epochs": 2,
    "model.gru.hidden_size": 8,
    "model.gru.learning_rate": 0.0002,  # it learns next to nothing: the worse cell of the tests
    "model.xgboost.lags": [0, 1, 2],
    "model.lightgbm.lags": "all",
    "model.logistic.C": 0.01,
    "model.catboost.lags": [0, 3],
    "model.catboost.spans": [5],
    "data.audit.cuts": 1,
    "data.audit.max_feature_score": 0.95,  # the planted signal is stronger than any market's
    "tune.models": [],
    "evaluate.out_of_fold": [],
    "promote.max_ece": 0.3,
    "compare.resamples": 200,
}


def change(root, changes):
    """Replace dotted keys of params.yaml."""
    path = root / "params.yaml"
    content = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        *parents, last = key.split(".")
        level = content
        for part in parents:
            level = level.setdefault(part, {})
        level[last] = value
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def build(root):
    """Bars, every stage's outputs, Git and DVC."""
    root.mkdir(parents=True, exist_ok=True)
    for name in ("dvc.yaml", "requirements.lock", "params.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(REPOSITORY / name, root / name)
    shutil.copytree(REPOSITORY / "config", root / "config")
    shutil.copytree(REPOSITORY / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    change(root, CHANGES)
    (root / "data/raw").mkdir(parents=True)
    synthetic_bars(SYMBOLS, 2600, seed=3, signal=1.0).to_parquet(root / "data/raw/bars.parquet", index=False)
    run_stages(Paths(root))
    git(root, "init", "-q", "-b", "main")
    Repo.init(str(root)).close()
    (root / ".dvc/config").write_text("[core]\n    analytics = false\n")
    with chdir(root), Repo() as repo:
        repo.commit(force=True)
    commit(root, "trained")
    return Paths(root)


def run_stages(paths):
    """What `dvc repro` runs, without its processes."""
    write_specs(paths)

    def config(name, section):
        return validate(section, load_yaml(paths.spec(name))["config"], name)

    prepare(config("prepare", PrepareConfig), paths)
    audit(config("audit", AuditStageConfig), paths)
    write_windows(config("window", WindowStageConfig), paths)
    baseline(HORIZON, config("baseline", EvaluateConfig), paths)
    for model in MODELS:
        train(model, HORIZON, paths)
        oof(model, HORIZON, paths)
        evaluate(model, HORIZON, config("evaluate", EvaluateConfig), paths)
    ensemble(HORIZON, config(f"ensembles_h{HORIZON}", EnsembleConfig), paths)
    compare(config("compare", CompareConfig), paths)


def shell(**more):
    """A user's environment: this one's tools first, nothing set for DVC, MLflow or pytest, plus the given variables."""
    foreign = ("COV_", "DVC_", "MLFLOW_", "PYTEST_", "PYTHONPATH")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    return {**kept, "PATH": path, "OMP_NUM_THREADS": "1", **more}


def git(root, *arguments):
    """Run Git with a made-up user; its output."""
    who = ["-c", "user.name=t", "-c", "user.email=t@t"]
    done = subprocess.run(["git", *who, *arguments], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def dvc(root, *arguments):
    """Run DVC; its output."""
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def commit(root, message):
    """Commit all files that Git doesn't ignore."""
    git(root, "add", "-A")
    git(root, "commit", "-qm", message)
