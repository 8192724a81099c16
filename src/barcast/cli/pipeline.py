"""Commands around the pipeline: what can be trained, training it, and what came out."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from barcast.cli._app import Overrides, app, require_cell, run_dvc
from barcast.paths import Paths, cell_name, find_root

if TYPE_CHECKING:
    from barcast.evaluation.leaderboard import Leaderboard


@app.command()
def models(family: Annotated[str | None, typer.Option(help="Only this family.")] = None) -> None:
    """List the models that a matrix can hold."""
    from barcast.models.registry import ModelRegistry

    table = Table("model", "family", "what it is", "GPU")
    for name in ModelRegistry.list_models(family):
        known = ModelRegistry.get_metadata(name)
        table.add_row(known.name, known.family, known.description, "needed" if known.requires_gpu else "")
    Console().print(table)


@app.command()
def train(
    model: Annotated[str, typer.Argument(help="A name that `barcast models` lists.")],
    horizon: Annotated[int, typer.Option(help="Bars ahead, one of `horizons` in params.yaml.")],
) -> None:
    """Train and evaluate one cell through DVC: at once from the cache when nothing changed."""
    from barcast.params import load_params

    root = find_root()
    require_cell(load_params(root / "params.yaml"), model, horizon)
    run_dvc(root, "repro", f"evaluate@{model}-{horizon}")


@app.command()
def run(
    set_param: Overrides,
    queue: Annotated[bool, typer.Option(help="Queue it; `dvc queue start -j 2` runs the queue.")] = False,
    name: Annotated[str | None, typer.Option(help="The experiment's name.")] = None,
) -> None:
    """`dvc exp run` with every override checked first, and the nearest key named for one that is unknown."""
    from barcast.overrides import check_overrides

    root = find_root()
    check_overrides(root / "params.yaml", set_param)
    named = ["--name", name] if name else []
    run_dvc(root, "exp", "run", *named, *(["--queue"] if queue else []), *(f"-S={item}" for item in set_param))


@app.command()
def leaderboard(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_markdown: Annotated[bool, typer.Option("--md", help="Print Markdown.")] = False,
) -> None:
    """Show every cell, ranked by log-loss out of fold and on validation, with test beside it."""
    from barcast.evaluation.leaderboard import load_leaderboard, render_markdown, render_terminal

    paths = Paths(find_root())
    board = load_leaderboard(paths.report)
    if as_json:
        print(json.dumps(board.to_dict(), indent=2))
    elif as_markdown:
        print(render_markdown(board))
    else:
        render_terminal(board, Console(width=None if sys.stdout.isatty() else 120))
        print(f"report: {paths.report / 'index.html'}")
    if newer := newer_rows(paths, board):
        said = f"{len(newer)} rows are" if len(newer) > 1 else "1 row is"
        print(f"note: {said} newer than this table: {', '.join(newer)}; run `dvc repro`", file=sys.stderr)


def newer_rows(paths: Paths, board: Leaderboard) -> list[str]:
    """The rows whose metrics on disk are no longer those that the table was made from."""
    from barcast.files import read_json

    found = []
    for horizon, rows in board.horizons.items():
        for row in rows:
            name = cell_name(row.model, horizon)
            places = (paths.cell_metrics(name), paths.ensemble(horizon) / row.model / "metrics/metrics.json")
            file = next((place for place in places if place.is_file()), None)
            if file and read_json(file)["val"]["log_loss"] != row.val_log_loss:
                found.append(name)
    return found


@app.command()
def sync() -> None:
    """Make every finished cell appear in MLflow, once; also those restored from DVC's cache."""
    from barcast import tracking
    from barcast.params import load_params

    paths = Paths(find_root())
    cells = [cell_name(model, horizon) for model, horizon in load_params(paths.params).cells()]
    report = tracking.sync(paths, cells)
    print(f"MLflow at {tracking.store_uri(paths)}")
    for outcome, names in asdict(report).items():
        if names:
            print(f"{outcome}: {', '.join(names)}")
    if studies := tracking.sync_studies(paths):
        print(f"studies brought in: {', '.join(studies)}")
    if report.unfinished:
        print("unfinished cells have no result yet; run `dvc repro` first")


@app.command()
def doctor() -> None:
    """Check environment, parameters, data and lock; say how to mend what is wrong."""
    from barcast.doctor import examine

    findings = examine(Paths(find_root()))
    for finding in findings:
        print(f"{'ok  ' if finding.ok else 'MEND'}  {finding.subject}: {finding.text}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
