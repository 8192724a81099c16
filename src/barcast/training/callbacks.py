"""What listens to a training: progress for the eye, dvclive files for DVC, and several at once.

A model reports through one `log(metrics, step)`; everything here is such a callable. None of it knows MLflow.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

from barcast.files import atomic_dir

Log = Callable[[Mapping[str, float], int], None]

_LINE_SECONDS = 5.0


def fan_out(*logs: Log) -> Log:
    """One `log` that hands every call to all of `logs`, in order."""

    def log(metrics: Mapping[str, float], step: int) -> None:
        for each in logs:
            each(metrics, step)

    return log


def with_speed(log: Log) -> Log:
    """Add `windows_per_second` where a step says how many `windows` it took: for eyes and trackers, since what a
    clock says has no place in an output that must be the same bytes every time. Validation is part of the time."""
    before = time.monotonic()

    def timed(metrics: Mapping[str, float], step: int) -> None:
        nonlocal before
        now = time.monotonic()
        speed = {"windows_per_second": metrics["windows"] / (now - before)} if "windows" in metrics else {}
        before = now
        log({**metrics, **speed}, step)

    return timed


class Progress:
    """Rounds done, the validation log-loss and the time left: a bar on a terminal, now and then a line elsewhere.

    Lines look like `xgboost_h5  round 40/60  val_log_loss 1.0712  ETA 3 s`: the first round, the last, and
    between them at most one every five seconds. The time left assumes that no early stopping comes.

    Args:
        cell: the name to show.
        total_steps: how many rounds at most; None where the model can't tell.
        unit: what a step is called.
        stream: where to write; standard output by default.
    """

    def __init__(
        self, cell: str, total_steps: int | None = None, unit: str = "round", stream: TextIO | None = None
    ) -> None:
        self._cell, self._total, self._unit = cell, total_steps, unit
        self._console = Console(file=stream or sys.stdout)
        self._bar: Bar | None = None
        self._task = TaskID(0)
        self._status = ""
        self._first: tuple[float, int] | None = None  # when the first round was done, and its number
        self._printed = float("-inf")

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        if self._console.is_terminal:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[status]}"),
            )
            self._bar = Bar(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task(self._cell, total=self._total, status="")
            self._bar.start()
        return self

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        now = time.monotonic()
        self._first = self._first or (now, step)
        self._status = self._describe(metrics, step)
        status = "  ".join(filter(None, [self._status, self._time_left(now, step)]))
        if self._bar:
            self._bar.update(self._task, completed=step + 1, status=status)
        elif now - self._printed >= _LINE_SECONDS:
            self._printed = now
            self._line(status)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        outcome = "done in" if kind is None else "stopped after"
        self._line("  ".join(filter(None, [self._status, f"{outcome} {_duration(time.monotonic() - self._started)}"])))

    def _describe(self, metrics: Mapping[str, float], step: int) -> str:
        parts = [f"{self._unit} {step + 1}" + (f"/{self._total}" if self._total else "")]
        if "val_log_loss" in metrics:
            parts.append(f"val_log_loss {metrics['val_log_loss']:.4f}")
        if "windows_per_second" in metrics:
            parts.append(f"{metrics['windows_per_second']:,.0f} windows/s")
        return "  ".join(parts)

    def _time_left(self, now: float, step: int) -> str:
        """From the pace since the first round: what comes before it (binning, compiling) is no round."""
        if self._first is None or self._total is None or step <= self._first[1]:
            return ""
        pace = (now - self._first[0]) / (step - self._first[1])
        return f"ETA {_duration(pace * max(0, self._total - step - 1))}"

    def _line(self, text: str) -> None:
        self._console.print(f"{self._cell}  {text}", markup=False, highlight=False, soft_wrap=True)


class LiveLog:
    """dvclive's files for one cell: `plots/metrics/{name}.tsv`, `metrics.json`, `params.yaml`.

    They hold no time and no random name, so the same training writes the same bytes. The folder appears
    whole when the body has ended well, and a failed body leaves the one before. The body must save the model
    too: `params.yaml` holds the cell's key, and says that the checkpoint beside it was made from those inputs.

    Args:
        folder: the cell's live folder.
        cell_key: what `barcast.tracking.cell_key` answers for the cell.
    """

    def __init__(self, folder: Path, cell_key: str) -> None:
        self._folder, self._cell_key = folder, cell_key
        self._context = self._writing()
        self._live: Any = None

    def __enter__(self) -> Self:
        self._context.__enter__()
        return self

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        self._live.step = step
        for name, value in metrics.items():
            self._live.log_metric(name, float(value))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._context.__exit__(kind, error, traceback)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with atomic_dir(self._folder) as temporary:
            self._live = _dvclive(temporary)
            yield
            self._live.log_param("cell_key", self._cell_key)
            self._live.make_summary()


def _dvclive(folder: Path) -> Any:
    """A dvclive writer that looks at no repository, no environment and no network.

    The folder is an output of a DVC stage already, so what dvclive does beside writing files is at best
    done twice: it opens the repository (and fails in one without a commit), draws a random experiment name,
    adds untracked files to Git, and posts to DVC Studio.
    """
    from dvclive import Live

    class Writer(Live):  # type: ignore[misc]
        def _init_dvc(self) -> None:
            self._save_dvc_exp = False

        _init_test = _init_dvc  # DVCLIVE_TEST would redirect the files

        def _init_studio(self) -> None:
            self._studio_events_to_skip.update(("start", "data", "done"))

    return Writer(dir=os.fspath(folder), save_dvc_exp=False, dvcyaml=None, report=None, monitor_system=False)


def _duration(seconds: float) -> str:
    """`3 s`, `2 min 05 s`, `1 h 03 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
