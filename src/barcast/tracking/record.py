"""Recording a training as it goes: metrics are buffered, and a store that is gone costs one line."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping

from barcast.config import load_yaml
from barcast.paths import Paths, cell_name
from barcast.tracking import runs
from barcast.tracking.cells import Cell, cell_key
from barcast.tracking.store import Store, TrackingError, connect

_FLUSH_SECONDS = 5.0
_FLUSH_POINTS = 500


@contextlib.contextmanager
def open_run(paths: Paths, model: str, horizon: int) -> Iterator[Callable[[Mapping[str, float], int], None]]:
    """A new run for a cell that is about to be trained; yields the `log(metrics, step)` that fills it.

    The body trains and saves the model. After it the model is attached and the run is FINISHED; when it
    raises, the run is FAILED (KILLED on Ctrl-C) and the exception goes on. Runs of this cell that a killed
    process left RUNNING are closed first. A store that can't be reached, now or later, never stops the body.

    Raises:
        ConfigError: the cell has no spec.
        DataError: a window file is missing.
    """
    cell = Cell(model, horizon, cell_key(paths, model, horizon))
    recorder = _Recorder(paths, cell)
    recorder.open()
    try:
        yield recorder.log
    except BaseException as error:
        recorder.close("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    recorder.close("FINISHED")


@contextlib.contextmanager
def or_warn(name: str) -> Iterator[None]:
    """Say in one line that the store is out of reach, and what to do; then go on without it."""
    try:
        yield
    except TrackingError as error:
        print(f"warning: {error}; {name} goes on untracked, run `barcast sync` later", file=sys.stderr, flush=True)


class _Recorder:
    """One run being written; after the first failure of the store it takes everything and does nothing."""

    def __init__(self, paths: Paths, cell: Cell) -> None:
        self._paths = paths
        self._cell = cell
        self._store: Store | None = None
        self._run_id = ""
        self._buffer: list[runs.Point] = []
        self._flushed = time.monotonic()

    def open(self) -> None:
        spec = load_yaml(self._paths.spec(cell_name(self._cell.model, self._cell.horizon)))
        with self._reporting():
            store = connect(self._paths)
            runs.close_dead(store, self._cell.name)
            self._run_id = runs.start(store, self._paths, self._cell, restored=False)
            runs.log_params(store, self._run_id, spec["config"])
            self._store = store

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        if self._store is None:
            return
        self._buffer += runs.points(metrics, step)
        if len(self._buffer) >= _FLUSH_POINTS or time.monotonic() - self._flushed >= _FLUSH_SECONDS:
            with self._reporting():
                self._flush(self._store)

    def close(self, status: str) -> None:
        if self._store is None:
            return
        with self._reporting():
            self._flush(self._store)
            if status == "FINISHED":
                runs.log_model(self._store, self._run_id, self._paths, self._cell)
            runs.finish(self._store, self._run_id, status)

    def _flush(self, store: Store) -> None:
        buffer, self._buffer = self._buffer, []
        runs.log_points(store, self._run_id, buffer)
        self._flushed = time.monotonic()

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Stop recording at the first failure; the run stays RUNNING and is closed as KILLED by the next one."""
        reached = False
        with or_warn(self._cell.name):
            try:
                yield
                reached = True
            finally:
                if not reached:
                    self._store = None
                    runs.own_runs.discard(self._run_id)
