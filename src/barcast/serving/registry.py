"""Promote a cell to champion of its horizon, and roll back: the registry folder and MLflow move together.

experiments/registry/h5/model/          the bundle (see `bundle`); DVC keeps it, Git its `model.dvc`
experiments/registry/h5/metadata.json   where it came from, what it scored, and the gates; Git keeps it
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barcast.errors import ConfigError
from barcast.files import atomic_dir, read_json, write_json
from barcast.params import Params, load_params
from barcast.paths import Paths
from barcast.serving.bundle import folder_hash, write_bundle
from barcast.serving.candidate import METADATA_FILE, Candidate, PromotionError, best_model
from barcast.serving.committed import Say, git_remedy, is_committed, present_champion, tags_of
from barcast.serving.gates import Gate
from barcast.serving.versions import CHAMPION, PREVIOUS, Served, Versions, registered_name, registry_of


@dataclass(frozen=True)
class Promotion:
    """What became champion, and what was there before; `version` is MLflow's."""

    cell: str
    version: str
    previous: str | None
    changed: bool


def promote(paths: Paths, horizon: int, model: str | None, force: bool, say: Say) -> Promotion:
    """Make a cell the champion of its horizon.

    Args:
        paths: the repository.
        horizon: bars ahead.
        model: the cell's model; None: the one that ranks first.
        force: promote in spite of failed gates; the metadata say so.
        say: told each gate's outcome, and where the registry folder holds another champion than MLflow names.

    Raises:
        PromotionError: a gate failed, or the champion in the registry folder can't be registered.
        ConfigError: the cell is not in the matrix, or splits made elsewhere leave no way from bars to features.
        DataError: the cell is not trained and evaluated.
        TrackingError: MLflow's store can't be reached; nothing was changed.
    """
    params = load_params(paths.params)
    _require_bars(params)
    model = model or best_model(paths, params, horizon)
    candidate = Candidate(paths, params, model, horizon)
    versions = Versions(paths, horizon)
    champion = present_champion(paths, versions, horizon, say)
    found, report = candidate.examine(versions, champion)
    for gate in found:
        say(f"{'ok  ' if gate.passed else 'FAIL'}  {gate.name}: {gate.text}")
    say(f"for the record, on test: log-loss less that of the class frequencies {report['test_against_prior']['text']}")
    failed = [gate for gate in found if not gate.passed]
    if failed and not force:
        reasons = "; ".join(f"{gate.name}: {gate.text}" for gate in failed)
        raise PromotionError(f"{candidate.cell} is not promoted, {len(failed)} of {len(found)} gates failed: {reasons}")
    return _install(paths, candidate, versions, champion, found, report)


def rollback(paths: Paths, horizon: int, say: Say) -> Promotion:
    """Swap champion and previous: the aliases, and what the registry folder holds.

    Args:
        paths: the repository.
        horizon: bars ahead.
        say: told where the registry folder holds another champion than MLflow names.

    Raises:
        PromotionError: there is no previous champion, or the one in the registry folder can't be registered.
        TrackingError: MLflow's store can't be reached; nothing was changed.
    """
    versions = Versions(paths, horizon)
    named, previous = versions.aliased(CHAMPION), versions.aliased(PREVIOUS)
    champion = named
    if named is not None and not is_committed(paths, horizon, previous):  # else it was cut short, and goes on
        champion = present_champion(paths, versions, horizon, say)
        if champion is not None and champion.version != named.version:
            previous = named
    if champion is None or previous is None:
        raise PromotionError(
            f"{registered_name(horizon)} has no previous champion to roll back to; there is one once "
            f"`barcast promote --horizon {horizon}` has replaced a champion{git_remedy(paths, horizon)}"
        )
    with versions.files(previous) as files:
        _fill_registry(paths, horizon, registry_of(files))
    versions.point(CHAMPION, previous.version)
    versions.point(PREVIOUS, champion.version)
    cell = read_json(paths.registry(horizon) / METADATA_FILE)["cell"]
    return Promotion(cell, str(previous.version), str(champion.version), changed=True)


def _install(
    paths: Paths,
    candidate: Candidate,
    versions: Versions,
    champion: Any | None,
    found: list[Gate],
    report: dict[str, Any],
) -> Promotion:
    """Version first, then the folder, the aliases last: cut short anywhere, the same command goes on."""
    config = candidate.serving_config()
    with tempfile.TemporaryDirectory() as temporary:
        registry = Path(temporary) / "registry"
        model = registry / "model"
        write_bundle(model, paths.checkpoint(candidate.cell), paths.cell_metrics(candidate.cell).parent, config)
        metadata = candidate.metadata(config, found, report, model)
        write_json(registry / METADATA_FILE, metadata)
        version = versions.find(metadata["model_sha256"])
        if version is None:
            served = Served(registry, candidate.example(config), candidate.fingerprint.libraries)
            version = versions.create(versions.run_of(candidate.tracked), served, tags_of(metadata))
        same = champion is not None and champion.version == version.version
        if not same or folder_hash(paths.registry(candidate.horizon) / "model") != metadata["model_sha256"]:
            _fill_registry(paths, candidate.horizon, registry)
    named = versions.aliased(CHAMPION)
    before = named if same else champion
    if before is not None and before.version != version.version:
        versions.point(PREVIOUS, before.version)
    if named is None or named.version != version.version:
        versions.point(CHAMPION, version.version)
    if same:
        return Promotion(candidate.cell, str(version.version), None, changed=False)
    return Promotion(candidate.cell, str(version.version), str(champion.version) if champion else None, changed=True)


def _fill_registry(paths: Paths, horizon: int, source: Path) -> None:
    """Put `model/` and `metadata.json` in place, and hand the model to DVC."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    target = paths.registry(horizon)
    with atomic_dir(target / "model") as folder:
        shutil.copytree(source / "model", folder, dirs_exist_ok=True)
    write_json(target / METADATA_FILE, read_json(source / METADATA_FILE))
    try:
        with Repo(str(paths.root)) as repo:
            repo.scm_context.quiet = True
            repo.add([str(target / "model")])
    except DvcException as error:
        raise PromotionError(f"{target / 'model'}: `dvc add` failed: {' '.join(str(error).split())}") from None


def _require_bars(params: Params) -> None:
    if params.data.source != "bars":
        raise ConfigError(
            "params.yaml: data.source = 'splits': a served model makes its features from raw bars, and those of splits "
            "made elsewhere are not known here; set data.source to bars"
        )
