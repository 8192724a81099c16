"""The tutorial's commands run, links lead somewhere, and CONTRIBUTING.md tells the truth."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
from ruamel.yaml import YAML

import _served
from _preloaded import preloaded
from barcast.cli import app
from barcast.data.synthetic import synthetic_bars
from barcast.files import read_json
from barcast.paths import Paths
from barcast.yaml_io import load_yaml
from conftest import REPOSITORY

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "data/raw/*.md", ".github/**/*.md")
    for path in REPOSITORY.glob(pattern)
)
NAMES = [path.relative_to(REPOSITORY).as_posix() for path in PAGES]
SMALL = {  # of params.yaml: what makes the tutorial quick on few bars; all else is as committed
    "label.horizons.h5": {"k_up": 1.0, "k_down": 1.0, "max_bars": 8},
    "split.purge_bars": 20,
    "split.embargo_bars": 20,
    "window.seq_len": 24,
    "model.threads": 1,
    "data.audit.cuts": 1,
    "data.audit.max_feature_score": 0.95,  # the planted signal is stronger than any market's
    "model.patience": 10,
    "tune.folds.embargo_bars": 2,
    "promote.max_ece": 0.3,
}
QUICK = {  # of config/experiments/quick.yaml
    "models": ["prior", "lightgbm"],
    "model.max_rounds": 3,
    "model.lightgbm.train_stride": 2,
}


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def override(path: Path, changes: dict[str, Any]) -> None:
    """Replace dotted keys; comments and layout stay, since DVC must cope with them too."""
    yaml = YAML()
    content = yaml.load(path)
    for key, value in changes.items():
        *parents, last = key.split(".")
        level = content
        for part in parents:
            level = level[part]
        level[last] = value
    yaml.dump(content, path)


@pytest.fixture
def clone(tmp_path):
    """What a user has after `git clone`, with fewer bars and fewer models."""
    root = tmp_path / "clone"
    shutil.copytree(REPOSITORY / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copytree(REPOSITORY / "config", root / "config")
    for name in ("dvc.yaml", "params.yaml", "requirements.lock", ".gitignore", ".dvcignore"):
        shutil.copy(REPOSITORY / name, root / name)
    override(root / "params.yaml", SMALL)
    override(root / "config/experiments/quick.yaml", QUICK)
    (root / "data/raw").mkdir(parents=True)
    synthetic_bars(["BTC", "ETH"], 4000, seed=3, signal=1.0).to_parquet(root / "data/raw/bars.parquet", index=False)
    for name in ("oof", "tune"):
        (root / "experiments" / name).mkdir(parents=True)
        (root / "experiments" / name / ".gitkeep").touch()
    _served.git(root, "init", "-q", "-b", "main")
    _served.dvc(root, "init", "-q")
    _served.dvc(root, "config", "core.analytics", "false")
    _served.git(root, "config", "user.name", "t")
    _served.git(root, "config", "user.email", "t@t")
    _served.commit(root, "cloned")
    return Paths(root)


def test_the_tutorial_can_be_followed(clone, tmp_path):
    commands = blocks(REPOSITORY / "docs/tutorial.md", "bash")
    assert len(commands) >= 10
    with preloaded(tmp_path / "bin") as bin_folder:
        environment = _served.shell(PYTHONPATH=str(clone.root / "src"))
        environment["PATH"] = f"{bin_folder}:{environment['PATH']}"
        for block in commands:
            done = subprocess.run(
                ["bash", "-euxc", block], cwd=clone.root, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
    predictions = pd.read_parquet(clone.root / "predictions.parquet")
    assert {"prediction", "p_down", "p_flat", "p_up", "uncertainty"} <= set(predictions)
    assert read_json(clone.registry(5) / "metadata.json")["cell"].endswith("_h5")


@pytest.mark.parametrize("page", NAMES)
def test_links_lead_to_files_and_headings(page):
    path = REPOSITORY / page
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"\w+:", target):
            continue
        name, _, heading = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), f"{page}: {target}"
        assert not heading or heading in headings(file), f"{page}: {target}"


@pytest.mark.parametrize("page", NAMES)
def test_modules_that_pages_name_exist(page):
    text = prose(REPOSITORY / page)
    for name in re.findall(r"`(barcast(?:\.\w+)+)", text):
        known = importlib.util.find_spec("barcast")
        for part in name.split(".")[1:]:
            if not (known and known.submodule_search_locations):
                break  # a name inside a module
            parent, known = known, importlib.util.find_spec(f"{known.name}.{part}")
            assert known or part in Path(str(parent.origin)).read_text(encoding="utf-8"), f"{page}: {name}"
    for name in re.findall(r"`((?:src|tests|config|\.ci)/[\w/.-]+)`", text):
        assert (REPOSITORY / name).exists(), f"{page}: {name}"


def prose(path: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def headings(path: Path) -> set[str]:
    """A page's headings, as links name them."""
    names = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-") for name in names}


def test_the_readme_is_one_page_and_the_index_lists_every_page():
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
    index = (REPOSITORY / "docs/README.md").read_text(encoding="utf-8")
    missing = [path.name for path in (REPOSITORY / "docs").glob("*.md") if f"({path.name})" not in index]
    assert missing == ["README.md"]


