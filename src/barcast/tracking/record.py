"""Records a training while it runs, and adds what is on disk: evaluations, and cells that DVC restored.

Metrics are buffered. A store that is unreachable costs one line.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields

from barcast.cache.keys import cell_key
from barcast.paths import Paths, cell_name
from barcast.tracking import runs
from barcast.tracking.cells import Cell, cell_on_disk, is_evaluated, locked_stages
from barcast.tracking.store import Store, TrackingError, connect
from barcast.yaml_io import load_yaml

_FLUSH_SECONDS = 5.0
_FLUSH_POINTS = 500


@contextlib.contextmanager
def open_run(paths: Paths, model: str, horizon: int) -> Iterator[Callable[[Mapping[str, float], int], None]]:
    """Open a new run for a cell that is about to be trained; yields the `log(metrics, step)` that fills it.

    The body trains and saves the model. Then the model is attached and the run is FINISHED. If the body raises, the
    run is FAILED (KILLED on Ctrl-C) and the exception is raised again. Runs of this cell that a killed process
    left RUNNING are closed first. A store that can't be reached, now or later, never stops the body.

    Raises a ConfigError for a cell without a spec, a DataError for a missing window file.
    """
    cell = Cell(model, horizon, cell_key(paths, model, horizon))
    config = load_yaml(paths.spec(cell_name(model, horizon)))["config"]

    def begin(store: Store) -> str:
        runs.close_dead(store, cell.name)
        run_id = runs.start(store, paths, cell, restored=False)
        runs.log_params(store, run_id, config)
        return run_id

    recorder = Recorder(paths, cell.name, begin)
    buffer, flushed = list[runs.Point](), time.monotonic()

    def flush() -> None:
        nonlocal flushed
        recorder.write(lambda store, run_id: runs.log_points(store, run_id, buffer))
        buffer.clear()
        flushed = time.monotonic()

    def log(metrics: Mapping[str, float], step: int) -> None:
        buffer.extend(runs.points(metrics, step))
        if len(buffer) >= _FLUSH_POINTS or time.monotonic() - flushed >= _FLUSH_SECONDS:
            flush()

    with recorder.ending():
        try:
            yield log
        finally:
            flush()
        recorder.write(lambda store, run_id: runs.log_model(store, run_id, paths, cell))


class Recorder:
    """Writes one run. The first failure of the store is one warning; after it, nothing is written.

    A run that can't be ended stays RUNNING in the store; the next run of its cell closes it.
    """

    def __init__(self, paths: Paths, name: str, begin: Callable[[Store], str]) -> None:
        self._name = name
        self._run: tuple[Store, str] | None = None
        try:
            store = connect(paths)
            self._run = store, begin(store)
            runs.own_runs.add(self._run[1])
        except TrackingError as error:
            _warn(name, error)

    def write(self, action: Callable[[Store, str], object]) -> None:
        """Call `action(store, run_id)`, unless the store failed before."""
        if self._run is None:
            return
        try:
            action(*self._run)
        except TrackingError as error:
            _warn(self._name, error)
            runs.own_runs.discard(self._run[1])
            self._run = None

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """End the run with the body: FINISHED, FAILED if it raises, KILLED on Ctrl-C."""
        try:
            yield
        except BaseException as error:
            status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
            self.write(lambda store, run_id: runs.finish(store, run_id, status))
            raise
        self.write(lambda store, run_id: runs.finish(store, run_id, "FINISHED"))


def _warn(name: str, error: TrackingError) -> None:
    """Print in one line that the store failed, and what to do."""
    print(f"warning: {error}; {name} continues untracked, run `barcast sync` later", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class SyncReport:
    """What `sync` did with each cell, by name."""

    created: tuple[str, ...]
    refreshed: tuple[str, ...]
    unchanged: tuple[str, ...]
    unfinished: tuple[str, ...]  # not trained and evaluated yet: `dvc repro` comes first


def log_evaluation(paths: Paths, cell: str) -> None:
    """Attach a cell's metrics, predictions and plots to its run; create the run if there is none.

    A second call changes nothing. A store that can't be reached costs one warning.
    """
    found = cell_on_disk(paths, cell)
    if found is None:
        print(f"warning: {paths.run(cell)}: no finished training; nothing was logged", file=sys.stderr)
        return
    try:
        _add(connect(paths), paths, found)
    except TrackingError as error:
        _warn(cell, error)


def sync(paths: Paths, cells: Iterable[str]) -> SyncReport:
    """Make every finished cell on disk appear in the store exactly once; a TrackingError if that can't be reached.

    A cell without a finished run of its key gets one from its files, tagged `restored`. A run that exists gets the
    evaluation if it has changed.
    """
    outcomes: dict[str, list[str]] = {field.name: [] for field in fields(SyncReport)}
    store, stages = connect(paths), locked_stages(paths)
    for name in cells:
        runs.close_dead(store, name)
        cell = cell_on_disk(paths, name)
        finished = cell is not None and is_evaluated(paths, cell, stages)
        outcomes[_add(store, paths, cell) if cell and finished else "unfinished"].append(name)
    return SyncReport(**{outcome: tuple(names) for outcome, names in outcomes.items()})


def _add(store: Store, paths: Paths, cell: Cell) -> str:
    with store.lock():  # two queued experiments may end at once with the same cell
        run = runs.find(store, cell)
        run_id = run.info.run_id if run else runs.restore(store, paths, cell)
    changed = runs.refresh_evaluation(store, paths, run_id, cell)
    return "created" if run is None else "refreshed" if changed else "unchanged"
