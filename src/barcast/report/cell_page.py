"""What the page shows of one cell: its figures, confusion table, trading results and hyperparameters; its DVC plots."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from barcast.comparison.results import CellResult
from barcast.evaluation.metrics import CLASS_NAMES
from barcast.evaluation.plots import OTHERS, thin
from barcast.report.columns import Columns, Figure, as_columns, minutes, number

EQUITY_POINTS = 250
FEATURES = 16
LAGS = 60  # columns of the heat map; more lags share columns
WHOLE = "all"  # the lag of what describes a window as a whole
SCALE = 1e5  # shares are written as whole numbers of 1/100,000
STEPS = 200
Z = 1.959964  # of a two-sided 95% interval
KINDS = {"raw": "uncalibrated", "published": "calibrated"}  # of test_reliability.csv


@dataclass(frozen=True)
class CellPage:
    """One cell."""

    name: str
    model: str
    horizon: int
    config: Mapping[str, Any]  # empty for a row that was not trained itself, such as an ensemble
    confusion: list[list[int]]  # [3][3], actual by predicted, on test
    strategies: Mapping[str, Mapping[str, float | None]]  # ways to trade on test: name → results net of costs
    figures: Mapping[str, Figure]


def build_cell(
    cell: CellResult, history: Sequence[Mapping[str, float]], tables: Mapping[str, pd.DataFrame], nominal: float
) -> CellPage:
    """Build one cell's part of the page.

    `history` has an entry per step of training, none for a row that was not trained itself; `tables` are the files in
    `plots/` by name; `nominal` is the coverage that the prediction sets aim at.
    """
    metrics, config = cell.metrics, cell.spec.get("config", {})
    figures = {
        "learning": learning_curve(history, config.get("max_epochs"), metrics["ended_by_limit"]),
        "reliability": _reliability(metrics, tables["test_reliability"]),
        "coverage": _coverage(metrics["conformal"]["test"], tables["test_coverage"], nominal),
        **_equity(tables["test_equity"]),
        **importance_figures(tables["importance"]),
    }
    strategies = {
        "every prediction": metrics["test"],
        "prediction sets of one class": metrics["abstention"]["sets"]["test"],
        "beyond a threshold": metrics["abstention"]["threshold"]["test"],
        "buy and hold": metrics["buy_hold"]["test"],
    }
    counts = pd.crosstab(tables["test_confusion"]["actual"], tables["test_confusion"]["predicted"])
    confusion = counts.reindex(index=CLASS_NAMES, columns=CLASS_NAMES, fill_value=0).to_numpy().tolist()
    drawn = {name: figure for name, figure in figures.items() if figure}
    return CellPage(cell.name, cell.model, cell.horizon, config, confusion, strategies, drawn)


def learning_curve(history: Sequence[Mapping[str, float]], epochs: int | None, limit: str | None) -> Figure | None:
    """Log-loss by step of training; None for a model that is fitted in one step.

    A cell of networks trains them one after another and numbers their steps `network * epochs + epoch`: each has its
    own line, over epochs that start at 1. `limit`: the setting that ended a training that was still improving.
    """
    curve = pd.DataFrame(history, columns=["step", "train_log_loss", "val_log_loss"])
    curve = curve.set_axis(["step", "train", "val"], axis=1).dropna(subset=["step", "val"]).reset_index(drop=True)
    if len(curve) < 2:
        return None
    curve, unit = curve.astype({"step": int}), "step"
    if epochs:
        curve, unit = curve.assign(network=curve["step"] // epochs + 1, step=curve["step"] % epochs + 1), "epoch"
    networks = [network for _, network in curve.groupby("network")] if epochs else [curve]
    lowest: list[Any] = [network["val"].idxmin() for network in networks]
    kept = pd.concat([thin(network, STEPS // len(networks)) for network in networks]).index.union(lowest)
    shown = curve.assign(lowest=curve.index.isin(lowest).astype(int)).loc[kept]
    *most, last = (f"{curve['step'][at]} ({curve['val'][at]:.4f})" for at in lowest)
    best = f"{', '.join(most)} and {last} of the {len(networks)} networks"
    if len(networks) == 1:
        best = f"{curve['step'][lowest[0]]:,} of {curve['step'].iloc[-1]:,}: {curve['val'].min():.4f}"
    caption = f"Validation log-loss is lowest at {unit} {best}."
    caption += f" {limit} ended the training while it was still improving." if limit else ""
    return Figure("epochs" if epochs else "learning", as_columns(shown, {"train": 5, "val": 5}), caption)


def _reliability(metrics: Mapping[str, Any], table: pd.DataFrame) -> Figure:
    """Calibrated and uncalibrated probabilities; uncalibrated ones only, where calibration didn't help."""
    method, table = metrics["calibration"]["method"], table.replace({"kind": KINDS})
    filled = table[(table["count"] > 0) & ((table["kind"] == "uncalibrated") | (method != "none"))]
    how = f"{method} calibration; {metrics['raw']['test']['ece']:.3f} uncalibrated"
    how = "no calibration, since none improved log-loss on validation" if method == "none" else how
    columns = as_columns(filled[["kind", "confidence", "accuracy", "count"]], {"confidence": 4, "accuracy": 4})
    return Figure("reliability", columns, f"Expected calibration error {metrics['test']['ece']:.3f}: {how}.")


