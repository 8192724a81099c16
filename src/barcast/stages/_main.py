"""What every stage's command line shares: one readable line for an error, the traceback on request."""

from __future__ import annotations

import errno
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from barcast.errors import BarcastError, ConfigError

# Idle threads of OpenMP sleep instead of spinning: beside other work on the same cores, spinning ones made LightGBM 25
# times slower. Read when a library loads, so it is set before any is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

INTERRUPTED = "interrupted; run the same command to go on"
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


def parse_horizon(text: str) -> int:
    """A horizon of the command line.

    Raises:
        ConfigError: it is no whole number.
    """
    if not text.isdecimal():
        raise ConfigError(f"horizon '{text}': expected a whole number of bars such as 5")
    return int(text)


def run_stage(main: Callable[..., None], arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a stage and exit: 0 when it is done, 1 after one line on standard error, 130 when it was interrupted.

    `--debug` among the process's arguments, or `BARCAST_DEBUG=1`, shows the traceback as well.

    Args:
        main: the stage; what stands on the command line are its parameters, as text.
        arguments: the command line after the module's name; default: the process's own.
    """
    given = [text for text in (sys.argv[1:] if arguments is None else arguments) if text != "--debug"]
    try:
        _check_count(main, given)
        main(*given)
    except (BarcastError, OSError) as error:
        line = explain(error)
        if line is None or wants_traceback():
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        if wants_traceback():
            raise
        print(INTERRUPTED, file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


def wants_traceback() -> bool:
    """Whether the user asked for it."""
    return "--debug" in sys.argv or os.environ.get("BARCAST_DEBUG") == "1"


def _check_count(main: Callable[..., None], given: Sequence[str]) -> None:
    """Refuse fewer or more arguments than the stage takes; those with a default are to be given too."""
    names = [name.upper() for name in inspect.signature(main).parameters]
    if len(given) != len(names):
        stage, expected = Path(inspect.getfile(main)).stem, " ".join(names) or "nothing"
        usage = " ".join(["python -m", f"barcast.stages.{stage}", *names])
        raise ConfigError(f"{stage}: expected {expected}, got {' '.join(given) or 'nothing'}; usage: {usage}")
