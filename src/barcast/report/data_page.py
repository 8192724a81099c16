"""What the page shows of the data: class balance over time, splits with purge and embargo, gaps, audit, provenance.

Provenance is by hashes and versions that are the same on every machine. A commit can't contain its own hash, so the
page names none; the `dvc.lock` of a commit names the page.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from barcast.evaluation.metrics import CLASS_NAMES
from barcast.report.columns import Columns, Figure, as_columns, minute, minutes

HASH_SHOWN = 12  # characters
MOST_GAPS = 400  # marks on the timeline: the longest ones
CUT_CAPTION = "Enlarged: rows whose labels could end after the cut are purged; the embargo follows the cut."


@dataclass(frozen=True)
class AuditCheck:
    """One check of the audit; `status` colours its `verdict`."""

    name: str
    verdict: str
    status: str
    details: str


class Segment(NamedTuple):
    """A stretch of one symbol's time in minutes; `what`: a split, "purged", "embargoed" or "gap"."""

    symbol: str
    what: str
    start: int
    end: int
    bars: int


@dataclass(frozen=True)
class DataPage:
    """Tables, and figures by name (`balance:h5`, `timeline`, `cut:val`)."""

    source: str
    splits: Mapping[str, Mapping[str, Any]]  # split → symbol → its entry in split.json
    symbols: Mapping[str, Any]  # symbol → its entry in split.json
    audit: list[AuditCheck]
    figures: dict[str, Figure]


def build_data(
    report: Mapping[str, Any],
    audit: Mapping[str, Any],
    index: Mapping[str, pd.DataFrame],
    labels: Mapping[int, Mapping[str, npt.NDArray[Any]]],
) -> DataPage:
    """Build the page's part about the data.

    `report` and `audit` are the content of split.json and audit.json; `index` has the times and symbols of the windows
    of each split, in the order of time; `labels` those of each horizon and split (`barcast.data.dataset.pack_labels`).
    """
    figures = {f"balance:h{horizon}": _balance_figure(balance(index, by_split)) for horizon, by_split in labels.items()}
    segments, cuts = split_segments(report), report.get("cuts", {})
    caption = "Each symbol’s rows by split; " + ("purged before a cut and embargoed after it; " if cuts else "")
    timeline = _columns([*segments, *find_gaps(index)])
    figures["timeline"] = Figure("timeline", timeline, f"{caption}dark marks are gaps in the bars.")
    for split in filter(cuts.__contains__, index):
        figures[f"cut:{split}"] = Figure("cut", _columns(around_cut(segments, minute(cuts[split]))), CUT_CAPTION)
    splits = {split: report["splits"][split] for split in index}
    checks = [_check(check) for check in audit["checks"]]
    return DataPage(report["source"], splits, report.get("symbols", {}), checks, figures)


def balance(index: Mapping[str, pd.DataFrame], labels: Mapping[str, npt.NDArray[Any]]) -> pd.DataFrame:
    """Each class's share of one horizon's labels by month and split; a month with two splits has two bars."""
    rows: list[tuple[str, int, int, str, float, float, int]] = []
    for split, frame in index.items():
        known = labels[split]["known"]
        labelled = frame[known].assign(label=labels[split]["label"][known])
        for _, month in labelled.groupby(labelled["datetime"].dt.strftime("%Y-%m")):
            span = minute(month["datetime"].min()), minute(month["datetime"].max())
            counts = np.bincount(month["label"].to_numpy(np.int64) + 1, minlength=3)
            tops = [0.0, *(np.cumsum(counts) / len(month)).round(4).tolist()]
            for name, (low, high), count in zip(CLASS_NAMES, pairwise(tops), counts.tolist(), strict=True):
                rows.append((split, *span, name, low, high, count))
    return pd.DataFrame(rows, columns=["split", "start", "end", "class", "low", "high", "labels"])


def _balance_figure(table: pd.DataFrame) -> Figure:
    counts = table.pivot_table(index="split", columns="class", values="labels", aggfunc="sum", sort=False)
    shares = counts.div(counts.sum(axis=1), axis=0)[list(CLASS_NAMES)]
    texts = {split: ", ".join(f"{s:.0%} {name}" for name, s in row.items()) for split, row in shares.iterrows()}
    parts = "; ".join(f"{text} in {split}" for split, text in texts.items())
    return Figure("balance", as_columns(table, {}), f"{parts}. Purged and embargoed rows are left blank.")


