"""All cells beside each other as plain data, the content of leaderboard.json.

A leaderboard is `{"reference", "level", "horizons": {"h5": [row, …]}}`, horizons ascending, best rank first.
`reference` is the model that `delta_reference` is measured from, `level` the confidence of every interval. Intervals
are `{"value", "low", "high"}`, differences have a `verdict` too; None: undefined, or a difference to itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from barcast.comparison.horizon import ModelComparison, ModelResult
from barcast.comparison.sharpe import TrialCounts, probabilistic_sharpe
from barcast.errors import DataError
from barcast.evaluation.metrics import shown_metrics

FILE = "leaderboard.json"

Row = dict[str, Any]
Leaderboard = dict[str, Any]

_KEYS = {
    *("rank", "model", "score", "val_log_loss", "test_log_loss", "raw_log_loss", "calibration", "coverage", "set_size"),
    *("delta_reference", "delta_best", "in_confidence_set", "mcs_p", "seeds"),
    *("psr", "dsr", "sharpe_sets", "sharpe_threshold"),
}


def build_row(rank: int, result: ModelResult, comparison: ModelComparison, trials: TrialCounts, mcs_size: float) -> Row:
    """One cell beside those of its horizon (docs/evaluation.md, "Files"). All but `score` and `val_log_loss` is
    measured on test. Metrics without a direction have no interval."""
    content, test, conformal = asdict(comparison), result.metrics["test"], result.metrics["conformal"]["test"]
    measured, returns = content["metrics"], result.moments[0]
    return {
        "rank": rank,
        "model": result.name,
        "score": result.score,
        "val_log_loss": result.metrics["val"]["log_loss"],
        "test_log_loss": measured["log_loss"],
        "raw_log_loss": result.metrics["raw"]["test"]["log_loss"],
        "calibration": result.metrics["calibration"]["method"],
        "coverage": conformal["coverage"],
        "set_size": conformal["mean_size"],
        **{key: content[key] for key in ("delta_reference", "delta_best", "mcs_p", "seeds")},
        "in_confidence_set": comparison.mcs_p >= mcs_size,
        **{
            metric.name: measured[metric.name] if metric.direction and metric.resampled else test[metric.name]
            for metric in shown_metrics("page")
        },
        "psr": probabilistic_sharpe(returns) if returns else None,
        "dsr": trials.deflate(returns),
        **{f"sharpe_{strategy}": interval["sharpe"] for strategy, interval in content["rules"].items()},
    }


def headline(leaderboard: Leaderboard) -> dict[str, Any]:
    """The best cell of each horizon and its log-losses, with names short enough for `dvc exp show`."""
    first = {horizon: rows[0] for horizon, rows in leaderboard["horizons"].items()}
    return {
        name: {"best": row["model"], "score": round(row["score"], 6), "test": round(row["test_log_loss"]["value"], 6)}
        for name, row in first.items()
    }


def load_leaderboard(report_dir: Path) -> Leaderboard:
    """Read the leaderboard that `compare` wrote; DataError if there is none, or another version of barcast wrote it."""
    path = report_dir / FILE
    if not path.is_file():
        raise DataError(f"{path}: no leaderboard yet; run `dvc repro` first")
    needed = _KEYS | {metric.name for metric in shown_metrics("page")}
    try:
        content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        horizons = sorted(content["horizons"].items(), key=lambda item: int(item[0].removeprefix("h")))
        if {"reference", "level"} <= set(content) and all(needed <= set(row) for _, rows in horizons for row in rows):
            return {**content, "horizons": dict(horizons)}
    except (KeyError, ValueError):
        pass
    raise DataError(f"{path}: damaged, or written by another version of barcast; run `dvc repro compare`")
