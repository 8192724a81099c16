"""`barcast diff`: this revision against another one."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.console import Console

from barcast.cli._app import app
from barcast.paths import find_root


@app.command()
def diff(
    before: Annotated[str, typer.Argument(help="A branch, tag, commit or experiment.", metavar="REV")],
    after: Annotated[str | None, typer.Argument(help="Another one; default: the workspace.", metavar="[REV]")] = None,
    as_markdown: Annotated[bool, typer.Option("--md", help="Print Markdown, for a pull request.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What changed between two revisions, cell by cell, and whether the metrics really moved."""
    from barcast.evaluation import diff_text
    from barcast.evaluation.diff import diff as compare
    from barcast.revisions import Cache, Revision

    cache = Cache(find_root())
    new = Revision.committed(after, cache) if after else Revision.workspace(cache)
    found = compare(Revision.committed(before, cache), new)
    if as_json:
        print(json.dumps(diff_text.to_dict(found), indent=2))
    elif as_markdown:
        print(diff_text.render_markdown(found))
    else:
        diff_text.render_terminal(found, Console(width=None if sys.stdout.isatty() else 120))
