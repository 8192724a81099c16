"""Every figure of the page as a Vega-Lite specification, one per kind.

A specification contains no data: the page passes columns when it draws the figure. Colours are the page's own CSS
variables, so light, dark and print share one drawing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

Spec = dict[str, Any]

COLOURS = 8  # distinct colours of models; further models reuse them, dashed
EDGE = 46  # pixels for the labels of a y axis: figures above each other start at the same place
NAMES = 150  # the same for names of features
VERDICTS = {"better": "var(--good)", "worse": "var(--bad)", "noise": "var(--faint)"}
EQUITIES = {"prior": "var(--reference)", "hold": "var(--s3)", "model": "var(--s0)"}
PROBABILITIES = {"uncalibrated": "var(--s1)", "calibrated": "var(--s0)"}
CLASSES = {"down": "var(--s1)", "flat": "var(--reference)", "up": "var(--s0)"}
SEGMENTS = {"train": "--s0", "val": "--s2", "test": "--s1", "purged": "--s7", "embargoed": "--embargo"}
LOWEST_TOP_PROBABILITY = 1 / 3  # of the most probable of three classes

LABELS = {"labelColor": "var(--soft)", "labelFontSize": 11, "labelPadding": 6}
TITLES = {"titleColor": "var(--soft)", "titleFontSize": 11, "titleFontWeight": 400, "titlePadding": 4}
CONFIG: Spec = {
    "background": None,
    "padding": 2,
    "font": "system-ui, -apple-system, Segoe UI, Roboto, Liberation Sans, sans-serif",
    "aria": False,  # the page labels each figure once and describes it in a caption
    "view": {"stroke": None},
    "line": {"strokeWidth": 1.75, "strokeJoin": "round"},
    "point": {"opacity": 1},
    "axis": {"domain": False, "ticks": False, "gridColor": "var(--grid)", **LABELS, **TITLES},
    "axisX": {"grid": False},
    "legend": {"disable": True},
}

DATA = alt.Chart(alt.NamedData("main"))  # filled by the page
ZERO = DATA.mark_rule(color="var(--soft)")
SHARE = DATA.transform_calculate(share="datum.share / 1e5")  # shares are shipped as whole numbers, which are shorter


def specs(colours: Mapping[str, str], dashed: frozenset[str]) -> dict[str, Spec]:
    """Every kind of figure by name. `colours`: model → CSS colour, in the page's order; `dashed`: the models that share
    theirs with another one."""
    plain = (delta, reliability, coverage, equity, drawdown, features, lags, heat, balance, timeline, cut)
    charts = {figure.__name__: figure() for figure in plain}
    charts |= {"growth": growth(colours, dashed), "learning": learning("step", [])}
    charts["epochs"] = learning("epoch", ["network"])
    drawn = {kind: chart.to_dict() for kind, chart in charts.items()}
    return {kind: {k: v for k, v in spec.items() if k not in ("$schema", "config")} for kind, spec in drawn.items()}


def delta() -> alt.LayerChart:
    """Each model's test log-loss minus the reference's with its interval; filled: in the confidence set."""
    colour = _colours("verdict", VERDICTS)
    row = DATA.encode(y=_row("model"))
    interval = row.mark_rule(strokeWidth=2.5).encode(_number(alt.X, "low", "+.3f", 6), x2="high", color=colour)
    point = row.mark_point(size=75, strokeWidth=2).encode(
        _number(alt.X, "delta", "+.3f", 6),
        stroke=colour,
        fill=alt.Fill(condition={"test": "datum.inset", **colour}, value="var(--card)"),
        tooltip=_tooltip(model=None, delta="+.4f", low="+.4f", high="+.4f", verdict=None),
    )
    return _figure(24, ZERO.encode(x=alt.datum(0)), interval, point, rows="model")


def growth(colours: Mapping[str, str], dashed: frozenset[str]) -> alt.LayerChart:
    """The net return of every model over the test split, and of buying and holding."""
    colours, dashed = {**colours, "hold": "var(--ink)"}, dashed | {"hold"}
    domain: list[Any] = list(colours)
    dashes = alt.Scale(domain=domain, range=[[5, 4] if model in dashed else [1, 0] for model in domain])
    lines = DATA.transform_fold(domain, as_=["model", "gain"]).mark_line().encode(_time("time"), _y("gain", "+.0%"))
    dash, colour = alt.StrokeDash("model:N", scale=dashes), _colours("model", colours)
    lines = lines.encode(color=colour, strokeDash=dash, tooltip=_tooltip(model=None))
    return _figure(250, ZERO.encode(y=alt.datum(0)), lines)


def learning(unit: str, series: Sequence[str]) -> alt.LayerChart:
    """Log-loss on train and validation by `unit` of training, one line per value of the fields in `series`; points:
    lowest on validation."""
    x = _number(alt.X, "step", "d", 6, title=unit, tickMinStep=1)
    by_step = DATA.encode(x, detail=[alt.Detail(field, type="nominal") for field in series])
    best = by_step.transform_filter("datum.lowest").mark_point(filled=True, size=60, color="var(--s0)")
    shown = [*_tooltip(**dict.fromkeys(series)), alt.Tooltip("step:Q", format="d", title=unit), *_tooltip(val=".4f")]
    colours = {"train": "var(--faint)", "val": "var(--s0)"}
    lines = [by_step.mark_line(color=colour).encode(_y(field)) for field, colour in colours.items()]
    return _figure(150, *lines, best.encode(_y("val"), tooltip=shown))


def reliability() -> alt.LayerChart:
    """Accuracy by predicted probability of the most probable class, in bins."""
    bounds = alt.Scale(zero=False, domainMin=LOWEST_TOP_PROBABILITY, nice=False)
    bins = DATA.encode(_number(alt.X, "confidence", ".0%", 4, title="predicted probability", scale=bounds))
    lines = bins.encode(_y("accuracy", ".0%"), color=_colours("kind", PROBABILITIES))
    points = lines.mark_point(filled=True, opacity=0.85).encode(
        size=alt.Size("count:Q", scale=alt.Scale(type="sqrt", range=[6, 170])),
        tooltip=_tooltip(kind=None, confidence=".1%", accuracy=".1%", count=","),
    )
    diagonal = bins.mark_line(color="var(--soft)", strokeDash=[3, 3], strokeWidth=1).encode(_y("confidence"))
    return _figure(190, diagonal, lines.mark_line(strokeWidth=1.5), points)


def coverage() -> alt.LayerChart:
    """The share of prediction sets that contain the true class, by month, against the nominal coverage."""
    nominal = _y("nominal", "~%")
    nominal.aggregate = "max"
    month = DATA.encode(_name(alt.X, "month", labelAngle=0, labelOverlap=True))
    shown = _tooltip(month=None, coverage=".1%", low=".1%", high=".1%", windows=",")
    return _figure(
        150,
        DATA.mark_rule(color="var(--soft)", strokeDash=[4, 3]).encode(nominal),
        month.mark_rule(strokeWidth=2, color="var(--s0)").encode(_y("low", "~%"), y2="high"),
        month.mark_point(filled=True, size=60, color="var(--s0)").encode(_y("coverage", "~%"), tooltip=shown),
    )


def equity() -> alt.LayerChart:
    """The net return of one cell, of buying and holding, and of the prior."""
    lines = [
        DATA.mark_line(color=colour, strokeWidth=2 if name == "model" else 1.25).encode(_time("time"), _y(name, "+.0%"))
        for name, colour in EQUITIES.items()
    ]
    return _figure(150, ZERO.encode(y=alt.datum(0)), *lines)


def drawdown() -> alt.LayerChart:
    """How far the net equity is below its highest value so far."""
    area = DATA.mark_area(color="var(--bad)", opacity=0.35)
    return _figure(70, area.encode(_time("time"), _y("drawdown", ".0%", 3, zero=True)))


def features() -> alt.LayerChart:
    """Each feature's share of the importance, over all lags."""
    bars = SHARE.mark_bar(color="var(--s0)", cornerRadiusEnd=2, height={"band": 0.7})
    share = _number(alt.X, "share", ".0%", 4, zero=True)
    return _figure(17, bars.encode(share, _feature(), tooltip=_tooltip(feature=None, share=".1%")), rows="feature")


