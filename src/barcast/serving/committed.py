"""The champion that Git keeps, as a version in MLflow's registry whatever the aliases there say.

MLflow's store belongs to a machine, the registry folder to everybody: after a clone, with another MLFLOW_TRACKING_URI
or on another branch the aliases name another champion than the folder holds, or none. Then the folder is right.
"""

from __future__ import annotations

import io
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from barcast.data.synthetic import synthetic_bars
from barcast.errors import ConfigError
from barcast.files import read_json
from barcast.fingerprint import Fingerprinter
from barcast.models.registry import ModelRegistry
from barcast.paths import Paths
from barcast.serving.bundle import folder_hash, is_own_code, read_config
from barcast.serving.candidate import METADATA_FILE, PromotionError
from barcast.serving.versions import CHAMPION, HASH_TAG, PACKAGE, Served, Versions, registered_name
from barcast.tracking import Cell

Say = Callable[[str], None]


def present_champion(paths: Paths, versions: Versions, horizon: int, say: Say) -> Any | None:
    """The version of the present champion; None where there is none.

    Where MLflow names another one than the registry folder holds, it is the folder's, which becomes a version if it
    is none yet. The aliases stay: a gate may still refuse what is to follow, and others may be served by them.

    Raises:
        PromotionError: the folder's champion can't be registered: its model or its code is not at hand.
    """
    champion = versions.aliased(CHAMPION)
    if not has_committed(paths, horizon) or is_committed(paths, horizon, champion):
        return champion
    metadata = read_json(paths.registry(horizon) / METADATA_FILE)
    version = versions.find(metadata["model_sha256"]) or _register(paths, versions, horizon, metadata)
    named = "none" if champion is None else f"version {champion.version}"
    say(
        f"note  champion: {_shown(paths, horizon)} holds {metadata['cell']}, which is {versions.name} version "
        f"{version.version}; MLflow's store names {named}, and the folder counts"
    )
    return version


def has_committed(paths: Paths, horizon: int) -> bool:
    """Whether the registry folder holds a champion, be its model pulled or not."""
    return (paths.registry(horizon) / METADATA_FILE).is_file()


def is_committed(paths: Paths, horizon: int, version: Any | None) -> bool:
    """Whether the registry folder holds just this version."""
    if version is None or not has_committed(paths, horizon):
        return False
    held: str = read_json(paths.registry(horizon) / METADATA_FILE)["model_sha256"]
    return bool(version.tags.get(HASH_TAG) == held)


def tags_of(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a version, from its metadata."""
    return {
        HASH_TAG: metadata["model_sha256"],
        "cell": metadata["cell"],
        "forced": ",".join(metadata["forced"]),
    }


def git_remedy(paths: Paths, horizon: int) -> str:
    """How to get at a former champion that this MLflow store never knew; empty where Git has none either."""
    if not has_committed(paths, horizon):
        return ""
    folder = _shown(paths, horizon)
    return (
        f"; of one that another MLflow store knows `git log {folder}/{METADATA_FILE}` tells the commit, and "
        f"`git checkout COMMIT {folder} && dvc pull {folder}/model.dvc` brings it back"
    )


def next_tag(paths: Paths, horizon: int) -> str:
    """The Git tag for a new champion, such as `barcast-h5@v3.0.0`: one above those that are there."""
    name = registered_name(horizon)
    command = ["git", "tag", "--list", f"{name}@v*"]
    done = subprocess.run(command, cwd=paths.root, capture_output=True, text=True, check=False)
    numbers = [int(found) for found in re.findall(rf"^{name}@v(\d+)", done.stdout, re.MULTILINE)]
    return f"{name}@v{max(numbers, default=0) + 1}.0.0"


def _register(paths: Paths, versions: Versions, horizon: int, metadata: Mapping[str, Any]) -> Any:
    """Make the registry folder's champion a version, with the code that it was promoted with."""
    registry, folder = paths.registry(horizon), _shown(paths, horizon)
    model, cell = registry / "model", metadata["cell"]
    if not model.is_dir():
        raise PromotionError(f"{model}: the model of the champion {cell} is missing; run `dvc pull {folder}/model.dvc`")
    if folder_hash(model) != metadata["model_sha256"]:
        raise PromotionError(
            f"{model}: not the model of {cell} that {METADATA_FILE} names; run `git checkout {folder}` and "
            f"`dvc checkout -f {folder}/model.dvc`"
        )
    config = read_config(model)
    # Made-up bars: today's may have other symbols than those that the champion knows.
    spacing = f"{config.bar_seconds}s"
    example = synthetic_bars(config.symbols[:1], config.needed_bars, seed=0, spacing=spacing)
    with _package(paths, metadata, is_own_code(config), folder) as package:
        tracked = Cell(metadata["model"], metadata["horizon"], metadata["cell_key"])
        served = Served(registry, example, metadata["serving"]["libraries"], package)
        return versions.create(versions.run_behind(tracked, model), served, tags_of(metadata))


@contextmanager
def _package(paths: Paths, metadata: Mapping[str, Any], own: bool, folder: str) -> Iterator[Path]:
    """The package that a champion was promoted with: this one, or the one of the commit that its metadata name."""
    if own:
        yield PACKAGE
        return
    revision = metadata["git"]["revision"]
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "src"
        if not (revision and _export(paths.root, revision, source.parent) and _is_code_of(metadata, source)):
            raise PromotionError(
                f"{folder}: {metadata['cell']} was promoted with code that is neither this nor that of commit "
                f"{revision} here, so it can't answer; fetch that commit, or `git rm -r {folder}` and begin without it"
            )
        yield source / PACKAGE.name


def _export(root: Path, revision: str, target: Path) -> bool:
    """Write the sources of a commit below `target`; False where Git has no such commit."""
    command = ["git", "archive", "--format=zip", revision, f"src/{PACKAGE.name}"]
    done = subprocess.run(command, cwd=root, capture_output=True, check=False)
    if done.returncode:
        return False
    with ZipFile(io.BytesIO(done.stdout)) as archive:
        archive.extractall(target)
    return True


def _is_code_of(metadata: Mapping[str, Any], source: Path) -> bool:
    """Whether the sources are those that the metadata hold the hashes of."""
    module = ModelRegistry.get_metadata(metadata["model"]).module
    try:
        found = Fingerprinter(source).fingerprint("barcast.serving.predictor", module)
    except ConfigError:  # the commit lacks a module: it was promoted from files that were never committed
        return False
    return bool(found.code == metadata["serving"]["code"])


def _shown(paths: Paths, horizon: int) -> str:
    """The registry folder as one types it in the repository."""
    return paths.registry(horizon).relative_to(paths.root).as_posix()
