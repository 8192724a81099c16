"""What the page says of the data: class balance over time, splits with purge and embargo, gaps, audit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from barcast.evaluation.metrics import CLASS_NAMES
from barcast.evaluation.page.columns import Columns, minutes
from barcast.files import read_json
from barcast.paths import SPLITS, Paths

SPLIT_FILE = "split.json"
MOST_GAPS = 400  # marks on the timeline: the longest ones


@dataclass(frozen=True)
class Check:
    """One check of the audit in words; `mood` colours its `verdict`."""

    name: str
    verdict: str
    mood: str
    words: str


@dataclass(frozen=True)
class Part:
    """One symbol in one split."""

    split: str
    symbol: str
    first: str
    last: str
    rows: int
    purged: int | None
    embargoed: int | None


@dataclass(frozen=True)
class Gap:
    """The holes in one symbol's bars; `longest` in words."""

    symbol: str
    bars: int
    count: int
    missing: int
    longest: str


@dataclass(frozen=True)
class DataPage:
    """Tables, and the columns of the figures by name (`balance:h5`, `timeline`, `border:val`)."""

    source: str
    parts: list[Part]
    gaps: list[Gap]
    audit: list[Check]
    figures: dict[str, Columns]
    words: dict[str, str]  # of the label balances, by the name of their figure


def read_data(paths: Paths, horizons: Sequence[int]) -> DataPage:
    """Read `split.json`, `audit.json`, and the times and labels of the windows."""
    report, audit = read_json(paths.splits / SPLIT_FILE), read_json(paths.audit)
    index = {split: pd.read_parquet(paths.windows / split / "index.parquet") for split in SPLITS}
    figures = {f"balance:h{horizon}": balance(index, horizon, paths) for horizon in horizons}
    segments = list(_segments(report))
    figures["timeline"] = _columns(segments, holes(index))
    cuts = sorted(report.get("cuts", {}).items(), key=lambda item: SPLITS.index(item[0]))
    figures |= {f"border:{name}": border(segments, pd.Timestamp(cut)) for name, cut in cuts}
    words = {f"balance:h{horizon}": _balance_words(figures[f"balance:h{horizon}"]) for horizon in horizons}
    checks = [_check(entry) for entry in audit["checks"]]
    return DataPage(report["source"], _parts(report), _gaps(report), checks, figures, words)


def balance(index: Mapping[str, pd.DataFrame], horizon: int, paths: Paths) -> Columns:
    """Each class's share of the labels by month and split; a month that holds two splits has two bars."""
    rows: list[tuple[str, int, int, str, float, float, int]] = []
    for split, frame in index.items():
        packed = np.load(paths.windows / f"labels/{split}_h{horizon}.npy")
        known = frame[packed["known"]].assign(label=packed["label"][packed["known"]])
        for _, month in known.groupby(known["datetime"].dt.strftime("%Y-%m")):
            start, end = minutes(month["datetime"].min()), minutes(month["datetime"].max())
            counts = np.bincount(month["label"].to_numpy(np.int64) + 1, minlength=3)
            tops = (np.cumsum(counts) / len(month)).round(4).tolist()
            for name, low, high, count in zip(CLASS_NAMES, [0.0, *tops], tops, counts.tolist(), strict=False):
                rows.append((split, start, end, name, low, high, count))
    keys = ("split", "start", "end", "class", "low", "high", "labels")
    return {key: list(values) for key, values in zip(keys, zip(*rows, strict=True), strict=True)}


def _balance_words(columns: Columns) -> str:
    frame = pd.DataFrame(columns)
    counts = frame.pivot_table(index="split", columns="class", values="labels", aggfunc="sum")
    shares = counts.div(counts.sum(axis=1), axis=0).reindex(index=SPLITS, columns=CLASS_NAMES)
    parts = [
        ", ".join(f"{share:.0%} {name}" for name, share in row.items()) + f" in {split}"
        for split, row in shares.iterrows()
    ]
    return f"{'; '.join(parts)}. A blank stretch is purged or embargoed."


