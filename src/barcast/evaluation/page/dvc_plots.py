"""Small tables that `dvc plots show` and `dvc plots diff` draw, whatever the matrix holds.

dvc.yaml can't name the files of cells that params.yaml decides on, but a folder: each file in it is one plot.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from barcast.evaluation.page.content import CellPage


def write_dvc_plots(folder: Path, cells: Sequence[CellPage], runs: Mapping[str, Path]) -> None:
    """Write `confusion/{cell}.csv` (actual, predicted; one row a test window) and `learning/h{horizon}.tsv`
    (cell, step, val_log_loss; the curves of all cells of a horizon, thinned as on the page)."""
    for name in ("confusion", "learning"):
        (folder / name).mkdir(parents=True)
    curves: dict[int, list[pd.DataFrame]] = {}
    for cell in cells:
        shutil.copyfile(runs[cell.name] / "plots/test_confusion.csv", folder / f"confusion/{cell.name}.csv")
        if "learning" in cell.figures:
            curve = pd.DataFrame({key: cell.figures["learning"][key] for key in ("step", "val")})
            curves.setdefault(cell.horizon, []).append(curve.assign(cell=cell.name))
    for horizon, found in curves.items():
        table = pd.concat(found).rename(columns={"val": "val_log_loss"})[["cell", "step", "val_log_loss"]]
        table.to_csv(folder / f"learning/h{horizon}.tsv", sep="\t", index=False, lineterminator="\n")
