"""`compare`: every cell's metrics and predictions as one leaderboard and one report page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from barcast.config import Section, load_yaml, validate
from barcast.errors import DataError
from barcast.evaluation.leaderboard import FILE, CellResult, Leaderboard, rank_cells, render_markdown
from barcast.evaluation.report import CellDetail, Span, render_report
from barcast.files import atomic_dir, read_json, write_json
from barcast.paths import Paths, cell_name
from barcast.stages._main import run_stage

PRIOR = "prior"  # each cell's metrics.json has its values, whether the matrix has it as a model or not


class CellRef(Section):
    """One cell of the matrix."""

    model: str
    horizon: Annotated[int, Field(ge=1)]

    @property
    def name(self) -> str:
        return cell_name(self.model, self.horizon)


class CompareConfig(Section):
    """`compare:` of params.yaml, with the cells of the matrix."""

    cells: Annotated[list[CellRef], Field(min_length=1)]
    reference: str

    @model_validator(mode="after")
    def _check(self) -> CompareConfig:
        names = [cell.name for cell in self.cells]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"each cell once; {twice} stands twice")
        for horizon in {cell.horizon for cell in self.cells}:
            if self.reference != PRIOR and cell_name(self.reference, horizon) not in names:
                raise ValueError(f"a reference among the models; {cell_name(self.reference, horizon)} is no cell")
        return self


@dataclass(frozen=True)
class _Cell:
    ref: CellRef
    metrics: Mapping[str, Any]
    predictions: pd.DataFrame  # of test


def compare(config: CompareConfig, paths: Paths) -> Leaderboard:
    """Rank all cells; write `experiments/metrics.json` and `experiments/report/`.

    Raises:
        DataError: a cell lacks a file (names the command that makes it), or cells of one horizon were
            scored on different windows.
    """
    cells = [_read(ref, paths) for ref in config.cells]
    _check_same_windows(cells, paths)
    losses = {cell.ref.name: cell.metrics["test"] for cell in cells}
    results = [
        CellResult(
            model=cell.ref.model,
            horizon=cell.ref.horizon,
            val=cell.metrics["val"],
            test=cell.metrics["test"],
            reference=losses.get(cell_name(config.reference, cell.ref.horizon), cell.metrics[PRIOR]["test"]),
        )
        for cell in cells
    ]
    leaderboard = rank_cells(results, config.reference)
    page = render_report(leaderboard, [_detail(cell, paths) for cell in cells], _spans(cells))
    with atomic_dir(paths.report) as folder:
        write_json(folder / FILE, leaderboard.to_dict())
        (folder / "leaderboard.md").write_text(render_markdown(leaderboard), encoding="utf-8")
        (folder / "index.html").write_text(page, encoding="utf-8")
    write_json(paths.metrics, _headline(leaderboard))
    return leaderboard


def _read(ref: CellRef, paths: Paths) -> _Cell:
    needed = [
        paths.cell_metrics(ref.name),
        paths.predictions(ref.name, "test"),
        paths.plots(ref.name) / "test_equity.csv",
    ]
    for path in needed:
        if not path.is_file():
            raise DataError(f"{ref.name}: {path} is missing; run `dvc repro evaluate@{ref.model}-{ref.horizon}` first")
    columns = ["datetime", "symbol", "prediction", "label"]
    return _Cell(ref, read_json(needed[0]), pd.read_parquet(needed[1], columns=columns))


def _check_same_windows(cells: list[_Cell], paths: Paths) -> None:
    """A log-loss says nothing beside one that was measured on other windows."""
    first: dict[int, _Cell] = {}
    for cell in cells:
        other = first.setdefault(cell.ref.horizon, cell)
        windows = ["datetime", "symbol", "label"]
        if not cell.predictions[windows].equals(other.predictions[windows]):
            raise DataError(
                f"{paths.predictions(cell.ref.name, 'test')}: other windows or labels than {other.ref.name}'s; "
                f"run `dvc repro` to evaluate both on the same"
            )


def _detail(cell: _Cell, paths: Paths) -> CellDetail:
    actual, predicted = cell.predictions["label"].to_numpy() + 1, cell.predictions["prediction"].to_numpy() + 1
    equity = pd.read_csv(paths.plots(cell.ref.name) / "test_equity.csv", parse_dates=["datetime"])
    checkpoint = paths.checkpoint(cell.ref.name) / "model.json"
    if not checkpoint.is_file():
        raise DataError(
            f"{cell.ref.name}: {checkpoint} is missing; run `dvc repro train@{cell.ref.model}-{cell.ref.horizon}` first"
        )
    return CellDetail(
        model=cell.ref.model,
        horizon=cell.ref.horizon,
        confusion=np.bincount(3 * actual + predicted, minlength=9).reshape(3, 3),
        equity=equity,
        history=read_json(checkpoint)["training_history"],
    )


def _spans(cells: list[_Cell]) -> dict[int, Span]:
    spans = {}
    for cell in cells:
        times, symbols = cell.predictions["datetime"], cell.predictions["symbol"]
        spans[cell.ref.horizon] = Span(len(times), sorted(symbols.unique()), times.min(), times.max())
    return spans


def _headline(leaderboard: Leaderboard) -> dict[str, Any]:
    """The best cell of each horizon and its log-losses: names so short that `dvc exp show` shows all of them."""
    return {
        f"h{horizon}": {
            "best": rows[0].model,
            "val": round(rows[0].val_log_loss, 6),
            "test": round(rows[0].test_log_loss, 6),
        }
        for horizon, rows in leaderboard.horizons.items()
    }


def main() -> None:
    """Run the stage with the settings of its spec."""
    paths = Paths()
    spec = paths.spec("compare")
    compare(validate(CompareConfig, load_yaml(spec).get("config", {}), spec, "config"), paths)


if __name__ == "__main__":
    run_stage(main)
