"""Copies of the champions in MLflow's model registry: versions of `barcast-h{n}`, aliases `champion` and `previous`.

The registry folder decides who is champion (see `registry_folder`); nothing is read back from here.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from barcast import tracking
from barcast.data.frames import KEYS, OHLCV
from barcast.data.synthetic import synthetic_bars
from barcast.paths import Paths
from barcast.serving.bundle import POSTPROCESS_FILE, SERVING_FILE, read_config
from barcast.serving.predictor import PREDICTION_COLUMNS
from barcast.serving.registry_folder import (
    METADATA_FILE,
    Champion,
    PromotionError,
    read_champion,
    read_previous,
    registered_name,
)
from barcast.tracking import Cell, cell_on_disk, runs
from barcast.tracking.store import Store, connect

CHAMPION, PREVIOUS = "champion", "previous"
HASH_TAG = "model_sha256"  # of a version


def update_all(paths: Paths) -> dict[str, dict[str, str]]:
    """Bring the copies of all champions up to date; the version of each alias by registered name.

    Raises:
        TrackingError: the store can't be reached or refuses.
    """
    horizons = sorted(int(file.parent.name[1:]) for file in paths.registries.glob(f"h[0-9]*/{METADATA_FILE}"))
    return {registered_name(horizon): update(paths, horizon) for horizon in horizons}


def update(paths: Paths, horizon: int) -> dict[str, str]:
    """Let the aliases of a horizon name copies of what its registry folder has, and copy what is new.

    A champion whose model or code is not here can't be copied, which costs a warning.

    Returns:
        The version of each alias.

    Raises:
        TrackingError: the store can't be reached or refuses.
    """
    store, name, named = connect(paths), registered_name(horizon), {}
    with store.calls() as client:
        models = client.search_registered_models(f"name = '{name}'")
        versions = sorted(client.search_model_versions(f"name = '{name}'"), key=lambda version: int(version.version))
    aliases = {alias: str(version) for model in models for alias, version in model.aliases.items()}
    copies = {version.tags.get(HASH_TAG): str(version.version) for version in versions}  # the newest of each model
    for alias, champion in ((PREVIOUS, read_previous(paths, horizon)), (CHAMPION, read_champion(paths, horizon))):
        if champion is None:
            if alias in aliases:
                with store.calls() as client:
                    client.delete_registered_model_alias(name, alias)
            continue
        try:
            named[alias] = copies.get(champion.model_hash) or _create_version(paths, store, name, champion)
        except PromotionError as error:
            print(f"warning: {error}; in MLflow {name}@{alias} stays as it is", file=sys.stderr)
            continue
        if aliases.get(alias) != named[alias]:
            with store.calls() as client:
                client.set_registered_model_alias(name, alias, named[alias])
    return named


def _create_version(paths: Paths, store: Store, name: str, champion: Champion) -> str:
    artifact = f"serving/{champion.model_hash[:12]}"
    tags = {HASH_TAG: champion.model_hash, "cell": champion.cell, "forced": ",".join(champion.metadata["forced"])}
    with tempfile.TemporaryDirectory() as temporary, champion.package() as package:
        folder = Path(temporary) / "pyfunc"
        save_pyfunc(folder, champion, package)
        run_id = _run_id(paths, store, champion)
        with store.calls() as client:
            client.log_artifacts(run_id, str(folder), artifact)
            if not client.search_registered_models(f"name = '{name}'"):
                client.create_registered_model(name)
            return str(client.create_model_version(name, f"runs:/{run_id}/{artifact}", run_id, tags=tags).version)


def _run_id(paths: Paths, store: Store, champion: Champion) -> str:
    """The run that trained it; made from the cell's files, or else from the bundle, where the store has none."""
    cell = Cell(champion.metadata["model"], champion.metadata["horizon"], champion.metadata["cell_key"])
    if cell_on_disk(paths, cell.name) == cell:
        tracking.sync(paths, [cell.name])
    run = runs.find(store, cell)
    if run is not None:
        return str(run.info.run_id)
    with tempfile.TemporaryDirectory() as temporary:
        restored = Paths(Path(temporary))  # the cell's own folder may hold a later training
        ignored = shutil.ignore_patterns(SERVING_FILE, POSTPROCESS_FILE)
        shutil.copytree(champion.model, restored.checkpoint(cell.name), ignore=ignored)
        return runs.restore(store, restored, cell)


def save_pyfunc(folder: Path, champion: Champion, package: Path) -> None:
    """Write a champion with its code as MLflow's own folder, which must not exist."""
    import mlflow

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    logging.getLogger("mlflow").setLevel(logging.ERROR)  # no advice on steps that are done on purpose
    config = read_config(champion.model)
    # Synthetic bars: today's may have other symbols than those that the champion knows.
    example = synthetic_bars(config.symbols[:1], config.needed_bars, seed=0, spacing=f"{config.bar_seconds}s")
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / "registry"  # MLflow names an artifact's folder after its source
        shutil.copytree(champion.folder, copy, ignore=shutil.ignore_patterns("*.dvc", ".gitignore", "previous"))
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(package / "serving/pyfunc_model.py"),
            artifacts={"registry": str(copy)},
            code_paths=[str(package)],
            signature=_signature(),
            input_example=example.assign(datetime=example["datetime"].map(lambda time: time.isoformat())),
            pip_requirements=[f"{n}=={version}" for n, version in champion.metadata["serving"]["libraries"].items()],
        )


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType

    types = {"datetime": DataType.datetime, "symbol": DataType.string, "prediction": DataType.long}
    inputs = [ColSpec(types.get(name, DataType.double), name) for name in (*KEYS[1:], *OHLCV)]
    # Any: MLflow's own datetime takes no time zone from a caller, its string no timestamps
    return ModelSignature(
        inputs=Schema([ColSpec(AnyType(), KEYS[0]), *inputs]),
        outputs=Schema([ColSpec(types.get(name, DataType.double), name) for name in PREDICTION_COLUMNS]),
        params=ParamSchema([ParamSpec("last_only", DataType.boolean, False)]),
    )
