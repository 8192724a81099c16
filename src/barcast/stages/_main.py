"""What every stage's command line shares: one readable line for an error, the traceback on request."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from barcast.errors import BarcastError

_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EROFS: "the file system is read-only; make it writable or work in another folder",
    errno.EACCES: "no permission; make the folder writable (chmod u+w) and run the same command again",
    errno.EPERM: "no permission; make the folder writable (chmod u+w) and run the same command again",
}


def explain(error: BaseException) -> str | None:
    """The one line for an error that a user can mend, None for one that is a defect."""
    if isinstance(error, BarcastError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        return f"{error.filename or 'output'}: {_REMEDIES[error.errno]}"
    return None


def run_stage(main: Callable[..., None], arguments: Sequence[str] = ()) -> NoReturn:
    """Run a stage and exit: 0 when it is done, 1 after one line on standard error.

    `--debug` among the process's arguments, or `BARCAST_DEBUG=1`, shows the traceback as well.
    """
    try:
        main(*arguments)
    except (BarcastError, OSError) as error:
        line = explain(error)
        if line is None or "--debug" in sys.argv or os.environ.get("BARCAST_DEBUG") == "1":
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)
