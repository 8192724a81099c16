"""Compares two revisions cell by cell: what changed, which cells ran again, and whether their metrics really moved."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from barcast.comparison.intervals import Delta
from barcast.comparison.paired_bootstrap import PairedSettings, paired_deltas
from barcast.errors import DataError
from barcast.paths import Paths, cell_name
from barcast.revisions.revision import Revision
from barcast.yaml_io import flatten, parse_yaml

Kind = Literal["parameter", "code", "library", "data"]
Run = Literal["trained again", "evaluated again", "unchanged", "not run yet", "new", "removed"]

PATHS = Paths()  # relative, as in dvc.lock
SPECS, REPORT = PATHS.specs.as_posix(), PATHS.report.as_posix()
STAGES = ("prepare", "audit", "window", "evaluate", "compare")

Cell = tuple[str, int]  # model, horizon


@dataclass(frozen=True)
class Change:
    """One thing that differs; None: it is not there."""

    kind: Kind
    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class CellDiff:
    """One cell, or an ensemble of one horizon.

    `before` and `after` are its test metrics. `deltas` are the paired differences over the `windows` test windows
    that both revisions share; None if they share none, and the note says why.
    """

    model: str
    horizon: int
    run: Run
    changes: tuple[Change, ...]
    before: Mapping[str, float | None] = field(default_factory=dict)
    after: Mapping[str, float | None] = field(default_factory=dict)
    deltas: Mapping[str, Delta] | None = None
    windows: int = 0
    note: str = ""

    @property
    def name(self) -> str:
        return cell_name(self.model, self.horizon)


@dataclass(frozen=True)
class Diff:
    """Two revisions. `stages`: what changed in settings, code and libraries of the stages that all cells share."""

    before: str
    after: str
    stages: Mapping[str, tuple[Change, ...]]
    cells: tuple[CellDiff, ...]


def diff(before: Revision, after: Revision) -> Diff:
    """Compare what two revisions recorded in their `dvc.lock` and DVC's cache; DataError if one never ran `compare`, or
    an output is not in the cache."""
    for revision in (before, after):
        revision.fetch([SPECS, REPORT])
    old, new = _cells(before), _cells(after)
    shared = [cell for cell in new if cell in old]
    moved = [cell for cell in shared if _results(before, cell) != _results(after, cell)]
    for revision in (before, after):
        revision.fetch(out for cell in moved for out in _results(revision, cell))
    settings = PairedSettings.from_spec(_spec(after, "compare"))
    cells = [_compare(before, after, cell, settings) for cell in shared]
    cells += [CellDiff(*cell, "new", ()) for cell in new if cell not in old]
    cells += [CellDiff(*cell, "removed", ()) for cell in old if cell not in new]
    stages = {stage: tuple(_spec_changes(before, after, stage)) for stage in STAGES}
    stages["prepare"] = (*_data_changes(before, after, PATHS.splits.as_posix()), *stages["prepare"])
    return Diff(before.name, after.name, {stage: changes for stage, changes in stages.items() if changes}, tuple(cells))


def _cells(revision: Revision) -> list[Cell]:
    """The rows of the revision's leaderboard, by horizon and rank."""
    board = json.loads(revision.read(REPORT, "leaderboard.json"))["horizons"]
    horizons = sorted(board, key=lambda key: int(key.removeprefix("h")))
    return [(row["model"], int(key.removeprefix("h"))) for key in horizons for row in board[key]]


def _outs(revision: Revision, cell: Cell) -> list[str]:
    """What a cell's own stages wrote; for an ensemble, what its horizon's `ensemble` stage wrote."""
    outs = [out for out in sorted(revision.outs) if f"/{cell_name(*cell)}/" in f"{out}/"]
    return outs or revision.outs_of(f"ensemble@{cell[1]}")


def _results(revision: Revision, cell: Cell) -> dict[str, str]:
    """Path → hash of the outputs that hold a cell's metrics and predictions."""
    outs = _outs(revision, cell)
    results = [out for out in outs if out.endswith(("/metrics", "/predictions"))]
    return {out: revision.outs[out] for out in results or outs}