def lags() -> alt.LayerChart:
    """Each lag's share of the importance, over all features."""
    bars = SHARE.mark_bar(color="var(--s0)", width={"band": 0.8})
    share = _number(alt.Y, "share", ".0%", 3, zero=True, minExtent=NAMES)
    return _figure(80, bars.encode(_lag(), share, tooltip=_tooltip(lag=None, share=".1%")))


def heat() -> alt.LayerChart:
    """Importance by feature and lag; opacity is the square root of a share, so that small ones are visible."""
    opacity = alt.Opacity("share:Q", scale=alt.Scale(type="sqrt", range=[0.03, 1], zero=True))
    cells = SHARE.mark_rect(color="var(--s0)").encode(_lag(), _feature(), opacity)
    return _figure(17, cells.encode(tooltip=_tooltip(feature=None, lag=None, share=".2%")), rows="feature")


def balance() -> alt.LayerChart:
    """The share of each class by month; no bar where rows were purged or embargoed."""
    low = _number(alt.Y, "low", ".0%", scale=alt.Scale(zero=False, domain=[0, 1]))
    bars = DATA.transform_calculate(share="datum.high - datum.low").mark_rect(stroke="var(--card)", strokeWidth=1)
    bars = bars.encode(_time("start"), low, x2="end", y2="high", color=_colours("class", CLASSES))
    shown = _tooltip(**{"split": None, "class": None, "share": ".1%", "labels": ","})
    return _figure(150, bars.encode(tooltip=shown))


