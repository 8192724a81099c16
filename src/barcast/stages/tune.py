"""`tune@{model}-{horizon}`: search a cell's hyperparameters on purged folds inside the train split."""

from __future__ import annotations

from typing import Annotated, Any

from optuna.trial import FrozenTrial
from pydantic import Field

from barcast import tracking
from barcast.cache.fingerprint import check_libraries
from barcast.cache.keys import train_key
from barcast.config import validate
from barcast.data.dataset import DatasetConfig, TimeSeriesDataset
from barcast.files import atomic_dir, write_json
from barcast.paths import Paths, cell_name
from barcast.section import Section
from barcast.stages._main import machine_settings, parse_horizon, run_stage
from barcast.tuning.fold_scaler import FoldScaler
from barcast.tuning.fold_scores import FoldScoring
from barcast.tuning.search_space import parse_space
from barcast.tuning.settings import StudyConfig
from barcast.tuning.study_result import StudyProgress, trial_record
from barcast.tuning.tuner import OptunaModelTuner
from barcast.yaml_io import dump_yaml, load_yaml

_EFFORT = ("n_trials", "n_jobs", "timeout", "storage")  # they change no trial: another value resumes the same study


class TuneSpec(Section):
    """`config:` of `experiments/specs/tune_{model}_h{n}.yaml`."""

    seed: Annotated[int, Field(ge=0)]
    base: dict[str, Any]  # the cell's resolved hyperparameters
    space: dict[str, Any]  # config/models/{name}.yaml
    study: StudyConfig
    scoring: FoldScoring
    scaler: FoldScaler


def study_key(spec: dict[str, Any], paths: Paths, horizon: int) -> str:
    """A hash of all that the result of a trial depends on; another key begins a new study."""
    study = {key: value for key, value in spec["config"]["study"].items() if key not in _EFFORT}
    content = {"config": {**spec["config"], "study": study}, "trials": spec["trials"]}
    return train_key(dump_yaml(content), paths, horizon)


def main(model: str, horizon: str) -> None:
    """Run or resume the study of one cell in the repository's root, and write `experiments/tune/{cell}/`.

    Raises a ConfigError for a bad spec or another library than its, a TuningError where no trial completed."""
    paths, bars = Paths(), parse_horizon(horizon)
    cell = cell_name(model, bars)
    spec = load_yaml(file := paths.spec(f"tune_{cell}"))
    config = validate(TuneSpec, spec.get("config", {}), file, "config")
    check_libraries(spec["libraries"], f"tune_{cell}")
    study, space, key = config.study, parse_space(config.space, model, file), study_key(spec, paths, bars)
    dataset = TimeSeriesDataset(DatasetConfig(path=str(paths.windows), horizon=bars), splits=("train",))
    settings = study.model_dump(mode="json", exclude={"storage"})  # an address, perhaps with a password in it
    with tracking.open_study(paths, cell, key, settings) as run, StudyProgress(f"tune {cell}", study) as progress:

        def on_trial(trial: FrozenTrial) -> None:
            progress.on_trial(trial)
            run.log(trial_record(trial))

        base = {**config.base, **machine_settings(paths, cell)}
        options: dict[str, Any] = {name: getattr(config, name) for name in ("seed", "scoring", "scaler")}
        options["ledger"] = paths.ledgers / f"{cell}_{key[:16]}.journal"
        result = OptunaModelTuner(model, base, space, dataset, study, on_trial=on_trial, **options).tune()
        with atomic_dir(paths.tune / cell) as folder:
            result.write(folder)
            write_json(folder / "study.json", {**result.to_dict(), "key": key})
        run.finish([trial_record(trial) for trial in result.trials])
    print(f"{cell}: {result.headline()}; adopt it with `barcast adopt tune@{model}-{bars}`", flush=True)


if __name__ == "__main__":
    run_stage(main)
