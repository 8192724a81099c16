"""The figures of a cell and of the leaderboard as Vega-Lite specifications: plain data, one for each kind.

A specification names no data: the page hands it columns when the figure is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping

from barcast.evaluation.page._vega import (
    NAMES,
    Spec,
    coloured,
    edged,
    feature,
    figure,
    lag,
    layer,
    name,
    number,
    per_cent_mille,
    rows_of,
    rule_at,
    time,
    tooltip,
)

VERDICTS = {"better": "var(--good)", "worse": "var(--bad)", "noise": "var(--faint)"}
TRADED = {"model": "var(--s0)", "hold": "var(--s3)", "prior": "var(--reference)"}
PROBABILITIES = {"raw": "var(--s1)", "published": "var(--s0)"}
LEAST = 1 / 3  # the top class of three is never less probable


def specs(colours: Mapping[str, str], dashed: frozenset[str]) -> dict[str, Spec]:
    """Every kind of figure by name.

    Args:
        colours: model → CSS colour, in the page's order.
        dashed: the models whose colour another one has, too.
    """
    return {
        "delta": delta(),
        "growth": growth(colours, dashed),
        "learning": learning(),
        "reliability": reliability(),
        "coverage": coverage(),
        "equity": equity(),
        "drawdown": drawdown(),
        "features": features(),
        "lags": lags(),
        "heat": heat(),
    }


def delta() -> Spec:
    """Each model's test log-loss minus the reference's with its interval; filled: in the confidence set."""
    colour, y = coloured("verdict", VERDICTS), name("model", axis={"labelFontSize": 12, "labelColor": "var(--ink)"})
    shown = tooltip(model=None, delta="+.4f", low="+.4f", high="+.4f", verdict=None)
    filled = {"condition": {"test": "datum.inset", **colour}, "value": "var(--card)"}
    return rows_of(
        "model",
        24,
        rule_at("x", 0),
        layer("rule", {"strokeWidth": 2.5}, x=number("low", "+.3f", 6), x2={"field": "high"}, y=y, color=colour),
        layer(
            "point",
            {"size": 75, "strokeWidth": 2},
            x=number("delta", "+.3f", 6),
            y=y,
            stroke=colour,
            fill=filled,
            tooltip=shown,
        ),
    )


def growth(colours: Mapping[str, str], dashed: frozenset[str]) -> Spec:
    """The net gain of every model over the test split, and of buying once."""
    colours, dashed = {**colours, "hold": "var(--ink)"}, dashed | {"hold"}
    domain = list(colours)
    dashes = {"domain": domain, "range": [[5, 4] if model in dashed else [1, 0] for model in domain]}
    return figure(
        250,
        rule_at("y", 0),
        layer(
            "line",
            {},
            [{"fold": domain, "as": ["model", "gain"]}],
            x=time(),
            y=edged("gain", "+.0%"),
            color=coloured("model", colours),
            strokeDash={"field": "model", "type": "nominal", "scale": dashes},
            tooltip=tooltip(model=None),
        ),
    )


def learning() -> Spec:
    """Log-loss by step of training on train and validation, and where validation is lowest."""
    x = number("step", "d", 6, title="step", axis={"tickMinStep": 1})
    return figure(
        150,
        layer("line", {"color": "var(--faint)"}, x=x, y=edged("train")),
        layer("line", {"color": "var(--s0)"}, x=x, y=edged("val")),
        layer(
            "point",
            {"filled": True, "size": 60, "color": "var(--s0)"},
            [{"filter": "datum.lowest"}],
            x=x,
            y=edged("val"),
            tooltip=tooltip(step="d", val=".4f"),
        ),
    )


def reliability() -> Spec:
    """What came true against what was claimed, by bins of the top class's probability."""
    scale = {"domainMin": LEAST, "nice": False}
    x = number("confidence", ".0%", 4, title="claimed", scale=scale)
    y = edged("accuracy", ".0%", title=None)
    kinds = coloured("kind", PROBABILITIES)
    size = {"field": "count", "type": "quantitative", "scale": {"type": "sqrt", "range": [6, 170]}}
    shown = tooltip(kind=None, confidence=".1%", accuracy=".1%", count=",")
    return figure(
        190,
        layer("line", {"color": "var(--soft)", "strokeDash": [3, 3], "strokeWidth": 1}, x=x, y=edged("confidence")),
        layer("line", {"strokeWidth": 1.5}, x=x, y=y, color=kinds),
        layer("point", {"filled": True, "opacity": 0.85}, x=x, y=y, color=kinds, size=size, tooltip=shown),
    )


def coverage() -> Spec:
    """The share of windows whose prediction set held the truth, by month, against the promise."""
    x = name("month", axis={"labelAngle": 0, "labelOverlap": True})
    shown = tooltip(month=None, coverage=".1%", low=".1%", high=".1%", windows=",")
    blue = {"color": "var(--s0)"}
    promise = edged("nominal", ".0%")
    promise["aggregate"] = "max"
    return figure(
        150,
        layer("rule", {"color": "var(--soft)", "strokeDash": [4, 3]}, y=promise),
        layer("rule", {"strokeWidth": 2, **blue}, x=x, y=edged("low", ".0%"), y2={"field": "high"}),
        layer("point", {"filled": True, "size": 60, **blue}, x=x, y=edged("coverage", ".0%"), tooltip=shown),
    )


def equity() -> Spec:
    """The net gain of one cell, of buying once, and of the prior."""
    lines = [
        layer(
            "line", {"color": colour, "strokeWidth": 2 if field == "model" else 1.25}, x=time(), y=edged(field, "+.0%")
        )
        for field, colour in reversed(TRADED.items())
    ]
    return figure(150, rule_at("y", 0), *lines)


def drawdown() -> Spec:
    """How far the net equity lies below its highest value so far."""
    fall = edged("drawdown", ".0%", ticks=3, zero=True)
    return figure(70, layer("area", {"color": "var(--bad)", "opacity": 0.35}, x=time(), y=fall))


def features() -> Spec:
    """The share of the importance that each of the first features has, over all lags."""
    bar = {"color": "var(--s0)", "cornerRadiusEnd": 2, "height": {"band": 0.7}}
    shown = tooltip(feature=None, share=".1%")
    drawn = layer("bar", bar, x=number("share", ".0%", 4, zero=True), y=feature(), tooltip=shown)
    return per_cent_mille(rows_of("feature", 17, drawn), "share")


def lags() -> Spec:
    """The share of the importance that each lag has, over all features."""
    y = number("share", ".0%", ticks=3, zero=True, axis={"minExtent": NAMES})
    bar = {"color": "var(--s0)", "width": {"band": 0.8}}
    drawn = layer("bar", bar, x=lag(), y=y, tooltip=tooltip(lag=None, share=".1%"))
    return per_cent_mille(figure(80, drawn), "share")


def heat() -> Spec:
    """Importance by feature and lag; the square root of a share is its depth, so that small ones are seen."""
    depth = {"field": "share", "type": "quantitative", "scale": {"type": "sqrt", "range": [0.03, 1], "zero": True}}
    shown = tooltip(feature=None, lag=None, share=".2%")
    drawn = layer("rect", {"color": "var(--s0)"}, x=lag(), y=feature(), opacity=depth, tooltip=shown)
    return per_cent_mille(rows_of("feature", 17, drawn), "share")
