"""Do intervals, prediction sets and verdicts keep their word? Simulated markets in which the truth is known.

    python -m benchmarks.coverage [--simulations 500]

- `intervals`: the share of simulations in which each metric's interval holds its true value (nominal: the level).
- `sets`: the share of test windows, over all simulations, whose prediction set holds the truth (nominal: 1 − alpha).
- `false_discoveries`: of models that are all the same, the share of simulations in which any is called better or worse
  than the reference (nominal: at most 1 − level); the same of the confidence set (any model left out); and of the test
  of superior ability, on a fifth of the simulations.
- `calibration`: the log-loss on test of calibrated probabilities less that of uncalibrated ones, for a model that is
  calibrated and for one whose logits are too large by a fifth: the mean, and the share of simulations in which it
  is above 0.002.
- `power`: how often a model that is better by so much is called better, on a fifth of the simulations.

The last line is a JSON object with these shares, each beside 1.96 binomial errors at that many simulations.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from barcast.comparison.horizon import ModelResult, simultaneous_deltas
from barcast.comparison.intervals import deltas, intervals
from barcast.comparison.resampled_metrics import ScoredPredictions, bootstrap_metrics, observed_metrics
from barcast.comparison.resampling import BootstrapConfig, draw_jointly
from barcast.comparison.significance import confidence_set, superior_ability
from barcast.evaluation.calibration import Calibrator, Period, choose_calibrator
from barcast.evaluation.conformal import SCORES, ConformalSets, Score
from barcast.evaluation.validation_split import CALIBRATION, cut_calibration, cut_validation
from barcast.probabilities import PROBABILITY_COLUMNS, log_loss
from benchmarks._markets import simulate
from benchmarks._measure import finish, machine, rounded, say

Figures = dict[str, Any]

LEVEL, ALPHA, SIZE = 0.95, 0.1, 0.1
OWN_PERIODS = 3  # of the calibration subset, as the pipeline has them where a cell has no folds
COST, BINS = 1.0, 15
METRICS = ("log_loss", "brier", "accuracy", "macro_f1", "mcc", "auc_ovr", "ece", "sharpe")
NOISE = 0.5
SHARPNESS = {"calibrated": 1.0, "overconfident": 1.2}
GAPS = (0.1, 0.2, 0.5)
RIVALS = [f"m{number}" for number in range(5)]


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=500)
    parser.add_argument("--bars", type=int, default=2000, help="of each test split; two symbols")
    parser.add_argument("--horizons", type=int, nargs="+", default=[5, 20])
    parser.add_argument("--resamples", type=int, default=400)
    parser.add_argument("--truth-bars", type=int, default=1_000_000, help="of the market that has the true values")
    return parser.parse_args(arguments)


def share(hits: Sequence[float], nominal: float) -> Figures:
    """A share of simulations beside what it should be, and 1.96 binomial standard errors of that."""
    error = 1.96 * math.sqrt(nominal * (1 - nominal) / len(hits))
    return {"share": round(float(np.mean(hits)), 4), "nominal": round(nominal, 4), "binomial_error": round(error, 4)}


def settings(asked: argparse.Namespace) -> BootstrapConfig:
    return BootstrapConfig(level=LEVEL, resamples=asked.resamples, block_factor=2.0)


def scored(predictions: pd.DataFrame) -> ScoredPredictions:
    return ScoredPredictions.from_frame(predictions, COST, BINS)


def interval_coverage(asked: argparse.Namespace, horizon: int) -> Figures:
    """How often each metric's interval holds the value that it has on a market without end.

    `delta` is the paired difference in log-loss between two models of unequal skill.
    """
    noises = {"model": NOISE, "reference": 2 * NOISE}
    endless = simulate(asked.truth_bars, horizon, np.random.default_rng([1, horizon]))
    rng = np.random.default_rng([2, horizon])
    truth = {name: observed_metrics(scored(predictions)) for name, predictions in endless.models(noises, rng).items()}
    hits: dict[str, list[bool]] = {name: [] for name in (*METRICS, "delta")}
    for number in range(asked.simulations):
        rng = np.random.default_rng([3, horizon, number])
        models = simulate(asked.bars, horizon, rng).models(noises, rng)
        sample, values = bootstrap_metrics({k: scored(frame) for k, frame in models.items()}, settings(asked), number)
        found = intervals(values["model"], sample)
        for name in METRICS:
            hits[name].append(found[name].low <= truth["model"][name] <= found[name].high)
        delta = deltas(values["model"], values["reference"], sample)["log_loss"]
        hits["delta"].append(delta.low <= truth["model"]["log_loss"] - truth["reference"]["log_loss"] <= delta.high)
    return {name: share(held, LEVEL) for name, held in hits.items()}


def set_coverage(asked: argparse.Namespace, horizon: int) -> Figures:
    """Calibrator and sets fitted on a validation split as the pipeline fits them, then used on a test split."""
    held: dict[Score, list[float]] = {score: [] for score in SCORES}
    for number in range(asked.simulations):
        rng = np.random.default_rng([4, horizon, number])
        val, test = (simulate(asked.bars, horizon, rng).predictions(NOISE, rng) for _ in range(2))
        for score in SCORES:
            held[score].append(float(holds_truth(val, test, score, 3 * horizon).mean()))
    return {score: share(held[score], 1 - ALPHA) for score in SCORES}


def holds_truth(val: pd.DataFrame, test: pd.DataFrame, score: Score, purge: int) -> np.ndarray[Any, Any]:
    """Which test windows' sets hold their label."""
    subsets, p, y = cut_validation(val, 0.4, purge), val[[*PROBABILITY_COLUMNS]].to_numpy(), val["label"].to_numpy()
    fitted = subsets == CALIBRATION
    periods = [Period(p[rows], y[rows]) for rows in cut_calibration(val, subsets, OWN_PERIODS, purge)]
    calibrator = choose_calibrator(["temperature", "vector"], [], periods).calibrator
    sets = ConformalSets.fit(calibrator.apply(p)[fitted], y[fitted], score, ALPHA)
    held = sets.sets(calibrator.apply(test[[*PROBABILITY_COLUMNS]].to_numpy()))
    return held[np.arange(len(test)), test["label"].to_numpy() + 1]