def _compare(before: Revision, after: Revision, cell: Cell, settings: PairedSettings) -> CellDiff:
    name, outs = cell_name(*cell), [out for out in _outs(after, cell) if out in before.outs]
    spec_changes = _spec_changes(before, after, name if _has_spec(after, name) else f"ensembles_h{cell[1]}")
    data_changes = (change for out in outs for change in _data_changes(before, after, out))
    changes = tuple(dict.fromkeys((*spec_changes, *data_changes)))  # the stages of a cell read the same files
    again = [out for out in outs if before.deps(out) != after.deps(out)]  # repeats with other seeds don't count
    run: Run = "unchanged" if not again else "evaluated again"
    run = "trained again" if any("checkpoints" in out for out in again) else run
    if _results(before, cell) == _results(after, cell):
        return CellDiff(*cell, "not run yet" if changes and run == "unchanged" else run, changes)
    metrics = [json.loads(_file(revision, cell, "metrics.json"))["test"] for revision in (before, after)]
    files = [_file(revision, cell, "test_predictions.parquet") for revision in (before, after)]
    shared, note = same_windows(*(pd.read_parquet(io.BytesIO(file)) for file in files))
    deltas = paired_deltas(*shared, settings) if shared else None
    if run == "unchanged":
        cause = "the results differ although the inputs are the same: something in this cell is not deterministic"
        note = f"{note}; {cause}" if note else cause
    return CellDiff(*cell, run, changes, metrics[0], metrics[1], deltas, len(shared[0]) if shared else 0, note)


def same_windows(before: pd.DataFrame, after: pd.DataFrame) -> tuple[tuple[pd.DataFrame, pd.DataFrame] | None, str]:
    """The rows of both for windows that have the same label in both, and a note on what was left out."""
    window = ["datetime", "symbol"]
    keys = [*window, "label"]
    both = before[keys].merge(after[keys], on=keys)
    if both.empty:
        return None, "no test window has the same label in both: the metrics can't be compared"
    shared = [frame.merge(both, on=keys).sort_values(window, ignore_index=True) for frame in (before, after)]
    most = max(len(before), len(after))
    note = "" if len(both) == most else f"compared on the {len(both):,} of {most:,} windows with the same label in both"
    return (shared[0], shared[1]), note


def _file(revision: Revision, cell: Cell, name: str) -> bytes:
    """A file of a cell: in a folder of its own, or in the cell's folder of the ensemble's output."""
    for out in _results(revision, cell):
        for path in (name, *(f"{cell[0]}/{folder}/{name}" for folder in ("metrics", "predictions"))):
            if path in revision.files(out):
                return revision.read(out, path)
    raise DataError(f"{revision.name}: its dvc.lock has no {name} of {cell_name(*cell)}; run `dvc repro` there")


def _has_spec(revision: Revision, name: str) -> bool:
    return f"{name}.yaml" in revision.files(SPECS)


def _spec(revision: Revision, name: str) -> dict[str, Any]:
    """The content of a spec; empty if the revision has no such spec."""
    return parse_yaml(revision.read(SPECS, f"{name}.yaml").decode()) if _has_spec(revision, name) else {}


def _spec_changes(before: Revision, after: Revision, name: str) -> Iterator[Change]:
    """What differs between two specs: settings, modules, libraries."""
    file = f"{name}.yaml"
    if before.files(SPECS).get(file) == after.files(SPECS).get(file):  # the same hash
        return
    old, new = _spec(before, name), _spec(after, name)
    settings = (flatten(spec.get("config", {}) | {"cells": {}}) for spec in (old, new))  # the rows tell of the cells
    yield from _differences("parameter", *settings)
    yield from _differences("code", old.get("code", {}), new.get("code", {}))
    yield from _differences("library", old.get("libraries", {}), new.get("libraries", {}))


def _data_changes(before: Revision, after: Revision, out: str) -> Iterator[Change]:
    """The data files that the stage behind `out` read with other content."""
    read = (revision.deps(out).items() for revision in (before, after))
    files = ({path: hash_ for path, hash_ in deps if not path.startswith("experiments/")} for deps in read)
    yield from _differences("data", *files)


def _differences(kind: Kind, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield Change(kind, name, *(None if name not in side else str(side[name]) for side in (old, new)))
