"""`barcast`: a command line over the functions that the pipeline's stages call."""

from barcast.cli import pipeline, serving
from barcast.cli._app import app
from barcast.stages._main import one_line_errors

__all__ = ["app", "main", "pipeline", "serving"]


def main() -> None:
    """Run the command line. An error that a user can fix is one line and exit code 1; Ctrl-C is one line and 130."""
    with one_line_errors():
        app()
