"""Line charts as plain geometry for the report's templates: no drawing library, the same bytes every time.

Lines are scaled into a 1000 × 1000 box that the page stretches to any width; ticks are in percent of the
box, and the page sets their text as HTML, so it keeps its size on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[np.float64]
Show = Callable[[float, int], str]

BOX = 1000
TIME_TICKS = 8
_TIME_STEPS = (("6h", "%m-%d %H:%M"), ("D", "%m-%d"), ("W-MON", "%m-%d"), ("MS", "%Y-%m"), ("QS", "%Y-%m"))


@dataclass(frozen=True)
class Line:
    """A curve in data units; `style` is its CSS class."""

    name: str
    style: str
    x: Array
    y: Array


@dataclass(frozen=True)
class Tick:
    """A grid line at `at` percent of the box, from the left or from the top."""

    at: float
    label: str


@dataclass(frozen=True)
class Path:
    """A line's SVG path data inside the box."""

    name: str
    style: str
    data: str


@dataclass(frozen=True)
class Chart:
    """What a template needs to draw lines with their axes."""

    paths: list[Path]
    x_ticks: list[Tick]
    y_ticks: list[Tick]


def time_chart(lines: Sequence[Line]) -> Chart:
    """Lines over time: x in nanoseconds, y shown as a signed percentage."""
    start, end = min(line.x[0] for line in lines), max(line.x[-1] for line in lines)
    return _chart(lines, _time_ticks(int(start), int(end)), _percentage)


def step_chart(lines: Sequence[Line]) -> Chart:
    """Lines over whole-numbered steps, y shown as a plain number."""
    last = int(max(line.x[-1] for line in lines))
    step = max(1, int(_nice_step(last / 4)))
    return _chart(lines, [(float(at), str(at)) for at in range(0, last + 1, step)], _number)


def _chart(lines: Sequence[Line], x_marks: Sequence[tuple[float, str]], show: Show) -> Chart:
    left, right = _range([line.x for line in lines])
    bottom, top = _range([line.y for line in lines], margin=0.05)
    paths = [Path(line.name, line.style, _data(line, (left, right), (bottom, top))) for line in lines]
    x_ticks = [Tick(_percent(at, left, right), label) for at, label in x_marks if left <= at <= right]
    values, digits = nice_values(bottom, top)
    y_ticks = [Tick(_percent(at, top, bottom), show(at, digits).replace("-", "−")) for at in values]
    return Chart(paths, x_ticks, y_ticks)


def _range(arrays: Sequence[Array], margin: float = 0.0) -> tuple[float, float]:
    low, high = min(float(a.min()) for a in arrays), max(float(a.max()) for a in arrays)
    pad = margin * (high - low) if high > low else max(abs(high), 1.0) / 2
    return low - pad, high + pad


def nice_values(low: float, high: float) -> tuple[list[float], int]:
    """The round values in `low … high`, a step of 1, 2 or 5 times a power of ten apart, and the digits they need."""
    step = _nice_step((high - low) / 5)
    counts = range(math.ceil(low / step), math.floor(high / step) + 1)
    digits = max(0, -math.floor(math.log10(step * 1.001)))
    return [round(count * step, digits) for count in counts], digits


def _nice_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(max(rough, 1e-12)))
    return power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def _percentage(value: float, digits: int) -> str:
    return f"{value:+,.{max(0, digits - 2)}%}" if value else "0%"


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}"


def _time_ticks(start: int, end: int) -> list[tuple[float, str]]:
    first, last = (pd.Timestamp(at, unit="ns") for at in (start, end))
    options = [
        (pd.date_range(first.ceil("6h" if step == "6h" else "D"), last, freq=step), form) for step, form in _TIME_STEPS
    ]
    times, form = next((option for option in options if len(option[0]) <= TIME_TICKS), options[-1])
    times = times[:: max(1, -(-len(times) // TIME_TICKS))]
    return [(float(time.as_unit("ns").value), time.strftime(form)) for time in times]


def _data(line: Line, x: tuple[float, float], y: tuple[float, float]) -> str:
    across = (line.x - x[0]) / (x[1] - x[0]) * BOX
    down = (y[1] - line.y) / (y[1] - y[0]) * BOX
    return "M" + "L".join(f"{a:.1f} {d:.1f}" for a, d in zip(across, down, strict=True))


def _percent(value: float, low: float, high: float) -> float:
    return round((value - low) / (high - low) * 100, 3)
