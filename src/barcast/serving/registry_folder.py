"""The champion of each horizon: a folder kept by Git and DVC, and the only record of who is champion.

experiments/registry/h5/model/          the bundle (see `bundle`); DVC keeps it, Git its `model.dvc`
experiments/registry/h5/metadata.json   source, scores and gates; Git keeps it
experiments/registry/h5/previous/       the champion before, in the same form
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

import barcast
from barcast.errors import BarcastError
from barcast.files import atomic_dir, read_json, recover
from barcast.paths import Paths
from barcast.serving.bundle import folder_hash, is_own_code, read_config
from barcast.serving.predictor import Predictor

PACKAGE = Path(barcast.__file__).parent
METADATA_FILE = "metadata.json"
_PREVIOUS_FOLDER = "previous"
_COMMITS = 20  # how far back a champion's code is looked for
_IS_OWN_CODE = """
import pathlib, sys
from barcast.serving.bundle import is_own_code, read_config
sys.exit(not is_own_code(read_config(pathlib.Path(sys.argv[1]))))
"""


class PromotionError(BarcastError):
    """A cell can't become champion, or a champion can't be used; the message says why and what to do."""


class Champion:
    """A promoted model: a folder with `model/` and `metadata.json`.

    Args:
        root: the repository.
        folder: `experiments/registry/h5`, its `previous`, or what `Candidate.write` wrote.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self._root, self.folder, self.model = root, folder, folder / "model"
        self.metadata: dict[str, Any] = read_json(folder / METADATA_FILE)

    @property
    def cell(self) -> str:
        return str(self.metadata["cell"])

    @property
    def model_hash(self) -> str:
        return str(self.metadata["model_sha256"])

    def check_model(self) -> None:
        """Raise unless the model is here and is the one in the metadata.

        Raises:
            PromotionError: with the command that restores it.
        """
        folder = os.path.relpath(self.folder, self._root)
        if not self.model.is_dir():
            raise PromotionError(
                f"{self.model}: the model of {self.cell} is missing; run `dvc checkout {folder}/model.dvc`, or "
                "`dvc pull` if DVC's cache lacks it"
            )
        if folder_hash(self.model) != self.model_hash:
            raise PromotionError(
                f"{self.model}: not the model of {self.cell} in {METADATA_FILE}; run `git checkout {folder}` and "
                f"`dvc checkout -f {folder}/model.dvc`"
            )

    def predict(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Predictions for bars, made by the code that it was promoted with.

        Raises:
            PromotionError: its model or its code is not here, or that code failed.
        """
        with self.package() as package, tempfile.TemporaryDirectory() as temporary:
            if package == PACKAGE:
                return Predictor(self.model).predict(bars)
            source, out = Path(temporary) / "bars.parquet", Path(temporary) / "predictions.parquet"
            bars.to_parquet(source, index=False)
            command = ["-m", "barcast.cli", "predict", str(source), "--out", str(out), "--bundle", str(self.model)]
            done = _python(package, command)
            if done.returncode:
                reason = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
                raise PromotionError(f"champion {self.cell}: it failed on today's bars: {reason}")
            return pd.read_parquet(out)

    @contextmanager
    def package(self) -> Iterator[Path]:
        """The package that it was promoted with: this one, or that of a commit, while the context lasts.

        Tried are the commit that was checked out and the last ones that changed the registry folder: code is often
        committed together with the champion that it made.

        Raises:
            PromotionError: its model is not here, or neither this code nor any of those commits made it.
        """
        self.check_model()
        if is_own_code(read_config(self.model)):
            yield PACKAGE
            return
        folder = os.path.relpath(self.folder, self._root)
        log = run_git(self._root, "log", f"-{_COMMITS}", "--format=%H", "--", folder.removesuffix(_PREVIOUS_FOLDER))
        revisions = dict.fromkeys(filter(None, [self.metadata["git"]["revision"], *log.stdout.split()]))
        with tempfile.TemporaryDirectory() as temporary:
            for revision in revisions:
                package = Path(temporary) / revision / "src" / PACKAGE.name
                archive = f"{temporary}/{revision}.zip"
                if run_git(self._root, "archive", "-o", archive, revision, f"src/{PACKAGE.name}").returncode == 0:
                    shutil.unpack_archive(archive, package.parents[1])
                    if _python(package, ["-c", _IS_OWN_CODE, str(self.model)]).returncode == 0:
                        yield package
                        return
        raise PromotionError(
            f"{folder}: {self.cell} was promoted with other code than this, which is in none of the commits "
            f"{', '.join(revision[:12] for revision in revisions) or '(none)'} here; fetch the commit that has it, or "
            f"`git rm -r {folder}` and promote without a champion"
        )


def read_champion(paths: Paths, horizon: int) -> Champion | None:
    """The champion of a horizon, its model pulled or not; None where there is none."""
    recover(paths.registry(horizon))
    return _read(paths, paths.registry(horizon))


def read_previous(paths: Paths, horizon: int) -> Champion | None:
    """The champion before the present one; None where there is none."""
    return _read(paths, paths.registry(horizon) / _PREVIOUS_FOLDER)


def install(paths: Paths, horizon: int, champion: Champion, previous: Champion | None) -> None:
    """Fill the registry folder with both, in one step, and hand a new model to DVC.

    Raises:
        PromotionError: `dvc add` failed.
    """
    target, others = paths.registry(horizon), shutil.ignore_patterns(_PREVIOUS_FOLDER)
    with atomic_dir(target) as folder:
        shutil.copytree(champion.folder, folder, symlinks=True, ignore=others, dirs_exist_ok=True)
        if previous:
            shutil.copytree(previous.folder, folder / _PREVIOUS_FOLDER, symlinks=True, ignore=others)
    track(paths, horizon)


def track(paths: Paths, horizon: int) -> None:
    """`dvc add` the champion's model, unless DVC has it already."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    model = paths.registry(horizon) / "model"
    if model.with_name("model.dvc").is_file():
        return
    try:
        with Repo(str(paths.root)) as repo:
            repo.scm_context.quiet = True
            repo.add([str(model)])
    except DvcException as error:
        raise PromotionError(f"{model}: `dvc add` failed: {' '.join(str(error).split())}; run it again") from None


def next_tag(paths: Paths, horizon: int) -> str:
    """The Git tag for a new champion, such as `barcast-h5@v3.0.0`: one above the highest that Git has."""
    name = registered_name(horizon)
    tags = run_git(paths.root, "tag", "--list", f"{name}@v*").stdout
    numbers = [int(number) for number in re.findall(rf"^{name}@v(\d+)", tags, re.MULTILINE)]
    return f"{name}@v{max(numbers, default=0) + 1}.0.0"


def registered_name(horizon: int) -> str:
    """`barcast-h5`: the name of a horizon's champion in DVC, in Git's tags and in MLflow."""
    return f"barcast-h{horizon}"


def run_git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Git; what it printed and its exit status."""
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)


def _read(paths: Paths, folder: Path) -> Champion | None:
    return Champion(paths.root, folder) if (folder / METADATA_FILE).is_file() else None


def _python(package: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run Python with another version of this package."""
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
