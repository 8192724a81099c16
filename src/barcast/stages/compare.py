"""`compare`: every cell's metrics and predictions as one leaderboard and one report page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from barcast.config import Section, load_yaml, validate
from barcast.errors import DataError
from barcast.evaluation.leaderboard import FILE, Leaderboard, Row, render_markdown
from barcast.evaluation.page.dvc_plots import write_dvc_plots
from barcast.evaluation.page.judged import Judged
from barcast.evaluation.page.read import read_page
from barcast.evaluation.page.render import render
from barcast.evaluation.ranking import rank_correlation, rank_scores
from barcast.evaluation.resampled import PROBABILITY_COLUMNS, Measured
from barcast.evaluation.sharpe import probabilistic_sharpe
from barcast.evaluation.standings import Entrant, SignificanceConfig, Standings, judge, resampled_losses
from barcast.evaluation.trading import Backtest, backtest
from barcast.evaluation.trials import Ledger, Trials, count_trials, read_ledgers
from barcast.files import atomic_dir, read_json, write_json
from barcast.paths import Paths, cell_name
from barcast.stages._main import run_stage

RULES = ("sets", "threshold")  # the abstaining ones of `Postprocess.positions`
PRIOR = "prior"  # each cell's metrics.json has its values, whether the matrix has it as a model or not


class CellRef(Section):
    """One cell of the matrix."""

    model: str
    horizon: Annotated[int, Field(ge=1)]

    @property
    def name(self) -> str:
        return cell_name(self.model, self.horizon)


class CompareConfig(SignificanceConfig):
    """The settings of the stage: those of params.yaml, the cells of the matrix, and what they were scored with."""

    reference: str
    cells: Annotated[list[CellRef], Field(min_length=1)]
    seeds: list[int]
    reach: dict[str, Annotated[int, Field(ge=1)]]
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    cost_bps: Annotated[float, Field(ge=0)]
    calibration_bins: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _check(self) -> CompareConfig:
        names = [cell.name for cell in self.cells]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"each cell once; {twice} stands twice")
        for horizon in {cell.horizon for cell in self.cells}:
            if self.reference != PRIOR and cell_name(self.reference, horizon) not in names:
                raise ValueError(f"a reference among the models; {cell_name(self.reference, horizon)} is no cell")
            if f"h{horizon}" not in self.reach:
                raise ValueError(f"reach of every horizon; h{horizon} is missing")
        return self


@dataclass(frozen=True)
class Contender:
    """One row of the leaderboard to be: where it comes from, its metrics.json, and its test predictions.

    Whatever has these two files of docs/evaluation.md can be one, a cell of the matrix or not.
    """

    model: str
    horizon: int
    metrics: Mapping[str, Any]
    predictions: pd.DataFrame  # of test
    repeats: Sequence[pd.DataFrame] = ()  # the same with other seeds

    @property
    def name(self) -> str:
        return cell_name(self.model, self.horizon)


def compare(config: CompareConfig, paths: Paths) -> Leaderboard:
    """Rank all cells, and judge which differences are real; write `experiments/metrics.json` and
    `experiments/report/`.

    Raises:
        DataError: a cell or the windows lack a file (names the command that makes it), cells of one horizon
            were scored on different windows, or test is too short to be judged.
    """
    cells = [*(_read(ref, config.seeds, paths) for ref in config.cells), *_read_ensembles(config, paths)]
    _check_same_windows(cells, paths)
    ranked = _by_rank(cells)
    standings = {horizon: _judge(found, config, _reach(horizon, config, paths)) for horizon, found in ranked.items()}
    trials = _count_trials(standings, read_ledgers(paths.tune))
    leaderboard = _leaderboard(ranked, standings, trials, config)
    significance = {
        f"h{h}": {
            **found.significance_json(config.mcs_size),
            "rank_correlation": _rank_correlations(ranked[h], found, entrants, config),
        }
        for h, (found, entrants) in standings.items()
    }
    judged = Judged(leaderboard.to_dict(), significance, _overfitting(standings, trials))
    runs = {cell.name: _run(cell, paths) for cell in cells}
    page = read_page(paths, judged, runs, [ref.model for ref in config.cells])
    with atomic_dir(paths.report) as folder:
        write_json(folder / FILE, judged.leaderboard)
        write_json(folder / "intervals.json", {f"h{h}": s.intervals_json() for h, (s, _) in standings.items()})
        write_json(folder / "significance.json", judged.significance)
        write_json(folder / "overfitting.json", judged.overfitting)
        (folder / "leaderboard.md").write_text(render_markdown(leaderboard), encoding="utf-8")
        (folder / "index.html").write_text(render(page), encoding="utf-8")
        write_dvc_plots(folder / "plots", list(page.cells.values()), runs)
    write_json(paths.metrics, _headline(leaderboard))
    return leaderboard


def read_contender(model: str, horizon: int, run: Path, command: str) -> Contender:
    """Read the folder that holds `metrics/` and `predictions/` of a row.

    Args:
        model: the row's name.
        horizon: bars ahead.
        run: the folder.
        command: what makes its files, for the error.

    Raises:
        DataError: a file is missing.
    """
    needed = [run / "metrics/metrics.json", run / "predictions/test_predictions.parquet"]
    for path in needed:
        if not path.is_file():
            raise DataError(f"{cell_name(model, horizon)}: {path} is missing; run `{command}` first")
    return Contender(model, horizon, read_json(needed[0]), pd.read_parquet(needed[1]))


def _read(ref: CellRef, seeds: Sequence[int], paths: Paths) -> Contender:
    base = read_contender(ref.model, ref.horizon, paths.run(ref.name), f"dvc repro evaluate@{ref.model}-{ref.horizon}")
    repeats = [
        read_contender(
            ref.model, ref.horizon, paths.repeat(ref.name, seed), f"dvc repro repeat@{ref.model}-{ref.horizon}-{seed}"
        ).predictions
        for seed in seeds
    ]
    return replace(base, repeats=repeats)


def _read_ensembles(config: CompareConfig, paths: Paths) -> list[Contender]:
    """The rows that `ensemble` made of the matrix's horizons; they have the files of a cell."""
    horizons = sorted({cell.horizon for cell in config.cells})
    return [
        read_contender(run.name, horizon, run, f"dvc repro ensemble@{horizon}")
        for horizon in horizons
        for run in sorted(path for path in paths.ensemble(horizon).glob("*") if path.is_dir())
    ]