def _coverage(overall: Mapping[str, Any], table: pd.DataFrame, nominal: float) -> Figure:
    low, high = wilson(table["coverage"].to_numpy(np.float64), table["windows"].to_numpy(np.float64))
    shares = {"coverage": table["coverage"], "low": low, "high": high, "nominal": nominal}
    columns = as_columns(table[["month", "windows"]].assign(**shares), dict.fromkeys(shares, 4))
    worst = table.iloc[int(table["coverage"].to_numpy().argmin())]
    caption = (
        f"The prediction sets contain the true class in {overall['coverage']:.1%} of {overall['windows']:,} windows; "
        f"nominal: {nominal:.0%}. Lowest: {worst['coverage']:.1%} in {worst['month']}. "
        f"Mean set size: {overall['mean_size']:.2f} classes."
    )
    return Figure("coverage", columns, caption)


def wilson(share: np.ndarray[Any, Any], count: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """The 95% score interval of a binomial share (Wilson 1927), element by element."""
    centre = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * np.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    return centre - half, centre + half


def _equity(table: pd.DataFrame) -> dict[str, Figure]:
    """The figures `equity` and `drawdown`."""
    returns = table.set_index("datetime")[["equity", "buy_hold", "prior"]] - 1
    model, hold, prior = (number(last, "+.1%") for last in returns.iloc[-1])
    columns = _by_time(returns.set_axis(["model", "hold", "prior"], axis=1).reset_index())
    caption = f"{model} net of costs; {hold} for buying and holding, {prior} for following the prior."
    deepest = f"Deepest: {number(table['drawdown'].min(), '+.1%')} from the previous high."
    drawdown = Figure("drawdown", _by_time(table[["datetime", "drawdown"]]), deepest)
    return {"equity": Figure("equity", columns, caption), "drawdown": drawdown}


def _by_time(table: pd.DataFrame) -> Columns:
    """`datetime` as column `time`, and the others rounded; thinned."""
    shown = thin(table, EQUITY_POINTS).rename(columns={"datetime": "time"})
    shown = shown.assign(time=minutes(pd.to_datetime(shown["time"], utc=True)))
    return as_columns(shown, dict.fromkeys(shown.columns.drop("time"), 4))


def importance_figures(table: pd.DataFrame) -> dict[str, Figure]:
    """The figures that a table of `feature, lag, importance` allows, by name.

    None for a model without importances; none by lag for a model that sees one lag only, or has importances of
    features only. Rows without a feature are importances of lags.
    """
    table = table.reset_index(drop=True)
    table["lag"] = _lag_names(table["lag"])
    of_features = table[table["feature"].notna()]
    if not of_features["importance"].sum() > 0:
        return {}
    by_feature = of_features[of_features["feature"] != OTHERS].groupby("feature", sort=True)["importance"].sum()
    by_feature = by_feature.sort_values(ascending=False, kind="stable").head(FEATURES)
    first = ", ".join(f"{feature} {share:.1%}" for feature, share in by_feature.head(3).items())
    columns = {"feature": list(by_feature.index), "share": _whole(by_feature)}
    figures = {"features": Figure("features", columns, f"Most important: {first}.")}
    of_lags = table[table["feature"].isna()] if table["feature"].isna().any() else of_features
    named = sorted(set(of_lags["lag"]) - {WHOLE}, key=lambda name: -int(name.partition("–")[0]))  # as time runs
    lags = named + ([WHOLE] if (of_lags["lag"] == WHOLE).any() else [])
    if len(lags) < 2:
        return figures
    by_lag = of_lags.groupby("lag")["importance"].sum().reindex(lags, fill_value=0.0)
    caption = f"Most important: lag {by_lag.idxmax()}, {by_lag.max():.1%} of the total; 0 is the window's last bar."
    figures["lags"] = Figure("lags", {"lag": lags, "share": _whole(by_lag)}, caption)
    if of_features["lag"].nunique() > 1:
        cells = of_features.groupby(["feature", "lag"])["importance"].sum().unstack()
        shares = cells.reindex(index=by_feature.index, columns=lags).fillna(0.0).to_numpy()
        row, column = divmod(int(shares.argmax()), len(lags))
        strongest = f"{by_feature.index[row]} at lag {lags[column]}, {shares.max():.1%} of the total"
        # rows, columns and cells are separate: a fifth of the bytes that one row per cell would take
        grid = {"feature": list(by_feature.index), "lag": lags, "grid": _whole(shares.ravel())}
        figures["heat"] = Figure("heat", grid, f"Strongest: {strongest}.")
    return figures


def _lag_names(lag: pd.Series) -> pd.Series:
    """Lags as text: `0`, `5`, `60–61` where lags share a column, `all` for a window as a whole."""
    known = lag.dropna().astype(int)
    width = max(1, -(-(int(known.max()) + 1 if len(known) else 1) // LAGS))
    start = known // width * width
    named = start.astype(str) if width == 1 else start.astype(str) + "–" + (start + width - 1).astype(str)
    return named.reindex(lag.index).fillna(WHOLE)


def _whole(shares: Iterable[float]) -> list[int]:
    return [round(share * SCALE) for share in map(float, shares)]


def write_dvc_plots(folder: Path, cells: Iterable[CellPage], results: Mapping[str, CellResult]) -> None:
    """Write tables for `dvc plots`: `confusion/{cell}.csv` (actual, predicted; one row per test window) and
    `learning/h{horizon}.tsv` (cell, step, val_log_loss: the curves of all cells of a horizon, as on the page;
    `lstm_h5/2`: its second network). dvc.yaml can't name cells, but it can name a folder of plots.
    """
    for name in ("confusion", "learning"):
        (folder / name).mkdir(parents=True)
    curves: dict[int, list[pd.DataFrame]] = {}
    for cell in cells:
        shutil.copyfile(results[cell.name].folder / "plots/test_confusion.csv", folder / f"confusion/{cell.name}.csv")
        if "learning" in cell.figures:
            curve = pd.DataFrame(cell.figures["learning"].columns).assign(cell=cell.name)
            if curve.get("network", pd.Series(1)).nunique() > 1:
                curve["cell"] += "/" + curve["network"].astype(str)
            curves.setdefault(cell.horizon, []).append(curve)
    for horizon, tables in curves.items():
        table = pd.concat(tables).rename(columns={"val": "val_log_loss"})[["cell", "step", "val_log_loss"]]
        table.to_csv(folder / f"learning/h{horizon}.tsv", sep="\t", index=False, lineterminator="\n")
