"""Shows what two revisions differ in: Markdown for a pull request, and a table in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from barcast.evaluation.metrics import METRICS, shown_metrics
from barcast.report.columns import number
from barcast.revisions.diff import CellDiff, Change, Diff

Cause = tuple[str, str, str]  # kind, what changed, where

LONGEST = 60_000  # characters of a comment; code hosts take more
MAIN, FURTHER = "log_loss", ("macro_f1", "mcc", "ece", "sharpe")
MARKS = {"better": "🟢 better", "worse": "🔴 worse", "noise": "⚪ noise"}
MOST_ROWS = 100  # of the table of metrics
MOST_LETTERS = 80  # of a value


def headline(diff: Diff) -> str:
    """What ran again and how the metrics moved, in one or two sentences."""
    runs = [cell.run for cell in diff.cells]
    order = ("trained again", "evaluated again", "not run yet", "new", "removed", "unchanged")
    counted = [f"{runs.count(run)} {run}" for run in order if run in runs]
    verdicts = [cell.deltas[MAIN].verdict for cell in diff.cells if cell.deltas]
    judged = [f"{verdicts.count(word)} {word}" for word in ("better", "worse", "noise") if word in verdicts]
    return f"{len(runs)} cells: {', '.join(counted)}." + (f" By test log-loss: {', '.join(judged)}." if judged else "")


def render_markdown(diff: Diff, longest: int = LONGEST) -> str:
    """Markdown of at most `longest` characters; parts at the end that do not fit are left out and counted."""
    parts = [f"### `{diff.before}` → `{diff.after}`\n\n{headline(diff)}\n", *_sections(diff)]
    cut = "\n*{} more parts did not fit; `barcast diff {}` shows all of them.*\n"
    room, text = longest - len(cut) - len(diff.before) - 10, ""
    for position, part in enumerate(parts):
        if len(text) + len(part) > room:
            return text + cut.format(len(parts) - position, diff.before)
        text += part
    return text


def _sections(diff: Diff) -> Iterator[str]:
    """Most important first: each part is complete without those that follow."""
    moved = [cell for cell in diff.cells if cell.deltas or cell.note]
    if moved:
        yield "\n" + _metrics_table(moved)
        paired = "Intervals are paired: both revisions' predictions of the same windows, on the same resamples."
        yield f"\n{paired} *noise*: the interval contains 0.\n"
    if causes := _causes(diff):
        lines = (f"| {' | '.join(cause)} |\n" for cause in causes)
        yield "\n#### What changed\n\n| kind | change | affects |\n|:--|:--|:--|\n" + "".join(lines)
    if others := _without_new_results(diff, "`"):
        yield "\n" + "".join(f"- {line}\n" for line in others)
    for cell in moved:
        yield "\n" + _details(cell)


def _without_new_results(diff: Diff, quote: str = "") -> list[str]:
    """A line for each cell that ran, came or went, but has no metrics to compare."""
    cells = [cell for cell in diff.cells if not (cell.deltas or cell.note) and cell.run != "unchanged"]
    same = {"trained again": ", with the same results", "evaluated again": ", with the same results"}
    return [f"{quote}{cell.name}{quote}: {cell.run}{same.get(cell.run, '')}" for cell in cells]


def _metrics_table(cells: Sequence[CellDiff]) -> str:
    deltas = [f"Δ {METRICS[key].title}" for key in FURTHER]
    titles = ["cell", "run", "before", "after", "Δ test log-loss", "verdict", *deltas]
    lines = ["| " + " | ".join(titles) + " |", "|:--|:--|--:|--:|--:|:--|" + "--:|" * len(FURTHER)]
    for cell in cells[:MOST_ROWS]:
        before, after, delta, spread, verdict = metric_row(cell, MAIN)
        further = []
        for key in FURTHER:
            *_, value, _, word = metric_row(cell, key)
            further.append(f"{value} ({word})" if word in ("better", "worse") else value)
        row = [f"`{cell.name}`", cell.run, before, after, f"{delta} {spread}".strip(), MARKS.get(verdict, "–")]
        lines.append("| " + " | ".join([*row, *further]) + " |")
    notes = [f"\n`{cell.name}`: {cell.note}." for cell in cells[:MOST_ROWS] if cell.note]
    if len(cells) > MOST_ROWS:
        notes.append(f"\n{len(cells) - MOST_ROWS} more cells moved.")
    return "\n".join(lines) + "\n" + "".join(f"{note}\n" for note in notes)


def metric_row(cell: CellDiff, key: str) -> list[str]:
    """Before, after, difference, its interval such as `[−0.0123, +0.0045]`, and the verdict; empty if there is none."""
    row = [shown(side.get(key), key) for side in (cell.before, cell.after)]
    delta = cell.deltas.get(key) if cell.deltas else None
    if delta is None:
        return [*row, "–", "", ""]
    low, high = (shown(end, key, signed=True) for end in (delta.low, delta.high))
    spread = "" if delta.low is None or delta.high is None else f"[{low}, {high}]"
    return [*row, shown(delta.value, key, signed=True), spread, delta.verdict or ""]


def shown(value: float | None, key: str, signed: bool = False) -> str:
    """A metric with a fitting number of digits; a dash if it is undefined."""
    return number(value, f"{'+' if signed else ''}{METRICS[key].form.removeprefix('+')}")


def _causes(diff: Diff) -> list[Cause]:
    """Each change, with the stages and cells that it reaches; modules that reach the same ones are one cause."""
    reach: dict[Change, list[str]] = {}
    for name, changes in [*diff.stages.items(), *((cell.name, cell.changes) for cell in diff.cells)]:
        for change in changes:
            reach.setdefault(change, []).append(name)
    kinds = ("parameter", "data", "library")
    plain = [change for change in reach if change.kind != "code"]
    plain.sort(key=lambda change: (kinds.index(change.kind), change.name, str(change.before), str(change.after)))
    modules: dict[tuple[str, ...], list[str]] = {}
    for change in reach:
        if change.kind == "code":
            modules.setdefault(tuple(reach[change]), []).append(f"`{change.name.removeprefix('barcast.')}`")
    code = [("code", listed(names, 12), listed(where)) for where, names in modules.items()]
    return [*((change.kind, _change(change), listed(reach[change])) for change in plain), *code]


def _change(change: Change) -> str:
    name = f"`{_short(change.name)}`"
    if change.after is None:
        return f"{name} (removed)"
    if change.kind == "data":
        return f"{name} (new)" if change.before is None else name
    if change.before is None:
        return f"{name} = {_short(change.after)} (new)"
    return f"{name} {_short(change.before)} → {_short(change.after)}"


def _short(text: str) -> str:
    """On one line, without what would break a table, and not too long."""
    line = " ".join(text.split()).replace("|", "\\|").replace("`", "'")
    return line if len(line) <= MOST_LETTERS else f"{line[:MOST_LETTERS]}…"


def listed(names: Sequence[str], most: int = 4) -> str:
    """`a, b, c and 7 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _details(cell: CellDiff) -> str:
    """All metrics of one cell, folded."""
    lines = ["| metric | before | after | Δ | interval | verdict |", "|:--|--:|--:|--:|:--|:--|"]
    for key in (MAIN, *(metric.name for metric in shown_metrics("page") if metric.direction)):
        *values, verdict = metric_row(cell, key)
        lines.append("| " + " | ".join([METRICS[key].title, *values, MARKS.get(verdict, "")]) + " |")
    windows = f"{cell.windows:,} test windows" if cell.windows else "no shared windows"
    body = "\n".join(lines)
    return f"<details><summary><code>{cell.name}</code>: {cell.run}, {windows}</summary>\n\n{body}\n\n</details>\n"


def render_terminal(diff: Diff, console: Console) -> None:
    """The same as a table, with a line for each change."""
    console.print(f"[bold]{diff.before} → {diff.after}[/bold]  {headline(diff)}", highlight=False)
    moved = [cell for cell in diff.cells if cell.deltas or cell.note]
    table = Table("cell", "run", box=None, header_style="dim", pad_edge=False)
    for title in ("before", "after", "Δ log-loss", "interval"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("verdict")
    colours = {"better": "green", "worse": "red", "noise": "dim"}
    for cell in moved:
        *values, spread, verdict = metric_row(cell, MAIN)
        word = f"[{colours[verdict]}]{verdict}[/]" if verdict else cell.note
        table.add_row(cell.name, cell.run, *values, spread.replace("[", "\\["), word)
    if moved:
        console.print(table)
    for line in _without_new_results(diff):
        console.print(line, highlight=False)
    for cause in _causes(diff):
        console.print(" · ".join(cause).replace("`", "").replace("\\|", "|"), markup=False, highlight=False)
