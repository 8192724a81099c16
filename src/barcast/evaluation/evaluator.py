"""From a fitted model, validation and test to calibrated probabilities and every metric of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from barcast.errors import DataError
from barcast.evaluation.backtest import Backtest, backtest
from barcast.evaluation.calibration import CalibrationChoice, Period, choose_calibrator
from barcast.evaluation.conformal import ConformalSets, Score, coverage_by_month, coverage_metrics
from barcast.evaluation.metrics import Metrics, classification_metrics, probability_metrics, reliability_table
from barcast.evaluation.postprocess import Postprocess, choose_threshold
from barcast.evaluation.validation_split import CALIBRATION, SCORED, SELECTION, TEST, cut_calibration, cut_validation
from barcast.probabilities import Labels, PredictionOutput
from barcast.section import Section

if TYPE_CHECKING:  # what predicts is passed in; an ensemble, which is scored here too, needs no model
    from barcast.data.dataset import Split, TimeSeriesDataset
    from barcast.models.base import BaseModel

UNCALIBRATED_COLUMNS = ("raw_down", "raw_flat", "raw_up")
_OWN_PERIODS = 3  # that the calibration subset is cut into
_GAIN = 0.0005  # nats of log-loss; less is noise


class CalibrationConfig(Section):
    """`evaluate.calibration:` of params.yaml."""

    share: Annotated[float, Field(gt=0, lt=1)]
    methods: list[Literal["temperature", "vector"]]


class ScoringConfig(Section):
    """How cells are scored: what `evaluate:` of params.yaml and the stage's spec have in common."""

    cost_bps: Annotated[float, Field(ge=0)]
    calibration_bins: Annotated[int, Field(ge=1)]
    alpha: Annotated[float, Field(gt=0, lt=1)]
    sets: Score
    calibration: CalibrationConfig


class EvaluateSection(ScoringConfig):
    """`evaluate:` of params.yaml."""

    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]]
    out_of_fold: Literal["all"] | list[str]


class EvaluateConfig(ScoringConfig):
    """The settings of the stage: how a cell is scored, and the purge inside validation."""

    purge_bars: Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Predictions:
    """A model's own, uncalibrated predictions of N windows, and the truth."""

    output: PredictionOutput
    y: Labels  # [N]
    bars: pd.DataFrame  # [N]: datetime, symbol, close


@dataclass(frozen=True)
class SplitEvaluation:
    """A model on one split of N windows; only those whose subset is in SCORED are scored.

    `predictions` `[N]` has the calibrated output, the uncalibrated probabilities (`raw_*`), the strategies' positions
    (`act_*`), the true `label`, the `close` and the `part`, which is the subset. `metrics` has `classification_metrics`
    and `backtest` of the calibrated output, `uncalibrated` log-loss, Brier and ECE of the model's own probabilities,
    `strategies` the trading metrics of `sets` and `threshold`, which trade only when sure, and of `buy_hold`.
    docs/evaluation.md, "Files", describes the other frames.
    """

    predictions: pd.DataFrame
    metrics: Metrics
    uncalibrated: Metrics
    strategies: Mapping[str, Metrics]
    conformal: Metrics
    reliability: pd.DataFrame
    equity: pd.DataFrame
    coverage: pd.DataFrame


@dataclass(frozen=True)
class CellEvaluation:
    """A model on validation and test, and what was fitted on validation in between."""

    postprocess: Postprocess
    choice: CalibrationChoice
    folds: Sequence[Period]
    splits: Mapping[str, SplitEvaluation]  # val, test

    def to_json(self) -> dict[str, object]:
        """The content of metrics.json that does not depend on the prior (docs/evaluation.md, "Files")."""
        splits, keys = self.splits.items(), ("sets", "threshold", "buy_hold")
        strategies = {key: {name: split.strategies[key] for name, split in splits} for key in keys}
        candidates = {method: float(losses.mean()) for method, losses in self.choice.holdout.items()}
        windows = [len(fold.y) for fold in self.folds]
        losses = self.choice.chosen_losses[: len(windows)]  # of each fold, calibrated without itself
        mean = float(np.average(losses, weights=windows)) if windows else None
        folds = {"log_loss": mean, "windows": sum(windows), "by_fold": losses.tolist()}
        return {
            **{name: split.metrics for name, split in splits},
            "raw": {name: split.uncalibrated for name, split in splits},
            "buy_hold": strategies.pop("buy_hold"),
            "abstention": strategies,
            "conformal": {name: split.conformal for name, split in splits},
            "calibration": {"method": self.choice.calibrator.method, "candidates": candidates},
            "folds": folds if windows else None,
            "windows": pd.concat([split.predictions["part"] for _, split in splits]).value_counts().to_dict(),
        }


