"""What the page shows of one cell: its figures' columns, and each figure in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from barcast.config import load_yaml
from barcast.errors import DataError
from barcast.evaluation.metrics import CLASS_NAMES
from barcast.evaluation.page import importance
from barcast.evaluation.page.columns import Columns, minutes, rounded, thinned
from barcast.files import read_json
from barcast.paths import cell_name

EQUITY_POINTS = 250
STEPS = 200
Z = 1.959964  # of a two-sided 95% interval


@dataclass(frozen=True)
class Rule:
    """A way to trade, and what it earned on test net of costs; None: undefined."""

    name: str
    total_return: float | None
    sharpe: float | None
    max_drawdown: float | None
    trades: float | None
    exposure: float | None


@dataclass
class CellPage:
    """One cell. `figures`: kind → columns; `words`: kind → one sentence that says what the figure shows."""

    model: str
    horizon: int
    metrics: Mapping[str, Any]
    confusion: list[list[int]]  # [3][3], actual by predicted, on test
    config: Mapping[str, Any]
    figures: dict[str, Columns] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)

    @property
    def name(self) -> str:
        return cell_name(self.model, self.horizon)

    def add(self, kind: str, columns: Columns, words: str) -> None:
        self.figures[kind], self.words[kind] = columns, words


def read_cell(run: Path, spec: Path, model: str, horizon: int, nominal: float) -> CellPage:
    """Read one row's files.

    Args:
        run: the folder that holds its metrics, predictions and plots, and its checkpoint where it was trained.
        spec: its spec; a row without one, such as an ensemble, was not trained itself.
        model: the row's name.
        horizon: bars ahead.
        nominal: the coverage that its prediction sets promise.

    Raises:
        DataError: a file is missing; names the command that makes it.
    """
    files = _Files(run, model, horizon)
    config = load_yaml(spec).get("config", {}) if spec.is_file() else {}
    page = CellPage(model, horizon, read_json(files.need("metrics/metrics.json")), _confusion(files), config)
    if spec.is_file():
        _add_learning(page, read_json(files.need("checkpoints/model/model.json", "train"))["training_history"])
    _add_reliability(page, files.table("test_reliability.csv"))
    _add_coverage(page, files.table("test_coverage.csv"), nominal)
    _add_equity(page, files.table("test_equity.csv"))
    page.rules = rules(page.metrics)
    for kind, columns, words in importance.figures(files.table("importance.csv")):
        page.add(kind, columns, words)
    return page


@dataclass(frozen=True)
class _Files:
    """One row's folder."""

    run: Path
    model: str
    horizon: int

    def need(self, name: str, stage: str = "evaluate") -> Path:
        path = self.run / name
        if not path.is_file():
            cell, command = cell_name(self.model, self.horizon), f"dvc repro {stage}@{self.model}-{self.horizon}"
            raise DataError(f"{cell}: {path} is missing; run `{command}` first")
        return path

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.need(f"plots/{name}"))


def rules(metrics: Mapping[str, Any]) -> list[Rule]:
    """What each way to trade the predictions earned on test, and holding every symbol."""
    ways = {
        "every prediction": metrics["test"],
        "sets of one class": metrics["abstention"]["sets"]["test"],
        "beyond a threshold": metrics["abstention"]["threshold"]["test"],
        "buy and hold": metrics["buy_hold"]["test"],
    }
    return [
        Rule(name, *(way[key] for key in ("total_return", "sharpe", "max_drawdown", "trades", "exposure")))
        for name, way in ways.items()
    ]


def _confusion(files: _Files) -> list[list[int]]:
    frame = files.table("test_confusion.csv")
    counts = pd.crosstab(frame["actual"], frame["predicted"])
    table: list[list[int]] = counts.reindex(index=CLASS_NAMES, columns=CLASS_NAMES, fill_value=0).to_numpy().tolist()
    return table