def _run(cell: Contender, paths: Paths) -> Path:
    """Where a row's files lie."""
    ensemble = paths.ensemble(cell.horizon) / cell.model
    return ensemble if ensemble.is_dir() else paths.run(cell.name)


def _check_same_windows(cells: Sequence[Contender], paths: Paths) -> None:
    """A log-loss says nothing beside one that was measured on other windows."""
    windows = ["datetime", "symbol", "label"]
    first: dict[int, Contender] = {}
    for cell in cells:
        other = first.setdefault(cell.horizon, cell)
        for predictions in (cell.predictions, *cell.repeats):
            if not predictions[windows].equals(other.predictions[windows]):
                raise DataError(
                    f"{paths.predictions(cell.name, 'test')}: other windows or labels than {other.name}'s; "
                    f"run `dvc repro` to evaluate both on the same"
                )


def _by_rank(cells: Sequence[Contender]) -> dict[int, list[Contender]]:
    """The rows of each horizon by the log-loss that ranks them; equal ones by name."""
    ranked = {}
    for horizon in sorted({cell.horizon for cell in cells}):
        scores = _scores(own := [cell for cell in cells if cell.horizon == horizon])
        ranked[horizon] = sorted(own, key=lambda cell: (scores[cell.model], cell.model))
    return ranked


def _scores(cells: Sequence[Contender]) -> dict[str, float]:
    """By model, of one horizon's rows."""
    return rank_scores({cell.model: cell.metrics for cell in cells})


def _rank_correlations(
    cells: Sequence[Contender], standings: Standings, entrants: Sequence[Entrant], config: CompareConfig
) -> dict[str, dict[str, Any] | None]:
    """How well the ranking, and one by validation only, foretold the order on test: over the matrix but the prior."""
    models = {ref.model for ref in config.cells} - {PRIOR}
    rows = [(cell, entrant) for cell, entrant in zip(cells, entrants, strict=True) if cell.model in models]
    if not rows:
        return {"score": None, "val": None}
    losses = np.array([entrant.run_losses.mean() for _, entrant in rows])
    resampled = np.column_stack([resampled_losses(entrant, standings.sample.draws) for _, entrant in rows])
    scores = _scores(cells)
    found = {
        "score": rank_correlation([scores[cell.model] for cell, _ in rows], losses, resampled, standings.sample),
        "val": rank_correlation(
            [cell.metrics["val"]["log_loss"] for cell, _ in rows], losses, resampled, standings.sample
        ),
    }
    return {name: vars(interval) if interval else None for name, interval in found.items()}


