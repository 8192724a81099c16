"""The application that every command joins, and what the commands share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from barcast.errors import ConfigError
from barcast.paths import cell_name

if TYPE_CHECKING:
    from barcast.params import Params

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Cached, honest market models."
)
Overrides = Annotated[list[str], typer.Option("--set-param", "-S", help="key=value, as in `dvc exp run -S`.")]


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Models × horizons on triple-barrier labels: train, compare, track."""
    if debug:
        os.environ["BARCAST_DEBUG"] = "1"


def require_cell(params: Params, model: str, horizon: int) -> None:
    """Refuse a cell that the pipeline has no stages for.

    Raises:
        ConfigError: naming the models and horizons of the matrix.
    """
    if (model, horizon) not in params.cells():
        raise ConfigError(
            f"params.yaml: {cell_name(model, horizon)} is not in the matrix; "
            f"models: {', '.join(params.models)}; horizons: {', '.join(map(str, params.horizons))}"
        )


def run_dvc(root: Path, *arguments: str) -> None:
    """Run DVC of this environment, its output and its exit code passed on."""
    tools = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', '')}"}
    status = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, env=environment, check=False)
    if status.returncode:
        raise typer.Exit(status.returncode)
