"""One horizon's leaderboard on the page: a table whose columns sort, and two figures over all models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from barcast.comparison.results import Results
from barcast.evaluation.metrics import Metric, shown_metrics
from barcast.report.cell_page import CellPage
from barcast.report.columns import Columns, Figure, as_columns, number

Row = Mapping[str, Any]  # of leaderboard.json


@dataclass(frozen=True)
class Value:
    """A table cell: the sort key, the text, and the interval in small print."""

    sort: float | str | None
    text: str
    interval: str = ""
    status: str = ""  # a verdict, which colours it


@dataclass(frozen=True)
class Column:
    """One column; `value` reads it from a row."""

    key: str
    title: str
    meaning: str
    value: Callable[[Row], Value]


@dataclass(frozen=True)
class LeaderboardTable:
    """One horizon."""

    horizon: int
    rows: Sequence[Row]
    caption: str
    cells: Sequence[CellPage]  # in the order of `rows`
    figures: Mapping[str, Figure]

    @property
    def name(self) -> str:
        return f"h{self.horizon}"


def table_columns(reference: str) -> list[Column]:
    """The columns between a row's model and its end, in order."""
    return [
        Column("verdict", f"against {reference}", "is the difference to the reference real, or noise?", _verdict),
        _plain("score", "score", "log-loss out of fold and on validation; ranks the table", ".4f"),
        _plain("val_log_loss", "val log-loss", "the validation part of the score", ".4f"),
        _interval("test_log_loss", "test log-loss", "in nats, lower is better", ".4f"),
        _interval("delta_reference", f"Δ {reference}", f"test log-loss minus that of {reference}, paired", "+.4f"),
        _interval("delta_best", "Δ first", "test log-loss minus that of the first row", "+.4f"),
        Column("mcs", "confidence set", "indistinguishable from the best model (MCS)", _confidence_set),
        *(column for metric in shown_metrics("page") for column in _metric(metric)),
        _plain("coverage", "coverage", "share of prediction sets that contain the true class", ".1%"),
        _plain("set_size", "set size", "mean number of classes in a prediction set", ".2f"),
        Column("seeds", "seeds", "standard deviation of test log-loss over random seeds", _seeds),
    ]


def _plain(key: str, title: str, meaning: str, form: str) -> Column:
    return Column(key, title, meaning, lambda row: Value(row[key], number(row[key], form)))


def _interval(key: str, title: str, meaning: str, form: str) -> Column:
    def value(row: Row) -> Value:
        measured = row[key]
        if measured is None:
            return Value(None, "–")
        low, high = measured["low"], measured["high"]
        bounds = "" if low is None else f"{number(low, form)} … {number(high, form)}"
        return Value(measured["value"], number(measured["value"], form), bounds, measured.get("verdict", ""))

    return Column(key, title, meaning, value)


def _metric(metric: Metric) -> list[Column]:
    """The column of a metric; the deflated Sharpe ratio is beside the Sharpe ratio."""
    column = _interval if metric.direction and metric.resampled else _plain
    meaning = "deflated Sharpe ratio: probability that it is above 0 after all trials"
    deflated = [_plain("dsr", "DSR", meaning, ".3f")] if metric.name == "sharpe" else []
    return [column(metric.name, metric.title, metric.meaning, metric.form), *deflated]


def _verdict(row: Row) -> Value:
    delta = row["delta_reference"]
    return Value("", "reference") if delta is None else Value(delta["verdict"], delta["verdict"], "", delta["verdict"])


def _confidence_set(row: Row) -> Value:
    p = row["mcs_p"]
    return Value(p, "–" if p is None else ("in, " if row["in_confidence_set"] else "out, ") + f"p {p:.2f}")


def _seeds(row: Row) -> Value:
    seeds = row["seeds"]
    return Value(None, "–") if seeds is None else Value(seeds["sd"], f"± {seeds['sd']:.4f}", f"{seeds['runs']} seeds")


