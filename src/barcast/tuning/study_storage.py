"""Where a study's trials are stored, safe against kills.

A trial that was cut short is queued again under its own number, with the values that were sampled for it. (Optuna's
heartbeat would store it as failed and add a copy under a new number, after which other values are sampled.)
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from barcast.errors import TuningError
from barcast.files import still_runs
from barcast.tuning.settings import Direction

OWNER = "owner"  # user attribute of a trial: the process that runs it
_SCRATCH = ".folds."  # between a study's name and the rest of the name of its temporary folder
_UNOWNED_SECONDS = 60.0  # how long a trial may run before its owner is stored


@dataclass(frozen=True)
class StudyStorage:
    """A journal file, or a database that several machines may share."""

    place: Path | str  # the journal, or an SQLAlchemy URL
    name: str

    def open(self) -> BaseStorage:
        """Open the storage; a TuningError if the database can't be reached."""
        if isinstance(self.place, Path):
            return JournalStorage(JournalFileBackend(str(self.place)))
        from sqlalchemy.exc import SQLAlchemyError

        try:
            return optuna.storages.get_storage(self.place)
        except (SQLAlchemyError, ImportError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise TuningError(f"tune.storage: {reason}; start the database or set it to null") from error

    def study(
        self, direction: Direction, sampler: BaseSampler | None = None, pruner: BasePruner | None = None
    ) -> Study:
        """Open the study; create it where there is none yet."""
        return optuna.create_study(
            storage=self.open(),
            study_name=self.name,
            direction=direction,
            sampler=sampler,
            pruner=pruner,
            load_if_exists=True,
        )

    def requeue(self, study: Study) -> None:
        """Queue the trials again whose process is gone: on a journal, which one run uses at a time, all that run."""
        storage = self.open()
        study_id = storage.get_study_id_from_name(study.study_name)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if isinstance(self.place, Path) or not _is_running(trial):
                trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)
                storage.set_trial_state_values(trial_id, TrialState.WAITING)

    @contextmanager
    def exclusive(self, wait_seconds: float | None) -> Iterator[None]:
        """Be the only run on a journal, and clean up what a kill left; a database needs neither.

        A TuningError if another process of this machine still runs the study after `wait_seconds` (None: no limit).
        """
        if not isinstance(self.place, Path):
            yield
            return
        self.place.parent.mkdir(parents=True, exist_ok=True)
        with self._lock(self.place, wait_seconds):
            _truncate(self.place)
            _cleanup(self.place.parent, self.name)
            yield

    def _lock(self, journal: Path, wait_seconds: float | None) -> contextlib.AbstractContextManager[object]:
        lock = FileLock(journal.with_suffix(".lock"))
        try:
            return lock.acquire(timeout=0)
        except Timeout:
            print(f"{self.name}: another process runs this study; waiting for it", file=sys.stderr, flush=True)
        try:
            return lock.acquire(timeout=-1 if wait_seconds is None else wait_seconds)
        except Timeout:
            raise TuningError(f"{journal}: another process runs this study; wait for it or stop it") from None

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A temporary folder: beside the journal, where a later run finds it if this one is killed."""
        parent = self.place.parent if isinstance(self.place, Path) else None
        with tempfile.TemporaryDirectory(prefix=self.name + _SCRATCH, dir=parent, ignore_cleanup_errors=True) as folder:
            yield Path(folder)


def _truncate(journal: Path) -> None:
    """Drop a half-written last line, and the lock of a writer that was killed: no other process uses the journal."""
    for left in journal.parent.glob(f"{journal.name}.lock*"):
        left.unlink(missing_ok=True)
    if journal.is_file():
        with open(journal, "rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


def _cleanup(folder: Path, own: str) -> None:
    """Remove the temporary folders of killed runs, of this study and of others that do not run now."""
    for left in folder.glob(f"*{_SCRATCH}*"):
        name = left.name.partition(_SCRATCH)[0]
        lock = contextlib.nullcontext() if name == own else FileLock(folder / f"{name}.lock", timeout=0)
        with contextlib.suppress(Timeout), lock:
            shutil.rmtree(left, ignore_errors=True)


def _is_running(trial: FrozenTrial) -> bool:
    """Whether the process that runs a trial still exists; one on another machine is assumed to."""
    if OWNER not in trial.user_attrs:  # it is stored right after the trial begins
        started = trial.datetime_start
        return started is not None and time.time() - started.timestamp() < _UNOWNED_SECONDS
    return still_runs(trial.user_attrs[OWNER]) is not False
