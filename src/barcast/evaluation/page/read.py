"""The page's content from the repository's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from barcast.config import load_yaml
from barcast.evaluation.page.board import build_board
from barcast.evaluation.page.content import CellPage, read_cell
from barcast.evaluation.page.data import read_data
from barcast.evaluation.page.judged import Judged, significance_words
from barcast.evaluation.page.provenance import read_provenance
from barcast.evaluation.page.render import Page
from barcast.paths import Paths, cell_name


def read_page(paths: Paths, judged: Judged, runs: Mapping[str, Path], models: Sequence[str]) -> Page:
    """Everything that the page shows.

    Args:
        paths: the repository.
        judged: what `compare` found.
        runs: cell → the folder with its files, for every row of the leaderboard.
        models: in the order that decides their colours; others of the leaderboard follow.

    Raises:
        DataError: a cell lacks a file; names the command that makes it.
        ConfigError: a spec is missing.
    """
    board = judged.leaderboard
    horizons = {int(key.removeprefix("h")): rows for key, rows in board["horizons"].items()}
    nominal = 1 - float(load_yaml(paths.spec("evaluate"))["config"]["alpha"])
    cells: dict[str, CellPage] = {}
    boards = []
    for horizon in sorted(horizons):
        names = [cell_name(row["model"], horizon) for row in horizons[horizon]]
        for row, name in zip(horizons[horizon], names, strict=True):
            cells[name] = read_cell(runs[name], paths.spec(name), row["model"], horizon, nominal)
        note = f"{_span(runs[names[0]])}. {significance_words(judged, horizon)}"
        boards.append(
            build_board(horizon, horizons[horizon], [cells[name] for name in names], note, board["reference"])
        )
    ranked = [row["model"] for rows in horizons.values() for row in rows]
    return Page(
        boards=boards,
        cells=cells,
        data=read_data(paths, sorted(horizons)),
        provenance=read_provenance(paths, list(cells)),
        reference=board["reference"],
        level=board["level"],
        trials=judged.overfitting["trials"],
        models=[model for model in dict.fromkeys([*models, *ranked]) if model in ranked],
    )


def _span(run: Path) -> str:
    """Which windows were scored."""
    windows = pd.read_parquet(run / "predictions/test_predictions.parquet", columns=["datetime", "symbol"])
    symbols, times = sorted(windows["symbol"].unique()), windows["datetime"]
    return f"{len(windows):,} windows of {', '.join(symbols)}, {times.min():%Y-%m-%d} to {times.max():%Y-%m-%d}"
