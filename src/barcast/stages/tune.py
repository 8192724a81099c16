"""`tune@{model}-{horizon}`: search a cell's hyperparameters on purged folds inside the train split."""

from __future__ import annotations

from typing import Annotated, Any

from optuna.trial import FrozenTrial
from pydantic import Field

from barcast import tracking
from barcast.config import Section, dump_yaml, load_yaml, validate
from barcast.data.windows import DatasetConfig, TimeSeriesDataset
from barcast.files import atomic_dir, write_json
from barcast.paths import Paths, cell_name
from barcast.stages._main import parse_horizon, run_stage
from barcast.stages.train import check_libraries
from barcast.tuning.progress import StudyProgress
from barcast.tuning.results import StudyResult, trial_record
from barcast.tuning.scaling import FoldScaler
from barcast.tuning.search_space import parse_space
from barcast.tuning.settings import FoldScoring, StudyConfig
from barcast.tuning.tuner import OnTrial, OptunaModelTuner, ignore

# They say how long and by whom trials are run, not what a trial is: changing them goes on with the same study.
_EFFORT = ("n_trials", "n_jobs", "timeout", "storage")


class TuneSpec(Section):
    """`config:` of `experiments/specs/tune_{model}_h{n}.yaml`."""

    seed: Annotated[int, Field(ge=0)]
    base: dict[str, Any]  # the cell's resolved hyperparameters
    space: dict[str, Any]  # config/models/{name}.yaml
    study: StudyConfig
    scoring: FoldScoring
    scaler: FoldScaler


def tune(model: str, horizon: int, paths: Paths, on_trial: OnTrial = ignore) -> StudyResult:
    """Run or finish the study of one cell and write `experiments/tune/{cell}/`.

    Args:
        model: a name of the registry.
        horizon: bars ahead.
        paths: the repository.
        on_trial: called with each Optuna trial that ends.

    Raises:
        ConfigError: there is no spec, a library differs from the one it names, or the space does not fit the model.
        TuningError: no trial came to its end, or the store is out of reach.
    """
    cell = cell_name(model, horizon)
    spec, config = read_spec(model, horizon, paths)
    check_libraries(spec["libraries"], f"tune_{cell}")
    key = study_key(spec, paths, horizon)
    tuner = OptunaModelTuner(
        model,
        config.base,
        parse_space(config.space, model, paths.spec(f"tune_{cell}")),
        TimeSeriesDataset(DatasetConfig(path=str(paths.windows), horizon=horizon), splits=("train",)),
        config.study,
        seed=config.seed,
        scoring=config.scoring,
        scaler=config.scaler,
        ledger=paths.ledgers / f"{cell}_{key[:16]}.journal",
        on_trial=on_trial,
    )
    result = tuner.tune()
    with atomic_dir(paths.tune / cell) as folder:
        result.write(folder)
        write_json(folder / "study.json", {**result.to_dict(), "key": key})
    return result


def read_spec(model: str, horizon: int, paths: Paths) -> tuple[dict[str, Any], TuneSpec]:
    """The whole spec of a tuned cell, and its checked `config:`."""
    file = paths.spec(f"tune_{cell_name(model, horizon)}")
    spec = load_yaml(file)
    return spec, validate(TuneSpec, spec.get("config", {}), file, "config")


def study_key(spec: dict[str, Any], paths: Paths, horizon: int) -> str:
    """A hash of all that a trial's result depends on; a change of it begins a new study."""
    study = {key: value for key, value in spec["config"]["study"].items() if key not in _EFFORT}
    content = {"config": {**spec["config"], "study": study}, "trials": spec["trials"]}
    return tracking.train_key(dump_yaml(content), paths, horizon)


def main(model: str, horizon: str) -> None:
    """Run the stage in the repository's root.

    Raises:
        ConfigError: the horizon is no number, or the spec has another form.
    """
    paths, bars = Paths(), parse_horizon(horizon)
    cell = cell_name(model, bars)
    spec, config = read_spec(model, bars, paths)
    key = study_key(spec, paths, bars)
    settings = config.study.model_dump(mode="json", exclude={"storage"})  # an address, perhaps with a password in it
    with tracking.open_study(paths, cell, key, settings) as study, StudyProgress(f"tune {cell}", config.study) as bar:

        def on_trial(trial: FrozenTrial) -> None:
            bar.on_trial(trial)
            study.log(trial_record(trial))

        result = tune(model, bars, paths, on_trial)
        study.finish([trial_record(trial) for trial in result.trials])
    print(f"{cell}: {result.headline()}; `barcast adopt tune@{model}-{bars}` takes it over", flush=True)


if __name__ == "__main__":
    run_stage(main)
