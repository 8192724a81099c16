"""How far a training is, for the eye: nothing here can change what a stage writes."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

from barcast.training.callbacks import Log

_LINE_SECONDS = 5.0


def with_speed(log: Log, replayed: int = 0) -> Log:
    """Add `windows_per_second` where a step has `windows`: for eyes and trackers, since a clock's time has no place in
    an output that must be the same bytes every time. Validation is part of the time. The first `replayed` steps get
    none: a resumed training reports them again, and they took their time before."""
    before = time.monotonic()

    def timed(metrics: Mapping[str, float], step: int) -> None:
        nonlocal before
        now = time.monotonic()
        timed_now = "windows" in metrics and step >= replayed
        speed = {"windows_per_second": metrics["windows"] / (now - before)} if timed_now else {}
        before = now
        log({**metrics, **speed}, step)

    return timed


class Progress:
    """Rounds done, log-loss on train and validation, the time left: a bar on a terminal, now and then a line elsewhere.

    Lines look like `xgboost_h5  round 40/60  loss 1.0598  val_log_loss 1.0712  ETA 3 s`: the first round, the last, and
    between them at most one every five seconds. The time left assumes that no early stopping comes.

    Args:
        cell: the name to show.
        total_steps: how many rounds at most; None where the model can't tell.
        unit: what a step is called.
        stream: where to write; standard output by default.
        replayed: how many steps a resumed training reports again. They are no measure of pace; only the last of
            them gets a line.
    """

    def __init__(
        self,
        cell: str,
        total_steps: int | None = None,
        unit: str = "round",
        stream: TextIO | None = None,
        replayed: int = 0,
    ) -> None:
        self._cell, self._total, self._unit, self._replayed = cell, total_steps, unit, replayed
        self._console = Console(file=stream or sys.stdout)
        self._bar: Bar | None = None
        self._task = TaskID(0)
        self._status = ""
        self._first: tuple[float, int] | None = None  # when the first round of now was done, and its number
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
        if step >= self._replayed:
            self._first = self._first or (now, step)
        self._status = self._describe(metrics, step)
        status = "  ".join(filter(None, [self._status, self._time_left(now, step)]))
        if self._bar:
            self._bar.update(self._task, completed=step + 1, status=status)
        elif step + 1 >= self._replayed and now - self._printed >= _LINE_SECONDS:
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
        for name, shown in (("train_log_loss", "loss"), ("val_log_loss", "val_log_loss")):
            if name in metrics:
                parts.append(f"{shown} {metrics[name]:.4f}")
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


def _duration(seconds: float) -> str:
    """`3 s`, `2 min 05 s`, `1 h 03 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
