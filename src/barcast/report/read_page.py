"""Reads what the page shows; the builders in this package read no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from barcast.comparison.results import CellResult, Results
from barcast.data.frames import SPLITS
from barcast.errors import DataError
from barcast.files import read_json
from barcast.paths import Paths
from barcast.report.cell_page import CellPage, build_cell
from barcast.report.data_page import DataPage, Provenance, build_data, build_provenance, hash_of
from barcast.report.leaderboard_table import build_leaderboard
from barcast.report.page import Page
from barcast.yaml_io import load_yaml

STAGES = ("prepare", "audit", "window", "evaluate", "compare")
PLOTS = ("test_confusion", "test_reliability", "test_coverage", "test_equity", "importance")


def read_page(paths: Paths, results: Results) -> Page:
    """All that the page shows; DataError, with the command that makes it, if a cell lacks a file, ConfigError if a
    spec is missing."""
    specs = {stage: load_yaml(paths.spec(stage)) for stage in STAGES}
    nominal = 1 - float(specs["evaluate"]["config"]["alpha"])
    cells = {name: read_cell(cell, nominal) for name, cell in results.cells.items()}
    horizons = list(dict.fromkeys(cell.horizon for cell in cells.values()))
    in_rows = dict.fromkeys(cell.model for cell in cells.values())
    return Page(
        tables=[build_leaderboard(results, h, [c for c in cells.values() if c.horizon == h]) for h in horizons],
        cells=cells,
        data=read_data(paths, horizons),
        provenance=read_provenance(paths, {**specs, **{name: c.spec for name, c in results.cells.items() if c.spec}}),
        reference=results.leaderboard["reference"],
        level=results.leaderboard["level"],
        trials=results.overfitting["trials"],
        models=[model for model in dict.fromkeys([*results.models, *in_rows]) if model in in_rows],
    )


def read_cell(cell: CellResult, nominal: float) -> CellPage:
    """Read the plots and the training history of one row; DataError as `read_page`."""

    def need(file: str, stage: str = "evaluate") -> Path:
        if not (cell.folder / file).is_file():
            target = f"{stage}@{cell.model}-{cell.horizon}" if cell.spec else f"ensemble@{cell.horizon}"
            raise DataError(f"{cell.name}: {cell.folder / file} is missing; run `dvc repro {target}` first")
        return cell.folder / file

    history = read_json(need("checkpoints/model/model.json", "train"))["training_history"] if cell.spec else []
    return build_cell(cell, history, {plot: pd.read_csv(need(f"plots/{plot}.csv")) for plot in PLOTS}, nominal)


def read_data(paths: Paths, horizons: Sequence[int]) -> DataPage:
    """Read `split.json`, `audit.json`, and the times and labels of the windows."""
    return build_data(
        read_json(paths.splits / "split.json"),
        read_json(paths.audit),
        {split: pd.read_parquet(paths.windows / split / "index.parquet") for split in SPLITS},
        {h: {split: np.load(paths.windows / f"labels/{split}_h{h}.npy") for split in SPLITS} for h in horizons},
    )


def read_provenance(paths: Paths, specs: Mapping[str, Mapping[str, Any]]) -> Provenance:
    """Read the keys of the cells with a spec, and hash the source data."""
    stamps = {name: paths.live(name) / "params.yaml" for name in specs}
    keys = {name: str(load_yaml(stamp).get("cell_key", "")) for name, stamp in stamps.items() if stamp.is_file()}
    source = specs["prepare"]["config"]["data"]["path"]
    return build_provenance(specs, keys, {source: hash_of(paths.root / source)})
