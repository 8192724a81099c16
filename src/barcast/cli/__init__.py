"""`barcast`: the shell over the same functions that the pipeline's stages call."""

from __future__ import annotations

import sys
import traceback

from barcast.cli import diff, experiments, inspect, pipeline, serving
from barcast.cli._app import app
from barcast.errors import BarcastError
from barcast.stages._main import INTERRUPTED, explain, wants_traceback

__all__ = ["app", "diff", "experiments", "inspect", "main", "pipeline", "serving"]


def main() -> None:
    """Run the command line; an error that a user can mend is one line and exit code 1, Ctrl-C one line and 130."""
    try:
        app()
    except (BarcastError, OSError) as error:
        line = explain(error)
        if line is None or wants_traceback():
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(1)
    except (KeyboardInterrupt, SystemExit) as stop:
        if not _is_interrupt(stop):
            raise
        if wants_traceback():
            traceback.print_exception(stop)
        print(INTERRUPTED, file=sys.stderr)
        sys.exit(130)


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: Typer makes a silent exit of it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
