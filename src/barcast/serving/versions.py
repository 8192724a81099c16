"""Champions in MLflow's model registry: versions of `barcast-h{n}`, the aliases `champion` and `previous`."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

import barcast
from barcast import tracking
from barcast.data.bars import KEYS, OHLCV
from barcast.paths import Paths
from barcast.serving.bundle import POSTPROCESS_FILE, SERVING_FILE
from barcast.serving.predictor import ANSWER
from barcast.tracking import Cell, TrackingError, runs
from barcast.tracking.store import Store, connect

PACKAGE = Path(barcast.__file__).parent
CHAMPION, PREVIOUS = "champion", "previous"
ARTIFACT = "serving"  # where a run keeps its served model
HASH_TAG = "model_sha256"


def registered_name(horizon: int) -> str:
    """`barcast-h5`."""
    return f"barcast-h{horizon}"


@dataclass(frozen=True)
class Served:
    """What a version is made of."""

    registry: Path  # holds `model/` and `metadata.json`
    example: pd.DataFrame  # bars, enough for one answer
    libraries: Mapping[str, str]  # what the model needs installed
    package: Path = PACKAGE  # the code that it is served with


class Versions:
    """The registered model of one horizon.

    Raises:
        TrackingError: the store can't be reached or refuses.
    """

    def __init__(self, paths: Paths, horizon: int) -> None:
        self._paths = paths
        self.name = registered_name(horizon)
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        self._store: Store = connect(paths)

    def aliased(self, alias: str) -> Any | None:
        """The version with this alias, or None."""
        from mlflow.exceptions import MlflowException

        with self._store.calls() as client:
            try:
                return client.get_model_version_by_alias(self.name, alias)
            except MlflowException as error:  # MLflow's two ways to say that there is none
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise

    def find(self, model_hash: str) -> Any | None:
        """The newest version that holds exactly this model, or None."""
        with self._store.calls() as client:
            versions = client.search_model_versions(f"name = '{self.name}'")
        same = [version for version in versions if version.tags.get(HASH_TAG) == model_hash]
        return max(same, key=lambda version: int(version.version), default=None)

    def run_of(self, cell: Cell) -> str:
        """The id of a cell's run; the cell is synced first where the store hasn't got it."""
        tracking.sync(self._paths, [cell.name])
        run = runs.find(self._store, cell)
        if run is None:
            raise TrackingError(f"MLflow has no run of {cell.name}; run `barcast sync` and look at what it says")
        return str(run.info.run_id)

    def run_behind(self, cell: Cell, model: Path) -> str:
        """The id of the run that a bundle's model came from, made from the bundle where the store hasn't got it."""
        run = runs.find(self._store, cell)
        if run is not None:
            return str(run.info.run_id)
        with tempfile.TemporaryDirectory() as temporary:
            apart = Paths(Path(temporary))  # the cell's own folder may hold a later training
            ignored = shutil.ignore_patterns(SERVING_FILE, POSTPROCESS_FILE)
            shutil.copytree(model, apart.checkpoint(cell.name), ignore=ignored)
            return runs.restore(self._store, apart, cell)

    def create(self, run_id: str, served: Served, tags: Mapping[str, str]) -> Any:
        """Add a version that belongs to a run."""
        with tempfile.TemporaryDirectory() as temporary, self._store.calls() as client:
            folder = Path(temporary) / ARTIFACT
            save_pyfunc(folder, served)
            client.log_artifacts(run_id, str(folder), ARTIFACT)
            if not client.search_registered_models(f"name = '{self.name}'"):
                client.create_registered_model(self.name)
            return client.create_model_version(self.name, f"runs:/{run_id}/{ARTIFACT}", run_id, tags=dict(tags))

    def point(self, alias: str, version: str) -> None:
        """Let the alias name this version."""
        with self._store.calls() as client:
            client.set_registered_model_alias(self.name, alias, version)

    @contextmanager
    def files(self, version: Any) -> Iterator[Path]:
        """The served model of a version on this machine, while the context lasts."""
        with tempfile.TemporaryDirectory() as temporary, self._store.calls() as client:
            yield Path(client.download_artifacts(version.run_id, ARTIFACT, temporary))


def registry_of(files: Path) -> Path:
    """The registry folder inside a version's files."""
    return files / "artifacts/registry"


def code_in(files: Path) -> Path:
    """The folder to import the version's own package from."""
    return files / "code"


def save_pyfunc(folder: Path, served: Served) -> None:
    """Write a served model as MLflow's own folder, which must not exist."""
    import mlflow

    with tempfile.TemporaryDirectory() as temporary, _quiet():
        copy = Path(temporary) / "registry"  # MLflow names an artifact's folder after its source
        shutil.copytree(served.registry, copy, ignore=shutil.ignore_patterns("*.dvc", ".gitignore"))
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(served.package / "serving/pyfunc_model.py"),
            artifacts={"registry": str(copy)},
            code_paths=[str(served.package)],
            signature=_signature(),
            input_example=served.example.assign(datetime=served.example["datetime"].map(pd.Timestamp.isoformat)),
            pip_requirements=[f"{name}=={version}" for name, version in served.libraries.items()],
        )


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType

    kinds = {"datetime": DataType.datetime, "symbol": DataType.string, "prediction": DataType.long}
    asked = [ColSpec(kinds.get(name, DataType.double), name) for name in (*KEYS[1:], *OHLCV)]
    # Any: MLflow's own datetime takes no time zone from a caller, its string no timestamps
    return ModelSignature(
        inputs=Schema([ColSpec(AnyType(), KEYS[0]), *asked]),
        outputs=Schema([ColSpec(kinds.get(name, DataType.double), name) for name in ANSWER]),
        params=ParamSchema([ParamSpec("last_only", DataType.boolean, False)]),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without MLflow's advice on steps that are done on purpose."""
    logger = logging.getLogger("mlflow")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
