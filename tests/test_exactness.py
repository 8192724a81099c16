"""A cell trains again when, and only when, something that can change its numbers changed."""

import ast
import inspect
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import barcast
from barcast.cache import fingerprint
from barcast.cache.fingerprint import Fingerprinter
from barcast.cache.specs import write_specs
from barcast.data.windows import Windows
from barcast.models.registry import ModelRegistry
from barcast.paths import Paths

SOURCE = Path(barcast.__file__).parents[1]
TREES, NETWORKS = {"xgboost", "lightgbm"}, {"gru", "nhits"}
ALL = {"prior", "logistic", *TREES, *NETWORKS}
CORE = (  # what can change a cell's numbers
    "section",
    "probabilities",
    "errors",
    "data.windows",
    "data.dataset",
    "models",
    "networks",
    "training.trainer",
    "training.loop",
    "training.loop_config",
    "training.batches",
    "training.session",
)


def edit(name, old, new):
    """An edit of one source file, as `(source folder) -> None`."""

    def apply(source):
        path = source / "barcast" / name
        assert old in path.read_text(), f"{name} has no {old!r}"
        path.write_text(path.read_text().replace(old, new, 1))

    return apply


def append(name):
    """A line of code more at the end of a source file."""

    def apply(source):
        path = source / "barcast" / name
        path.write_text(path.read_text() + "\nX = 1\n")

    return apply


