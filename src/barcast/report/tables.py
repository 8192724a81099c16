"""The leaderboard as Markdown and as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from barcast.comparison.leaderboard import Leaderboard, Row
from barcast.evaluation.metrics import Metric, shown_metrics
from barcast.report.columns import number

VERDICT = "verdict"
_STYLES = {"better": "green", "worse": "red", "noise": "dim", "●": "cyan"}


@dataclass(frozen=True)
class Column:
    """How one value of a row is shown; `margin`: with half of its interval."""

    key: str
    title: str
    form: str = ""
    margin: bool = False

    def show(self, row: Row) -> str:
        """The value as text, a dash where it is undefined."""
        value: Any = row[self.key]
        if self.key == "in_confidence_set":
            return "●" if value else ""
        if self.key == "seeds" and value:
            return f"{value['mean']:.4f} ±{value['sd']:.4f} ({value['runs']})"
        if not isinstance(value, Mapping):
            return value if isinstance(value, str) else self._number(value)
        if self.form == VERDICT:
            return str(value["verdict"])
        middle, low, high = value["value"], value["low"], value["high"]
        if not self.margin or low is None:
            return self._number(middle)
        half = max(high - middle, middle - low)  # one side may be cut off at a bound
        return f"{self._number(middle)} ±{format(half, self.form).removeprefix('+')}"

    def _number(self, value: float | None) -> str:
        """Only signed columns drop the sign of what rounds to 0."""
        if value is None or self.form.startswith("+"):
            return number(value, self.form)
        return format(value, self.form).replace("-", "−")


def columns(reference: str) -> list[Column]:
    """The columns of every rendering, in order."""
    return [
        Column("rank", "#"),
        Column("model", "model"),
        Column("score", "score", ".4f"),
        Column("test_log_loss", "test log-loss", ".4f", margin=True),
        Column("delta_reference", f"Δ {reference}", "+.4f", margin=True),
        Column("delta_reference", "verdict", VERDICT),
        Column("in_confidence_set", "set"),
        Column("delta_best", "vs #1", VERDICT),
        *map(_metric_column, shown_metrics("terminal")),
        Column("dsr", "DSR", ".2f"),
    ]


def further_columns() -> list[Column]:
    """Columns for renderings with more room than a terminal."""
    return [
        Column("val_log_loss", "val", ".4f"),
        *(_metric_column(metric) for metric in shown_metrics("markdown") if metric.shown == "markdown"),
        Column("sharpe_sets", "Sharpe, sets", ".1f", margin=True),
        Column("sharpe_threshold", "Sharpe, threshold", ".1f", margin=True),
        Column("seeds", "seeds"),
        Column("coverage", "coverage", ".3f"),
        Column("set_size", "set size", ".2f"),
        Column("calibration", "calibration"),
    ]


def _metric_column(metric: Metric) -> Column:
    if metric.name == "sharpe":
        return Column("sharpe", metric.title, ".1f", margin=True)
    return Column(metric.name, metric.title.replace("drawdown", "DD"), metric.form)


def render_markdown(leaderboard: Leaderboard) -> str:
    """One Markdown table per horizon."""
    shown = columns(leaderboard["reference"]) + further_columns()
    lines = ["# Leaderboard", "", caption(leaderboard)]
    titles = "| " + " | ".join(column.title for column in shown) + " |"
    sides = "|" + "|".join(" :-- " if column.key == "model" else " --: " for column in shown) + "|"
    for horizon, rows in leaderboard["horizons"].items():
        lines += ["", f"## {horizon.removeprefix('h')} bars ahead", "", titles, sides]
        lines += ["| " + " | ".join(column.show(row) for column in shown) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def render_terminal(leaderboard: Leaderboard, console: Console) -> None:
    """Print one table per horizon: whole in 120 columns, without its last columns where there is less room."""
    reference = leaderboard["reference"]
    for horizon, rows in leaderboard["horizons"].items():
        shown, title = columns(reference), f"{horizon.removeprefix('h')} bars ahead"
        anywhere = console.options.update(width=10_000)  # a table is measured on a terminal of any width
        while console.measure(table := _table(title, rows, reference, shown), options=anywhere).maximum > console.width:
            shown.pop()
        console.print(table)
    console.print(caption(leaderboard), highlight=False, markup=False)


def caption(leaderboard: Leaderboard) -> str:
    """What a reader must know to read the table."""
    return (
        "Ranked by score: log-loss out of fold inside train and on validation. Every other figure is on test, trading "
        f"net of costs. ±: {leaderboard['level']:.0%} interval, block bootstrap over time. Δ: test log-loss minus that "
        f"of {leaderboard['reference']}, below 0 is better; its intervals hold for all models of a horizon at once. "
        "●: in the model confidence set."
    )


def _table(title: str, rows: Sequence[Row], reference: str, shown: Sequence[Column]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim")
    table.box, table.pad_edge, table.padding = box.SIMPLE_HEAD, False, (0, 1, 0, 0)
    for column in shown:
        table.add_column(column.title, justify="left" if column.key == "model" else "right", no_wrap=True)
    for row in rows:
        style = "bold" if row["rank"] == 1 else "dim" if row["model"] == reference else ""
        values = [column.show(row) for column in shown]
        table.add_row(*(Text(value, style=_STYLES.get(value, "")) for value in values), style=style)
    return table
