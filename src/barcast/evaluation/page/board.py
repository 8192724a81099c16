"""One horizon's leaderboard as the page shows it: a table whose columns sort, and two figures over all models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from barcast.evaluation._numbers import number
from barcast.evaluation.page.columns import Columns
from barcast.evaluation.page.content import CellPage

Entry = Mapping[str, Any]  # a row of leaderboard.json


@dataclass(frozen=True)
class Value:
    """A table cell: what is sorted by, what is read, and the interval in small print."""

    sort: float | str | None
    text: str
    interval: str = ""
    tone: str = ""  # a verdict, which colours it


@dataclass(frozen=True)
class Column:
    """One column; `value` reads it from a row."""

    key: str
    title: str
    meaning: str
    value: Callable[[Entry], Value]


@dataclass(frozen=True)
class Board:
    """One horizon."""

    horizon: int
    rows: Sequence[Entry]
    note: str
    cells: Sequence[CellPage]  # in the order of `rows`
    figures: Mapping[str, Columns]
    words: Mapping[str, str]

    @property
    def name(self) -> str:
        return f"h{self.horizon}"


def _plain(key: str, form: str) -> Callable[[Entry], Value]:
    def value(row: Entry) -> Value:
        found = row[key]
        return Value(found, number(found, form))

    return value


def _interval(key: str, form: str) -> Callable[[Entry], Value]:
    def value(row: Entry) -> Value:
        found = row[key]
        if found is None:
            return Value(None, "–")
        spread = "" if found["low"] is None else f"{number(found['low'], form)} … {number(found['high'], form)}"
        return Value(found["value"], number(found["value"], form), spread, found.get("verdict", ""))

    return value


def _verdict(row: Entry) -> Value:
    delta = row["delta_reference"]
    return Value("", "reference") if delta is None else Value(delta["verdict"], delta["verdict"], "", delta["verdict"])


def _inset(row: Entry) -> Value:
    p = row["mcs_p"]
    return Value(p, "–" if p is None else ("in, " if row["in_confidence_set"] else "out, ") + f"p {p:.2f}")


def _seeds(row: Entry) -> Value:
    seeds = row["seeds"]
    return Value(None, "–") if seeds is None else Value(seeds["sd"], f"± {seeds['sd']:.4f}", f"{seeds['runs']} seeds")


def table_columns(reference: str) -> list[Column]:
    """The columns between a row's model and its end, in order."""
    return [
        Column("verdict", f"against {reference}", "is the difference to the reference real, or noise?", _verdict),
        Column("score", "score", "log-loss out of fold and on validation; ranks the table", _plain("score", ".4f")),
        Column("val_log_loss", "val log-loss", "the part of it on validation", _plain("val_log_loss", ".4f")),
        Column("test_log_loss", "test log-loss", "in nats, lower is better", _interval("test_log_loss", ".4f")),
        Column(
            "delta_reference",
            f"Δ {reference}",
            f"test log-loss minus {reference}'s, paired",
            _interval("delta_reference", "+.4f"),
        ),
        Column(
            "delta_best", "Δ first", "test log-loss minus that of the row ranked first", _interval("delta_best", "+.4f")
        ),
        Column("mcs", "confidence set", "among the models that can't be told from the best (MCS)", _inset),
        Column("macro_f1", "macro-F1", "mean F1 of the classes", _interval("macro_f1", ".3f")),
        Column("mcc", "MCC", "Matthews correlation, 0 is chance", _interval("mcc", "+.3f")),
        Column("auc_ovr", "AUC", "one-vs-rest, 0.5 is chance", _interval("auc_ovr", ".3f")),
        Column("brier", "Brier", "squared error of the probabilities, lower is better", _interval("brier", ".4f")),
        Column("ece", "ECE", "expected calibration error", _interval("ece", ".3f")),
        Column("sharpe", "Sharpe", "a year, net of costs", _interval("sharpe", ".2f")),
        Column("dsr", "DSR", "chance that the Sharpe ratio is real, after the trials at hand", _plain("dsr", ".3f")),
        Column("max_drawdown", "max drawdown", "largest fall of the net equity", _interval("max_drawdown", ".1%")),
        Column("trades", "trades", "positions opened", _plain("trades", ",.0f")),
        Column("coverage", "coverage", "share of prediction sets that held the truth", _plain("coverage", ".1%")),
        Column("set_size", "set size", "classes in a prediction set, on average", _plain("set_size", ".2f")),
        Column("seeds", "seeds", "test log-loss over random seeds, standard deviation", _seeds),
    ]


def build_board(horizon: int, rows: Sequence[Entry], cells: Sequence[CellPage], note: str, reference: str) -> Board:
    """Put one horizon together.

    Args:
        horizon: bars ahead.
        rows: of leaderboard.json, best first.
        cells: the rows' own pages, in their order.
        note: which windows were scored, and what the tests say.
        reference: the model that deltas are measured from.
    """
    figures = {"delta": _deltas(rows), "growth": _growth(cells)}
    words = {"delta": _delta_words(rows, reference), "growth": _growth_words(cells)}
    return Board(horizon, rows, note, cells, figures, words)


def _deltas(rows: Sequence[Entry]) -> Columns:
    compared = [row for row in rows if row["delta_reference"] and row["delta_reference"]["low"] is not None]
    deltas = [row["delta_reference"] for row in compared]
    return {
        "model": [row["model"] for row in compared],
        "delta": [round(delta["value"], 5) for delta in deltas],
        "low": [round(delta["low"], 5) for delta in deltas],
        "high": [round(delta["high"], 5) for delta in deltas],
        "verdict": [delta["verdict"] for delta in deltas],
        "inset": [int(bool(row["in_confidence_set"])) for row in compared],
    }


def _delta_words(rows: Sequence[Entry], reference: str) -> str:
    by_verdict: dict[str, list[str]] = {"better": [], "noise": [], "worse": []}
    for row in rows:
        if row["delta_reference"]:
            by_verdict[row["delta_reference"]["verdict"]].append(row["model"])
    said = {"better": f"better than {reference}", "noise": "not told apart from it", "worse": "worse"}
    parts = [f"{said[verdict]}: {', '.join(models)}" for verdict, models in by_verdict.items() if models]
    inside = [row["model"] for row in rows if row["in_confidence_set"]]
    text = "; ".join(parts) or "nothing to compare"
    return f"{text[0].upper()}{text[1:]}. In the confidence set: {', '.join(inside) or 'none'}."


def _growth(cells: Sequence[CellPage]) -> Columns:
    first = cells[0].figures["equity"]
    return {
        "time": first["time"],
        **{cell.model: cell.figures["equity"]["model"] for cell in cells},
        "hold": first["hold"],
    }


def _growth_words(cells: Sequence[CellPage]) -> str:
    last = {cell.model: cell.figures["equity"]["model"][-1] for cell in cells}
    best, worst = max(last, key=lambda model: last[model]), min(last, key=lambda model: last[model])
    hold = cells[0].figures["equity"]["hold"][-1]
    named = {f"Most at the end: {best}": last[best], f"least: {worst}": last[worst], "buying and holding": hold}
    return "; ".join(f"{name}, {number(value, '+.1%')}" for name, value in named.items()) + "."
