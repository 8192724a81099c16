"""Who runs the trials: this process, or several that share one study."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.trial import FrozenTrial, TrialState

from barcast.data.windows import DatasetConfig, TimeSeriesDataset
from barcast.errors import ConfigError, TuningError
from barcast.tuning._objective import REASON, Objective
from barcast.tuning._pruning import Steps, make_pruner
from barcast.tuning._study import OWNER, Ledger, ResumableSampler, owner
from barcast.tuning.folds import Fold, open_fold, read_index
from barcast.tuning.search_space import SearchSpaceFn
from barcast.tuning.settings import FoldScoring, StudyConfig

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
_POLL_SECONDS = 0.5

OnTrial = Callable[[FrozenTrial], None]


class Tickets(Protocol):
    """How many trials may still be begun; `take` is true for one that may."""

    def take(self) -> bool: ...


@dataclass(frozen=True)
class Job:
    """All that a worker needs, small enough to be sent to another process: arrays are opened from files."""

    dataset: DatasetConfig
    folds: Sequence[Fold]
    rows: Sequence[Path]  # each fold's scaled rows
    model_name: str
    base: Mapping[str, Any]
    space: SearchSpaceFn
    seed: int
    rounds: int
    settings: StudyConfig
    scoring: FoldScoring
    ledger: Ledger


@dataclass
class _Own:
    left: int

    def take(self) -> bool:
        self.left -= 1
        return self.left >= 0


@dataclass
class _Shared:
    left: Any  # a multiprocessing Value

    def take(self) -> bool:
        with self.left.get_lock():
            self.left.value -= 1
            return bool(self.left.value >= 0)


def worker_threads(threads: int, jobs: int) -> int:
    """The threads that each of `jobs` workers may use, so that they don't outnumber the cores.

    Raises:
        ConfigError: more workers than cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if jobs == 1:
        return threads
    if jobs > cores:
        raise ConfigError(f"params.yaml: tune.n_jobs = {jobs}: expected at most {cores}, one worker a core")
    return min(threads, cores // jobs)


def run_here(job: Job, trials: int, on_trial: OnTrial) -> None:
    """Run up to `trials` trials in this process, one after another."""
    _work(job, _Own(trials), _deadline(job), on_trial)


def run_workers(job: Job, trials: int, on_trial: OnTrial) -> None:
    """Run up to `trials` trials in `tune.n_jobs` processes of their own.

    Raises:
        TuningError: a worker died; the trials that it had finished are kept.
    """
    context = multiprocessing.get_context("spawn")  # a forked OpenMP or torch runtime hangs
    tickets = _Shared(context.Value("i", trials))
    jobs = [
        context.Process(target=_worker, args=(job, tickets, _deadline(job)), daemon=True)
        for _ in range(min(job.settings.n_jobs, trials))
    ]
    for process in jobs:
        process.start()
    try:
        _watch(job, jobs, on_trial)
    finally:
        for process in jobs:
            process.terminate()
            process.join()
    died = [process.exitcode for process in jobs if process.exitcode]
    if died:
        raise TuningError(
            f"{job.ledger.name}: a worker died (exit code {died[0]}); finished trials are kept, run the same command "
            "again, with a lower tune.n_jobs if memory ran out"
        )


def _watch(job: Job, processes: Sequence[Any], on_trial: OnTrial) -> None:
    """Wait for the workers, and hand on each trial that they finish."""
    study = job.ledger.study(job.settings.direction)
    seen = {trial.number for trial in study.get_trials(deepcopy=False, states=FINISHED)}
    alive = True
    while alive:
        alive = any(process.is_alive() for process in processes)
        for trial in study.get_trials(deepcopy=False, states=FINISHED):
            if trial.number not in seen:
                seen.add(trial.number)
                on_trial(trial)
        if alive:
            time.sleep(_POLL_SECONDS)


def _worker(job: Job, tickets: Tickets, deadline: float) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    _work(job, tickets, deadline, lambda trial: None)


def _work(job: Job, tickets: Tickets, deadline: float, on_trial: OnTrial) -> None:
    objective = _objective(job)
    sampler = ResumableSampler(job.seed, job.settings.startup_trials)
    study = job.ledger.study(job.settings.direction, sampler, make_pruner(job.settings, objective.steps))
    while time.time() < deadline and tickets.take():
        trial = study.ask()
        trial.set_user_attr(OWNER, owner())
        on_trial(_run(study, trial, objective))


def _objective(job: Job) -> Objective:
    dataset = TimeSeriesDataset(job.dataset).only("train")
    split = dataset.split("train")
    index, _, _ = read_index(split)
    return Objective(
        model_name=job.model_name,
        base=job.base,
        space=job.space,
        features=dataset.feature_columns("train"),
        folds=[open_fold(split, index, fold, rows) for fold, rows in zip(job.folds, job.rows, strict=True)],
        settings=job.settings,
        scoring=job.scoring,
        steps=Steps(job.rounds),
    )


def _run(study: optuna.Study, trial: optuna.Trial, objective: Objective) -> FrozenTrial:
    """Run a trial to its end, whatever that is."""
    try:
        return study.tell(trial, objective(trial))
    except optuna.TrialPruned:
        return study.tell(trial, state=TrialState.PRUNED)
    except Exception as error:  # noqa: BLE001 - libraries raise what they like over odd values; the row says what
        trial.set_user_attr(REASON, f"{type(error).__name__}: {(str(error).strip() or '?').splitlines()[0]}")
        return study.tell(trial, state=TrialState.FAIL)


def _deadline(job: Job) -> float:
    return time.time() + (job.settings.timeout or float("inf"))
