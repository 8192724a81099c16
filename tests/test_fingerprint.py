"""What changes a fingerprint, and what does not."""

import re

import pytest

from barcast.cache.fingerprint import Fingerprinter, installed_versions
from barcast.errors import ConfigError

FILES = {
    "__init__.py": '"""The package."""\n',
    "models/__init__.py": "",
    "models/tree.py": "import numpy as np\nfrom barcast.models import shared\n\ndef fit():\n    import yaml\n",
    "models/net.py": "from barcast.models.shared import helper\nfrom barcast.loop import train\n",
    "models/shared.py": '''
import warnings

def helper(x):
    """Help."""
    if x < 0:
        print("below", flush=True)
        warnings.warn(f"{x} is below 0", stacklevel=2)
        raise ValueError("expected 0 or more, " f"got {x}")
    return x + 1  # one more
''',
    "loop.py": "import json\n\ndef train(): ...\n",
    "tracking.py": "import barcast.loop\n",
    "stage.py": """
from typing import TYPE_CHECKING
from barcast.tracking import x
if TYPE_CHECKING:
    import pandas
""",
}


@pytest.fixture
def source(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / "barcast" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def edit(source, name, old, new):
    path = source / "barcast" / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def of(source, root):
    return Fingerprinter(source).fingerprint(root)


def test_a_fingerprint_holds_every_module_and_library_that_is_imported_at_any_depth(source):
    tree = of(source, "barcast.models.tree")
    assert list(tree.code) == ["barcast.models.shared", "barcast.models.tree"]
    assert list(tree.libraries) == ["numpy", "pyyaml"]
    net = of(source, "barcast.models.net")
    assert set(net.code) == {"barcast.models.net", "barcast.models.shared", "barcast.loop"}
    assert net.libraries == {}


def test_a_library_that_another_solves_with_counts_too(source):
    edit(source, "loop.py", "import json", "from sklearn.linear_model import LogisticRegression")
    assert list(of(source, "barcast.loop").libraries) == ["scikit-learn", "scipy"]


def test_type_checking_imports_do_not_count(source):
    stage = of(source, "barcast.stage")
    assert list(stage.code) == ["barcast.loop", "barcast.stage", "barcast.tracking"]
    assert stage.libraries == {}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("models/shared.py", '"""Help."""', '"""Help in other words."""'),
        ("models/shared.py", "# one more", "# one less"),
        ("models/shared.py", "return x + 1", "return (x\n            + 1)"),
        ("__init__.py", '"""The package."""\n', ""),
        ("loop.py", "import json", "import pickle"),
        ("models/shared.py", "0 or more", "zero or more"),
        ("models/shared.py", 'f"got {x}"', 'f"was {x + 1}"'),
        ("models/shared.py", "below 0", "negative"),
        ("models/shared.py", '"below", flush=True', '"negative"'),
    ],
    ids=[
        "docstring",
        "comment",
        "layout",
        "module docstring",
        "a module that tree does not import",
        "error",
        "what an error shows",
        "warning",
        "print",
    ],
)
def test_what_cannot_change_a_result_leaves_the_fingerprint(source, name, old, new):
    before = of(source, "barcast.models.tree")
    edit(source, name, old, new)
    assert of(source, "barcast.models.tree") == before


@pytest.mark.parametrize(
    ("name", "old", "new", "changed"),
    [
        ("models/shared.py", "return x + 1", "return x + 2", {"tree", "net"}),
        ("models/shared.py", "raise ValueError", "raise TypeError", {"tree", "net"}),
        ("models/shared.py", "if x < 0", "if x < 1", {"tree", "net"}),
        ("models/tree.py", "def fit()", "def fit(x)", {"tree"}),
        ("loop.py", "train(): ...", "train(): pass", {"net"}),
        ("models/__init__.py", "", "x = 1", {"tree", "net"}),
    ],
)
def test_what_can_change_a_result_changes_just_the_fingerprints_of_its_users(source, name, old, new, changed):
    before = {model: of(source, f"barcast.models.{model}") for model in ("tree", "net")}
    edit(source, name, old, new)
    after = {model: of(source, f"barcast.models.{model}") for model in ("tree", "net")}
    assert {model for model in before if before[model] != after[model]} == changed


def test_a_library_that_is_not_installed_is_named():
    with pytest.raises(ConfigError, match=r"'no_such_library' is not installed; run `pip install --no-deps -r"):
        installed_versions(["no_such_library"])


def test_versions_are_public_ones():
    versions = installed_versions(["numpy", "torch"])
    assert all(re.fullmatch(r"[0-9.]+", version) for version in versions.values())


def test_a_missing_module_is_named(source):
    with pytest.raises(ConfigError, match=r"barcast.nothing: no such module under"):
        of(source, "barcast.nothing")