def calibration_cost(asked: argparse.Namespace, horizon: int) -> Figures:
    """What the choice of a calibrator costs or saves on later data."""
    costs: dict[str, list[float]] = {name: [] for name in SHARPNESS}
    for number in range(asked.simulations):
        rng = np.random.default_rng([6, horizon, number])
        val, test = (simulate(asked.bars, horizon, rng).predictions(NOISE, rng) for _ in range(2))
        for name, sharpness in SHARPNESS.items():
            costs[name].append(cost_of_calibrating(val, test, sharpness, 3 * horizon))
    return {
        name: {"mean": rounded(float(np.mean(found))), "above_0.002": rounded(float(np.mean(np.array(found) > 0.002)))}
        for name, found in costs.items()
    }


def cost_of_calibrating(val: pd.DataFrame, test: pd.DataFrame, sharpness: float, purge: int) -> float:
    """Log-loss on test with the calibrator that validation chose, less that without, of logits times `sharpness`."""
    sharpened = Calibrator("temperature", (sharpness,) * 3, (0.0,) * 3)
    p, p_test = (sharpened.apply(frame[[*PROBABILITY_COLUMNS]].to_numpy()) for frame in (val, test))
    y, y_test = val["label"].to_numpy(), test["label"].to_numpy()
    periods = cut_calibration(val, cut_validation(val, 0.4, purge), OWN_PERIODS, purge)
    calibrator = choose_calibrator(["temperature"], [], [Period(p[rows], y[rows]) for rows in periods]).calibrator
    return log_loss(calibrator.apply(p_test), y_test) - log_loss(p_test, y_test)


def discoveries(asked: argparse.Namespace, horizon: int) -> Figures:
    """What is claimed of rivals that are all as good as their reference."""
    told, left_out, superior = [], [], []
    for number in range(asked.simulations):
        everyone, sample, found = compared(asked, horizon, number, 0.0)
        told.append(any(delta.verdict != "noise" for delta in found))
        losses = {name: model.losses for name, model in everyone.items()}
        left_out.append(min(confidence_set(losses, sample, number).values()) < SIZE)
        if number % 5 == 0:
            reference = losses.pop("reference")
            superior.append(superior_ability(losses, reference, sample, number).consistent < 1 - LEVEL)
    return {
        "verdicts": share(told, 1 - LEVEL),
        "confidence_set": share(left_out, SIZE),
        "superior_ability": share(superior, 1 - LEVEL),
    }


def power(asked: argparse.Namespace, horizon: int, gap: float) -> Figures:
    """How often rivals that see the signal better than their reference by `gap` are called better."""
    found = [compared(asked, horizon, number, gap)[2] for number in range(max(asked.simulations // 5, 1))]
    better = [delta.verdict == "better" for rivals in found for delta in rivals]
    apart = [delta.value for rivals in found for delta in rivals]
    return {"log_loss_difference": rounded(float(np.mean(apart))), "called_better": rounded(float(np.mean(better)))}


def compared(
    asked: argparse.Namespace, horizon: int, number: int, gap: float
) -> tuple[dict[str, ModelResult], Any, Any]:
    """Five rivals with noise `NOISE` against a reference with `gap` more: all models, the sample, the differences."""
    rng = np.random.default_rng([5, horizon, number])
    noises = {**dict.fromkeys(RIVALS, NOISE), "reference": NOISE + gap}
    models = simulate(asked.bars, horizon, rng).models(noises, rng)
    everyone = {name: ModelResult(name, scored(frame)) for name, frame in models.items()}
    sample = draw_jointly([model.losses for model in reversed(everyone.values())], settings(asked), number)
    return everyone, sample, simultaneous_deltas(everyone, [(name, "reference") for name in RIVALS], sample).values()


def main(arguments: Sequence[str] | None = None) -> None:
    asked = options(arguments)
    figures: Figures = {"intervals": {}, "sets": {}, "calibration": {}, "false_discoveries": {}, "power": {}}
    for horizon in asked.horizons:
        key = f"h{horizon}"
        say(f"{key}: intervals")
        figures["intervals"][key] = interval_coverage(asked, horizon)
        say(f"{key}: sets")
        figures["sets"][key] = set_coverage(asked, horizon)
        say(f"{key}: calibration")
        figures["calibration"][key] = calibration_cost(asked, horizon)
        say(f"{key}: verdicts")
        figures["false_discoveries"][key] = discoveries(asked, horizon)
        figures["power"][key] = [power(asked, horizon, gap) for gap in GAPS]
    size = {"simulations": asked.simulations, "bars": asked.bars, "symbols": 2, "resamples": asked.resamples}
    finish({**figures, **size, "machine": machine()})


if __name__ == "__main__":
    main()
