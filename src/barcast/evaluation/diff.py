"""Two revisions cell by cell: what changed, which cells ran again, and whether their metrics really moved."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from barcast.config import parse_yaml
from barcast.errors import DataError
from barcast.evaluation.paired import PairedSettings, paired_deltas
from barcast.evaluation.verdicts import Delta
from barcast.paths import Paths, cell_name
from barcast.revisions import Revision

Kind = Literal["parameter", "code", "library", "data"]
Run = Literal["trained again", "evaluated again", "as it was", "not run yet", "new", "gone"]

PATHS = Paths()  # relative ones, as dvc.lock has them
SPECS, REPORT = PATHS.specs.as_posix(), PATHS.report.as_posix()
STAGES = ("prepare", "audit", "window", "evaluate", "compare")
WINDOW = ["datetime", "symbol"]

Cell = tuple[str, int]  # model, horizon


@dataclass(frozen=True)
class Change:
    """One thing that differs; None: it was not there."""

    kind: Kind
    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class CellDiff:
    """One cell.

    `before` and `after` are its test metrics, `deltas` the paired differences over `windows` test windows
    that both revisions share; None, with a note that says why, where they share none.
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
    """`stages`: what changed in the settings, code and libraries of each stage that no cell owns."""

    before: str
    after: str
    stages: Mapping[str, tuple[Change, ...]]
    cells: tuple[CellDiff, ...]


def diff(before: Revision, after: Revision) -> Diff:
    """Compare what two revisions recorded; reads DVC's cache alone.

    Raises:
        DataError: a revision never ran `compare`, or an output is not in the cache.
    """
    for revision in (before, after):
        revision.bring([SPECS, REPORT])
    old, new = _cells(before), _cells(after)
    shared = [cell for cell in new if cell in old]
    _bring_moved(before, after, shared)
    settings = PairedSettings.from_spec(_spec(after, "compare"))
    found = [_compare(before, after, cell, settings) for cell in shared]
    found += [CellDiff(*cell, "new", ()) for cell in new if cell not in old]
    found += [CellDiff(*cell, "gone", ()) for cell in old if cell not in new]
    stages = {stage: tuple(_spec_changes(before, after, stage)) for stage in STAGES}
    stages["prepare"] = (*_source_changes(before, after), *stages["prepare"])
    return Diff(before.name, after.name, {stage: changes for stage, changes in stages.items() if changes}, tuple(found))


def _cells(revision: Revision) -> list[Cell]:
    """The rows of the revision's leaderboard, in the order of horizons and ranks."""
    board = json.loads(revision.read(REPORT, "leaderboard.json"))["horizons"]
    horizons = sorted(board, key=lambda key: int(key.removeprefix("h")))
    return [(row["model"], int(key.removeprefix("h"))) for key in horizons for row in board[key]]


def _bring_moved(before: Revision, after: Revision, cells: Iterable[Cell]) -> None:
    """Have metrics and predictions of the cells whose results differ; what is the same need not be read."""
    moved = [cell for cell in cells if _results(before, cell) != _results(after, cell)]
    for revision in (before, after):
        revision.bring(out for cell in moved for out in _results(revision, cell))


def _outs(revision: Revision, cell: Cell) -> list[str]:
    """What a cell's own stages wrote; for a row that is no cell, what its horizon's ensemble did."""
    own = [out for out in sorted(revision.outs) if f"/{cell_name(*cell)}/" in f"{out}/"]
    return own or revision.outs_of(f"ensemble@{cell[1]}")


def _results(revision: Revision, cell: Cell) -> dict[str, str]:
    """What holds a row's metrics and predictions, with their hashes."""
    outs = _outs(revision, cell)
    apart = [out for out in outs if out.endswith(("/metrics", "/predictions"))]
    return {out: revision.outs[out] for out in apart or outs}


