"""Commands for the pipeline: list models, train them, try and adopt settings, show, compare and track results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from barcast.cli._app import app
from barcast.errors import ConfigError, DataError
from barcast.paths import Paths, cell_name, find_root

if TYPE_CHECKING:
    import pandas as pd

    from barcast.comparison.leaderboard import Leaderboard
    from barcast.params import Params


@app.command()
def models(family: Annotated[str | None, typer.Option(help="Show only this family.")] = None) -> None:
    """List the available models."""
    from barcast.models.registry import ModelRegistry

    table = Table("model", "family", "what it is", "GPU")
    for name in ModelRegistry.list_models(family):
        known = ModelRegistry.get_metadata(name)
        table.add_row(known.name, known.family, known.description, "needed" if known.requires_gpu else "")
    Console().print(table)


@app.command()
def train(
    model: Annotated[str, typer.Argument(help="A model of the matrix.")],
    horizon: Annotated[int, typer.Option(help="Bars ahead; one of `horizons` in params.yaml.")],
) -> None:
    """Train and evaluate one cell with DVC. If nothing changed, the result comes from the cache."""
    from barcast.params import load_params

    root = find_root()
    _require_cell(load_params(root / "params.yaml"), model, horizon)
    run_dvc(root, "repro", f"evaluate@{model}-{horizon}")


@app.command()
def run(
    set_param: Annotated[
        list[str], typer.Option("--set-param", "-S", help="KEY=VALUE, as in `dvc exp run -S`; may be repeated.")
    ],
    queue: Annotated[bool, typer.Option(help="Only queue it; `dvc queue start -j 2` runs the queue.")] = False,
    name: Annotated[str | None, typer.Option(help="The experiment's name.")] = None,
) -> None:
    """Check each override, then run `dvc exp run`. For an unknown key, the error names the closest one."""
    from barcast.experiments import check_overrides

    root = find_root()
    check_overrides(root / "params.yaml", set_param)
    named = ["--name", name] if name else []
    run_dvc(root, "exp", "run", *named, *(["--queue"] if queue else []), *(f"-S={item}" for item in set_param))


@app.command()
def exp(
    name: Annotated[str, typer.Argument(help="A file of config/experiments without .yaml, or `list`.")],
    queue: Annotated[bool, typer.Option(help="Add it to DVC's queue; `dvc queue start -j 2` runs the queue.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the experiment of this name.")] = False,
) -> None:
    """Check a named experiment's overrides and run it with `dvc exp run --name NAME`. `list` shows all of them."""
    from barcast.experiments import list_experiments, load_experiment

    root = find_root()
    if name == "list":
        table = Table("experiment", "description", "overrides")
        for experiment in list_experiments(root):
            table.add_row(experiment.name, experiment.description, str(len(experiment.overrides())))
        Console().print(table)
        return
    experiment = load_experiment(root, name)
    if _exists(root, name):
        if not force:
            raise ConfigError(f"experiment '{name}' is there already; `barcast exp {name} --force` replaces it")
        run_dvc(root, "exp", "remove", name)  # `dvc exp run --force` would run every stage again
    options = ["--name", name, *(["--queue"] if queue else [])]
    run_dvc(root, "exp", "run", *options, *(f"-S={item}" for item in experiment.overrides()))


@app.command()
def adopt(
    target: Annotated[str, typer.Argument(help="A tuned cell, such as tune@xgboost-5.")],
    params: Annotated[bool, typer.Option("--params", help="Write into params.yaml instead.")] = False,
) -> None:
    """Write a tuned cell's best parameters into config/experiments/production.yaml, and print the change."""
    from barcast.adopt import adopt as adopt_best

    change = adopt_best(find_root(), target, params)
    print(change or f"{target}: nothing to change, the file has these values\n", end="")


def _exists(root: Path, name: str) -> bool:
    """Whether DVC has an experiment of this name on the current commit."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False).stdout.strip()

    head = git("rev-parse", "--verify", "--quiet", "HEAD")
    return bool(head and git("rev-parse", "--verify", "--quiet", f"refs/exps/{head[:2]}/{head[2:]}/{name}"))


@app.command()
def leaderboard(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_markdown: Annotated[bool, typer.Option("--md", help="Print Markdown.")] = False,
) -> None:
    """Show all cells, ranked by out-of-fold and validation log-loss, with test results."""
    from barcast.comparison.leaderboard import load_leaderboard
    from barcast.report.tables import render_markdown, render_terminal

    paths = Paths(find_root())
    board = load_leaderboard(paths.report)
    if as_json:
        print(json.dumps(board, indent=2))
    elif as_markdown:
        print(render_markdown(board))
    else:
        render_terminal(board, Console(width=None if sys.stdout.isatty() else 120))
        print(f"report: {paths.report / 'index.html'}")
    if newer := newer_rows(paths, board):
        rows = f"{len(newer)} rows are" if len(newer) > 1 else "1 row is"
        print(f"note: {rows} newer than this table: {', '.join(newer)}; run `dvc repro`", file=sys.stderr)


def newer_rows(paths: Paths, board: Leaderboard) -> list[str]:
    """The rows whose metrics on disk have changed since the table was made."""
    from barcast.files import read_json

    newer = []
    for key, rows in board["horizons"].items():
        horizon = int(key.removeprefix("h"))
        for row in rows:
            name = cell_name(row["model"], horizon)
            files = (paths.cell_metrics(name), paths.ensemble(horizon) / row["model"] / "metrics/metrics.json")
            file = next(filter(Path.is_file, files), None)
            if file and read_json(file)["val"]["log_loss"] != row["val_log_loss"]:
                newer.append(name)
    return newer


@app.command()
def diff(
    before: Annotated[str, typer.Argument(help="A branch, tag, commit or experiment.", metavar="BEFORE")],
    after: Annotated[
        str | None, typer.Argument(help="The other revision; default: the workspace.", metavar="AFTER")
    ] = None,
    as_markdown: Annotated[bool, typer.Option("--md", help="Print Markdown, for a pull request.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what changed between two revisions, cell by cell, and whether the metrics really moved."""
    from barcast.revisions import diff_render
    from barcast.revisions.diff import diff as compare
    from barcast.revisions.revision import Revision

    root = find_root()
    found = compare(Revision(root, before), Revision(root, after))
    if as_json:
        print(json.dumps(asdict(found), indent=2))
    elif as_markdown:
        print(diff_render.render_markdown(found))
    else:
        diff_render.render_terminal(found, Console(width=None if sys.stdout.isatty() else 120))


