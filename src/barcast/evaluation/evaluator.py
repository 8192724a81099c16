"""A fitted model, validation and test in; published probabilities and every figure about them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from barcast.config import Section
from barcast.data.windows import Split
from barcast.evaluation.abstention import choose_threshold
from barcast.evaluation.calibration import reliability_table
from barcast.evaluation.conformal import ConformalSets, Score, coverage_by_month, coverage_metrics
from barcast.evaluation.metrics import Metrics, classification_metrics, probability_metrics
from barcast.evaluation.postprocess import Postprocess
from barcast.evaluation.scaling import Choice, Period, choose_scaling
from barcast.evaluation.slices import CALIBRATION, RANKED, TEST, Parts, calibration_periods, validation_parts
from barcast.evaluation.trading import Backtest, backtest
from barcast.models.base import BaseModel, Labels, PredictionOutput

_STRETCHES = 3  # of the calibration slice, periods beside the folds


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
class Answers:
    """What a model itself says of N windows, and the truth."""

    output: PredictionOutput
    y: Labels  # [N]
    close: pd.Series  # [N]

    @classmethod
    def of(cls, model: BaseModel, split: Split) -> Answers:
        """Predict a split's windows."""
        return cls(model.predict(split.X, split.meta), split.y, split.meta["close"].reset_index(drop=True))

    @property
    def bars(self) -> pd.DataFrame:
        """N rows of `datetime, symbol, close`."""
        return pd.DataFrame({"datetime": self.output.timestamps, "symbol": self.output.symbols, "close": self.close})


@dataclass(frozen=True)
class Evaluation:
    """A model on one split of N windows, of which those where `part` is RANKED or TEST are scored.

    `metrics` holds what `classification_metrics` and `backtest` say of the published probabilities, `raw` log-loss,
    Brier and ECE of the model's own, `rules` the trading metrics of the abstaining rules, `buy_hold` those of holding
    every symbol throughout. `reliability`, `equity` and `coverage` are the frames of docs/evaluation.md, "Files".
    """

    answers: Answers
    output: PredictionOutput
    positions: Mapping[str, Labels]
    part: Parts
    metrics: Metrics
    raw: Metrics
    rules: Mapping[str, Metrics]
    buy_hold: Metrics
    conformal: Metrics
    reliability: pd.DataFrame
    equity: pd.DataFrame
    coverage: pd.DataFrame

    @property
    def scored(self) -> npt.NDArray[np.bool_]:
        return np.isin(self.part, (RANKED, TEST))

    def to_dataframe(self) -> pd.DataFrame:
        """The published output with the model's own probabilities (`raw_*`), the rules' positions (`act_*`), the
        truth (`label`), the `close` and the `part` beside it; N rows."""
        down, flat, up = self.answers.output.probabilities.T
        return self.output.to_dataframe().assign(
            raw_down=down,
            raw_flat=flat,
            raw_up=up,
            **{f"act_{rule}": position for rule, position in self.positions.items()},
            label=self.answers.y,
            close=self.answers.close,
            part=self.part,
        )


@dataclass(frozen=True)
class Scored:
    """A model on validation and test, and what was fitted on validation in between."""

    postprocess: Postprocess
    choice: Choice
    folds: Sequence[Period]
    val: Evaluation
    test: Evaluation

    @property
    def folds_json(self) -> dict[str, object] | None:
        """Log-loss out of fold, calibrated without the fold in question; None where there were no folds."""
        if not self.folds:
            return None
        windows, losses = [len(fold.y) for fold in self.folds], self.choice.used[: len(self.folds)]
        mean = float(np.average(losses, weights=windows))
        return {"log_loss": mean, "windows": sum(windows), "by_fold": losses.tolist()}

    @property
    def splits(self) -> dict[str, Evaluation]:
        return {"val": self.val, "test": self.test}

    def to_json(self) -> dict[str, object]:
        """The content of metrics.json, without the prior (docs/evaluation.md, "Files")."""
        splits = self.splits
        rules = {rule: {name: found.rules[rule] for name, found in splits.items()} for rule in self.test.rules}
        parts = [*self.val.part, *self.test.part]
        return {
            **{name: found.metrics for name, found in splits.items()},
            "raw": {name: found.raw for name, found in splits.items()},
            "buy_hold": {name: found.buy_hold for name, found in splits.items()},
            "abstention": rules,
            "conformal": {name: found.conformal for name, found in splits.items()},
            "calibration": {"method": self.choice.scaling.method, "candidates": self.choice.losses},
            "folds": self.folds_json,
            "windows": {str(part): parts.count(part) for part in sorted(set(parts))},
        }


