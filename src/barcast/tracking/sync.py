"""Bringing the store up to what lies on disk: evaluations, and cells that DVC restored from its cache."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass

from barcast.paths import Paths
from barcast.tracking import runs
from barcast.tracking.cells import Cell, cell_on_disk, is_evaluated
from barcast.tracking.record import or_warn
from barcast.tracking.store import Store, connect


@dataclass(frozen=True)
class SyncReport:
    """What `sync` did with each cell, by name."""

    created: tuple[str, ...]
    refreshed: tuple[str, ...]
    unchanged: tuple[str, ...]
    unfinished: tuple[str, ...]  # not trained and evaluated yet: `dvc repro` comes first


def log_evaluation(paths: Paths, cell: str) -> None:
    """Attach a cell's metrics, predictions and plots to its run, creating the run where there is none.

    Calling it again changes nothing. A store out of reach costs one warning line.
    """
    found = cell_on_disk(paths, cell)
    if found is None:
        print(f"warning: {paths.run(cell)}: no finished training here, nothing was logged", file=sys.stderr)
        return
    with or_warn(cell):
        _bring_in(connect(paths), paths, found)


def sync(paths: Paths, cells: Iterable[str]) -> SyncReport:
    """Make every finished cell on disk appear in the store exactly once.

    A cell without a finished run of its key is created from its files, tagged `restored`; of one that is
    there, the evaluation is brought up to date where it changed.

    Raises:
        TrackingError: the store can't be reached.
    """
    outcomes: dict[str, list[str]] = {"created": [], "refreshed": [], "unchanged": [], "unfinished": []}
    store = connect(paths)
    for name in cells:
        runs.close_dead(store, name)
        cell = cell_on_disk(paths, name)
        outcomes[_bring_in(store, paths, cell) if cell and is_evaluated(paths, cell) else "unfinished"].append(name)
    return SyncReport(**{outcome: tuple(names) for outcome, names in outcomes.items()})


def _bring_in(store: Store, paths: Paths, cell: Cell) -> str:
    with store.lock():  # two queued experiments may end at once with the same cell
        run = runs.find(store, cell)
        run_id = run.info.run_id if run else runs.restore(store, paths, cell)
    changed = runs.refresh_evaluation(store, paths, run_id, cell)
    return "created" if run is None else "refreshed" if changed else "unchanged"
