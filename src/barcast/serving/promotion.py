"""Promote a cell to champion of its horizon, and roll back."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from barcast.errors import ConfigError
from barcast.params import load_params
from barcast.paths import Paths
from barcast.serving import mlflow_registry
from barcast.serving.candidate import Candidate, best_model
from barcast.serving.registry_folder import (
    METADATA_FILE,
    Champion,
    PromotionError,
    install,
    read_champion,
    read_previous,
    registered_name,
    track,
)
from barcast.tracking import TrackingError

Echo = Callable[[str], None]


@dataclass(frozen=True)
class Promotion:
    """The cells of champion and previous champion, and the MLflow version of each alias that names its copy."""

    cell: str
    previous: str | None
    versions: dict[str, str]
    changed: bool = True


def promote(paths: Paths, horizon: int, model: str | None, force: bool, echo: Echo) -> Promotion:
    """Make a cell the champion of its horizon.

    Args:
        paths: the repository.
        horizon: bars ahead.
        model: the cell's model; None: the one that ranks first.
        force: promote in spite of failed gates; the metadata records them.
        echo: called with a line per gate.

    Raises:
        PromotionError: a gate failed, or the present champion can't be compared: its model or its code is not here.
        ConfigError: the cell is not in the matrix, or the splits were made elsewhere, so bars can't become features.
        DataError: the cell is not trained and evaluated.
    """
    params = load_params(paths.params)
    if params.data.source != "bars":
        raise ConfigError(
            "params.yaml: data.source = 'splits': a served model computes its features from raw bars, and those of "
            "splits made elsewhere are unknown here; set data.source to bars"
        )
    candidate = Candidate(paths, params, model or best_model(paths, params, horizon), horizon)
    champion = read_champion(paths, horizon)
    gates, report = candidate.run_gates(champion)
    for gate in gates:
        echo(f"{'ok  ' if gate.passed else 'FAIL'}  {gate.name}: {gate.text}")
    echo(f"for the record, on test: log-loss minus the class frequencies' {report['test_against_prior']['text']}")
    failed = [gate for gate in gates if not gate.passed]
    if failed and not force:
        reasons = "; ".join(f"{gate.name}: {gate.text}" for gate in failed)
        raise PromotionError(f"{candidate.cell} is not promoted, {len(failed)} of {len(gates)} gates failed: {reasons}")
    with tempfile.TemporaryDirectory() as temporary:
        candidate.write(Path(temporary), gates, report)
        new = Champion(paths.root, Path(temporary))
        changed = champion is None or champion.model_hash != new.model_hash
        if changed:
            install(paths, horizon, new, champion)
        else:
            track(paths, horizon)  # it may have been interrupted before `dvc add`
    return _copied(paths, horizon, changed)


def rollback(paths: Paths, horizon: int, echo: Echo) -> Promotion:
    """Swap champion and previous champion.

    Args:
        paths: the repository.
        horizon: bars ahead.
        echo: called with a line as soon as they are swapped: if interrupted later, a second call would swap them back.

    Raises:
        PromotionError: there is no previous champion, or its model is not here.
    """
    champion, previous = read_champion(paths, horizon), read_previous(paths, horizon)
    if champion is None or previous is None:
        folder = paths.registry(horizon).relative_to(paths.root).as_posix()
        older = (
            f"; `git log {folder}/{METADATA_FILE}` lists the commits of older ones, and "
            f"`git checkout COMMIT {folder} && dvc pull {folder}/model.dvc` restores one"
        )
        raise PromotionError(
            f"{registered_name(horizon)} has no previous champion to roll back to; there is one once "
            f"`barcast promote --horizon {horizon}` has replaced a champion{older if champion else ''}"
        )
    previous.check_model()
    install(paths, horizon, previous, champion)
    echo(f"ok    registry: {previous.cell} is champion, {champion.cell} is previous")
    return _copied(paths, horizon)


def _copied(paths: Paths, horizon: int, changed: bool = True) -> Promotion:
    """What the registry folder has now, copied to MLflow if its store can be reached."""
    champion, previous = read_champion(paths, horizon), read_previous(paths, horizon)
    assert champion is not None
    versions = {}
    try:
        versions = mlflow_registry.update(paths, horizon)
    except TrackingError as error:
        print(f"warning: {error}; MLflow has no copy of this, run `barcast sync` later", file=sys.stderr)
    return Promotion(champion.cell, previous.cell if previous else None, versions, changed)
