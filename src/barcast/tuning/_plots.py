"""A study's plots: the data as CSV for `dvc plots`, the picture as SVG for the eye."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from barcast.tuning.settings import StudyConfig

PARAM = "param."  # what the columns of drawn values begin with

_WIDTH, _HEIGHT = 640, 320
_STATE_COLOURS = {"complete": "#2f6fb7", "pruned": "#b9bec6", "failed": "#c43d3d"}


def write_plots(folder: Path, trials: pd.DataFrame, importances: pd.DataFrame, settings: StudyConfig) -> None:
    """Write `history`, `importances` and `parallel`, each as `.csv` and `.svg`; the same bytes for the same trials.

    Args:
        folder: an existing folder.
        trials: see `trials_frame`.
        importances: see `importances`.
        settings: the metric and its direction.
    """
    history, parallel = history_frame(trials, settings), parallel_frame(trials)
    charts = {
        "history": (history, _history(history, settings)),
        "importances": (importances, _importances(importances)),
        "parallel": (parallel, _parallel(parallel, settings)),
    }
    for name, (frame, chart) in charts.items():
        frame.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
        (folder / f"{name}.svg").write_text(_svg(chart), encoding="utf-8")


def history_frame(trials: pd.DataFrame, settings: StudyConfig) -> pd.DataFrame:
    """`number`, `state`, `value` (as far as the trial came) and the `best` of complete trials until then."""
    best = trials["value"].cummin() if settings.direction == "minimize" else trials["value"].cummax()
    shown = {"number": trials["number"], "state": trials["state"], "value": trials["reported"], "best": best.ffill()}
    return pd.DataFrame(shown)


def parallel_frame(trials: pd.DataFrame) -> pd.DataFrame:
    """`number`, `value` and the drawn values of the complete trials."""
    drawn = [name for name in trials.columns if name.startswith(PARAM)]
    complete = trials.loc[trials["state"] == "complete", ["number", "value", *drawn]]
    return complete.rename(columns=lambda name: name.removeprefix(PARAM)).reset_index(drop=True)


def _history(frame: pd.DataFrame, settings: StudyConfig) -> dict[str, Any]:
    states = list(_STATE_COLOURS)
    colour = {"field": "state", "type": "nominal", "scale": {"domain": states, "range": list(_STATE_COLOURS.values())}}
    x = {"field": "number", "type": "quantitative", "title": "trial", "axis": {"tickMinStep": 1}}
    y = {"type": "quantitative", "title": settings.metric, "scale": {"zero": False}}
    return {
        "layer": [
            {"mark": {"type": "line", "interpolate": "step-after"}, "encoding": {"x": x, "y": {"field": "best", **y}}},
            {
                "mark": {"type": "point", "filled": True},
                "encoding": {"x": x, "y": {"field": "value", **y}, "color": colour},
            },
        ],
        "data": {"values": _records(frame)},
    }


def _importances(frame: pd.DataFrame) -> dict[str, Any]:
    x = {"field": "importance", "type": "quantitative", "axis": {"format": "%"}}
    y = {"field": "parameter", "type": "nominal", "sort": None, "title": None}
    return {"mark": "bar", "encoding": {"x": x, "y": y}, "data": {"values": _records(frame)}}


def _parallel(frame: pd.DataFrame, settings: StudyConfig) -> dict[str, Any]:
    """One line a trial, over axes that each run from the least to the greatest drawn value."""
    axes = [name for name in frame.columns if name != "number"]
    axes = [*(name for name in axes if name != "value"), "value"]
    places = {name: _places(frame[name]) for name in axes}
    points = [
        {"trial": int(number), "axis": settings.metric if name == "value" else name, "place": places[name][row],
         "shown": str(frame[name][row]), "value": float(frame["value"][row])}
        for row, number in enumerate(frame["number"])
        for name in axes
        if places[name][row] is not None
    ]  # fmt: skip
    scheme = {"scheme": "viridis", "reverse": settings.direction == "minimize"}
    encoding = {
        "x": {"field": "axis", "type": "nominal", "sort": None, "title": None, "axis": {"labelAngle": -30}},
        "y": {"field": "place", "type": "quantitative", "title": "least … greatest", "axis": {"labels": False}},
        "detail": {"field": "trial", "type": "nominal"},
        "color": {"field": "value", "type": "quantitative", "title": settings.metric, "scale": scheme},
    }
    return {"mark": {"type": "line", "point": True}, "encoding": encoding, "data": {"values": points}}


def _places(values: pd.Series) -> list[float | None]:
    """Where values lie between the least (0) and the greatest (1); text by its order, None where there is none."""
    if not pd.api.types.is_numeric_dtype(values.dtype):
        codes, _ = pd.factorize(values, sort=True)
        values = pd.Series(codes).where(codes >= 0)
    numbers = values.astype("float64")
    low, span = numbers.min(), numbers.max() - numbers.min()
    return [None if pd.isna(v) else (float(v - low) / float(span) if span > 0 else 0.5) for v in numbers]


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", double_precision=15))
    return records


def _svg(chart: dict[str, Any]) -> str:
    import vl_convert

    spec = {"$schema": "https://vega.github.io/schema/vega-lite/v6.json", "width": _WIDTH, "height": _HEIGHT, **chart}
    svg: str = vl_convert.vegalite_to_svg(json.dumps(spec))
    return svg + "\n"