def _compare(before: Revision, after: Revision, cell: Cell, settings: PairedSettings) -> CellDiff:
    spec = cell_name(*cell) if _spec(after, cell_name(*cell)) else f"ensembles_h{cell[1]}"
    found = (*_spec_changes(before, after, spec), *_data_changes(before, after, cell))
    changes = tuple(dict.fromkeys(found))  # stages of a cell read the same files
    run = _run(before, after, cell)
    if _results(before, cell) == _results(after, cell):
        return CellDiff(*cell, "not run yet" if changes and run == "as it was" else run, changes)
    metrics = [json.loads(_file(revision, cell, "metrics.json"))["test"] for revision in (before, after)]
    frames = [_predictions(revision, cell) for revision in (before, after)]
    shared, note = same_windows(*frames)
    deltas = paired_deltas(*shared, settings) if shared else None
    if run == "as it was":
        note = "; ".join(
            filter(None, [note, "other results from the same inputs: something in it is not deterministic"])
        )
    return CellDiff(*cell, run, changes, metrics[0], metrics[1], deltas, len(shared[0]) if shared else 0, note)


def same_windows(before: pd.DataFrame, after: pd.DataFrame) -> tuple[tuple[pd.DataFrame, pd.DataFrame] | None, str]:
    """The rows of both for windows that both scored against the same label, and what had to be left out, in words."""
    keys = [*WINDOW, "label"]
    both = before[keys].merge(after[keys], on=keys)
    if both.empty:
        return None, "no test window has the same label in both: the metrics can't be compared"
    shared = tuple(frame.merge(both, on=keys).sort_values(WINDOW, ignore_index=True) for frame in (before, after))
    most = max(len(before), len(after))
    note = "" if len(both) == most else f"compared on the {len(both):,} of {most:,} windows with the same label in both"
    return (shared[0], shared[1]), note


def _predictions(revision: Revision, cell: Cell) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(_file(revision, cell, "test_predictions.parquet")))


def _file(revision: Revision, cell: Cell, name: str) -> bytes:
    """A file of a row: in a folder of the cell's own, or in the row's folder inside the ensemble's."""
    places = (name, *(f"{cell[0]}/{folder}/{name}" for folder in ("metrics", "predictions")))
    for out in _results(revision, cell):
        for place in places:
            if place in revision.files(out):
                return revision.read(out, place)
    raise DataError(f"{revision.name}: its dvc.lock has no {name} of {cell_name(*cell)}; run `dvc repro` there")


def _run(before: Revision, after: Revision, cell: Cell) -> Run:
    """What had to run, from the hashes of what each stage of the cell had read; further seeds run no cell again."""
    outs = [out for out in _outs(after, cell) if out in before.outs]
    read_anew = [out for out in outs if before.deps(out) != after.deps(out)]
    if any("checkpoints" in out for out in read_anew):
        return "trained again"
    return "evaluated again" if read_anew else "as it was"


def _spec(revision: Revision, name: str) -> dict[str, Any]:
    """A spec's content; empty where the revision has no such spec."""
    if f"{name}.yaml" not in revision.files(SPECS):
        return {}
    content: dict[str, Any] = parse_yaml(revision.read(SPECS, f"{name}.yaml").decode())
    return content


def _settings(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A spec's settings by dotted key; without the list of cells, since what came and went is told by itself."""
    return flat({key: value for key, value in spec.get("config", {}).items() if key != "cells"})


def _spec_changes(before: Revision, after: Revision, name: str) -> Iterator[Change]:
    """What differs between two specs: settings, modules, libraries."""
    old, new = _spec(before, name), _spec(after, name)
    yield from _differences("parameter", _settings(old), _settings(new))
    yield from _differences("code", old.get("code", {}), new.get("code", {}))
    yield from _differences("library", old.get("libraries", {}), new.get("libraries", {}))


def _data_changes(before: Revision, after: Revision, cell: Cell) -> Iterator[Change]:
    """The data files that the row's stages read with another content."""
    for out in _outs(after, cell):
        if out in before.outs:
            yield from _differences("data", *(_data(revision, out) for revision in (before, after)))


def _data(revision: Revision, out: str) -> dict[str, str]:
    return {path: hash_ for path, hash_ in revision.deps(out).items() if path.startswith("data/")}


def _source_changes(before: Revision, after: Revision) -> Iterator[Change]:
    splits = PATHS.splits.as_posix()
    old, new = (
        {path: hash_ for path, hash_ in revision.deps(splits).items() if not path.startswith(SPECS)}
        for revision in (before, after)
    )
    yield from _differences("data", old, new)


def _differences(kind: Kind, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield Change(kind, name, *(None if name not in side else str(side[name]) for side in (old, new)))


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"h5": {"k_up": 1}}` as `{"h5.k_up": 1}`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
