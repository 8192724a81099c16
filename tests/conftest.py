"""Fixtures that several test files share."""

import copy
import os
import shutil
from pathlib import Path

import pytest
import yaml

# Two tests at once on two cores: more threads than that only get in each other's way.
for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

REPOSITORY = Path(__file__).resolve().parents[1]

# Each file goes to one worker whole. The longest begins first and keeps one worker; those after it share `trained`.
FIRST = ["test_pipeline.py", "test_journey.py", "test_serving.py", "test_promote.py"]


def pytest_collection_modifyitems(items):
    """Begin with the files of `FIRST`; the order inside a file stays."""
    places = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(FIRST)))


@pytest.fixture(scope="session")
def committed_params():
    """The content of the repository's own params.yaml."""
    return yaml.safe_load((REPOSITORY / "params.yaml").read_text())


@pytest.fixture
def write_params(tmp_path, committed_params):
    """Write the committed params.yaml with some dotted keys replaced; `...` removes a key."""

    def write(changes=None, folder=tmp_path):
        content = copy.deepcopy(committed_params)
        for path, value in (changes or {}).items():
            *parents, last = path.split(".")
            level = content
            for part in parents:
                level = level.setdefault(part, {})
            if value is ...:
                del level[last]
            else:
                level[last] = value
        shutil.copytree(REPOSITORY / "config", folder / "config", dirs_exist_ok=True)
        target = folder / "params.yaml"
        target.write_text(yaml.safe_dump(content, sort_keys=False))
        return target

    return write


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A tiny repository with every cell trained; to be read or copied, never changed."""
    import _served

    return _served.build(tmp_path_factory.mktemp("trained") / "repository")
