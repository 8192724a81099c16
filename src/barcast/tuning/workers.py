"""Who runs the trials: this process, or several processes that share one study."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import optuna
from optuna.trial import FrozenTrial

from barcast.errors import ConfigError, TuningError
from barcast.files import this_process
from barcast.tuning.study_storage import OWNER, StudyStorage
from barcast.tuning.trial import REASON, Objective, TrialSpec

OnTrial = Callable[[FrozenTrial], None]


class _Interrupted(BaseException):
    """Ctrl-C inside a trial: Optuna would store a KeyboardInterrupt as a failed trial, instead of resuming it."""


class _Worker:
    """An open study and its objective, in this process."""

    def __init__(self, spec: TrialSpec, storage: StudyStorage, deadline: float) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # its lines would break the progress bar
        self._objective, self._deadline = Objective(spec), deadline
        self._study = storage.study(spec.settings.direction, spec.sampler(), spec.pruner())

    def run(self, trials: int, on_trial: OnTrial) -> None:
        """Run up to `trials` trials, none that would start after the deadline."""
        left = self._deadline - time.time()
        try:
            self._study.optimize(
                self._attempt, trials, left, catch=(Exception,), callbacks=[lambda _, trial: on_trial(trial)]
            )
        except _Interrupted:
            raise KeyboardInterrupt from None

    def _attempt(self, trial: optuna.Trial) -> float:
        try:
            trial.set_user_attr(OWNER, this_process())
            return self._objective(trial)
        except optuna.TrialPruned:
            raise
        except KeyboardInterrupt:
            raise _Interrupted from None
        except Exception as error:  # libraries raise what they like over odd values; the trial's row says what
            trial.set_user_attr(REASON, f"{type(error).__name__}: {(str(error).strip() or '?').splitlines()[0]}")
            raise


def worker_threads(threads: int, jobs: int) -> int:
    """The threads that each of `jobs` workers may use, so that together they don't outnumber the cores.
    Raises ConfigError: more workers than cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if jobs == 1:
        return threads
    if jobs > cores:
        raise ConfigError(f"params.yaml: tune.n_jobs = {jobs}: expected at most {cores}, one worker per core")
    return min(threads, cores // jobs)


def run_trials(spec: TrialSpec, storage: StudyStorage, trials: int, on_trial: OnTrial) -> None:
    """Run up to `trials` trials, in this process or in `tune.n_jobs` processes.
    Raises TuningError: a worker process died; finished trials are kept."""
    jobs, job = spec.settings.n_jobs, (spec, storage, time.time() + (spec.settings.timeout or float("inf")))
    if jobs == 1:
        _Worker(*job).run(trials, on_trial)
        return
    context = multiprocessing.get_context("spawn")  # a forked OpenMP or torch runtime hangs
    pool = ProcessPoolExecutor(min(jobs, trials), context, initializer=_start_worker, initargs=job)
    try:
        for done in as_completed([pool.submit(_run_one) for _ in range(trials)]):
            for trial in done.result():
                on_trial(trial)
    except BrokenProcessPool:
        raise TuningError(
            f"{storage.name}: a worker process died; finished trials are kept, run the same command again, with a "
            "lower tune.n_jobs if memory ran out"
        ) from None
    finally:
        for process in list(pool._processes.values()):
            process.terminate()
        pool.shutdown(cancel_futures=True)


_worker: _Worker  # of a worker process


def _start_worker(spec: TrialSpec, storage: StudyStorage, deadline: float) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends its workers
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _worker = _Worker(spec, storage, deadline)


def _exit_with_parent() -> None:
    """A killed parent must not leave workers behind: they would keep running trials of a study that nobody locks."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_one() -> list[FrozenTrial]:
    done: list[FrozenTrial] = []
    _worker.run(1, done.append)
    return done
