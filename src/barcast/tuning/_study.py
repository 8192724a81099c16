"""An Optuna study that a kill doesn't harm: where it is kept, who works on it, and what is drawn next.

A trial that was cut short is put back and taken up again under its own number, with the values that were drawn
for it. Each trial is drawn by a sampler seeded with the study's seed and the trial's number, and with the name of
what is drawn by itself, so what comes after a resumption is what would have come without it, wherever the cut fell.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil  # type: ignore[import-untyped]
from filelock import BaseFileLock, FileLock, Timeout
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from barcast.errors import TuningError
from barcast.tuning.settings import Direction

OWNER = "owner"  # user attribute: host:process:start of who runs a trial
_UNOWNED_SECONDS = 60.0
_CLOCK_SECONDS = 60.0


@dataclass(frozen=True)
class Ledger:
    """Where a study's trials are kept: a journal file, or a database that several machines may share."""

    place: Path | str  # the journal, or an SQLAlchemy URL
    name: str

    def storage(self) -> BaseStorage:
        """Open the store.

        Raises:
            TuningError: the database can't be reached.
        """
        if isinstance(self.place, Path):
            self.place.parent.mkdir(parents=True, exist_ok=True)
            return JournalStorage(JournalFileBackend(str(self.place)))
        from sqlalchemy.exc import SQLAlchemyError

        try:
            return optuna.storages.get_storage(self.place)
        except (SQLAlchemyError, ImportError) as error:
            raise TuningError(f"tune.storage: {_first_line(error)}; start the database or set it to null") from error

    def study(
        self, direction: Direction, sampler: BaseSampler | None = None, pruner: BasePruner | None = None
    ) -> Study:
        """Open the study, creating it where there is none yet."""
        return optuna.create_study(
            storage=self.storage(),
            study_name=self.name,
            direction=direction,
            sampler=sampler,
            pruner=pruner,
            load_if_exists=True,
        )

    @contextmanager
    def held(self, wait_seconds: float | None) -> Iterator[None]:
        """Be the only run on a journal, mended where a kill tore its last line; a database needs neither.

        Args:
            wait_seconds: how long to wait for another process of this machine that is at it; None: until it is done.

        Raises:
            TuningError: it was still at it then.
        """
        if not isinstance(self.place, Path):
            yield
            return
        self.place.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.place.with_suffix(".lock"))
        self._acquire(lock, wait_seconds)
        try:
            _mend(self.place)
            _sweep(self.place.parent, self.name)
            yield
        finally:
            lock.release()

    def _acquire(self, lock: BaseFileLock, wait_seconds: float | None) -> None:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"{self.name}: another process runs this study; waiting for it", file=sys.stderr, flush=True)
            try:
                lock.acquire(timeout=-1 if wait_seconds is None else wait_seconds)
            except Timeout:
                raise TuningError(f"{self.place}: another process runs this study; wait for it or stop it") from None


def _mend(journal: Path) -> None:
    """Drop a half-written last line, and the lock of a writer that is gone: nobody else is here."""
    for left in journal.parent.glob(f"{journal.name}.lock*"):
        left.unlink(missing_ok=True)
    if not journal.is_file():
        return
    with open(journal, "rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def scratch_name(name: str) -> str:
    """What the names of a study's temporary folders begin with."""
    return f"{name}.folds."


def _sweep(folder: Path, own: str) -> None:
    """Remove the temporary folders of studies that were killed, this one or others."""
    for left in folder.glob(f"{scratch_name('*')}*"):
        name = left.name.partition(scratch_name(""))[0]
        lock = FileLock(folder / f"{name}.lock")
        try:
            with contextlib.nullcontext() if name == own else lock.acquire(timeout=0):
                shutil.rmtree(left, ignore_errors=True)
        except Timeout:  # it is at work
            continue


def put_back(study: Study, storage: BaseStorage, alone: bool) -> list[int]:
    """Make trials whose process is gone wait again; returns their numbers. `alone`: nobody else can be running one."""
    study_id = storage.get_study_id_from_name(study.study_name)
    back = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if alone or not _alive(trial):
            trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)
            storage.set_trial_state_values(trial_id, TrialState.WAITING)
            back.append(trial.number)
    return back


def owner() -> str:
    """This process, told apart from any other that had or will have its number."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def _alive(trial: FrozenTrial) -> bool:
    """Whether the process that runs a trial still does; one of another machine is believed to."""
    if OWNER not in trial.user_attrs:  # it is set right after the trial begins
        started = trial.datetime_start
        return started is not None and time.time() - started.timestamp() < _UNOWNED_SECONDS
    host, pid, created = trial.user_attrs[OWNER].rsplit(":", 2)
    if host != socket.gethostname():
        return True
    try:
        process = psutil.Process(int(pid))
        same = abs(process.create_time() - float(created)) < _CLOCK_SECONDS
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class ResumableSampler(BaseSampler):
    """TPE (Bergstra et al. 2011) whose draws for a trial depend on its number and on the trials before it alone.

    What is drawn by itself (all of a random trial, and parameters under a condition) has a seed of its own for each
    name: it does not depend on which of the trial's other parameters this process drew, and which one before a kill.
    """

    def __init__(self, seed: int, startup_trials: int) -> None:
        self._seed, self._startup_trials = seed, startup_trials
        self._tpe = self._for(0)

    def _for(self, number: int, *parameter: int) -> TPESampler:
        seed = int(np.random.SeedSequence([self._seed, number, *parameter]).generate_state(1)[0])
        return TPESampler(seed=seed, n_startup_trials=self._startup_trials)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._tpe = self._for(trial.number)
        self._tpe.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._tpe.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        own = self._for(trial.number, zlib.crc32(param_name.encode()))
        return own.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._tpe.after_trial(study, trial, state, values)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
