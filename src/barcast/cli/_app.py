"""The application that every command is added to."""

from __future__ import annotations

import os
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train, compare and serve market models.",
)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Train, compare and serve models of triple-barrier labels: one model and horizon is one cached cell."""
    if debug:
        os.environ["BARCAST_DEBUG"] = "1"