class Evaluator:
    """Fits what follows a model on validation, and scores the whole on both splits.

    Validation is cut in two (`cut_validation`). The calibration subset and the out-of-fold predictions inside train,
    if there are any, choose and fit the calibrator (`choose_calibrator`); the calibration subset fits the prediction
    sets. The selection subset sets the trading threshold, and ranks the cells. Nothing is fitted or chosen on test.
    """

    def __init__(self, config: EvaluateConfig) -> None:
        self.config = config

    def evaluate_dataset(
        self, model: BaseModel, dataset: TimeSeriesDataset, folds: Sequence[Period] = ()
    ) -> CellEvaluation:
        """`evaluate` on validation and test; DataError if the model was trained on features other than the windows'."""
        for split in ("val", "test"):
            if dataset.feature_columns(split) != model.feature_columns:
                raise DataError(
                    f"{dataset.path}/{split}/columns.json: the features are not those that {model.config.model_name} "
                    "was trained on; run `dvc repro` to train it on these windows"
                )
        return self.evaluate(model, dataset.split("val"), dataset.split("test"), folds)

    def evaluate(self, model: BaseModel, val: Split, test: Split, folds: Sequence[Period] = ()) -> CellEvaluation:
        """Predict both splits with a fitted model and score them, unweighted; `folds`: its out-of-fold predictions.

        Raises:
            ModelError: the model is not fitted, or was fitted on windows of another shape.
            DataError: a close is not a price, or validation is too short to be cut in two.
        """

        def predict(split: Split) -> Predictions:
            return Predictions(model.predict(split.X, split.meta), split.y, split.meta[["datetime", "symbol", "close"]])

        return self.score(predict(val), predict(test), folds)

    def score(self, val: Predictions, test: Predictions, folds: Sequence[Period] = ()) -> CellEvaluation:
        """The same from predictions, which need not be those of a single model."""
        config, p = self.config, val.output.probabilities
        subsets = cut_validation(val.bars, config.calibration.share, config.purge_bars)
        calibration, selection = subsets == CALIBRATION, subsets == SELECTION
        periods = cut_calibration(val.bars, subsets, _OWN_PERIODS, config.purge_bars)
        own = [Period(p[rows], val.y[rows]) for rows in periods]
        choice = choose_calibrator(config.calibration.methods, folds, own)
        calibrated = choice.calibrator.apply(p)
        conformal = ConformalSets.fit(calibrated[calibration], val.y[calibration], config.sets, config.alpha)
        threshold = choose_threshold(calibrated[selection], val.bars[selection], config.cost_bps)
        postprocess = Postprocess(choice.calibrator, conformal, threshold)
        scores = {
            "val": self._score_split(postprocess, val, subsets),
            "test": self._score_split(postprocess, test, np.full(len(test.y), TEST)),
        }
        return CellEvaluation(postprocess, choice, folds, scores)

    def _score_split(
        self, postprocess: Postprocess, predictions: Predictions, subsets: npt.NDArray[np.str_]
    ) -> SplitEvaluation:
        output, scored = postprocess.apply(predictions.output), np.isin(subsets, SCORED)
        positions = postprocess.positions(output)
        uncalibrated, calibrated = predictions.output.probabilities[scored], output.probabilities[scored]
        y, bars, bins = predictions.y[scored], predictions.bars[scored], self.config.calibration_bins

        def trade(position: Labels) -> Backtest:
            return backtest(bars.assign(prediction=position[scored]), self.config.cost_bps)

        plain = trade(output.predictions)
        strategies = {key: trade(position) for key, position in positions.items()}
        strategies["buy_hold"] = trade(np.ones(len(scored), np.int64))
        worth = plain.equity["equity"]
        sets = postprocess.conformal.sets(calibrated)
        reliability = [reliability_table(p, y, bins) for p in (uncalibrated, calibrated)]
        return SplitEvaluation(
            predictions=output.to_dataframe().assign(
                **dict(zip(UNCALIBRATED_COLUMNS, predictions.output.probabilities.T, strict=True)),
                **{f"act_{key}": position for key, position in positions.items()},
                label=predictions.y,
                close=predictions.bars["close"],
                part=subsets,
            ),
            metrics={**classification_metrics(calibrated, y, bins), **plain.metrics},
            uncalibrated=probability_metrics(uncalibrated, y, bins),
            strategies={key: traded.metrics for key, traded in strategies.items()},
            conformal=coverage_metrics(sets, y),
            reliability=pd.concat(reliability, keys=["raw", "published"], names=["kind", None]).reset_index("kind"),
            equity=plain.equity.assign(
                drawdown=worth / worth.cummax().clip(lower=1.0) - 1,
                **{key: traded.equity["equity"] for key, traded in strategies.items()},
            ),
            coverage=coverage_by_month(sets, y, bars["datetime"]),
        )


def ended_by_limit(config: Mapping[str, Any], history: Sequence[Mapping[str, float]]) -> str | None:
    """The limit that ended a training which was still improving, such as `max_rounds = 60`; None if none did.

    A booster was still improving if its best round is so near the end that early stopping could not act, a network if
    its last epoch is its best; either by more than `_GAIN` over what came before, since a schedule that ends at a
    learning rate of 0 creeps down to its last step. Of several networks one is enough.
    """
    key = next((name for name in ("max_rounds", "max_epochs") if name in config), None)
    if key is None or not config["early_stopping"]:
        return None
    limit, near = config[key], config["patience"] if key == "max_rounds" else 1
    networks: dict[int, list[float]] = {}
    for step in history:
        networks.setdefault(int(step["step"]) // limit, []).append(step["val_log_loss"])
    improving = any(
        len(losses) == limit and min(losses[:-near] or losses[:1]) - min(losses) > _GAIN for losses in networks.values()
    )
    return f"{key} = {limit}" if improving else None
