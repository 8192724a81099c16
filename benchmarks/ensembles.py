"""Ways to weigh an ensemble, compared on periods that its weights were not fitted on.

    python -m benchmarks.ensembles [--root .]

Reads what the pipeline made: the cells' out-of-fold predictions inside train and their predictions of validation. Each
fold and the calibration slice is scored with weights fitted on the others; the ranked part of validation with weights
fitted on all of them. The last line is a JSON object: by horizon and way the log-loss of each period and the mean over
windows, beside the best single model's. The test split is not read.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize

from barcast.evaluation.ensemble import fit_weights, weighted_average
from barcast.evaluation.evaluator import UNCALIBRATED_COLUMNS
from barcast.evaluation.validation_split import CALIBRATION, SELECTION
from barcast.params import load_params
from barcast.paths import Paths, cell_name
from barcast.probabilities import EPSILON, PROBABILITY_COLUMNS, log_loss
from benchmarks._measure import ROOT, finish, machine, say

Array = npt.NDArray[np.float64]
Fit = Callable[[Array, npt.NDArray[np.int64]], Array]

GREEDY_STEPS = 40


@dataclass(frozen=True)
class Block:
    """Predictions `[J, N, 3]` of J members for N windows of one period, and the labels."""

    name: str
    members: Array
    y: npt.NDArray[np.int64]


def equal(members: Array, y: npt.NDArray[np.int64]) -> Array:
    return np.full(len(members), 1 / len(members))


def greedy(members: Array, y: npt.NDArray[np.int64]) -> Array:
    """Forward selection with replacement (Caruana et al. 2004, *Ensemble selection from libraries of models*)."""
    counts, total = np.zeros(len(members)), np.zeros_like(members[0])
    for step in range(GREEDY_STEPS):
        losses = [log_loss((total + member) / (step + 1), y) for member in members]
        counts[np.argmin(losses)] += 1
        total = total + members[np.argmin(losses)]
    return counts / GREEDY_STEPS


def logarithmic(members: Array, y: npt.NDArray[np.int64]) -> Array:
    """Weights ≥ 0 of the logarithmic pool `p ∝ exp(Σ w_j log p_j)` (Genest and Zidek 1986), with a weak ridge."""
    logs, start = np.log(np.clip(members, EPSILON, 1)), equal(members, y)

    def loss(weights: Array) -> tuple[float, Array]:
        p, away = _softmax(np.tensordot(weights, logs, 1)), weights - start
        value = log_loss(p, y) + away @ away / (2 * len(y))
        p[np.arange(len(y)), y + 1] -= 1
        return value, np.tensordot(logs, p, ([1, 2], [0, 1])) / len(y) + away / len(y)

    bounds = [(0, None)] * len(members)
    found: Array = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return found


def logarithmic_pool(members: Array, weights: Array) -> Array:
    return _softmax(np.tensordot(weights, np.log(np.clip(members, EPSILON, 1)), 1))


def _softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def shrunk(amount: float) -> Fit:
    return lambda members, y: fit_weights(members, y, amount)


WAYS: dict[str, tuple[Fit, Callable[[Array, Array], Array]]] = {
    "equal weights": (equal, weighted_average),
    "convex": (shrunk(0.0), weighted_average),
    "convex, shrunk 0.25": (shrunk(0.25), weighted_average),
    "convex, shrunk 0.5": (shrunk(0.5), weighted_average),
    "greedy": (greedy, weighted_average),
    "logarithmic": (logarithmic, logarithmic_pool),
}


def read_blocks(members: Sequence[str], horizon: int, paths: Paths) -> list[Block]:
    """One block per fold, then the calibration slice and the ranked part of validation."""
    cells = [cell_name(name, horizon) for name in members]
    folds = [pd.read_parquet(paths.oof_predictions(cell)) for cell in cells]
    val = [pd.read_parquet(paths.predictions(cell, "val")) for cell in cells]
    parts = [
        (f"fold {n}", folds, PROBABILITY_COLUMNS, folds[0]["fold"] == n) for n in sorted(folds[0]["fold"].unique())
    ]
    parts += [(part, val, UNCALIBRATED_COLUMNS, val[0]["part"] == part) for part in (CALIBRATION, SELECTION)]
    return [
        Block(
            name,
            np.stack([frame.loc[chosen, [*columns]].to_numpy(np.float64) for frame in frames]),
            frames[0].loc[chosen, "label"].to_numpy(np.int64),
        )
        for name, frames, columns, chosen in parts
    ]


def score_way(blocks: Sequence[Block], fit: Fit, mix: Callable[[Array, Array], Array]) -> dict[str, float]:
    """Log-loss by block, each with weights that were fitted without it; the last block fits none of the others."""
    losses = {}
    for block in blocks:
        others = [other for other in blocks[:-1] if other is not block]
        weights = fit(np.concatenate([b.members for b in others], axis=1), np.concatenate([b.y for b in others]))
        losses[block.name] = log_loss(mix(block.members, weights), block.y)
    return {**losses, "mean": float(np.average(list(losses.values()), weights=[len(block.y) for block in blocks]))}


def best_single(blocks: Sequence[Block], members: Sequence[str]) -> dict[str, Any]:
    sizes = [len(block.y) for block in blocks]
    means = [
        float(np.average([log_loss(block.members[j], block.y) for block in blocks], weights=sizes))
        for j in range(len(members))
    ]
    return {"model": members[int(np.argmin(means))], "mean": min(means)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ensembles", description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="a repository whose pipeline has run")
    paths = Paths(parser.parse_args(arguments).root)
    params = load_params(paths.params)
    members, figures = params.ensemble_members(), {}
    for horizon in params.horizons:
        blocks = read_blocks(members, horizon, paths)
        found = {name: score_way(blocks, *way) for name, way in WAYS.items()}
        figures[f"h{horizon}"] = {"ways": found, "best_single": best_single(blocks, members)}
        for name, losses in found.items():
            say(f"{horizon:2} bars  {name:20}  {losses['mean']:.5f}")
    finish({"machine": machine(), **figures})


if __name__ == "__main__":
    main()