def build_leaderboard(results: Results, horizon: int, cells: Sequence[CellPage]) -> LeaderboardTable:
    """Build one horizon's leaderboard; `cells` are in the order of its rows."""
    rows, reference = results.leaderboard["horizons"][f"h{horizon}"], results.leaderboard["reference"]
    predictions = results.cells[cells[0].name].predictions
    symbols, times = sorted(predictions["symbol"].unique()), predictions["datetime"]
    span = f"{len(times):,} windows of {', '.join(symbols)}, {times.min():%Y-%m-%d} to {times.max():%Y-%m-%d}"
    figures = {"delta": Figure("delta", _deltas(rows), _delta_caption(rows, reference)), "growth": _returns(cells)}
    return LeaderboardTable(horizon, rows, f"{span}. {significance_caption(results, horizon)}", cells, figures)


def significance_caption(results: Results, horizon: int) -> str:
    """How intervals were made, whether any model beats the reference, and how overfitted a selection would be."""
    tests, overfitting = results.significance[f"h{horizon}"], results.overfitting[f"h{horizon}"]["pbo"]
    blocks = f"in blocks of {tests['block_length']:.0f} times on average"
    parts = [f"Intervals: {tests['resamples']:,} bootstrap samples {blocks}."]
    if tests["spa"]:
        p = tests["spa"]["consistent"]
        shown = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
        reference = results.leaderboard["reference"]
        parts.append(f"Test for superior predictive ability (null: no model is better than {reference}): {shown}.")
    if overfitting:
        parts.append(f"Probability that a selection by Sharpe ratio is overfitted: {overfitting['pbo']:.0%}.")
    score, val = tests["rank_correlation"]["score"], tests["rank_correlation"]["val"]
    if score and score["low"] is not None and val:
        parts.append(
            f"Rank correlation of the score with log-loss on test: {score['value']:.2f} "
            f"({score['low']:.2f} to {score['high']:.2f}); of validation only: {val['value']:.2f}."
        )
    return " ".join(parts)


def _deltas(rows: Sequence[Row]) -> Columns:
    compared = [row for row in rows if row["delta_reference"] and row["delta_reference"]["low"] is not None]
    keys = ["value", "low", "high", "verdict", "model", "in_confidence_set"]
    deltas = pd.DataFrame([{**row, **row["delta_reference"]} for row in compared], columns=keys)
    deltas = deltas.rename(columns={"value": "delta", "in_confidence_set": "inset"})
    return as_columns(deltas, dict.fromkeys(("delta", "low", "high"), 5))


def _delta_caption(rows: Sequence[Row], reference: str) -> str:
    titles = {"better": f"better than {reference}", "noise": "indistinguishable from it", "worse": "worse"}
    found = [(row["model"], row["delta_reference"]["verdict"]) for row in rows if row["delta_reference"]]
    models = {verdict: [model for model, word in found if word == verdict] for verdict in titles}
    text = "; ".join(f"{titles[verdict]}: {', '.join(names)}" for verdict, names in models.items() if names)
    text, inside = text or "nothing to compare", [row["model"] for row in rows if row["in_confidence_set"]]
    return f"{text[0].upper()}{text[1:]}. In the confidence set: {', '.join(inside) or 'none'}."


def _returns(cells: Sequence[CellPage]) -> Figure:
    equity = {cell.model: cell.figures["equity"].columns for cell in cells}
    first = equity[cells[0].model]
    lines = {model: columns["model"] for model, columns in equity.items()}
    best, worst = max(lines, key=lambda model: lines[model][-1]), min(lines, key=lambda model: lines[model][-1])
    best, worst = (f"{model}, {number(lines[model][-1], '+.1%')}" for model in (best, worst))
    caption = f"Highest at the end: {best}; lowest: {worst}; buy and hold, {number(first['hold'][-1], '+.1%')}."
    return Figure("growth", {"time": first["time"], **lines, "hold": first["hold"]}, caption)