def _reach(horizon: int, config: CompareConfig, paths: Paths) -> int:
    """How many bars ahead the test labels look: what the spec says, or more where labels made elsewhere take longer.

    Too short a reach would leave out autocovariances, and the tests would call noise a difference.
    """
    file = paths.windows / f"labels/test_h{horizon}.npy"
    if not file.is_file():
        raise DataError(f"{file}: no such window file; run `dvc repro window` first")
    labels = np.load(file)
    return max(config.reach[f"h{horizon}"], int(labels["reach"].max(initial=0, where=labels["known"])))


def _judge(cells: Sequence[Contender], config: CompareConfig, reach: int) -> tuple[Standings, list[Entrant]]:
    def measured(predictions: pd.DataFrame) -> Measured:
        return Measured.of(predictions, config.cost_bps, config.calibration_bins)

    entrants = [
        Entrant(
            cell.model,
            measured(cell.predictions),
            [measured(repeat) for repeat in cell.repeats],
            {rule: _follow(cell.predictions, rule, config.cost_bps) for rule in RULES},
        )
        for cell in cells
    ]
    reference = next((entrant for entrant in entrants if entrant.name == config.reference), None)
    reference = reference or Entrant(PRIOR, measured(_prior_predictions(cells[0])))
    return judge(entrants, reference, reach, config, config.seed), entrants


def _follow(predictions: pd.DataFrame, rule: str, cost_bps: float) -> Backtest:
    bars = predictions[["datetime", "symbol", "close"]].assign(prediction=predictions[f"act_{rule}"])
    return backtest(bars, cost_bps)


def _prior_predictions(cell: Contender) -> pd.DataFrame:
    """What the prior says of a cell's windows: the same of each."""
    probabilities = cell.metrics["prior_probabilities"]
    says = dict(zip(PROBABILITY_COLUMNS, probabilities, strict=True))
    return cell.predictions.assign(**says, prediction=int(np.argmax(probabilities)) - 1)


def _count_trials(standings: Mapping[int, tuple[Standings, list[Entrant]]], ledger: Ledger) -> Trials:
    everyone = [entrant.moments for _, entrants in standings.values() for entrant in entrants]
    return count_trials([runs[0] for runs in everyone], [run for runs in everyone for run in runs[1:]], ledger)


def _leaderboard(
    ranked: Mapping[int, Sequence[Contender]],
    standings: Mapping[int, tuple[Standings, list[Entrant]]],
    trials: Trials,
    config: CompareConfig,
) -> Leaderboard:
    horizons = {}
    for horizon, cells in ranked.items():
        scores, models = _scores(cells), standings[horizon][0].models
        horizons[horizon] = [
            Row.of(rank, cell.model, scores[cell.model], cell.metrics, models[cell.model], trials, config.mcs_size)
            for rank, cell in enumerate(cells, 1)
        ]
    return Leaderboard(config.reference, config.level, horizons)


def _overfitting(standings: Mapping[int, tuple[Standings, list[Entrant]]], trials: Trials) -> dict[str, Any]:
    content: dict[str, Any] = {"trials": trials.to_json()}
    for horizon, (found, _) in standings.items():
        moments = {name: standing.moments for name, standing in found.models.items()}
        content[f"h{horizon}"] = {
            "pbo": vars(found.overfitting) if found.overfitting else None,
            "cells": {
                name: {
                    "sharpe_per_bar": known.sharpe,
                    "bars": known.bars,
                    "skew": known.skew,
                    "kurtosis": known.kurtosis,
                    "psr": probabilistic_sharpe(known),
                    "dsr": trials.deflate(known),
                }
                if known
                else None
                for name, known in moments.items()
            },
        }
    return content


def _headline(leaderboard: Leaderboard) -> dict[str, Any]:
    """The best cell of each horizon and its log-losses: names so short that `dvc exp show` shows all of them."""
    return {
        f"h{horizon}": {
            "best": rows[0].model,
            "score": round(rows[0].score, 6),
            "test": round(rows[0].test_log_loss.value or 0.0, 6),
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