@pytest.mark.parametrize("page", NAMES)
def test_commands_and_targets_that_pages_name_exist(page):
    commands = set(typer.main.get_command(app).commands)
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    for command in re.findall(r"(?:`|^)barcast ([a-z]+)", text, re.MULTILINE):
        assert command in commands, f"{page}: barcast {command}"
    targets = set(re.findall(r"^([a-z]+):.*##", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE):
        assert target in targets, f"{page}: make {target}"


# The most files that a newcomer touches, and one more for a model that is tuned.
MOST = {"model": 3, "feature": 1, "metric": 1, "stage": 3, "data source": 3}


@pytest.mark.parametrize("kind", MOST)
def test_a_checklist_names_few_files_and_they_exist(kind):
    section = contributing(kind)
    files = re.findall(r"^- \[ \] `([^`]+)`", section, re.MULTILINE)
    assert 1 <= len(files) <= MOST[kind]
    for name in files + re.findall(r"`((?:src|tests|docs)/[^`{]+\.(?:py|md))`", section):
        there = REPOSITORY / name
        assert there.parent.is_dir() if "{" in name else there.is_file(), f"CONTRIBUTING.md, {kind}: {name}"


def contributing(kind: str) -> str:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.search(rf"^## Add an? {kind}$(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
    assert found, f"CONTRIBUTING.md: no section on how to add a {kind}"
    return found[1]


def example(kind: str, language: str = "python") -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", contributing(kind), re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def sandbox(tmp_path):
    """Sources and parameters to edit, and `run(*arguments)` for a Python that uses them."""
    shutil.copytree(REPOSITORY / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    for name in ("params.yaml", "requirements.lock"):
        shutil.copy(REPOSITORY / name, tmp_path / name)

    def run(*arguments: str) -> str:
        environment = _served.shell(PYTHONPATH=str(tmp_path / "src"), COLUMNS="200")
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return tmp_path, run


def insert(path: Path, before: str, text: str) -> None:
    content = path.read_text(encoding="utf-8")
    assert content.count(before) == 1, f"{path}: {before}"
    path.write_text(content.replace(before, text + before), encoding="utf-8")


def test_a_model_added_as_described_is_listed_and_gets_its_specs(sandbox):
    root, run = sandbox
    (root / "src/barcast/models/uniform.py").write_text(example("model"), encoding="utf-8")
    block = example("model", "yaml").splitlines()[-1]
    insert(root / "params.yaml", "  prior: {}\n", f"  {block}\n")
    insert(root / "params.yaml", "models: [prior, logistic", "models: [uniform]\n# ")
    listed = run("-m", "barcast.cli", "models")
    assert re.search(r"uniform\W+baseline\W+The same probability for each class", listed)
    assert run("-m", "barcast.stages.spec").splitlines()[-1] == "2 cells: 1 models × 2 horizons"
    assert (root / "experiments/specs/uniform_h5.yaml").is_file()


def test_a_feature_added_as_described_is_a_column(sandbox):
    root, run = sandbox
    code = example("feature")
    with (root / "src/barcast/data/_activity.py").open("a", encoding="utf-8") as file:
        file.write(f"\n\n{code}")
    names = run(
        "-c",
        "from pathlib import Path;"
        "from barcast.data.features import feature_names;"
        "from barcast.params import load_params;"
        "print(*feature_names(load_params(Path('params.yaml')).data.features))",
    )
    assert {"volume_rise_1", "volume_rise_5"} <= set(names.split())


def test_a_metric_added_as_described_is_computed_in_both_forms(sandbox):
    root, run = sandbox
    insert(root / "src/barcast/evaluation/metrics.py", ")}\n# fmt: on", f"{example('metric').rstrip()},\n")
    value = run(
        "-c",
        "from barcast.evaluation.metrics import METRICS, classification_metrics;"
        "assert METRICS['confidence'].resampled;"
        "print(classification_metrics([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]], [1, -1], 5)['confidence'])",
    )
    assert float(value) == pytest.approx(0.6)


def test_every_stage_has_the_three_files_of_its_checklist():
    stages = load_yaml(REPOSITORY / "dvc.yaml")["stages"]
    table = (REPOSITORY / "src/barcast/cache/specs.py").read_text(encoding="utf-8")
    for name, stage in stages.items():
        assert stage["cmd"].split()[:3] == ["python", "-m", f"barcast.stages.{name}"]
        assert (REPOSITORY / f"src/barcast/stages/{name}.py").is_file()
        assert name == "spec" or f'"{name}": StageSpec(' in table, f"cache/specs.py: no row for {name}"


def test_no_committed_text_names_a_package_index():
    tracked = _served.git(REPOSITORY, "ls-files").split()
    hosts = ("pypi" + ".org/simple", "files." + "pythonhosted", "--index" + "-url", "--extra-index" + "-url")
    for name in tracked:
        path = REPOSITORY / name
        if path.is_file() and path.suffix not in (".png", ".parquet"):
            text = path.read_text(encoding="utf-8", errors="replace")
            assert not any(host in text for host in hosts), name
