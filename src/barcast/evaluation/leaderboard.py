"""All cells beside each other, ranked by log-loss out of fold and on validation: as data, Markdown and tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from barcast.errors import DataError
from barcast.evaluation.sharpe import probabilistic_sharpe
from barcast.evaluation.standings import SeedSpread, Standing
from barcast.evaluation.trials import Trials
from barcast.evaluation.verdicts import Delta, Interval
from barcast.files import read_json

FILE = "leaderboard.json"
METRICS = ("brier", "macro_f1", "mcc", "auc_ovr", "ece", "sharpe", "max_drawdown")
INTERVALS = ("test_log_loss", *METRICS, "sharpe_sets", "sharpe_threshold")
_STYLES = {"better": "green", "worse": "red", "noise": "dim", "in": "cyan"}


@dataclass(frozen=True)
class Row:
    """One cell's place among those of its horizon (docs/evaluation.md, "Files").

    `score` ranks the rows (`rank_scores`). All but it and `val_log_loss` is measured on test; None: undefined, or a
    difference to itself.
    """

    rank: int
    model: str
    score: float
    val_log_loss: float
    test_log_loss: Interval
    delta_reference: Delta | None
    delta_best: Delta | None
    in_confidence_set: bool
    mcs_p: float
    brier: Interval
    macro_f1: Interval
    mcc: Interval
    auc_ovr: Interval
    ece: Interval
    sharpe: Interval
    max_drawdown: Interval
    psr: float | None
    dsr: float | None
    trades: float | None
    sharpe_sets: Interval
    sharpe_threshold: Interval
    coverage: float
    set_size: float
    calibration: str
    raw_log_loss: float
    seeds: SeedSpread | None

    @classmethod
    def of(
        cls,
        rank: int,
        model: str,
        score: float,
        metrics: Mapping[str, Any],
        standing: Standing,
        trials: Trials,
        mcs_size: float,
    ) -> Row:
        """From what ranks a row, its metrics.json, its standing among the others, and all that was tried."""
        measured = standing.metrics
        return cls(
            rank=rank,
            model=model,
            score=score,
            val_log_loss=metrics["val"]["log_loss"],
            test_log_loss=measured["log_loss"],
            delta_reference=standing.delta_reference,
            delta_best=standing.delta_best,
            in_confidence_set=standing.mcs_p >= mcs_size,
            mcs_p=standing.mcs_p,
            **{name: measured[name] for name in METRICS},
            psr=probabilistic_sharpe(standing.moments) if standing.moments else None,
            dsr=trials.deflate(standing.moments),
            trades=metrics["test"]["trades"],
            sharpe_sets=standing.rules["sets"]["sharpe"],
            sharpe_threshold=standing.rules["threshold"]["sharpe"],
            coverage=metrics["conformal"]["test"]["coverage"],
            set_size=metrics["conformal"]["test"]["mean_size"],
            calibration=metrics["calibration"]["method"],
            raw_log_loss=metrics["raw"]["test"]["log_loss"],
            seeds=standing.seeds,
        )

    @property
    def verdict(self) -> str | None:
        return self.delta_reference.verdict if self.delta_reference else None

    @property
    def verdict_best(self) -> str | None:
        return self.delta_best.verdict if self.delta_best else None

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Row:
        """Inverse of `dataclasses.asdict`."""
        nested: dict[str, Any] = {name: Interval(**content[name]) for name in INTERVALS}
        for name, kind in (("delta_reference", Delta), ("delta_best", Delta), ("seeds", SeedSpread)):
            nested[name] = kind(**content[name]) if content[name] else None
        return cls(**{**content, **nested})


@dataclass(frozen=True)
class Leaderboard:
    """Rows by horizon, best first; `reference` names the model that `delta_reference` is measured from, `level` is
    the confidence of every interval."""

    reference: str
    level: float
    horizons: dict[int, list[Row]]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` turns it back."""
        horizons = {f"h{horizon}": [asdict(row) for row in rows] for horizon, rows in self.horizons.items()}
        return {"reference": self.reference, "level": self.level, "horizons": horizons}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Leaderboard:
        """Inverse of `to_dict`; horizons in ascending order."""
        horizons = {int(key.removeprefix("h")): rows for key, rows in content["horizons"].items()}
        rows = {h: [Row.from_dict(row) for row in horizons[h]] for h in sorted(horizons)}
        return cls(content["reference"], content["level"], rows)


@dataclass(frozen=True)
class Column:
    """How one field of a row is shown."""

    key: str
    title: str
    meaning: str
    form: Callable[[Any], str]
    margin: bool = True  # whether an interval is shown with its half-width

    def show(self, row: Row) -> str:
        """The value as text, a dash where it is undefined."""
        value = getattr(row, self.key)
        if isinstance(value, Interval | Delta):
            return _with_margin(value, self.form) if self.margin else self._show(value.value)
        if isinstance(value, SeedSpread):
            return f"{value.mean:.4f} ±{value.sd:.4f} ({value.runs})"
        return value if isinstance(value, str) else self._show(value)

    def _show(self, value: Any) -> str:
        return "–" if value is None else self.form(value).replace("-", "−")


