"""Imports point down only."""

from pathlib import Path

import pytest

import barcast
from barcast.fingerprint import Fingerprinter

LAYERS = [  # top to bottom; a module belongs to its longest matching name
    ["barcast.cli", "barcast.stages.spec", "barcast.doctor", "barcast.overrides"],
    ["barcast.adopt"],
    ["barcast.experiments"],
    ["barcast.serving"],
    ["barcast.params"],
    ["barcast.stages"],
    ["barcast.serving.gates"],  # its settings are a section of params.yaml
    ["barcast.tuning", "barcast.evaluation"],
    ["barcast.training"],
    ["barcast.models"],
    ["barcast.training.loop", "barcast.training.session", "barcast.training.callbacks"],  # what models use
    [
        "barcast.training._batches",
        "barcast.training._memory",
        "barcast.training._unfinished",
        "barcast.training.loop_config",
        "barcast.networks",
    ],
    ["barcast.data"],
    [
        "barcast.config",
        "barcast.paths",
        "barcast.tracking",
        "barcast.fingerprint",
        "barcast.pins",
        "barcast.files",
        "barcast.errors",
        "barcast.revisions",
    ],
]
SOURCE = Path(barcast.__file__).parents[1]
MODULES = [
    ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    for path in sorted(SOURCE.rglob("barcast/**/*.py"))
    if path.name != "__init__.py"
]


def level(module):
    matches = [
        (len(name), depth)
        for depth, names in enumerate(LAYERS)
        for name in names
        if module == name or module.startswith(f"{name}.")
    ]
    assert matches, f"{module} belongs to no layer"
    return max(matches)[1]


@pytest.mark.parametrize("module", MODULES)
def test_no_import_points_up(module):
    reader = Fingerprinter(SOURCE)
    _, imports = reader._read(module)
    for name in imports:
        for used in reader._local(name) if name.startswith("barcast") else []:
            if used.count(".") and reader._path(used).name != "__init__.py":
                assert level(used) >= level(module), f"{module} imports {used}, which lies above it"
