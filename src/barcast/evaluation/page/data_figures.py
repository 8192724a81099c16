"""The figures of the data page as Vega-Lite specifications."""

from __future__ import annotations

from barcast.evaluation.page._vega import Spec, coloured, figure, layer, name, number, rows_of, time, tooltip

CLASSES = {"down": "var(--s1)", "flat": "var(--reference)", "up": "var(--s0)"}
SEGMENTS = {
    "train": "var(--s0)",
    "val": "var(--s2)",
    "test": "var(--s1)",
    "purged": "var(--s7)",
    "embargoed": "var(--embargo)",
}


def data_specs() -> dict[str, Spec]:
    """Every kind of figure by name."""
    return {"balance": balance(), "timeline": timeline(), "border": border()}


def balance() -> Spec:
    """The share of each class by month; no bar where rows were purged or embargoed."""
    low = number("low", ".0%", scale={"domain": [0, 1]})
    share = {"calculate": "datum.high - datum.low", "as": "share"}
    shown = tooltip(**{"split": None, "class": None, "share": ".1%", "labels": ","})
    where = {"x": time("start"), "x2": {"field": "end"}, "y": low, "y2": {"field": "high"}}
    bar = {"stroke": "var(--card)", "strokeWidth": 1}
    return figure(150, layer("rect", bar, [share], **where, color=coloured("class", CLASSES), tooltip=shown))


def timeline() -> Spec:
    """Each symbol's splits in time, what was purged and embargoed between them, and the holes in its bars."""
    mark = {"color": "var(--ink)", "thickness": 1, "size": 26, "opacity": 0.8}
    holes = layer("tick", mark, _only("==="), x=time("start"), y=_symbol(), tooltip=_shown())
    return rows_of("symbol", 34, _segments(), holes)


def border() -> Spec:
    """The time around one cut."""
    return rows_of("symbol", 34, _segments())


def _segments() -> Spec:
    colour = coloured("what", SEGMENTS)
    span = {"x": time("start"), "x2": {"field": "end"}, "y": _symbol()}
    return layer("bar", {"height": 16}, _only("!=="), **span, color=colour, tooltip=_shown())


def _only(is_hole: str) -> list[Spec]:
    return [{"filter": f"datum.what {is_hole} 'hole'"}]


def _symbol() -> Spec:
    return name("symbol", axis={"labelFontSize": 12, "labelColor": "var(--ink)"})


def _shown() -> list[Spec]:
    return tooltip(symbol=None, what=None, bars=",")