def timeline() -> alt.LayerChart:
    """Each symbol's splits in time, what was purged and embargoed between them, and the gaps in its bars."""
    gaps = DATA.transform_filter("datum.what === 'gap'")
    gaps = gaps.mark_tick(color="var(--ink)", thickness=1, size=26, opacity=0.8)
    gaps = gaps.encode(_time("start"), _row("symbol"), tooltip=_tooltip(symbol=None, what=None, bars=","))
    return _figure(34, _segments(), gaps, rows="symbol")


def cut() -> alt.LayerChart:
    """The time around one cut."""
    return _figure(34, _segments(), rows="symbol")


def _segments() -> Any:
    bars = DATA.transform_filter("datum.what !== 'gap'").mark_bar(height=16)
    colour = _colours("what", {what: f"var({name})" for what, name in SEGMENTS.items()})
    shown = _tooltip(symbol=None, what=None, bars=",")
    return bars.encode(_time("start"), _row("symbol"), x2="end", color=colour, tooltip=shown)


def _figure(height: int, *layers: Any, rows: str | None = None) -> alt.LayerChart:
    """Layers that share their scales, as wide as the page; with `rows`, `height` pixels per name in that field."""
    meta: Any = {"rows": rows} if rows else alt.Undefined
    return alt.LayerChart(layer=list(layers), width="container", height=height, usermeta=meta)


def _number(channel: Any, field: str, form: str = "", ticks: int = 5, **more: Any) -> Any:
    """A quantitative X or Y whose axis shows values in d3's `form`; `more`: its scale or zero, title, axis settings."""
    scale, title = more.pop("scale", alt.Scale(zero=more.pop("zero", False))), more.pop("title", None)
    if form.startswith("+"):
        more["labelExpr"] = "datum.value === 0 ? '0' : datum.label"
    axis = alt.Axis(tickCount=ticks, format=form or alt.Undefined, **more)
    return channel(field, type="quantitative", title=title, scale=scale, axis=axis)


def _y(field: str, form: str = "", ticks: int = 5, **more: Any) -> Any:
    """A quantitative Y that starts where those of its neighbours do."""
    return _number(alt.Y, field, form, ticks, minExtent=EDGE, **more)


def _time(field: str) -> alt.X:
    axis = alt.Axis(tickCount=6, labelFlush=True, labelOverlap=True)
    return alt.X(field, type="temporal", title=None, scale=alt.Scale(type="utc"), axis=axis)


def _name(channel: Any, field: str, title: str | None = None, **axis: Any) -> Any:
    """Names as an X or Y, in the order of the rows."""
    return channel(field, type="nominal", sort=None, title=title, axis=alt.Axis(**axis))


def _row(field: str) -> Any:
    """Names as a Y, in the page's own ink."""
    return _name(alt.Y, field, labelFontSize=12, labelColor="var(--ink)")


def _feature() -> Any:
    return _name(alt.Y, "feature", labelLimit=NAMES - 8, minExtent=NAMES)


def _lag() -> Any:
    """Bars before the window's last one; every fifth has a label."""
    every_fifth = "isNaN(+datum.label) || +datum.label % 5 === 0 ? datum.label : ''"
    return _name(alt.X, "lag", "bars before the last", labelAngle=0, labelOverlap=True, labelExpr=every_fifth)


def _colours(field: str, colours: Mapping[str, str]) -> Spec:
    """Names as colours."""
    return {"field": field, "type": "nominal", "scale": {"domain": list(colours), "range": list(colours.values())}}


def _tooltip(**forms: str | None) -> list[alt.Tooltip]:
    """What is shown of the point under the pointer: field → d3's format, or None for text."""
    return [
        alt.Tooltip(field, type="quantitative", format=form) if form else alt.Tooltip(field, type="nominal")
        for field, form in forms.items()
    ]
