"""Optuna over purged walk-forward folds inside the train split."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.trial import TrialState

from barcast.config import validate
from barcast.data.dataset import TimeSeriesDataset
from barcast.errors import ModelError, TuningError
from barcast.models.base import ModelConfig
from barcast.models.registry import ModelRegistry
from barcast.tuning._entries import FIXED, SearchSpace, SearchSpaceFn
from barcast.tuning.fold_scaler import FoldScaler, write_fold
from barcast.tuning.fold_scores import FoldScoring
from barcast.tuning.folds import Fold, cut_folds, read_index
from barcast.tuning.search_space import NOT_TUNABLE, check_space
from barcast.tuning.settings import StudyConfig
from barcast.tuning.study_result import StudyResult
from barcast.tuning.study_storage import StudyStorage
from barcast.tuning.study_summary import STATES, best_trial, importances
from barcast.tuning.trial import REASON, SAMPLED, TrialSpec
from barcast.tuning.workers import OnTrial, run_trials, worker_threads

_FINISHED = tuple(STATES)
_ROUNDS = ("max_rounds", "max_epochs")  # the key of the most steps, for models that report more than once


class OptunaModelTuner:
    """Searches the hyperparameters of one model at one horizon, on the train split only.

    Args:
        model_name: a name of `ModelRegistry`.
        base_config: the cell's config, as its own class or plain values; trials keep what they don't sample.
            Trial 0 is this config itself wherever it is inside the search space.
        search_space: a `SearchSpace`, or a function of an Optuna trial that returns the values to set (one that can
            be pickled, such as a module's own function, where `n_jobs` is more than 1).
        dataset: windows; only the train split is opened.
        seed: seeds the sampler; the model's own seed stays that of its config.
        scoring: what the metrics of a fold depend on.
        scaler: how the windows were scaled, for the refit on each fold.
        ledger: the study's journal file, or its name in the database that `settings.storage` names. A study
            that exists is resumed. None: a temporary file.
        on_trial: called with each Optuna trial that ends.
        wait_seconds: how long to wait for another process that runs the same journal; None: until it is done.

    Raises:
        ConfigError: the space does not fit the model, or there are more workers than cores.
        DataError: a fold has no training or no validation window.
        TuningError: the storage is out of reach or in use, a worker died, or no trial completed.
    """

    def __init__(
        self,
        model_name: str,
        base_config: ModelConfig | Mapping[str, Any],
        search_space: SearchSpace | SearchSpaceFn,
        dataset: TimeSeriesDataset,
        settings: StudyConfig,
        *,
        seed: int,
        scoring: FoldScoring,
        scaler: FoldScaler,
        ledger: Path | None = None,
        on_trial: OnTrial = lambda trial: None,
        wait_seconds: float | None = None,
    ) -> None:
        plain = base_config.model_dump(mode="json") if isinstance(base_config, ModelConfig) else dict(base_config)
        self.model_name, self.model_class = model_name, ModelRegistry.get_metadata(model_name).model_class
        self.config = validate(self.model_class.config_class, plain, "model config")
        self.space, self.dataset, self.settings = search_space, dataset.only("train"), settings
        self.seed, self.scoring, self.scaler = seed, scoring, scaler
        self.ledger, self.on_trial, self.wait_seconds = ledger, on_trial, wait_seconds
        if isinstance(search_space, SearchSpace):
            check_space(search_space, plain, model_name, "search space")

    def tune(self) -> StudyResult:
        """Run the trials that are still missing and return the outcome of all."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # its lines would break the progress bar
        threads = worker_threads(self.config.threads, self.settings.n_jobs)
        split = self.dataset.split("train")
        with tempfile.TemporaryDirectory() as temporary:
            journal = self.ledger or Path(temporary) / "study.journal"
            storage = StudyStorage(self.settings.storage or journal, journal.stem)
            with storage.exclusive(self.wait_seconds):
                _, times, symbols = read_index(split)
                folds = cut_folds(split.X.ends, split.label_end_offset, times, symbols, self.settings.folds)
                if (missing := self._missing(storage)) > 0:
                    with storage.scratch() as folder:
                        run_trials(self._trial_spec(folds, folder, threads), storage, missing, self.on_trial)
                return self._result(storage, folds)

    def _missing(self, storage: StudyStorage) -> int:
        """Open the study, queue what a killed process left, and return how many trials are to be started.

        Trial 0 is the cell as in params.yaml: a study never ends with something that its folds call worse.
        """
        study = storage.study(self.settings.direction)
        storage.requeue(study)
        if not study.get_trials(deepcopy=False) and isinstance(self.space, SearchSpace):
            fixed = self.space.fixed_values(self.config.model_dump(mode="json"))
            if fixed is not None:
                study.enqueue_trial(fixed, user_attrs={FIXED: sorted(fixed)})
        return self.settings.n_trials - len(study.get_trials(False, (*_FINISHED, TrialState.RUNNING)))

    def _trial_spec(self, folds: list[Fold], folder: Path, threads: int) -> TrialSpec:
        """What each trial does; `folder` receives the scaled rows of the folds."""
        base = {**self.config.model_dump(mode="json"), "threads": threads}
        rounds = next((name for name in _ROUNDS if name in base), None)
        entry = self.space.entries.get(rounds or "") if isinstance(self.space, SearchSpace) else None
        return TrialSpec(
            dataset=self.dataset.config,
            folds=folds,
            rows=[write_fold(folder, self.dataset, fold, self.scaler) for fold in folds],
            model_class=self.model_class,
            configure=partial(_configure, self.model_name, self.model_class.config_class, base),
            space=self.space,
            settings=self.settings,
            scoring=self.scoring,
            rounds=max(int(value) for value in [base[rounds], *(entry.extremes() if entry else [])]) if rounds else 1,
            seed=self.seed,
        )

    def _result(self, storage: StudyStorage, folds: list[Fold]) -> StudyResult:
        study = storage.study(self.settings.direction)
        trials = study.get_trials(deepcopy=False, states=_FINISHED)[: self.settings.n_trials]
        best = best_trial(trials, self.settings.direction)
        if best is None:
            reasons = [trial.user_attrs[REASON] for trial in trials if REASON in trial.user_attrs]
            reason = f"the first: {reasons[0]}" if reasons else "no time was left; raise tune.timeout"
            raise TuningError(f"{self.model_name}: no trial completed ({len(trials)} started); {reason}")
        keys = list(self.space.entries) if isinstance(self.space, SearchSpace) else []
        values = self.config.model_dump(mode="json") | (sampled := best.user_attrs[SAMPLED])
        return StudyResult(
            model_name=self.model_name,
            horizon=self.config.horizon,
            settings=self.settings,
            folds=self._describe(folds),
            trials=trials,
            best=best,
            best_params={key: values.get(key) for key in dict.fromkeys([*keys, *sampled])},
            importances=importances(trials, self.settings.direction),
        )

    def _describe(self, folds: list[Fold]) -> list[dict[str, Any]]:
        split = self.dataset.split("train")
        times = read_index(split)[0]["datetime"].iloc[split.X.ends]

        def part(chosen: pd.Series) -> dict[str, Any]:
            return {"windows": len(chosen), "first": chosen.min().isoformat(), "last": chosen.max().isoformat()}

        return [
            {"number": fold.number, "train": part(times.iloc[fold.train]), "val": part(times.iloc[fold.val])}
            for fold in folds
        ]


def _configure(
    name: str, config_class: type[ModelConfig], base: Mapping[str, Any], sampled: Mapping[str, Any]
) -> ModelConfig:
    if fixed := sorted(NOT_TUNABLE & set(sampled)):
        raise ModelError(f"{name}: {fixed[0]} can't be tuned; remove it from the search space")
    return validate(config_class, {**base, **sampled}, "search space")