def holes(index: Mapping[str, pd.DataFrame]) -> list[tuple[str, int, int]]:
    """(symbol, minute at which it begins, bars missing) of the longest holes inside a split."""
    found = []
    for frame in index.values():
        for symbol, rows in frame.groupby("symbol", sort=True):
            times = minutes(rows["datetime"])
            steps = np.diff(times)
            if not len(steps):
                continue
            bar = int(np.median(steps))
            found += [(str(symbol), int(times[i]), int(steps[i]) // bar - 1) for i in np.flatnonzero(steps > bar)]
    longest = sorted(found, key=lambda hole: -hole[2])[:MOST_GAPS]
    return sorted(longest)


def _segments(report: Mapping[str, Any]) -> Iterable[tuple[str, str, int, int, int]]:
    """(symbol, what, start, end, bars): the splits in time, and between them what was purged and embargoed."""
    cuts = {name: minutes(pd.Timestamp(cut)) for name, cut in report.get("cuts", {}).items()}
    for symbol in sorted(report["splits"]["train"]):
        parts = {split: report["splits"][split][symbol] for split in SPLITS if symbol in report["splits"][split]}
        for split, part in parts.items():
            yield symbol, split, *_span(part["first"], part["last"]), part["rows"]
        for before, after in pairwise(parts):
            if after in cuts:
                last, first = minutes(pd.Timestamp(parts[before]["last"])), minutes(pd.Timestamp(parts[after]["first"]))
                yield symbol, "purged", last, cuts[after], parts[before]["purged"]
                yield symbol, "embargoed", cuts[after], first, parts[after]["embargoed"]


def border(segments: Sequence[tuple[str, str, int, int, int]], cut: pd.Timestamp) -> Columns:
    """The segments around one cut, cut off on both sides so that the purge can be seen."""
    at = minutes(cut)
    purge = max([end - start for _, what, start, end, _ in segments if what == "purged" and end == at], default=0)
    embargo = max(
        [end - start for _, what, start, end, _ in segments if what == "embargoed" and start == at], default=0
    )
    low, high = at - purge - max(purge, embargo // 4), at + embargo + max(purge, embargo // 4)
    near = [(symbol, what, max(start, low), min(end, high), bars) for symbol, what, start, end, bars in segments]
    return _columns([segment for segment in near if segment[2] < segment[3]], [])


def _columns(segments: Sequence[tuple[str, str, int, int, int]], marks: Sequence[tuple[str, int, int]]) -> Columns:
    """Segments, then holes as rows of their own (`what` is "hole")."""
    rows = [*segments, *((symbol, "hole", at, at, missing) for symbol, at, missing in marks)]
    keys = ("symbol", "what", "start", "end", "bars")
    return {key: list(values) for key, values in zip(keys, zip(*rows, strict=True), strict=True)}


def _span(first: str, last: str) -> tuple[int, int]:
    return minutes(pd.Timestamp(first)), minutes(pd.Timestamp(last))


def _parts(report: Mapping[str, Any]) -> list[Part]:
    return [
        Part(
            split,
            symbol,
            part["first"][:10],
            part["last"][:10],
            part["rows"],
            part.get("purged"),
            part.get("embargoed"),
        )
        for split in SPLITS
        for symbol, part in sorted(report["splits"][split].items())
    ]


def _gaps(report: Mapping[str, Any]) -> list[Gap]:
    return [_gap(symbol, content) for symbol, content in sorted(report.get("symbols", {}).items())]


def _gap(symbol: str, content: Mapping[str, Any]) -> Gap:
    gaps, longest = content["gaps"], content["gaps"]["longest"]
    words = f"{longest['missing_bars']:,} bars after {longest['start'][:16].replace('T', ' ')}" if longest else "–"
    return Gap(symbol, content["bars"], gaps["count"], gaps["missing_bars"], words)


def _check(entry: Mapping[str, Any]) -> Check:
    if "skipped" in entry:
        return Check(entry["name"], "skipped", "noise", f"{entry['skipped'].capitalize()}.")
    examined = ", ".join(f"{value:,} {_spaced(key)}" for key, value in entry["examined"].items())
    words = f"Examined: {examined}. Worst: {in_words(entry['worst'])}."
    verdict, mood = ("passed", "better") if entry["passed"] else ("failed", "worse")
    return Check(entry["name"], verdict, mood, words)


def in_words(values: Mapping[str, Any]) -> str:
    """`{"changed_values": 6, "label": {"score": 0.71}}` as `changed values 6; label: score 0.71`."""
    return "; ".join(_in_words(_spaced(key), value) for key, value in values.items())


def _in_words(key: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{key}: {', '.join(_in_words(_spaced(inner), content) for inner, content in value.items())}"
    if isinstance(value, float):
        return f"{key} {value:.4g}"
    return f"{key} {value:,}" if isinstance(value, int) else f"{key} {value}"


def _spaced(key: str) -> str:
    return key.replace("_", " ")
