"""`ensemble@{horizon}`: the models of one horizon as one, their probabilities averaged; scored like any model.

The weights are given, or fitted on the members' out-of-fold predictions inside train and on the calibration slice of
validation, the one that calibrates every model, and shrunk toward equal ones; so the ranked part judges the ensemble as
it judges its members. Where a member has no out-of-fold predictions, the slice is all that the weights are fitted on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from barcast.config import load_yaml, validate
from barcast.data.windows import DatasetConfig, TimeSeriesDataset
from barcast.errors import DataError
from barcast.evaluation.evaluator import Answers, EvaluateConfig, Evaluator
from barcast.evaluation.pooling import fit_weights, pool
from barcast.evaluation.scaling import Period
from barcast.evaluation.slices import CALIBRATION
from barcast.files import atomic_dir, write_json
from barcast.models.base import Labels, PredictionOutput, Probabilities
from barcast.paths import Paths, cell_name
from barcast.stages._main import parse_horizon, run_stage
from barcast.stages.evaluate import fit_prior, score, write_cell

ENSEMBLE = "ensemble"  # name of the row, beside the models'
_RAW = ["raw_down", "raw_flat", "raw_up"]
_OUT_OF_FOLD = ["p_down", "p_flat", "p_up"]
_WINDOW = ["datetime", "symbol", "label"]

Members = Mapping[str, pd.DataFrame]
Array = npt.NDArray[np.float64]


class EnsembleConfig(EvaluateConfig):
    """`config:` of `experiments/specs/ensembles_h{n}.yaml`: the scoring of every cell, and who is a member."""

    members: list[str]
    weights: dict[str, float] | None  # null: fitted
    shrink: Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class _Block:
    """Predictions of all J members for one stretch of time that none was fitted on."""

    members: Array  # [J, N, 3]
    y: Labels  # [N]


def ensemble(horizon: int, config: EnsembleConfig, paths: Paths) -> dict[str, float]:
    """Write `experiments/ensembles/h{n}/ensemble/` and `weights.json`.

    Returns:
        The weight of each member.

    Raises:
        DataError: a member's predictions are missing, or are of other windows than the first one's.
    """
    val, test = (_read_members(config.members, horizon, split, paths) for split in ("val", "test"))
    folds = _read_folds(config.members, horizon, paths)
    calibration = (_first(val)["part"] == CALIBRATION).to_numpy()
    blocks = [*folds, _Block(_stack(val, _RAW)[:, calibration], _labels(val)[calibration])]
    weights = _weights(blocks, config)
    periods = [
        Period(pool(fold.members, _weights([*blocks[:number], *blocks[number + 1 :]], config)), fold.y)
        for number, fold in enumerate(folds)
    ]
    scoring = validate(EvaluateConfig, config.model_dump(include=set(EvaluateConfig.model_fields)), "spec")
    answers = [_answers(pool(_stack(members, _RAW), weights), members, horizon) for members in (val, test)]
    scored = Evaluator(scoring).score(answers[0], answers[1], periods)
    dataset = TimeSeriesDataset(DatasetConfig(path=str(paths.windows), horizon=horizon))
    prior = score(fit_prior(dataset, horizon), dataset, scoring)
    importance = pd.DataFrame({"feature": [], "lag": [], "importance": []})  # of a member's features its own row tells
    by_member = dict(zip(config.members, weights.tolist(), strict=True))
    facts = {"weights": by_member, "fitted": config.weights is None, "windows": sum(len(block.y) for block in blocks)}
    with atomic_dir(paths.ensemble(horizon)) as folder:
        write_cell(folder / ENSEMBLE, scored, prior, importance)
        write_json(folder / "weights.json", {ENSEMBLE: facts})
    return by_member


def _weights(blocks: Sequence[_Block], config: EnsembleConfig) -> Array:
    """What each member weighs, `[J]`: as given, or fitted on the blocks and shrunk."""
    if config.weights is not None:
        return np.array([config.weights.get(name, 0.0) for name in config.members])
    members = np.concatenate([block.members for block in blocks], axis=1)  # [J, N, 3]
    return fit_weights(members, np.concatenate([block.y for block in blocks]), config.shrink)


def _read_members(names: Sequence[str], horizon: int, split: str, paths: Paths) -> Members:
    """Each member's predictions of one split, all of the same windows."""
    members: dict[str, pd.DataFrame] = {}
    for name in names:
        path = paths.predictions(cell_name(name, horizon), split)
        if not path.is_file():
            raise DataError(f"{path}: no such file; run `dvc repro evaluate@{name}-{horizon}` first")
        members[name] = _same_windows(pd.read_parquet(path), members, path)
    return members


def _read_folds(names: Sequence[str], horizon: int, paths: Paths) -> list[_Block]:
    """One block per fold where every member has out-of-fold predictions, else none."""
    files = {name: paths.oof_predictions(cell_name(name, horizon)) for name in names}
    if not all(file.is_file() for file in files.values()):
        return []
    members: dict[str, pd.DataFrame] = {}
    for name, file in files.items():
        members[name] = _same_windows(pd.read_parquet(file), members, file)
    whole, y, number = _stack(members, _OUT_OF_FOLD), _labels(members), _first(members)["fold"].to_numpy()
    return [_Block(whole[:, number == fold], y[number == fold]) for fold in np.unique(number)]


def _same_windows(frame: pd.DataFrame, others: Members, path: Path) -> pd.DataFrame:
    name, first = next(iter(others.items()), ("", frame))
    if not frame[_WINDOW].equals(first[_WINDOW]):
        raise DataError(f"{path}: other windows or labels than {name}'s; run `dvc repro` to make both of the same")
    return frame


def _first(members: Members) -> pd.DataFrame:
    """Windows, labels, closes and parts are the same for all."""
    return next(iter(members.values()))


def _labels(members: Members) -> Labels:
    return _first(members)["label"].to_numpy(np.int64)


def _stack(members: Members, columns: list[str]) -> Array:
    """`[J, N, 3]`."""
    return np.stack([frame[columns].to_numpy(np.float64) for frame in members.values()])


def _answers(probabilities: Probabilities, members: Members, horizon: int) -> Answers:
    first = _first(members)
    output = PredictionOutput.from_probabilities(probabilities, first[["datetime", "symbol"]], horizon)
    return Answers(output, first["label"].to_numpy(np.int64), first["close"])


def main(horizon: str) -> None:
    """Run the stage with the settings of its spec.

    Raises:
        ConfigError: the horizon is no number, or the spec has another form.
    """
    paths, bars = Paths(), parse_horizon(horizon)
    file = paths.spec(f"ensembles_h{bars}")
    config = validate(EnsembleConfig, load_yaml(file).get("config", {}), file, "config")
    weights = ensemble(bars, config, paths)
    shown = ", ".join(f"{member} {weight:.2f}" for member, weight in weights.items() if weight)
    print(f"{ENSEMBLE}_h{bars}: {shown}")


if __name__ == "__main__":
    run_stage(main)