def _with_margin(value: Interval | Delta, form: Callable[[Any], str]) -> str:
    """`1.0636 ±0.0118`; an interval that its metric's bounds cut off is shown by its longer side."""
    if value.value is None:
        return "–"
    shown = form(value.value).replace("-", "−")
    if value.low is None or value.high is None:
        return shown
    half = max(value.high - value.value, value.value - value.low)
    return f"{shown} ±{form(half).removeprefix('+')}"


def _signed(digits: int) -> Callable[[float], str]:
    def show(value: float) -> str:
        return f"{value:+.{digits}f}" if round(value, digits) else f"{0:.{digits}f}"

    return show


def columns(reference: str) -> list[Column]:
    """The columns of every rendering, in order; the names are the model's own in `rank` and `model`."""
    return [
        Column("rank", "#", "place by score", str),
        Column("model", "model", "", str),
        Column("score", "score", "log-loss out of fold and on the ranked part of validation; ranks", "{:.4f}".format),
        Column("test_log_loss", "test log-loss", "in nats, lower is better", "{:.4f}".format),
        Column("delta_reference", f"Δ {reference}", f"test log-loss minus {reference}'s", _signed(4)),
        Column("verdict", "verdict", f"whether that difference to {reference} is real", str),
        Column("in_confidence_set", "set", "in the model confidence set", lambda held: "●" if held else ""),
        Column("verdict_best", "vs #1", "whether the difference to rank 1 is real", str),
        Column("mcc", "MCC", "Matthews correlation, 0 is chance", _signed(3), margin=False),
        Column("ece", "ECE", "expected calibration error", "{:.3f}".format, margin=False),
        Column("sharpe", "Sharpe", "a year, net of costs", "{:.1f}".format),
        Column("dsr", "DSR", "probability that it is above 0, deflated by the trials at hand", "{:.2f}".format),
    ]


def further_columns() -> list[Column]:
    """Columns for renderings with more room than a terminal."""
    return [
        Column("val_log_loss", "val", "log-loss on the ranked part of validation", "{:.4f}".format),
        Column("macro_f1", "macro-F1", "mean F1 of the classes", "{:.3f}".format, margin=False),
        Column("auc_ovr", "AUC", "one-vs-rest, 0.5 is chance", "{:.3f}".format, margin=False),
        Column("max_drawdown", "max DD", "largest fall of the net equity", "{:.1%}".format, margin=False),
        Column("trades", "trades", "positions opened", "{:,.0f}".format),
        Column("sharpe_sets", "Sharpe, sets", "acting only on prediction sets of one class", "{:.1f}".format),
        Column("sharpe_threshold", "Sharpe, threshold", "acting beyond validation's best threshold", "{:.1f}".format),
        Column("seeds", "seeds", "test log-loss over the seeds: mean ±sd (runs)", str),
        Column("coverage", "coverage", "share of prediction sets that hold the truth", "{:.3f}".format),
        Column("set_size", "set size", "mean size of the prediction sets, 1 … 3", "{:.2f}".format),
        Column("calibration", "calibration", "scaling of the probabilities, chosen on validation", str),
    ]


def load_leaderboard(report_dir: Path) -> Leaderboard:
    """Read the leaderboard that `compare` wrote.

    Raises:
        DataError: there is none yet, or one of an earlier form.
    """
    path = report_dir / FILE
    if not path.is_file():
        raise DataError(f"{path}: no leaderboard yet; run `dvc repro` first")
    try:
        return Leaderboard.from_dict(read_json(path))
    except (KeyError, TypeError):
        raise DataError(f"{path}: written by another version of barcast; run `dvc repro compare`") from None


def render_markdown(leaderboard: Leaderboard) -> str:
    """One Markdown table a horizon."""
    shown = columns(leaderboard.reference) + further_columns()
    lines = ["# Leaderboard", "", caption(leaderboard)]
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
    console.print(caption(leaderboard), highlight=False, markup=False)


def caption(leaderboard: Leaderboard) -> str:
    """What a reader must know to read the table."""
    return (
        "Ranked by score: log-loss out of fold inside train and on validation. Every other figure is on test, trading "
        "net of costs. "
        f"±: {leaderboard.level:.0%} interval, block bootstrap over time. Δ: test log-loss minus that of "
        f"{leaderboard.reference}, below 0 is better; its intervals hold for all models of a horizon at once. "
        "●: in the model confidence set."
    )


def _width(table: Table, console: Console) -> int:
    """The columns that a table would take on a terminal without end."""
    return console.measure(table, options=console.options.update(width=10_000)).maximum


def _table(horizon: int, rows: Sequence[Row], reference: str, shown: Sequence[Column]) -> Table:
    table = Table(title=f"{horizon} bars ahead", title_justify="left", title_style="bold", header_style="dim")
    table.box, table.pad_edge, table.padding = box.SIMPLE_HEAD, False, (0, 1, 0, 0)
    for column in shown:
        table.add_column(column.title, justify="left" if column.key == "model" else "right", no_wrap=True)
    for row in rows:
        style = "bold" if row.rank == 1 else "dim" if row.model == reference else ""
        table.add_row(*(_coloured(column, row) for column in shown), style=style)
    return table


def _coloured(column: Column, row: Row) -> Text:
    shown = column.show(row)
    word = "in" if column.key == "in_confidence_set" else shown if column.key.startswith("verdict") else ""
    return Text(shown, style=_STYLES.get(word, ""))
