"""Commands for named experiments, and for taking over what a study found."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from barcast.cli._app import app, run_dvc
from barcast.errors import ConfigError
from barcast.paths import find_root

LIST = "list"


@app.command()
def exp(
    name: Annotated[str, typer.Argument(help="A file of config/experiments, or `list`.")],
    queue: Annotated[bool, typer.Option(help="Queue it; `dvc queue start -j 2` runs the queue.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an experiment of this name.")] = False,
) -> None:
    """Run a named experiment: `dvc exp run --name NAME` with its overrides, checked first. `list` shows them all."""
    from barcast.experiments import load_experiment

    root = find_root()
    if name == LIST:
        _show_all(root)
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
    params: Annotated[bool, typer.Option("--params", help="Write into params.yaml.")] = False,
) -> None:
    """Write a cell's best parameters into config/experiments/production.yaml, and print the change."""
    from barcast.adopt import adopt as take_over

    change = take_over(find_root(), target, params)
    print(change if change else f"{target}: those values are there already", end="" if change else "\n")


def _exists(root: Path, name: str) -> bool:
    """Whether DVC has an experiment of this name on the commit that is checked out."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False).stdout.strip()

    head = git("rev-parse", "--verify", "--quiet", "HEAD")
    return bool(head and git("rev-parse", "--verify", "--quiet", f"refs/exps/{head[:2]}/{head[2:]}/{name}"))


def _show_all(root: Path) -> None:
    from barcast.experiments import list_experiments

    table = Table("experiment", "what it is", "overrides")
    for experiment in list_experiments(root):
        table.add_row(experiment.name, experiment.description, str(len(experiment.overrides())))
    Console().print(table)
