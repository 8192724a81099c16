"""`ensemble@{horizon}`: the models of one horizon as one, in two ways, scored like any model.

`ensemble` is the weighted mean of the members' own probabilities. Its weights are fitted on the calibration slice of
validation, the one that calibrates every model, so the ranked part judges it as it judges the others; or they are
given. `stack` is fitted on out-of-fold predictions inside train and has not seen validation at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from barcast.config import load_yaml, validate
from barcast.data.windows import DatasetConfig, TimeSeriesDataset
from barcast.errors import DataError
from barcast.evaluation.evaluator import Answers, EvaluateConfig, Evaluator
from barcast.evaluation.pooling import Stack, fit_weights, pool
from barcast.evaluation.slices import CALIBRATION
from barcast.files import atomic_dir, write_json
from barcast.models.base import PredictionOutput, Probabilities
from barcast.paths import Paths, cell_name
from barcast.stages._main import parse_horizon, run_stage
from barcast.stages.evaluate import fit_prior, score, write_cell
from barcast.stages.oof import FILE as OOF_FILE

ENSEMBLE, STACK = "ensemble", "stack"  # names of rows, beside the models'
_RAW = ["raw_down", "raw_flat", "raw_up"]
_SAID = ["p_down", "p_flat", "p_up"]
_WINDOW = ["datetime", "symbol", "label"]

Members = Mapping[str, pd.DataFrame]


class EnsembleConfig(EvaluateConfig):
    """`config:` of `experiments/specs/ensembles_h{n}.yaml`: the scoring of every cell, and who is a member."""

    members: list[str]
    weights: dict[str, float] | None  # null: fitted
    stack: list[str]


@dataclass(frozen=True)
class _Pooled:
    """One row to be: its probabilities `[N, 3]` by split, and what made them."""

    probabilities: dict[str, Probabilities]
    facts: dict[str, Any]


def ensemble(horizon: int, config: EnsembleConfig, paths: Paths) -> dict[str, Any]:
    """Write `experiments/ensembles/h{n}/{ensemble,stack}/` and `weights.json`.

    Returns:
        The content of `weights.json`: for each row the weights of its members, and what else made it.

    Raises:
        DataError: a member's predictions are missing, or are of other windows than the first one's.
    """
    members = {split: _read_members(config.members, horizon, split, paths) for split in ("val", "test")}
    rows = {ENSEMBLE: _average(members, config.weights)}
    if config.stack:
        rows[STACK] = _stack(members, _read_oof(config.stack, horizon, paths))
    scoring = validate(EvaluateConfig, config.model_dump(include=set(EvaluateConfig.model_fields)), "spec")
    dataset = TimeSeriesDataset(DatasetConfig(path=str(paths.windows), horizon=horizon))
    prior = score(fit_prior(dataset, horizon), dataset, scoring)
    importance = pd.DataFrame({"feature": [], "lag": [], "importance": []})  # of a member's features its own row tells
    weights = {name: row.facts for name, row in rows.items()}
    with atomic_dir(paths.ensemble(horizon)) as folder:
        for name, row in rows.items():
            answers = [_answers(row.probabilities[split], members[split], horizon) for split in ("val", "test")]
            write_cell(folder / name, Evaluator(scoring).score(*answers), prior, importance)
        write_json(folder / "weights.json", weights)
    return weights


def _read_members(names: Sequence[str], horizon: int, split: str, paths: Paths) -> Members:
    """Each member's predictions of one split, all of the same windows."""
    members: dict[str, pd.DataFrame] = {}
    for name in names:
        path = paths.predictions(cell_name(name, horizon), split)
        if not path.is_file():
            raise DataError(f"{path}: no such file; run `dvc repro evaluate@{name}-{horizon}` first")
        members[name] = _same_windows(pd.read_parquet(path), members, path)
    return members


def _read_oof(names: Sequence[str], horizon: int, paths: Paths) -> Members:
    members: dict[str, pd.DataFrame] = {}
    for name in names:
        path = paths.oof / cell_name(name, horizon) / OOF_FILE
        if not path.is_file():
            raise DataError(f"{path}: no such file; run `dvc repro oof@{name}-{horizon}` first")
        members[name] = _same_windows(pd.read_parquet(path), members, path)
    return members


def _same_windows(frame: pd.DataFrame, others: Members, path: Path) -> pd.DataFrame:
    name, first = next(iter(others.items()), ("", frame))
    if not frame[_WINDOW].equals(first[_WINDOW]):
        raise DataError(f"{path}: other windows or labels than {name}'s; run `dvc repro` to make both of the same")
    return frame


def _average(members: Mapping[str, Members], given: Mapping[str, float] | None) -> _Pooled:
    """The weighted mean, weights fitted on the calibration slice alone where none are given."""
    said = {split: np.stack([_matrix(f, _RAW) for f in frames.values()]) for split, frames in members.items()}
    names, first = list(members["val"]), next(iter(members["val"].values()))
    if given is None:
        fitted = (first["part"] == CALIBRATION).to_numpy()
        weights = fit_weights(said["val"][:, fitted], first["label"].to_numpy(np.int64)[fitted])
    else:
        weights = np.array([given.get(name, 0.0) for name in names])
    facts = {"weights": dict(zip(names, weights.tolist(), strict=True)), "fitted": given is None}
    return _Pooled({split: pool(values, weights) for split, values in said.items()}, facts)


def _stack(members: Mapping[str, Members], oof: Members) -> _Pooled:
    label = next(iter(oof.values()))["label"].to_numpy(np.int64)
    fitted = Stack.fit({name: _matrix(frame, _SAID) for name, frame in oof.items()}, label)
    said = {
        split: fitted.apply({name: _matrix(frames[name], _RAW) for name in oof}) for split, frames in members.items()
    }
    return _Pooled(said, {**fitted.to_json(), "windows": len(label)})


def _matrix(frame: pd.DataFrame, columns: list[str]) -> Probabilities:
    return frame[columns].to_numpy(np.float64)


def _answers(probabilities: Probabilities, members: Members, horizon: int) -> Answers:
    first = next(iter(members.values()))
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
    for name, facts in ensemble(bars, config, paths).items():
        shown = ", ".join(f"{member} {weight:.2f}" for member, weight in facts["weights"].items() if weight)
        print(f"{name}_h{bars}: {shown}")


if __name__ == "__main__":
    run_stage(main)
