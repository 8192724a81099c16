"""Small parts of Vega-Lite specifications, and the look that all figures share.

Colours are the page's own CSS variables, so light, dark and print need no second drawing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Spec = dict[str, Any]

COLOURS = 8  # that the page tells apart; further models get them again, dashed
EDGE = 46  # pixels kept for the labels of the y axis: figures above each other start at the same place
NAMES = 150  # and for the names of features

CONFIG: Spec = {
    "background": None,
    "padding": 2,
    "font": "system-ui, -apple-system, Segoe UI, Roboto, Liberation Sans, sans-serif",
    "aria": False,  # the page gives each figure one label, and its words in a caption
    "view": {"stroke": None},
    "line": {"strokeWidth": 1.75, "strokeJoin": "round"},
    "point": {"opacity": 1},
    "axis": {
        "domain": False,
        "ticks": False,
        "gridColor": "var(--grid)",
        "labelColor": "var(--soft)",
        "labelFontSize": 11,
        "labelPadding": 6,
        "titleColor": "var(--soft)",
        "titleFontSize": 11,
        "titleFontWeight": 400,
        "titlePadding": 4,
    },
    "axisX": {"grid": False},
    "legend": {"disable": True},
}


def figure(height: int, *layers: Spec) -> Spec:
    """Layers that share their scales, as wide as the page lets them be; the page fills the data set `main`."""
    return {"width": "container", "height": height, "data": {"name": "main"}, "layer": list(layers)}


def rows_of(field: str, height: int, *layers: Spec) -> Spec:
    """`figure` with `height` pixels for each name in `field`; the page multiplies, as it knows the names."""
    return {**figure(height, *layers), "usermeta": {"rows": field}}


def per_cent_mille(spec: Spec, field: str) -> Spec:
    """The figure with `field` divided by 100,000: shares are shipped as whole numbers, which are shorter."""
    return {**spec, "transform": [{"calculate": f"datum.{field} / 1e5", "as": field}]}


def layer(mark: str, style: Mapping[str, Any], transform: list[Spec] | None = None, **encoding: Any) -> Spec:
    """One layer: a mark with its style, drawn as `encoding` says."""
    drawn: Spec = {"mark": {"type": mark, **style}, "encoding": encoding}
    return {"transform": transform, **drawn} if transform else drawn


def number(field: str, form: str | None = None, ticks: int = 5, zero: bool = False, **more: Any) -> Spec:
    """A quantitative channel; its axis shows values in d3's `form`."""
    axis: Spec = {"tickCount": ticks, **({"format": form} if form else {}), **more.pop("axis", {})}
    if form and form.startswith("+"):
        axis["labelExpr"] = "datum.value === 0 ? '0' : datum.label"
    scale = {"zero": zero, **more.pop("scale", {})}
    return {"field": field, "type": "quantitative", "title": None, "scale": scale, "axis": axis, **more}


def edged(field: str, form: str | None = None, **more: Any) -> Spec:
    """`number` for a y axis that begins where those of its neighbours do."""
    return number(field, form, axis={"minExtent": EDGE, **more.pop("axis", {})}, **more)


def time(field: str = "time", **more: Any) -> Spec:
    """A channel of UTC times."""
    axis = {"tickCount": 6, "labelFlush": True, "labelOverlap": True, **more.pop("axis", {})}
    return {"field": field, "type": "temporal", "title": None, "scale": {"type": "utc"}, "axis": axis, **more}


def name(field: str, **more: Any) -> Spec:
    """A channel of names, in the order of the rows."""
    return {"field": field, "type": "nominal", "sort": None, "title": None, **more}


def lag() -> Spec:
    """Bars before the window's last one, every fifth named."""
    every = "isNaN(+datum.label) || +datum.label % 5 === 0 ? datum.label : ''"
    return name(
        "lag", axis={"labelAngle": 0, "labelOverlap": True, "labelExpr": every, "title": "bars before the last"}
    )


def feature() -> Spec:
    """Names of features, all figures of them with the same left edge."""
    return name("feature", axis={"labelLimit": NAMES - 8, "minExtent": NAMES})


def coloured(field: str, colours: Mapping[str, str]) -> Spec:
    """Names as colours."""
    scale = {"domain": list(colours), "range": list(colours.values())}
    return {"field": field, "type": "nominal", "scale": scale}


def tooltip(**forms: str | None) -> list[Spec]:
    """What is shown of the point under the pointer: field → d3's format, None for text."""
    kinds = {
        field: {"type": "quantitative", "format": form} if form else {"type": "nominal"}
        for field, form in forms.items()
    }
    return [{"field": field, **kind} for field, kind in kinds.items()]


def rule_at(axis: str, value: float, **style: Any) -> Spec:
    """A line across the figure at one value of an axis."""
    return {"mark": {"type": "rule", "color": "var(--soft)", **style}, "encoding": {axis: {"datum": value}}}
