"""What listens to a training: dvclive files for DVC, and several at once. What shows progress is in `progress`.

A model reports through one `log(metrics, step)`; everything here is such a callable. None of it knows MLflow.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from barcast.files import atomic_dir

Log = Callable[[Mapping[str, float], int], None]

_STAMP = "params.yaml"  # dvclive's name


def combine_logs(*logs: Log) -> Log:
    """One `log` that hands every call to all of `logs`, in order."""

    def log(metrics: Mapping[str, float], step: int) -> None:
        for each in logs:
            each(metrics, step)

    return log


class LiveLog:
    """dvclive's files for one cell: `plots/metrics/{name}.tsv`, `metrics.json`, `params.yaml`.

    They hold no time and no random name, so the same training writes the same bytes. The folder appears
    whole when the body has ended well; a failed body leaves the previous one. The body must save the model
    too, inside `replacing_model`: the cell's key in `params.yaml` means that the checkpoint beside it was
    made from those inputs.

    Args:
        folder: the cell's live folder.
        cell_key: what `barcast.cache.keys.cell_key` returns for the cell.
    """

    def __init__(self, folder: Path, cell_key: str) -> None:
        self._folder, self._cell_key = folder, cell_key
        self._context = self._writing()
        self._live: Any = None

    def __enter__(self) -> Self:
        self._context.__enter__()
        return self

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        self._live.step = step
        for name, value in metrics.items():
            self._live.log_metric(name, float(value))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._context.__exit__(kind, error, traceback)

    @contextmanager
    def replacing_model(self) -> Iterator[None]:
        """Remove the key of the previous model while the body saves another in its place.

        It comes back if saving fails. A process that is killed or interrupted here leaves a model without a key,
        since it is unknown which model is there: never one with the key of other inputs.
        """
        stamp, aside = self._folder / _STAMP, self._folder / f"{_STAMP}.old"
        if not stamp.is_file():
            yield
            return
        os.replace(stamp, aside)
        try:
            yield
        except Exception:
            os.replace(aside, stamp)
            raise
        finally:
            aside.unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with atomic_dir(self._folder) as temporary:
            self._live = _dvclive(temporary)
            yield
            self._live.log_param("cell_key", self._cell_key)
            self._live.make_summary()


def _dvclive(folder: Path) -> Any:
    """A dvclive writer that looks at no repository, no environment and no network.

    The folder is an output of a DVC stage already, so what dvclive does beside writing files is at best
    done twice: it opens the repository (and fails in one without a commit), draws a random experiment name,
    adds untracked files to Git, and posts to DVC Studio.
    """
    from dvclive import Live

    class Writer(Live):  # type: ignore[misc]
        def _init_dvc(self) -> None:
            self._save_dvc_exp = False

        _init_test = _init_dvc  # DVCLIVE_TEST would redirect the files

        def _init_studio(self) -> None:
            self._studio_events_to_skip.update(("start", "data", "done"))

    return Writer(dir=os.fspath(folder), save_dvc_exp=False, dvcyaml=None, report=None, monitor_system=False)
