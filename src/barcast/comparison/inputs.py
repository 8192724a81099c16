"""What `compare` reads: the files of every row, and how far the test labels look ahead."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from barcast.comparison.results import CellResult, CompareConfig
from barcast.errors import DataError
from barcast.files import read_json
from barcast.paths import Paths, cell_name
from barcast.yaml_io import load_yaml


def read_cells(config: CompareConfig, paths: Paths) -> list[CellResult]:
    """The cells of the matrix with their repeats, and what `ensemble` made for each horizon; DataError if a file is
    missing, with the command that makes it."""
    cells = []
    for ref in config.cells:
        model, horizon, name = ref.model, ref.horizon, cell_name(ref.model, ref.horizon)
        cell, spec = _read(model, horizon, paths.run(name), f"evaluate@{model}-{horizon}"), paths.spec(name)
        seeds = {seed: f"repeat@{model}-{horizon}-{seed}" for seed in config.seeds}
        repeats = [_read(model, horizon, paths.repeat(name, seed), stage).predictions for seed, stage in seeds.items()]
        cells.append(replace(cell, spec=load_yaml(spec) if spec.is_file() else {}, repeats=repeats))
    for horizon in config.horizons:
        folders = sorted(path for path in paths.ensemble(horizon).glob("*") if path.is_dir())
        cells += [_read(folder.name, horizon, folder, f"ensemble@{horizon}") for folder in folders]
    return cells


def _read(model: str, horizon: int, folder: Path, stage: str) -> CellResult:
    name = cell_name(model, horizon)
    metrics, predictions = folder / "metrics/metrics.json", folder / "predictions/test_predictions.parquet"
    for path in (metrics, predictions):
        if not path.is_file():
            raise DataError(f"{name}: {path} is missing; run `dvc repro {stage}` first")
    return CellResult(name, model, horizon, read_json(metrics), pd.read_parquet(predictions), folder)


def read_label_end_offsets(config: CompareConfig, paths: Paths) -> dict[int, int]:
    """Horizon → how many bars ahead its test labels look: as in the spec, or more where labels made elsewhere take
    longer; DataError if the labels are missing.

    An offset that is too short would leave out autocovariances, and the tests would call noise a difference.
    """
    offsets = {}
    for horizon in config.horizons:
        file = paths.windows / f"labels/test_h{horizon}.npy"
        if not file.is_file():
            raise DataError(f"{file}: no such window file; run `dvc repro window` first")
        labels = np.load(file)
        longest = int(labels["label_end_offset"].max(initial=0, where=labels["known"]))
        offsets[horizon] = max(config.label_end_offset[f"h{horizon}"], longest)
    return offsets