@app.command()
def importance(
    model: Annotated[str, typer.Argument(help="A model of the matrix.")],
    horizon: Annotated[int, typer.Option(help="Bars ahead; one of `horizons` in params.yaml.")],
    windows: Annotated[int, typer.Option(min=2, help="How many validation windows to use.")] = 256,
    top: Annotated[int, typer.Option(min=1, help="How many rows of each table to show.")] = 15,
) -> None:
    """Show a trained cell's permutation importance on validation, by feature and by lag; for TFT also its attention."""
    from barcast.data.dataset import DatasetConfig, TimeSeriesDataset
    from barcast.evaluation.importance import lag_importance, permutation_importance
    from barcast.models.registry import ModelRegistry
    from barcast.params import load_params

    paths, metadata = Paths(find_root()), ModelRegistry.get_metadata(model)
    checkpoint = paths.checkpoint(cell_name(model, horizon))
    if not (checkpoint / "model.json").is_file():
        if paths.params.is_file():  # a trained cell needs no params.yaml
            _require_cell(load_params(paths.params), model, horizon)
        raise DataError(f"{checkpoint}: no trained model; run `dvc repro train@{model}-{horizon}` first")
    trained = metadata.model_class.load(checkpoint)
    val = TimeSeriesDataset(DatasetConfig(path=str(paths.windows), horizon=horizon)).split("val")
    arguments = (trained, val.X, val.y, windows, trained.config.random_seed)
    by_feature, by_lag = permutation_importance(*arguments), lag_importance(*arguments)
    _show("features", by_feature[["feature", "importance"]].head(top))
    _show("bars (lag 0: the last)", by_lag.head(top))
    if hasattr(trained, "get_attention"):
        attention = trained.get_attention().sort_values("attention", ascending=False)
        _show("attention by bar", attention.head(top))


def _show(title: str, table: pd.DataFrame) -> None:
    printed = Table(*table.columns, title=title, title_justify="left")
    for key, share in table.itertuples(index=False):
        printed.add_row(str(key).replace("<NA>", "itself"), f"{share:.1%}")
    Console().print(printed)


@app.command()
def sync() -> None:
    """Add every finished cell to MLflow, once: also cells and studies restored from DVC's cache, and champions."""
    from barcast import tracking
    from barcast.params import load_params
    from barcast.serving.mlflow_registry import update_all

    paths = Paths(find_root())
    cells = [cell_name(model, horizon) for model, horizon in load_params(paths.params).cells()]
    report = tracking.sync(paths, cells)
    print(f"MLflow at {tracking.store_uri(paths)}")
    for outcome, names in asdict(report).items():
        if names:
            print(f"{outcome}: {', '.join(names)}")
    if studies := tracking.sync_studies(paths):
        print(f"studies added: {', '.join(studies)}")
    for name, versions in update_all(paths).items():
        print(f"{name}: " + (", ".join(f"{alias} is version {n}" for alias, n in versions.items()) or "not copied"))
    if report.unfinished:
        print("unfinished cells have no result yet; run `dvc repro` first")


@app.command()
def doctor() -> None:
    """Check environment, parameters, data and lock; print how to fix what is wrong."""
    from barcast.doctor import check_repository

    findings = check_repository(Paths(find_root()))
    for finding in findings:
        print(f"{'ok  ' if finding.ok else 'FIX '}  {finding.subject}: {finding.text}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _require_cell(params: Params, model: str, horizon: int) -> None:
    """Refuse a cell for which the pipeline has no stages.
    Raises ConfigError: names the models and horizons of the matrix."""
    if (model, horizon) not in params.cells():
        raise ConfigError(
            f"params.yaml: {cell_name(model, horizon)} is not in the matrix; "
            f"models: {', '.join(params.models)}; horizons: {', '.join(map(str, params.horizons))}"
        )


def run_dvc(root: Path, *arguments: str) -> None:
    """Run the DVC of this environment; pass on its output and its exit code."""
    tools = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', '')}"}
    status = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, env=environment, check=False)
    if status.returncode:
        raise typer.Exit(status.returncode)
