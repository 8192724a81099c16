"""All cells of all horizons compared: what `compare` finds, as plain data that the report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from barcast.comparison.horizon import HorizonComparison, ModelResult, SignificanceConfig, compare_models
from barcast.comparison.leaderboard import Leaderboard, build_row
from barcast.comparison.ranking import rank_correlation, rank_scores
from barcast.comparison.resampled_metrics import ScoredPredictions
from barcast.comparison.sharpe import TrialCounts, count_trials, probabilistic_sharpe
from barcast.errors import DataError
from barcast.evaluation.backtest import Backtest, backtest
from barcast.probabilities import PROBABILITY_COLUMNS
from barcast.section import Section

STRATEGIES = ("sets", "threshold")  # the abstaining ones: columns `act_*` of the predictions
PRIOR = "prior"  # each cell's metrics.json has its values, whether the matrix has it as a model or not


class CellRef(Section):
    """One cell of the matrix."""

    model: str
    horizon: Annotated[int, Field(ge=1)]


class CompareConfig(SignificanceConfig):
    """The settings of the stage: those of params.yaml, the cells of the matrix, and what they were scored with."""

    reference: str
    cells: Annotated[list[CellRef], Field(min_length=1)]
    seeds: list[int]
    label_end_offset: dict[str, Annotated[int, Field(ge=1)]]
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    cost_bps: Annotated[float, Field(ge=0)]
    calibration_bins: Annotated[int, Field(ge=1)]

    @property
    def horizons(self) -> list[int]:
        return sorted({cell.horizon for cell in self.cells})

    @model_validator(mode="after")
    def _check(self) -> CompareConfig:
        cells = [(cell.model, cell.horizon) for cell in self.cells]
        if twice := next((cell for cell in cells if cells.count(cell) > 1), None):
            raise ValueError(f"each cell once; {twice[0]}_h{twice[1]} is there twice")
        for horizon in self.horizons:
            if self.reference != PRIOR and (self.reference, horizon) not in cells:
                raise ValueError(f"a reference among the models; {self.reference}_h{horizon} is no cell")
            if f"h{horizon}" not in self.label_end_offset:
                raise ValueError(f"label_end_offset of every horizon; h{horizon} is missing")
        return self


@dataclass(frozen=True)
class CellResult:
    """One row of the leaderboard, a cell of the matrix or an ensemble, with the content of its files."""

    name: str  # `xgboost_h5`
    model: str
    horizon: int
    metrics: Mapping[str, Any]  # of metrics.json
    predictions: pd.DataFrame  # of test_predictions.parquet
    folder: Path  # holds `plots/`, and `checkpoints/` of a cell that was trained
    spec: Mapping[str, Any] = field(default_factory=dict)  # content of its spec; empty for an ensemble
    repeats: Sequence[pd.DataFrame] = ()  # test predictions of the cell trained with other seeds


@dataclass(frozen=True)
class Results:
    """The content of leaderboard.json, significance.json, intervals.json and overfitting.json, by horizon such as `h5`,
    and the rows behind them: `cells` by name, horizons ascending, best rank first. `models` are those of the matrix, in
    the order of params.yaml."""

    leaderboard: Leaderboard
    significance: Mapping[str, Any]
    intervals: Mapping[str, Any]
    overfitting: Mapping[str, Any]
    cells: Mapping[str, CellResult]
    models: Sequence[str]


def compare_cells(
    cells: Sequence[CellResult], label_end_offsets: Mapping[int, int], tuning: pd.DataFrame, config: CompareConfig
) -> Results:
    """Rank all cells of the matrix and all ensembles, and test which differences are real; DataError if cells of one
    horizon were scored on different windows, or test is too short.

    `label_end_offsets`: horizon → how many bars ahead the test labels look. `tuning`: see `read_tuning_trials`.
    """
    windows = ["datetime", "symbol", "label"]
    first: dict[int, CellResult] = {}
    for cell in cells:  # a log-loss can't be compared with one that was measured on other windows
        other = first.setdefault(cell.horizon, cell)
        if not all(frame[windows].equals(other.predictions[windows]) for frame in (cell.predictions, *cell.repeats)):
            raise DataError(
                f"{cell.name}: its test predictions are of other windows or labels than {other.name}'s; "
                "run `dvc repro` to evaluate both on the same"
            )
    horizons = {
        f"h{horizon}": _compare_horizon([cell for cell in cells if cell.horizon == horizon], offset, config)
        for horizon, offset in label_end_offsets.items()
    }
    runs = [model.moments for horizon in horizons.values() for model in horizon.ranked]
    trials = count_trials([first for first, *_ in runs], [run for _, *others in runs for run in others], tuning)
    models = list(dict.fromkeys(cell.model for cell in config.cells))
    rows, significance, ranked = {}, {}, []
    by_name = {(cell.model, f"h{cell.horizon}"): cell for cell in cells}
    for name, horizon in horizons.items():
        ranks = enumerate(horizon.ranked, 1)
        rows[name] = [build_row(i, m, horizon.models[m.name], trials, config.mcs_size) for i, m in ranks]
        correlations = _rank_correlations(horizon, set(models) - {PRIOR})
        significance[name] = {**horizon.significance_json(config.mcs_size), "rank_correlation": correlations}
        ranked += [by_name[model.name, name] for model in horizon.ranked]
    return Results(
        leaderboard={"reference": config.reference, "level": config.level, "horizons": rows},
        significance=significance,
        intervals={name: horizon.intervals_json() for name, horizon in horizons.items()},
        overfitting={"trials": asdict(trials), **{name: _overfitting(h, trials) for name, h in horizons.items()}},
        cells={cell.name: cell for cell in ranked},
        models=models,
    )


def _compare_horizon(cells: Sequence[CellResult], label_end_offset: int, config: CompareConfig) -> HorizonComparison:
    """Cells with equal scores are ranked by name."""

    def scored(predictions: pd.DataFrame) -> ScoredPredictions:
        return ScoredPredictions.from_frame(predictions, config.cost_bps, config.calibration_bins)

    def traded(predictions: pd.DataFrame, strategy: str) -> Backtest:
        bars = predictions[["datetime", "symbol", "close"]].assign(prediction=predictions[f"act_{strategy}"])
        return backtest(bars, config.cost_bps)

    def prior(cell: CellResult) -> ModelResult:  # the same probabilities for each window
        probabilities = cell.metrics["prior_probabilities"]
        columns = dict(zip(PROBABILITY_COLUMNS, probabilities, strict=True))
        return ModelResult(PRIOR, scored(cell.predictions.assign(**columns, prediction=np.argmax(probabilities) - 1)))

    scores = rank_scores({cell.model: cell.metrics for cell in cells})
    ranked = []
    for cell in sorted(cells, key=lambda cell: (scores[cell.model], cell.model)):
        repeats = [scored(repeat) for repeat in cell.repeats]
        strategies = {strategy: traded(cell.predictions, strategy) for strategy in STRATEGIES}
        test, score = scored(cell.predictions), scores[cell.model]
        ranked.append(ModelResult(cell.model, test, repeats, strategies, score, cell.metrics))
    reference = next((model for model in ranked if model.name == config.reference), None) or prior(cells[0])
    return compare_models(ranked, reference, label_end_offset, config, config.seed)


def _rank_correlations(horizon: HorizonComparison, models: set[str]) -> dict[str, dict[str, Any] | None]:
    """How well the ranking, and one by validation only, predicted the order of these models on test."""
    ranked = [model for model in horizon.ranked if model.name in models]
    if not ranked:
        return {"score": None, "val": None}
    losses = np.array([model.run_losses.mean() for model in ranked])
    resampled = np.column_stack([model.resampled_losses(horizon.sample.indices) for model in ranked])
    known = {"score": [m.score for m in ranked], "val": [m.metrics["val"]["log_loss"] for m in ranked]}
    correlations = {name: rank_correlation(scores, losses, resampled, horizon.sample) for name, scores in known.items()}
    return {name: asdict(interval) if interval else None for name, interval in correlations.items()}


def _overfitting(horizon: HorizonComparison, trials: TrialCounts) -> dict[str, Any]:
    """One horizon's part of overfitting.json."""
    cells: dict[str, Any] = dict.fromkeys(horizon.models)
    for model in horizon.ranked:
        if returns := model.moments[0]:
            content = asdict(returns)
            ratios = {"psr": probabilistic_sharpe(returns), "dsr": trials.deflate(returns)}
            cells[model.name] = {"sharpe_per_bar": content.pop("sharpe"), **content, **ratios}
    return {"pbo": asdict(horizon.overfitting) if horizon.overfitting else None, "cells": cells}