def find_gaps(index: Mapping[str, pd.DataFrame]) -> list[Segment]:
    """The longest gaps inside a split; `start` is the bar before the gap, `bars` the missing ones."""
    gaps: list[Segment] = []
    for frame in index.values():
        for symbol, rows in frame.groupby("symbol", sort=True):
            times = minutes(rows["datetime"]).to_numpy()
            steps = np.diff(times)
            bar = int(np.median(steps)) if len(steps) else 0
            for i in np.flatnonzero(steps > bar).tolist():
                gaps.append(Segment(str(symbol), "gap", int(times[i]), int(times[i]), int(steps[i]) // bar - 1))
    return sorted(sorted(gaps, key=lambda gap: -gap.bars)[:MOST_GAPS])


def split_segments(report: Mapping[str, Any]) -> list[Segment]:
    """The splits in time, and what was purged and embargoed between them."""
    segments = []
    for symbol in sorted(report["splits"]["train"]):
        parts = {split: by_symbol[symbol] for split, by_symbol in report["splits"].items() if symbol in by_symbol}
        spans = sorted((minute(part["first"]), minute(part["last"]), split) for split, part in parts.items())
        segments += [Segment(symbol, split, first, last, parts[split]["rows"]) for first, last, split in spans]
        for (_, last, before), (first, _, after) in pairwise(spans):
            if after in report.get("cuts", {}):
                cut = minute(report["cuts"][after])
                segments.append(Segment(symbol, "purged", last, cut, parts[before]["purged"]))
                segments.append(Segment(symbol, "embargoed", cut, first, parts[after]["embargoed"]))
    return segments


def around_cut(segments: Sequence[Segment], cut: int) -> list[Segment]:
    """The segments around a cut at this minute, shortened on both sides so that the purge is visible."""
    purge = max((s.end - s.start for s in segments if s.what == "purged" and s.end == cut), default=0)
    embargo = max((s.end - s.start for s in segments if s.what == "embargoed" and s.start == cut), default=0)
    margin = max(purge, embargo // 4)
    low, high = cut - purge - margin, cut + embargo + margin
    near = [segment._replace(start=max(segment.start, low), end=min(segment.end, high)) for segment in segments]
    return [segment for segment in near if segment.start < segment.end]


def _columns(segments: Sequence[Segment]) -> Columns:
    return {key: list(values) for key, values in zip(Segment._fields, zip(*segments, strict=True), strict=True)}


def _check(check: Mapping[str, Any]) -> AuditCheck:
    if "skipped" in check:
        return AuditCheck(check["name"], "skipped", "noise", f"{check['skipped'].capitalize()}.")
    checked = ", ".join(f"{value:,} {key.replace('_', ' ')}" for key, value in check["examined"].items())
    verdict, status = ("passed", "better") if check["passed"] else ("failed", "worse")
    return AuditCheck(check["name"], verdict, status, f"Checked: {checked}. Worst: {describe(check['worst'])}.")


def describe(values: Mapping[str, Any], separator: str = "; ") -> str:
    """`{"changed_values": 6, "label": {"score": 0.71}}` as `changed values 6; label: score 0.71`."""

    def shown(value: Any) -> str:
        if isinstance(value, Mapping):
            return f": {describe(value, ', ')}"
        return f" {value:{'.4g' if isinstance(value, float) else ',' if isinstance(value, int) else ''}}"

    return separator.join(f"{key.replace('_', ' ')}{shown(value)}" for key, value in values.items())


@dataclass(frozen=True)
class Origin:
    """One stage's or cell's settings and code, as short hashes; `key`: the inputs of its training."""

    name: str
    settings: str
    code: str
    modules: int
    key: str


@dataclass(frozen=True)
class Provenance:
    """What the results were made from; `data`: path → SHA-256 of the file (or of a folder's files)."""

    data: Mapping[str, str]
    origins: list[Origin]
    libraries: dict[str, str]


def build_provenance(
    specs: Mapping[str, Mapping[str, Any]], keys: Mapping[str, str], data: Mapping[str, str]
) -> Provenance:
    """Build the page's part about provenance, from the spec of each stage and cell, the cell keys of cells, and the
    hash of the source data by path."""
    libraries = {library: version for spec in specs.values() for library, version in spec["libraries"].items()}
    origins = []
    for name, spec in specs.items():
        code = "\n".join(f"{module} {digest}" for module, digest in sorted(spec["code"].items()))
        hashes = [text[:HASH_SHOWN] for text in (_hash(repr(_sorted(spec["config"]))), _hash(code), keys.get(name, ""))]
        origins.append(Origin(name, hashes[0], hashes[1], len(spec["code"]), hashes[2]))
    return Provenance(data, origins, dict(sorted(libraries.items())))


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return sorted((key, _sorted(content)) for key, content in value.items())
    return value


def hash_of(path: Path) -> str:
    """SHA-256 of a file; of a folder, over the names and hashes of its files in order."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return _hash("\n".join(f"{file.relative_to(path).as_posix()} {hash_of(file)}" for file in files))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
