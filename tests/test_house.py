"""The rules of the house: imports point down, names are used once, stages are thin."""

import ast
import graphlib
import re
from collections import Counter
from pathlib import Path

import pytest

import barcast
from barcast.cache.fingerprint import Fingerprinter
from barcast.cache.specs import STAGES
from barcast.models.registry import ModelRegistry

SOURCE = Path(barcast.__file__).parents[1]
READER = Fingerprinter(SOURCE)
MODULES = [
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(SOURCE.rglob("barcast/**/*.py"))
]
LAYERS = [  # top to bottom; a module is in the layer of its longest matching name
    ["cli"],
    ["stages", "doctor", "adopt"],
    ["experiments"],
    ["revisions"],
    ["serving"],
    ["report"],
    ["tracking"],
    ["cache"],
    ["params"],
    ["audit", "comparison", "tuning"],
    ["evaluation"],
    ["training"],
    ["models"],
    ["training.loop", "training.loop_config", "training.batches", "training.session"],  # the loop, which models use
    ["networks"],
    ["data"],
    ["config", "paths", "files", "yaml_io"],
    ["section", "probabilities", "errors"],
]
# What reads settings, names paths, formats, tracks or shows: no computing module imports it.
PLUMBING = ("cache", "cli", "config", "files", "params", "paths", "stages", "tracking", "yaml_io")
ENTRIES = ("cli", "stages")  # a command and a stage bear the name of what they call


def imports(module):
    """The modules of the package that a module imports, packages without code left out."""
    _, names = READER._read(module)
    used = {each for name in names if name.startswith("barcast") for each in READER._local(name)}
    return {each for each in used if READER._path(each).name != "__init__.py"} - {module}


def level(module):
    name = module.removeprefix("barcast.")
    matches = [
        (len(each), depth)
        for depth, layer in enumerate(LAYERS)
        for each in layer
        if name == each or name.startswith(f"{each}.")
    ]
    assert matches, f"{module} is in no layer"
    return max(matches)[1]


@pytest.mark.parametrize("module", [name for name in MODULES if name != "barcast"])
def test_no_import_points_up(module):
    for used in imports(module):
        assert level(used) >= level(module), f"{module} imports {used}, which is above it"


def test_no_modules_import_each_other_in_a_circle():
    graph = {module: imports(module) for module in MODULES}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(
        set(MODULES) | set().union(*graph.values())
    )


def test_no_packages_import_each_other():
    def package(module):
        return level(module), module.split(".")[1]

    pairs = {(package(module), package(used)) for module in MODULES if module != "barcast" for used in imports(module)}
    both = {pair for pair in pairs if pair[0] != pair[1] and pair[::-1] in pairs}
    assert both == set()


def test_a_modules_name_is_used_once():
    """Except by models and their networks, and by what runs a module of that name."""
    names = [
        module.rsplit(".", 1)[1] for module in MODULES if module.count(".") and module.split(".")[1] not in ENTRIES
    ]
    models = set(ModelRegistry.list_models())
    assert [
        name for name, count in Counter(names).items() if count > 1 and not name.startswith("_") and name not in models
    ] == []


@pytest.mark.parametrize("name", [path.stem for path in sorted((SOURCE / "barcast/stages").glob("[a-z]*.py"))])
def test_a_stage_is_thin_and_imports_no_other(name):
    text = (SOURCE / f"barcast/stages/{name}.py").read_text()
    assert len(text.splitlines()) <= 80
    assert not [
        used for used in imports(f"barcast.stages.{name}") if used.startswith("barcast.stages.") and "_main" not in used
    ]


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_computes_imports_nothing_that_only_reads_tracks_or_shows(stage):
    code = READER.fingerprint(*STAGES[stage].roots).code
    plumbing = tuple(f"barcast.{name}" for name in PLUMBING)
    assert [name for name in code if name.startswith(plumbing)] == []


def test_every_file_is_readable_in_one_sitting():
    sizes = {path.name: len(path.read_text().splitlines()) for path in (SOURCE / "barcast").rglob("*.py")}
    assert {name: lines for name, lines in sizes.items() if lines > 300} == {}


def test_file_names_of_the_repository_are_in_paths_only():
    """Such as `metrics.json`: who writes and who reads it ask `paths.py`."""
    spelled = {}
    for path in (SOURCE / "barcast").rglob("*.py"):
        if path.name == "paths.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            if re.fullmatch(r"(experiments|data/(splits|windows))/[\w/.]+", text):
                spelled.setdefault(path.name, []).append(text)
    assert spelled == {}
