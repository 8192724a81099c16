"""`ensemble@{horizon}`: the models of one horizon as one, their probabilities averaged; scored like any model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from barcast.errors import DataError
from barcast.evaluation.cell_files import read_baseline, write_plots, write_scores
from barcast.evaluation.ensemble import EnsembleConfig, Members, evaluate_ensemble
from barcast.files import atomic_dir, write_json
from barcast.paths import Paths, cell_name
from barcast.stages._main import parse_horizon, read_settings, run_stage

ENSEMBLE = "ensemble"  # its name on the leaderboard
_WINDOW = ["datetime", "symbol", "label"]


def ensemble(horizon: int, config: EnsembleConfig, paths: Paths) -> dict[str, float]:
    """Write `experiments/ensembles/h{n}/ensemble/` and `weights.json`, and return the weight of each member; DataError
    if predictions of a member are missing, or are of other windows than the first member's."""
    cells = {name: cell_name(name, horizon) for name in config.members}
    val = _read({name: paths.predictions(cell, "val") for name, cell in cells.items()}, horizon)
    test = _read({name: paths.predictions(cell, "test") for name, cell in cells.items()}, horizon)
    oof = {name: paths.oof_predictions(cell) for name, cell in cells.items()}
    folds = _read(oof, horizon) if all(file.is_file() for file in oof.values()) else {}
    evaluation, summary = evaluate_ensemble(val, test, folds, horizon, config)
    baseline = read_baseline(paths.baseline(horizon))
    importance = pd.DataFrame({"feature": [], "lag": [], "importance": []})  # that of features is the members'
    with atomic_dir(paths.ensemble(horizon)) as folder:
        write_scores(folder / ENSEMBLE, evaluation, baseline)
        write_plots(folder / ENSEMBLE, evaluation, baseline, importance)
        write_json(folder / "weights.json", {ENSEMBLE: summary})
    return dict(summary["weights"])


def _read(files: Mapping[str, Path], horizon: int) -> Members:
    """Each member's predictions, all of the same windows."""
    members: dict[str, pd.DataFrame] = {}
    for name, file in files.items():
        if not file.is_file():
            raise DataError(f"{file}: no such file; run `dvc repro evaluate@{name}-{horizon}` first")
        members[name] = pd.read_parquet(file)
        first = next(iter(members))
        if not members[name][_WINDOW].equals(members[first][_WINDOW]):
            raise DataError(f"{file}: other windows or labels than {first}'s; run `dvc repro` to make both the same")
    return members


def main(horizon: str) -> None:
    """Run the stage; ConfigError if the horizon is not a number or the spec has another form."""
    paths, bars = Paths(), parse_horizon(horizon)
    weights = ensemble(bars, read_settings(EnsembleConfig, f"ensembles_h{bars}", paths), paths)
    shown = ", ".join(f"{member} {weight:.2f}" for member, weight in weights.items() if weight)
    print(f"{ENSEMBLE}_h{bars}: {shown}")


if __name__ == "__main__":
    run_stage(main)
