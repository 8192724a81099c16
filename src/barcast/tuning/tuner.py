"""Optuna over purged walk-forward folds inside the train split."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from barcast.config import validate
from barcast.data.windows import TimeSeriesDataset
from barcast.errors import TuningError
from barcast.models.base import ModelConfig
from barcast.models.registry import ModelRegistry
from barcast.tuning._entries import TOLD
from barcast.tuning._objective import DRAWN, REASON
from barcast.tuning._study import Ledger, put_back, scratch_name
from barcast.tuning._workers import FINISHED, Job, run_here, run_workers, worker_threads
from barcast.tuning.folds import Fold, cut_folds, read_index
from barcast.tuning.results import StudyResult, best_trial, importances
from barcast.tuning.scaling import FoldScaler, write_fold
from barcast.tuning.search_space import SearchSpace, SearchSpaceFn, check_space
from barcast.tuning.settings import FoldScoring, StudyConfig

_ROUNDS = ("max_rounds", "max_epochs")  # what models that report more than once call their most steps


OnTrial = Callable[[FrozenTrial], None]


def ignore(trial: FrozenTrial) -> None:
    """The observer of a study that nobody watches."""


class OptunaModelTuner:
    """Searches the hyperparameters of one model at one horizon, on train alone.

    Args:
        model_name: a name of `ModelRegistry`.
        base_config: the cell's config, as its own class or plain values; what a trial does not set stays as it is here.
            Trial 0 is this config itself wherever it lies inside the search space.
        search_space: a `SearchSpace`, or a function of an Optuna trial that answers the values to set (one that can
            be pickled, such as a module's own function, where `n_jobs` is more than 1).
        dataset: windows; nothing but the train split is ever opened.
        settings: see `StudyConfig`.
        seed: seeds the sampler; the model's own seed stays what its config says.
        scoring: what the metrics of a fold depend on.
        scaler: how the windows were scaled, for the refit on each fold.
        ledger: the journal file of the study, or a name for it in the database that `settings.storage` names. A study
            that is there already is taken up where it ended. None: a temporary file.
        on_trial: called with each Optuna trial that ends.
        wait_seconds: how long to wait for another process that runs the same journal; None: until it is done.

    Raises:
        ConfigError: the space does not fit the model, or there are more workers than cores.
        DataError: the folds leave no window to learn from or to be judged on.
        TuningError: the store is out of reach or in use, a worker died, or no trial came to its end.
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
        on_trial: OnTrial = ignore,
        wait_seconds: float | None = None,
    ) -> None:
        plain = base_config.model_dump(mode="json") if isinstance(base_config, ModelConfig) else dict(base_config)
        self.model_name = model_name
        self.config_class = ModelRegistry.get_metadata(model_name).model_class.config_class
        self.config = validate(self.config_class, plain, "model config")
        self.space = search_space
        self.dataset = dataset.only("train")
        self.settings = settings
        self.seed = seed
        self.scoring = scoring
        self.scaler = scaler
        self.ledger = ledger
        self.on_trial = on_trial
        self.wait_seconds = wait_seconds
        if isinstance(search_space, SearchSpace):
            check_space(search_space, plain, model_name, "search space")

    def tune(self) -> StudyResult:
        """Run the trials that are still missing and answer the outcome of all."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # its lines would tear the progress bar
        threads = worker_threads(self.config.threads, self.settings.n_jobs)
        with self._ledger() as ledger, ledger.held(self.wait_seconds):
            folds, missing = self._folds(), self._missing(ledger)
            if missing > 0:
                with self._scaled_rows(ledger, folds) as rows:
                    job = self._job(ledger, folds, rows, threads)
                    (run_here if self.settings.n_jobs == 1 else run_workers)(job, missing, self.on_trial)
            return self._result(ledger, folds)

    def _missing(self, ledger: Ledger) -> int:
        """Open the study, put back what a killed process left, and answer how many trials are to be begun."""
        study = ledger.study(self.settings.direction)
        put_back(study, ledger.storage(), alone=isinstance(ledger.place, Path))
        if not study.get_trials(deepcopy=False):
            self._enqueue_base(study)
        begun = study.get_trials(deepcopy=False, states=(*FINISHED, TrialState.RUNNING))
        return self.settings.n_trials - len(begun)

    def _enqueue_base(self, study: optuna.Study) -> None:
        """Trial 0 is what params.yaml has: a study never ends with something worse, as far as the folds can tell."""
        if isinstance(self.space, SearchSpace):
            told = self.space.distributions_of(self.config.model_dump(mode="json"))
            if told is not None:
                study.enqueue_trial(told, user_attrs={TOLD: sorted(told)})

    def _result(self, ledger: Ledger, folds: list[Fold]) -> StudyResult:
        study = ledger.study(self.settings.direction)
        trials = study.get_trials(deepcopy=False, states=FINISHED)[: self.settings.n_trials]
        best = best_trial(trials, self.settings.direction)
        if best is None:
            reasons = [trial.user_attrs[REASON] for trial in trials if REASON in trial.user_attrs]
            reason = reasons[0] if reasons else "no time was left; raise tune.timeout"
            raise TuningError(f"{self.model_name}: none of {len(trials)} trials came to its end; the first: {reason}")
        keys = list(self.space.entries) if isinstance(self.space, SearchSpace) else []
        drawn = best.user_attrs[DRAWN]
        base = self.config.model_dump(mode="json")
        return StudyResult(
            model_name=self.model_name,
            horizon=self.config.horizon,
            settings=self.settings,
            folds=self._describe(folds),
            trials=trials,
            best=best,
            best_params={key: drawn.get(key, base.get(key)) for key in dict.fromkeys([*keys, *drawn])},
            importances=importances(trials, self.settings.direction),
        )

    def _job(self, ledger: Ledger, folds: list[Fold], rows: list[Path], threads: int) -> Job:
        return Job(
            dataset=self.dataset.config,
            folds=folds,
            rows=rows,
            model_name=self.model_name,
            base={**self.config.model_dump(mode="json"), "threads": threads},
            space=self.space,
            seed=self.seed,
            rounds=self._rounds(),
            settings=self.settings,
            scoring=self.scoring,
            ledger=ledger,
        )

    def _rounds(self) -> int:
        """The most rounds that a trial may report, which fixes the steps at which trials are compared."""
        key = next((name for name in _ROUNDS if name in self.config_class.model_fields), None)
        if key is None:
            return 1
        highest = self.space.highest(key) if isinstance(self.space, SearchSpace) else None
        return max(int(getattr(self.config, key)), int(highest or 1))

    @contextmanager
    def _ledger(self) -> Iterator[Ledger]:
        with tempfile.TemporaryDirectory() as temporary:
            journal = self.ledger or Path(temporary) / "study.journal"
            yield Ledger(self.settings.storage or journal, journal.stem)

    def _folds(self) -> list[Fold]:
        split = self.dataset.split("train")
        _, times, symbols = read_index(split)
        return cut_folds(split.X.ends, split.reach, times, symbols, self.settings.folds)

    @contextmanager
    def _scaled_rows(self, ledger: Ledger, folds: list[Fold]) -> Iterator[list[Path]]:
        """One file a fold with its rows as its own scaler gives them: written once, mapped by every worker."""
        parent = ledger.place.parent if isinstance(ledger.place, Path) else None
        folder = Path(tempfile.mkdtemp(prefix=scratch_name(ledger.name), dir=parent))
        try:
            yield [write_fold(folder, self.dataset, fold, self.scaler) for fold in folds]
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _describe(self, folds: Sequence[Fold]) -> list[dict[str, Any]]:
        split = self.dataset.split("train")
        index, _, _ = read_index(split)
        times = index["datetime"].iloc[split.X.ends]
        described = []
        for fold in folds:
            content: dict[str, Any] = {"number": fold.number}
            for side, chosen in (("train", fold.train), ("val", fold.val)):
                part = times.iloc[chosen]
                content[side] = {
                    "windows": len(chosen),
                    "first": part.min().isoformat(),
                    "last": part.max().isoformat(),
                }
            described.append(content)
        return described
