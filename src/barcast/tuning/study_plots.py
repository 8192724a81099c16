"""A study's plots: the data as CSV for `dvc plots`, the picture as SVG to look at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from barcast.tuning.settings import StudyConfig
from barcast.tuning.study_summary import PARAM

_SIZE = {"width": 640, "height": 320}
_COLOURS = {"complete": "#2f6fb7", "pruned": "#b9bec6", "failed": "#c43d3d"}
_CHART: Any = alt.Chart(alt.NamedData("records"))  # `_write` puts the records there


def write_plots(folder: Path, trials: pd.DataFrame, importances: pd.DataFrame, settings: StudyConfig) -> None:
    """Write `history`, `importances` and `parallel`, each as `.csv` and `.svg`; the same bytes for the same trials.
    `folder` exists; `trials` is a `trials_frame`, and `importances` what the function of this name returns."""
    # number, state, value (as far as the trial came) and the best complete value until then
    best = trials["value"].cummin() if settings.direction == "minimize" else trials["value"].cummax()
    history = trials[["number", "state"]].assign(value=trials["reported"], best=best.ffill())
    _write(folder / "history", history, _records(history), _history(settings))
    bars = _CHART.mark_bar().encode(
        x=alt.X("importance:Q", axis=alt.Axis(format="%")), y=alt.Y("parameter:N", sort=None, title=None)
    )
    _write(folder / "importances", importances, _records(importances), bars)
    # number, value and the sampled values of the complete trials
    sampled = [name for name in trials.columns if name.startswith(PARAM)]
    complete = trials.loc[trials["state"] == "complete", ["number", "value", *sampled]]
    parallel = complete.rename(columns=lambda name: name.removeprefix(PARAM)).reset_index(drop=True)
    _write(folder / "parallel", parallel, _points(parallel, settings), _parallel(settings))


def _history(settings: StudyConfig) -> Any:
    x = alt.X("number:Q", title="trial", axis=alt.Axis(tickMinStep=1))
    scale = alt.Scale(zero=False)
    best, value = (alt.Y(f"{field}:Q", title=settings.metric, scale=scale) for field in ("best", "value"))
    colour = alt.Color("state:N", scale=alt.Scale(domain=list(_COLOURS), range=list(_COLOURS.values())))
    line = _CHART.mark_line(interpolate="step-after").encode(x=x, y=best)
    return alt.layer(line, _CHART.mark_point(filled=True).encode(x=x, y=value, color=colour))


def _parallel(settings: StudyConfig) -> Any:
    """One line per trial, over axes that each run from the least to the greatest sampled value."""
    scheme = alt.Scale(scheme="viridis", reverse=settings.direction == "minimize")
    return _CHART.mark_line(point=True).encode(
        x=alt.X("axis:N", sort=None, title=None, axis=alt.Axis(labelAngle=-30)),
        y=alt.Y("place:Q", title="least … greatest", axis=alt.Axis(labels=False)),
        detail="trial:N",
        color=alt.Color("value:Q", title=settings.metric, scale=scheme),
    )


def _points(frame: pd.DataFrame, settings: StudyConfig) -> list[dict[str, Any]]:
    """One point per trial and axis, trial by trial: `trial, axis, place` (0 … 1 on the axis) and `value`."""
    axes = [*frame.columns.drop(["number", "value"]), "value"]
    places = frame[axes].apply(_places).assign(trial=frame["number"], value_=frame["value"])
    long = places.melt(["trial", "value_"], axes, var_name="axis", value_name="place", ignore_index=False)
    long = long.sort_index(kind="stable").dropna(subset="place").rename(columns={"value_": "value"})
    points = long.assign(axis=long["axis"].replace("value", settings.metric)).to_dict("records")
    return [{str(name): value for name, value in point.items()} for point in points]


def _places(values: pd.Series) -> pd.Series:
    """The position of each value between the least (0) and the greatest (1); text by its order."""
    if not pd.api.types.is_numeric_dtype(values.dtype):
        codes = pd.Series(pd.factorize(values, sort=True)[0], values.index)
        values = codes.where(codes >= 0)
    numbers = values.astype("float64")
    low, span = numbers.min(), numbers.max() - numbers.min()
    return (numbers - low) / span if span > 0 else numbers.where(numbers.isna(), 0.5)


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", double_precision=15))
    return records


def _write(file: Path, table: pd.DataFrame, records: list[dict[str, Any]], chart: Any) -> None:
    import vl_convert

    table.to_csv(file.with_suffix(".csv"), index=False, lineterminator="\n")
    spec = {**chart.properties(**_SIZE).to_dict(), "data": {"values": records}}
    file.with_suffix(".svg").write_text(vl_convert.vegalite_to_svg(json.dumps(spec)) + "\n", encoding="utf-8")
