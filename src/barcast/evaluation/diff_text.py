"""A difference of revisions as Markdown for a pull request, as a terminal table, and as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from barcast.evaluation._numbers import number
from barcast.evaluation.diff import CellDiff, Change, Diff
from barcast.evaluation.verdicts import Delta

Cause = tuple[str, str, str]  # kind, what, where

LONGEST = 60_000  # characters of a comment, well inside what code hosts take
TITLES = {
    "log_loss": "test log-loss",
    "macro_f1": "macro-F1",
    "mcc": "MCC",
    "auc_ovr": "AUC",
    "brier": "Brier",
    "ece": "ECE",
    "sharpe": "Sharpe",
    "max_drawdown": "max drawdown",
}
MAIN, FURTHER = "log_loss", ("macro_f1", "mcc", "ece", "sharpe")
DETAILED = tuple(TITLES)
MARKS = {"better": "🟢 better", "worse": "🔴 worse", "noise": "⚪ noise"}
MOST_ROWS = 100  # of the table of metrics
MOST_LETTERS = 80  # of a value
NAMED = 4  # cells or modules that are named before the rest is counted


def to_dict(diff: Diff) -> dict[str, Any]:
    """Plain data for JSON."""
    return asdict(diff)


def headline(diff: Diff) -> str:
    """What ran again and what came of it, in one or two sentences."""
    runs = [cell.run for cell in diff.cells]
    order = ("trained again", "evaluated again", "not run yet", "new", "gone", "as it was")
    counted = [f"{runs.count(run)} {run}" for run in order if run in runs]
    verdicts = [cell.deltas[MAIN].verdict for cell in diff.cells if cell.deltas]
    said = [f"{verdicts.count(word)} {word}" for word in ("better", "worse", "noise") if word in verdicts]
    return f"{len(runs)} cells: {', '.join(counted)}." + (f" By test log-loss: {', '.join(said)}." if said else "")


def render_markdown(diff: Diff, longest: int = LONGEST) -> str:
    """Markdown of at most `longest` characters; what does not fit is left out from the end, and counted."""
    parts = [f"### `{diff.before}` → `{diff.after}`\n\n{headline(diff)}\n", *_sections(diff)]
    cut = "\n*{} more parts did not fit; `barcast diff {}` has all of them.*\n"
    room, text = longest - len(cut) - len(diff.before) - 10, ""
    for position, part in enumerate(parts):
        if len(text) + len(part) > room:
            return text + cut.format(len(parts) - position, diff.before)
        text += part
    return text


def _sections(diff: Diff) -> Iterator[str]:
    """Most telling first: each part can stand without those that follow."""
    moved = [cell for cell in diff.cells if cell.deltas or cell.note]
    if moved:
        yield "\n" + _metrics_table(moved)
        yield (
            "\nIntervals are paired: both revisions' predictions of the same windows, on the same resamples. "
            "*noise*: the interval holds 0.\n"
        )
    causes = _causes(diff)
    if causes:
        yield "\n#### What changed\n\n| | | cells |\n|:--|:--|:--|\n" + "".join(
            f"| {' | '.join(cause)} |\n" for cause in causes
        )
    others = [cell for cell in diff.cells if cell not in moved and cell.run != "as it was"]
    if others:
        yield "\n" + "".join(f"- `{cell.name}`: {cell.run}{_same_results(cell)}\n" for cell in others)
    for cell in moved:
        yield "\n" + _details(cell)


def _same_results(cell: CellDiff) -> str:
    return ", with the same results" if cell.run in ("trained again", "evaluated again") else ""


def _metrics_table(cells: Sequence[CellDiff]) -> str:
    titles = ["cell", "", "before", "after", "Δ test log-loss", "verdict", *(f"Δ {TITLES[key]}" for key in FURTHER)]
    lines = ["| " + " | ".join(titles) + " |", "|:--|:--|--:|--:|--:|:--|" + "--:|" * len(FURTHER)]
    for cell in cells[:MOST_ROWS]:
        losses = [shown(side.get(MAIN), MAIN) for side in (cell.before, cell.after)]
        lines.append("| " + " | ".join([f"`{cell.name}`", cell.run, *losses, *_deltas(cell)]) + " |")
    notes = [f"\n`{cell.name}`: {cell.note}." for cell in cells[:MOST_ROWS] if cell.note]
    if len(cells) > MOST_ROWS:
        notes.append(f"\n{len(cells) - MOST_ROWS} more cells moved.")
    return "\n".join(lines) + "\n" + "".join(f"{note}\n" for note in notes)


def _deltas(cell: CellDiff) -> list[str]:
    if not cell.deltas:
        return ["–"] * (2 + len(FURTHER))
    main = cell.deltas[MAIN]
    further = [f"{shown(cell.deltas[key].value, key, signed=True)}{_star(cell, key)}" for key in FURTHER]
    return [f"{shown(main.value, MAIN, True)} {spread(main, MAIN)}", mark(main), *further]


def _star(cell: CellDiff, key: str) -> str:
    """A mark on a further metric whose difference is no noise."""
    verdict = cell.deltas[key].verdict if cell.deltas else None
    return f" ({verdict})" if verdict in ("better", "worse") else ""


def mark(delta: Delta) -> str:
    """The verdict, or nothing for a metric of which neither more nor less is better."""
    return MARKS[delta.verdict] if delta.verdict else ""


def spread(delta: Delta, key: str) -> str:
    """`[−0.0123, +0.0045]`, or nothing where there is no interval."""
    if delta.low is None or delta.high is None:
        return ""
    return f"[{shown(delta.low, key, True)}, {shown(delta.high, key, True)}]"


def shown(value: float | None, key: str, signed: bool = False) -> str:
    """A metric with the digits that it deserves, a dash where it is undefined."""
    form = {"log_loss": ".4f", "brier": ".4f", "sharpe": ".2f", "max_drawdown": ".1%"}.get(key, ".3f")
    return number(value, f"{'+' if signed else ''}{form}")


def _causes(diff: Diff) -> list[Cause]:
    """Each change, with the stages and cells that it reaches."""
    reach: dict[Change, list[str]] = {}
    for stage, changes in diff.stages.items():
        for change in changes:
            reach.setdefault(change, []).append(stage)
    for cell in diff.cells:
        for change in cell.changes:
            reach.setdefault(change, []).append(cell.name)
    plain = [change for change in reach if change.kind != "code"]
    causes = [(change.kind, _change(change), listed(reach[change])) for change in sorted(plain, key=_order)]
    return [*causes, *_code({change: where for change, where in reach.items() if change.kind == "code"})]


def _order(change: Change) -> tuple[int, str, str, str]:
    kind = ("parameter", "data", "code", "library").index(change.kind)
    return kind, change.name, str(change.before), str(change.after)


def _change(change: Change) -> str:
    name = f"`{_short(change.name)}`"
    if change.kind == "data":
        return name + (" (new)" if change.before is None else " (gone)" if change.after is None else "")
    if change.before is None:
        return f"{name} = {_short(change.after)} (new)"
    return f"{name} {_short(change.before)} → {_short(change.after)}" if change.after else f"{name} (gone)"


def _short(text: str | None) -> str:
    """As it can stand in a cell of a table."""
    line = " ".join((text or "").split()).replace("|", "\\|").replace("`", "'")
    return line if len(line) <= MOST_LETTERS else f"{line[:MOST_LETTERS]}…"


def _code(reach: Mapping[Change, Sequence[str]]) -> list[Cause]:
    """Modules that reach the same cells are one cause."""
    modules: dict[tuple[str, ...], list[str]] = {}
    for change, where in reach.items():
        modules.setdefault(tuple(where), []).append(f"`{change.name.removeprefix('barcast.')}`")
    return [("code", listed(names, 12), listed(where)) for where, names in modules.items()]


def listed(names: Sequence[str], most: int = NAMED) -> str:
    """`a, b, c and 7 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _details(cell: CellDiff) -> str:
    """All metrics of one cell, folded away."""
    lines = ["| metric | before | after | Δ | interval | verdict |", "|:--|--:|--:|--:|:--|:--|"]
    for key in DETAILED:
        delta = cell.deltas.get(key) if cell.deltas else None
        row = [TITLES[key], shown(cell.before.get(key), key), shown(cell.after.get(key), key)]
        row += [shown(delta.value, key, True), spread(delta, key), mark(delta)] if delta else ["–", "", ""]
        lines.append("| " + " | ".join(row) + " |")
    windows = f"{cell.windows:,} test windows" if cell.windows else "no shared windows"
    body = "\n".join(lines)
    return f"<details><summary><code>{cell.name}</code>: {cell.run}, {windows}</summary>\n\n{body}\n\n</details>\n"


def render_terminal(diff: Diff, console: Console) -> None:
    """The same as one table, and a line for each change."""
    console.print(f"[bold]{diff.before} → {diff.after}[/bold]  {headline(diff)}", highlight=False)
    moved = [cell for cell in diff.cells if cell.deltas or cell.note]
    if moved:
        console.print(_terminal_table(moved))
    for cell in diff.cells:
        if cell not in moved and cell.run != "as it was":
            console.print(f"{cell.name}: {cell.run}{_same_results(cell)}", highlight=False)
    for cause in _causes(diff):
        console.print(" · ".join(cause).replace("`", "").replace("\\|", "|"), markup=False, highlight=False)


def _terminal_table(cells: Iterable[CellDiff]) -> Table:
    table = Table("cell", "run", box=None, header_style="dim", pad_edge=False)
    for title in ("before", "after", "Δ log-loss", "interval"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("verdict")
    colours = {"better": "green", "worse": "red", "noise": "dim"}
    for cell in cells:
        losses = [shown(side.get(MAIN), MAIN) for side in (cell.before, cell.after)]
        delta = cell.deltas[MAIN] if cell.deltas else None
        verdict = f"[{colours[delta.verdict]}]{delta.verdict}[/]" if delta and delta.verdict else cell.note
        moved = [shown(delta.value, MAIN, True), spread(delta, MAIN).replace("[", "\\[")] if delta else ["–", ""]
        table.add_row(cell.name, cell.run, *losses, *moved, verdict)
    return table
