"""The report page: one HTML file with everything inside, for any screen, light or dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from barcast.evaluation._charts import Chart, Line, step_chart, time_chart
from barcast.evaluation.leaderboard import Leaderboard, Row, columns

TEMPLATES = Path(__file__).with_name("templates")
CURVES = {"train_log_loss": "train", "val_log_loss": "val"}
STYLES = 8  # colours that the page tells apart; further models get them again, dashed


@dataclass(frozen=True)
class CellDetail:
    """What the page shows of one cell beside its row.

    `confusion` `[3, 3]` counts test windows, actual by predicted; `equity` has columns `datetime, equity`;
    `history` is the model's `training_history`.
    """

    model: str
    horizon: int
    confusion: npt.NDArray[np.int64]
    equity: pd.DataFrame
    history: Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Span:
    """Which test windows the cells of a horizon were scored on."""

    windows: int
    symbols: list[str]
    start: pd.Timestamp
    end: pd.Timestamp


@dataclass(frozen=True)
class Key:
    """An entry of a chart's legend."""

    name: str
    style: str
    value: str


@dataclass(frozen=True)
class Panel:
    """One cell's small figure."""

    model: str
    note: str
    content: Any


@dataclass(frozen=True)
class Section:
    """One horizon of the page."""

    horizon: int
    rows: list[Row]
    span: Span
    equity: Chart
    legend: list[Key]
    learning: list[Panel]
    confusion: list[Panel]


def render_report(leaderboard: Leaderboard, details: Sequence[CellDetail], spans: Mapping[int, Span]) -> str:
    """The whole page as HTML.

    Args:
        leaderboard: the ranked rows.
        details: one for each row, in any order; their order decides which colour a model gets.
        spans: by horizon.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    styles = _styles(list(dict.fromkeys(detail.model for detail in details)), leaderboard.reference)
    by_cell = {(detail.model, detail.horizon): detail for detail in details}
    sections = [
        _section(horizon, rows, [by_cell[row.model, horizon] for row in rows], spans[horizon], styles)
        for horizon, rows in leaderboard.horizons.items()
    ]
    return environment.get_template("report.html.j2").render(
        sections=sections,
        columns=columns(leaderboard.reference),
        reference=leaderboard.reference,
        styles=styles,
        models=len(styles),
    )


def _styles(models: Sequence[str], reference: str) -> dict[str, str]:
    """A CSS class for each model, the same in every figure; the reference is grey."""
    coloured = [model for model in models if model != reference]
    styles = {m: f"s{i % STYLES}" + (" dashed" if i >= STYLES else "") for i, m in enumerate(coloured)}
    return {model: styles.get(model, "reference") for model in models}


def _section(
    horizon: int, rows: list[Row], details: list[CellDetail], span: Span, styles: Mapping[str, str]
) -> Section:
    learning = [(detail, _learning(detail)) for detail in details]
    return Section(
        horizon=horizon,
        rows=rows,
        span=span,
        equity=_equity(details, styles),
        legend=_legend(details, styles),
        learning=[Panel(detail.model, _lowest(detail), chart) for detail, chart in learning if chart],
        confusion=[Panel(detail.model, "", _shares(detail.confusion)) for detail in details],
    )


def _equity(details: Sequence[CellDetail], styles: Mapping[str, str]) -> Chart:
    lines = []
    for detail in reversed(details):  # the best cell last, so that it lies on top
        times = detail.equity["datetime"].to_numpy("datetime64[ns]").astype(np.int64)
        gain = detail.equity["equity"].to_numpy(np.float64) - 1
        lines.append(Line(detail.model, styles[detail.model], times.astype(np.float64), gain))
    return time_chart(lines)


def _legend(details: Sequence[CellDetail], styles: Mapping[str, str]) -> list[Key]:
    keys = []
    for detail in details:
        gain = float(detail.equity["equity"].iloc[-1]) - 1
        keys.append(Key(detail.model, styles[detail.model], f"{gain:+,.1%}".replace("-", "−")))
    return keys


def _learning(detail: CellDetail) -> Chart | None:
    lines = []
    for key, name in CURVES.items():
        points = [(entry["step"], entry[key]) for entry in detail.history if key in entry]
        if len(points) > 1:
            x, y = np.asarray(points, np.float64).T
            lines.append(Line(name, name, x, y))
    return step_chart(lines) if lines else None


def _lowest(detail: CellDetail) -> str:
    found = [(entry["val_log_loss"], entry["step"]) for entry in detail.history if "val_log_loss" in entry]
    return f"lowest {min(found)[0]:.4f} at step {min(found)[1]:,}" if found else ""


def _shares(confusion: npt.NDArray[np.int64]) -> list[list[tuple[int, float]]]:
    """Each count `[3, 3]` with its share of the actual class (0 for a class that never came)."""
    totals = np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    shares = confusion / totals
    return [
        list(zip(counts, row, strict=True)) for counts, row in zip(confusion.tolist(), shares.tolist(), strict=True)
    ]
