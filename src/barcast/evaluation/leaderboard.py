"""All cells beside each other, ranked by validation log-loss: as data, Markdown and terminal tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from barcast.errors import DataError
from barcast.files import read_json

FILE = "leaderboard.json"

Scores = Mapping[str, float | None]


@dataclass(frozen=True)
class CellResult:
    """The metrics of one cell, and those of the reference at the same horizon on the same windows."""

    model: str
    horizon: int
    val: Scores
    test: Scores
    reference: Scores  # on test


@dataclass(frozen=True)
class Row:
    """One cell's place among those of its horizon. All but `val_log_loss` is measured on test; None: undefined."""

    rank: int
    model: str
    val_log_loss: float
    test_log_loss: float
    delta_reference: float
    macro_f1: float | None
    mcc: float | None
    auc_ovr: float | None
    ece: float | None
    sharpe: float | None
    max_drawdown: float | None
    trades: float | None


@dataclass(frozen=True)
class Leaderboard:
    """Rows by horizon, best first; `reference` names the model that `delta_reference` is measured from."""

    reference: str
    horizons: dict[int, list[Row]]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` turns it back."""
        horizons = {f"h{horizon}": [asdict(row) for row in rows] for horizon, rows in self.horizons.items()}
        return {"reference": self.reference, "horizons": horizons}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Leaderboard:
        """Inverse of `to_dict`; horizons in ascending order."""
        horizons = {int(key.removeprefix("h")): rows for key, rows in content["horizons"].items()}
        return cls(content["reference"], {h: [Row(**row) for row in horizons[h]] for h in sorted(horizons)})


@dataclass(frozen=True)
class Column:
    """How one field of a row is shown."""

    key: str
    title: str
    meaning: str
    form: Callable[[Any], str]

    def show(self, row: Row) -> str:
        """The value as text, a dash where it is undefined."""
        value = getattr(row, self.key)
        if isinstance(value, str):
            return value
        return "–" if value is None else self.form(value).replace("-", "−")


def _signed(digits: int) -> Callable[[float], str]:
    def show(value: float) -> str:
        return f"{value:+.{digits}f}" if round(value, digits) else f"{0:.{digits}f}"

    return show


def columns(reference: str) -> list[Column]:
    """The columns of every rendering, in order; the names are the model's own in `rank` and `model`."""
    return [
        Column("rank", "#", "place by validation log-loss", str),
        Column("model", "model", "", str),
        Column("val_log_loss", "val log-loss", "validation; ranks the table", "{:.4f}".format),
        Column("test_log_loss", "test log-loss", "in nats, lower is better", "{:.4f}".format),
        Column("delta_reference", f"Δ {reference}", f"test log-loss minus {reference}'s", _signed(4)),
        Column("macro_f1", "macro-F1", "mean F1 of the classes", "{:.3f}".format),
        Column("mcc", "MCC", "Matthews correlation, 0 is chance", _signed(3)),
        Column("auc_ovr", "AUC", "one-vs-rest, 0.5 is chance", "{:.3f}".format),
        Column("ece", "ECE", "expected calibration error", "{:.3f}".format),
        Column("sharpe", "Sharpe", "a year, net of costs", "{:.2f}".format),
        Column("max_drawdown", "max DD", "largest fall of the net equity", "{:.1%}".format),
        Column("trades", "trades", "positions opened", "{:,}".format),
    ]


def rank_cells(cells: Sequence[CellResult], reference: str) -> Leaderboard:
    """Rank the cells of each horizon by validation log-loss; equal ones by name."""
    horizons: dict[int, list[Row]] = {}
    for horizon in sorted({cell.horizon for cell in cells}):
        found = [cell for cell in cells if cell.horizon == horizon]
        found.sort(key=lambda cell: (_loss(cell.val), cell.model))
        horizons[horizon] = [_row(rank, cell) for rank, cell in enumerate(found, 1)]
    return Leaderboard(reference, horizons)


def load_leaderboard(report_dir: Path) -> Leaderboard:
    """Read the leaderboard that `compare` wrote.

    Raises:
        DataError: there is none yet.
    """
    path = report_dir / FILE
    if not path.is_file():
        raise DataError(f"{path}: no leaderboard yet; run `dvc repro` first")
    return Leaderboard.from_dict(read_json(path))


def render_markdown(leaderboard: Leaderboard) -> str:
    """One Markdown table a horizon."""
    shown = columns(leaderboard.reference)
    lines = ["# Leaderboard", "", _caption(leaderboard)]
    for horizon, rows in leaderboard.horizons.items():
        lines += ["", f"## {horizon} bars ahead", ""]
        lines.append("| " + " | ".join(column.title for column in shown) + " |")
        lines.append("|" + "|".join(" :-- " if column.key == "model" else " --: " for column in shown) + "|")
        lines += ["| " + " | ".join(column.show(row) for column in shown) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def render_terminal(leaderboard: Leaderboard, console: Console) -> None:
    """Print one table a horizon: whole in 120 columns, without its last figures where there is less room."""
    for horizon, rows in leaderboard.horizons.items():
        shown = columns(leaderboard.reference)
        while _width(table := _table(horizon, rows, leaderboard.reference, shown), console) > console.width:
            shown.pop()
        console.print(table)
    console.print(_caption(leaderboard), highlight=False, markup=False)


def _width(table: Table, console: Console) -> int:
    """The columns that a table would take on a terminal without end."""
    return console.measure(table, options=console.options.update(width=10_000)).maximum


def _table(horizon: int, rows: list[Row], reference: str, shown: list[Column]) -> Table:
    table = Table(title=f"{horizon} bars ahead", title_justify="left", title_style="bold", header_style="dim")
    table.box, table.pad_edge, table.padding = box.SIMPLE_HEAD, False, (0, 1, 0, 0)
    for column in shown:
        table.add_column(column.title, justify="left" if column.key == "model" else "right", no_wrap=True)
    for row in rows:
        style = "bold" if row.rank == 1 else "dim" if row.model == reference else ""
        table.add_row(*(column.show(row) for column in shown), style=style)
    return table


def _caption(leaderboard: Leaderboard) -> str:
    return (
        "Ranked by validation log-loss; every other figure is on the test split, trading net of costs. "
        f"Δ: test log-loss minus that of {leaderboard.reference}, below 0 is better."
    )


def _row(rank: int, cell: CellResult) -> Row:
    shared = ("macro_f1", "mcc", "auc_ovr", "ece", "sharpe", "max_drawdown", "trades")
    test = _loss(cell.test)
    return Row(
        rank=rank,
        model=cell.model,
        val_log_loss=_loss(cell.val),
        test_log_loss=test,
        delta_reference=test - _loss(cell.reference),
        **{key: cell.test[key] for key in shared},
    )


def _loss(scores: Scores) -> float:
    loss = scores["log_loss"]
    assert loss is not None, "a log-loss is always defined: probabilities are clipped"
    return loss