class Evaluator:
    """Fits what comes after a model on validation, and measures model and all on both splits.

    Validation is cut in two (`validation_parts`). The calibration slice and, where there are some, the out-of-fold
    predictions inside train choose and fit the scaling (`choose_scaling`); the slice fits the prediction sets. The
    rest of validation decides from which threshold on a rule acts, and ranks the cells. Test fits and chooses nothing.
    Where a scaling is used, it and the sets come from the same windows, so the sets' guarantee holds up to what the
    scaling's one or six parameters take (docs/evaluation.md, "Prediction sets").
    """

    def __init__(self, config: EvaluateConfig) -> None:
        self.config = config

    def evaluate(self, model: BaseModel, val: Split, test: Split, folds: Sequence[Period] = ()) -> Scored:
        """Predict both splits and score them, unweighted.

        Args:
            model: fitted.
            val: validation.
            test: test.
            folds: the model's out-of-fold predictions inside train, where it has some.

        Raises:
            ModelError: the model is not fitted, or was fitted on windows of another shape.
            DataError: a close is no price, or validation is too short to be cut in two.
        """
        return self.score(Answers.of(model, val), Answers.of(model, test), folds)

    def score(self, val: Answers, test: Answers, folds: Sequence[Period] = ()) -> Scored:
        """The same from what a model said: also for probabilities that no single model gave."""
        parts = validation_parts(val.bars, self.config.calibration.share, self.config.purge_bars)
        postprocess, choice = self._fit(val, parts, folds)
        return Scored(
            postprocess,
            choice,
            folds,
            self._measure(postprocess, val, parts),
            self._measure(postprocess, test, np.full(len(test.y), TEST)),
        )

    def _fit(self, val: Answers, parts: Parts, folds: Sequence[Period]) -> tuple[Postprocess, Choice]:
        config, raw = self.config, val.output.probabilities
        fitted, ranked = parts == CALIBRATION, parts == RANKED
        stretches = calibration_periods(val.bars, parts, _STRETCHES, config.purge_bars)
        own = [Period(raw[chosen], val.y[chosen]) for chosen in stretches]
        choice = choose_scaling(config.calibration.methods, folds, own)
        published = choice.scaling.apply(raw)
        conformal = ConformalSets.fit(published[fitted], val.y[fitted], config.sets, config.alpha)
        threshold = choose_threshold(published[ranked], val.bars[ranked], config.cost_bps)
        return Postprocess(choice.scaling, conformal, threshold), choice

    def _measure(self, postprocess: Postprocess, answers: Answers, parts: Parts) -> Evaluation:
        output = postprocess.apply(answers.output)
        positions = postprocess.positions(output)
        scored = np.isin(parts, (RANKED, TEST))
        raw, published, y = answers.output.probabilities[scored], output.probabilities[scored], answers.y[scored]
        bars, bins = answers.bars[scored], self.config.calibration_bins
        held = {"plain": output.predictions, **positions, "buy_hold": np.ones(len(scored), np.int64)}
        traded = {
            rule: backtest(bars.assign(prediction=position[scored]), self.config.cost_bps)
            for rule, position in held.items()
        }
        sets = postprocess.conformal.sets(published)
        return Evaluation(
            answers=answers,
            output=output,
            positions=positions,
            part=parts,
            metrics={**classification_metrics(published, y, bins), **traded["plain"].metrics},
            raw=probability_metrics(raw, y, bins),
            rules={rule: traded[rule].metrics for rule in positions},
            buy_hold=traded["buy_hold"].metrics,
            conformal=coverage_metrics(sets, y),
            reliability=_reliability({"raw": raw, "published": published}, y, bins),
            equity=_equity(traded),
            coverage=coverage_by_month(sets, y, bars["datetime"]),
        )


def _reliability(kinds: Mapping[str, npt.NDArray[np.float64]], y: Labels, bins: int) -> pd.DataFrame:
    tables = [reliability_table(probabilities, y, bins).assign(kind=kind) for kind, probabilities in kinds.items()]
    whole = pd.concat(tables, ignore_index=True)
    return whole[["kind", *whole.columns.drop("kind")]]


def _equity(traded: Mapping[str, Backtest]) -> pd.DataFrame:
    """`datetime, equity, drawdown` of the plain rule, and the equity of every other one."""
    plain = traded["plain"].equity
    others = {rule: found.equity["equity"] for rule, found in traded.items() if rule != "plain"}
    drawdown = plain["equity"] / plain["equity"].cummax().clip(lower=1.0) - 1
    return plain.assign(drawdown=drawdown, **others)
