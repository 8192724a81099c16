"""What every stage's command line shares: one readable line for an error, the traceback on request."""

from __future__ import annotations

import errno
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from barcast.config import validate
from barcast.errors import BarcastError, ConfigError
from barcast.paths import Paths
from barcast.section import Section
from barcast.training.memory import keep_freed_memory
from barcast.yaml_io import load_yaml

# Idle threads of OpenMP sleep instead of spinning: beside other work on the same cores, spinning ones made LightGBM 25
# times slower. Read when a library loads, so it is set before any is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

S = TypeVar("S", bound=Section)

INTERRUPTED = "interrupted; run the same command to resume"
_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EROFS: "the file system is read-only; make it writable or work in another folder",
    errno.EACCES: "no permission; make the folder writable (chmod u+w) and run the same command again",
    errno.EPERM: "no permission; make the folder writable (chmod u+w) and run the same command again",
}


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Exit with 1 after an error that a user can fix, with 130 after Ctrl-C; each is one line on standard error.

    `--debug` among the process's arguments, or `BARCAST_DEBUG=1`, shows the traceback as well.
    """
    try:
        yield
    except (BarcastError, OSError) as error:
        remedy = _REMEDIES.get(error.errno or 0) if isinstance(error, OSError) else ""
        if remedy is None or _wants_traceback():
            raise
        line = f"{error.filename or 'output'}: {remedy}" if isinstance(error, OSError) else str(error)
        print(f"error: {line}", file=sys.stderr)
        sys.exit(1)
    except (KeyboardInterrupt, SystemExit) as stop:
        if not _is_interrupt(stop):
            raise
        if _wants_traceback():
            traceback.print_exception(stop)
        print(INTERRUPTED, file=sys.stderr)
        sys.exit(130)


def _wants_traceback() -> bool:
    return "--debug" in sys.argv or os.environ.get("BARCAST_DEBUG") == "1"


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C caused an error: Typer turns it into a silent exit."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def parse_horizon(text: str) -> int:
    """A horizon of the command line. Raises ConfigError: it is not a whole number."""
    if not text.isdecimal():
        raise ConfigError(f"horizon '{text}': expected a whole number of bars such as 5")
    return int(text)


def read_settings(section: type[S], spec: str, paths: Paths) -> S:
    """The checked `config:` of a spec. Raises ConfigError: there is no such spec, or it has another form."""
    file = paths.spec(spec)
    return validate(section, load_yaml(file).get("config", {}), file, "config")


def read_cell_spec(paths: Paths, cell: str) -> dict[str, Any]:
    """A cell's spec, its config completed by the settings of this machine. Raises ConfigError: there is none."""
    spec = load_yaml(paths.spec(cell))
    return {**spec, "config": {**spec["config"], **machine_settings(paths, cell)}}


def machine_settings(paths: Paths, cell: str) -> dict[str, Any]:
    """The settings of a cell that change no result, as they were in params.yaml when `spec` last ran."""
    settings: dict[str, Any] = load_yaml(paths.machine).get(cell, {}) if paths.machine.is_file() else {}
    return settings


def run_stage(main: Callable[..., None], arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a stage and exit: with 0 when it is done, else as `one_line_errors`.

    Args:
        main: the stage; the words of the command line are its parameters, those with a default included.
        arguments: the command line after the module's name; default: the process's own.
    """
    keep_freed_memory()
    given = [text for text in (sys.argv[1:] if arguments is None else arguments) if text != "--debug"]
    names = [name.upper() for name in inspect.signature(main).parameters]
    with one_line_errors():
        if len(given) != len(names):
            stage, expected = Path(inspect.getfile(main)).stem, " ".join(names) or "nothing"
            usage = " ".join(["python -m", f"barcast.stages.{stage}", *names])
            raise ConfigError(f"{stage}: expected {expected}, got {' '.join(given) or 'nothing'}; usage: {usage}")
        main(*given)
    sys.exit(0)
