"""`barcast`: the shell over the same functions that the pipeline's stages call."""

from __future__ import annotations

import os
import sys

from barcast.cli import diff, experiments, inspect, pipeline, serving
from barcast.cli._app import app
from barcast.errors import BarcastError
from barcast.stages._main import explain

__all__ = ["app", "diff", "experiments", "inspect", "main", "pipeline", "serving"]


def main() -> None:
    """Run the command line; an error that a user can mend is one line and exit code 1."""
    try:
        app()
    except (BarcastError, OSError) as error:
        line = explain(error)
        if line is None or os.environ.get("BARCAST_DEBUG") == "1":
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(1)