EDITS = [
    ("one model", append("models/xgboost.py"), {"xgboost"}),
    ("what boosters share", edit("models/_gbdt.py", "\nimport ", "\nimport csv\nimport "), TREES),
    ("what all models share", edit("probabilities.py", "EPSILON = 1e-15", "EPSILON = 1e-14"), ALL),
    ("a comment", edit("models/base.py", "\nclass ", "\n# why\nclass "), set()),
    ("a message of a model", edit("models/base.py", "called before fit", "called too early"), set()),
    ("the loop", edit("training/loop.py", "PREDICT_BATCH = 512", "PREDICT_BATCH = 256"), NETWORKS),
    ("an architecture", append("networks/nhits.py"), {"nhits"}),
    ("windows", append("data/windows.py"), ALL),
    ("the trainer", append("training/trainer.py"), ALL),
    ("a message in config.py", edit("config.py", "did you mean", "perhaps"), set()),
    ("code in config.py", append("config.py"), set()),
    (
        "a property in paths.py",
        edit("paths.py", "    @property", "    @property\n    def more(self): ...\n\n    @property"),
        set(),
    ),
    ("atomic writes", append("files.py"), set()),
    ("registry lookup", append("models/registry.py"), set()),
    ("callbacks", append("training/callbacks.py"), set()),
    ("progress", append("training/progress.py"), set()),
    ("resume checkpoints", append("training/resume_checkpoint.py"), set()),
    ("the tracker", append("tracking/__init__.py"), set()),
    ("a metric", append("evaluation/metrics.py"), set()),
    ("a column of the report", append("report/columns.py"), set()),
    ("the stage that trains", append("stages/train.py"), set()),
]
PARAMETERS = [
    ({"model.max_depth": 2}, {"lightgbm"}),  # xgboost has its own
    ({"model.xgboost.max_depth": 2}, {"xgboost"}),
    ({"seed": 7}, ALL),
    ({"model.threads": 1, "model.xgboost.threads": 3}, {"prior"}),
    ({"model.gru.threads": 2}, {"gru"}),  # other digits
    ({"evaluate.cost_bps": 1.0}, set()),
    ({"evaluate.seeds": [1]}, set()),
    ({"compare.level": 0.9}, set()),
    ({"horizons": [5, 20]}, set()),
]
RELEASES = [
    ("xgboost", {"xgboost"}),
    ("torch", NETWORKS),
    ("neuralforecast", {"nhits"}),
    ("scipy", {"logistic"}),
    ("numpy", ALL),
    *(
        (name, set())
        for name in ("dvclive", "mlflow", "pandera", "arch", "jinja2", "pyyaml", "numba", "optuna", "rich")
    ),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the package's source."""
    folder = tmp_path_factory.mktemp("source")
    shutil.copytree(SOURCE / "barcast", folder / "barcast", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def cells(write_params, tmp_path):
    """The content of each cell's spec."""

    def read(reader, changes=None):
        write_params({"models": sorted(ALL), "horizons": [5], **(changes or {})})
        write_specs(Paths(tmp_path), reader)
        return {model: Paths(tmp_path).spec(f"{model}_h5").read_bytes() for model in ALL}

    return read


@pytest.fixture(scope="module")
def reader():
    return Fingerprinter(SOURCE)


def changed(before, after):
    return {model for model in before if before[model] != after[model]}


@pytest.mark.parametrize(("change", "expected"), [row[1:] for row in EDITS], ids=[row[0] for row in EDITS])
def test_an_edit_trains_just_the_cells_that_it_can_change(cells, reader, source, change, expected):
    before = cells(reader)
    originals = {path: path.read_text() for path in source.rglob("*.py")}
    try:
        change(source)
        after = cells(Fingerprinter(source))
    finally:
        for path, text in originals.items():
            if path.read_text() != text:
                path.write_text(text)
    assert changed(before, after) == expected


@pytest.mark.parametrize(("changes", "expected"), PARAMETERS, ids=[" ".join(row[0]) for row in PARAMETERS])
def test_a_parameter_trains_just_the_cells_that_it_can_change(cells, reader, changes, expected):
    assert changed(cells(reader), cells(reader, changes)) == expected


@pytest.mark.parametrize(("library", "expected"), RELEASES, ids=[row[0] for row in RELEASES])
def test_a_release_of_a_library_trains_just_the_cells_that_use_it(cells, reader, monkeypatch, library, expected):
    before, version = cells(reader), fingerprint.distribution_version
    monkeypatch.setattr(
        fingerprint, "distribution_version", lambda name: "999" if name.lower() == library else version(name)
    )
    assert changed(before, cells(reader)) == expected


@pytest.mark.parametrize("model", ModelRegistry.list_models())
def test_a_cells_code_is_the_core_and_nothing_else(reader, model):
    code = reader.fingerprint("barcast.training.trainer", ModelRegistry.get_metadata(model).module).code
    core = tuple(f"barcast.{name}" for name in CORE)
    assert [
        name for name in code if name not in core and not name.startswith(("barcast.models.", "barcast.networks."))
    ] == []
    assert "barcast.models.registry" not in code


@pytest.mark.parametrize(("model", "modules", "lines", "libraries"), [("xgboost", 12, 1300, 4), ("tft", 18, 2050, 6)])
def test_what_can_change_a_cell_stays_small(reader, model, modules, lines, libraries):
    found = reader.fingerprint("barcast.training.trainer", f"barcast.models.{model}")
    texts = [reader._path(name).read_text() for name in found.code]
    assert len(found.code) <= modules
    assert sum(len(text.splitlines()) for text in texts) <= lines
    assert len(found.libraries) <= libraries


def test_a_step_of_a_network_is_at_most_six_calls_from_the_stage(monkeypatch, tmp_path):
    """The stage's `train`, the trainer's, the model's `fit` and `_fit`, the loop, the step."""
    from barcast.training import loop
    from test_network_models import create

    depths = []
    step = loop._Stepper.step

    def watched(self, positions):
        names = []
        frame = sys._getframe()
        while frame:
            if "src/barcast" in frame.f_code.co_filename:
                names.append(frame.f_code.co_name)
            frame = frame.f_back
        depths.append(names)
        return step(self, positions)

    monkeypatch.setattr(loop._Stepper, "step", watched)
    rng = np.random.default_rng(0)
    model = create("gru", max_epochs=1, average_seeds=1)
    X = Windows(rng.standard_normal((60, 2)).astype(np.float32), np.arange(20, 60), 12)
    y = rng.integers(-1, 2, 40)
    model.fit(X, y, X, y)
    assert depths[0] == ["fit_network", "_fit", "fit"]  # above them: Trainer.train and the stage's train
    text = ast.dump(ast.parse(inspect.getsource(step).lstrip()))
    assert (
        "func=Attribute(value=Attribute(value=Name(id='self', ctx=Load()), attr='network'" in text
    )  # called in `step`