def _add_learning(page: CellPage, history: Sequence[Mapping[str, float]]) -> None:
    """A model that is fitted in one step has no curve."""
    curve = pd.DataFrame(history).reindex(columns=["step", "train_log_loss", "val_log_loss"])
    curve = curve.dropna(subset=["step", "val_log_loss"])
    if len(curve) < 2:
        return
    best = int(curve["val_log_loss"].to_numpy().argmin())
    lowest, at = float(curve["val_log_loss"].iloc[best]), int(curve["step"].iloc[best])
    shown = thinned(curve, STEPS)
    if at not in set(shown["step"]):
        shown = pd.concat([shown, curve.iloc[[best]]]).sort_values("step")
    columns: Columns = {
        "step": shown["step"].astype(int).tolist(),
        "train": rounded(shown["train_log_loss"], 5),
        "val": rounded(shown["val_log_loss"], 5),
        "lowest": [int(step == at) for step in shown["step"]],
    }
    last = int(curve["step"].iloc[-1])
    words = f"Validation log-loss is lowest at step {at:,} of {last:,}: {lowest:.4f}."
    limit = page.metrics["ended_by_limit"]
    more = f" {limit} ended the training while it was still improving." if limit else ""
    page.add("learning", columns, words + more)


def _add_reliability(page: CellPage, table: pd.DataFrame) -> None:
    """Raw probabilities are shown beside the published ones where the two differ."""
    method, published = page.metrics["calibration"]["method"], page.metrics["test"]["ece"]
    filled = table[(table["count"] > 0) & ((table["kind"] == "published") | (method != "none"))]
    columns: Columns = {
        "kind": filled["kind"].tolist(),
        "confidence": rounded(filled["confidence"], 4),
        "accuracy": rounded(filled["accuracy"], 4),
        "count": filled["count"].tolist(),
    }
    if method == "none":
        how = "the model’s own probabilities, since no scaling of them helped on validation"
    else:
        how = f"after {method} scaling; {page.metrics['raw']['test']['ece']:.3f} raw"
    page.add("reliability", columns, f"Expected calibration error {published:.3f}: {how}.")


def _add_coverage(page: CellPage, table: pd.DataFrame, nominal: float) -> None:
    low, high = wilson(table["coverage"].to_numpy(np.float64), table["windows"].to_numpy(np.float64))
    columns: Columns = {
        "month": table["month"].tolist(),
        "coverage": rounded(table["coverage"], 4),
        "low": rounded(low, 4),
        "high": rounded(high, 4),
        "nominal": [round(nominal, 4)] * len(table),
        "windows": table["windows"].tolist(),
    }
    worst = table.iloc[int(table["coverage"].to_numpy().argmin())]
    found = page.metrics["conformal"]["test"]
    words = (
        f"The sets held the truth for {found['coverage']:.1%} of {found['windows']:,} windows; {nominal:.0%} was "
        f"promised. "
        f"Lowest: {worst['coverage']:.1%} in {worst['month']}. A set holds {found['mean_size']:.2f} classes on average."
    )
    page.add("coverage", columns, words)


def wilson(share: np.ndarray[Any, Any], count: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """The 95% score interval of a binomial share (Wilson 1927), element by element."""
    centre = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * np.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    return centre - half, centre + half


def _add_equity(page: CellPage, table: pd.DataFrame) -> None:
    deepest, last = float(table["drawdown"].min()), table.iloc[-1]
    shown = thinned(table, EQUITY_POINTS)
    time = minutes(pd.to_datetime(shown["datetime"], utc=True)).tolist()
    columns: Columns = {"time": time}
    for key, source in {"model": "equity", "hold": "buy_hold", "prior": "prior", "sets": "sets"}.items():
        columns[key] = rounded(shown[source] - 1, 4)
    page.add(
        "equity",
        columns,
        f"{_percent(last['equity'] - 1)} net of costs; {_percent(last['buy_hold'] - 1)} by buying and holding, "
        f"{_percent(last['prior'] - 1)} by following the prior.",
    )
    fallen = {"time": time, "drawdown": rounded(shown["drawdown"], 4)}
    page.add("drawdown", fallen, f"At its deepest {_percent(deepest)} below the highest value before.")


def _percent(value: float) -> str:
    return f"{value:+.1%}".replace("-", "−")
