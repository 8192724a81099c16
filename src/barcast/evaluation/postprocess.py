"""What follows a model: calibrated probabilities, prediction sets, and strategies that trade only when sure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from barcast.errors import DataError
from barcast.evaluation.backtest import backtest
from barcast.evaluation.calibration import Calibrator
from barcast.evaluation.conformal import ConformalSets
from barcast.probabilities import CLASSES, Labels, PredictionOutput, Probabilities, Sets


@dataclass(frozen=True)
class Postprocess:
    """All that was fitted or chosen on validation after the model itself, so that serving applies what was evaluated:
    `Postprocess.load(path).apply(model.predict(X, metadata))`."""

    calibrator: Calibrator
    conformal: ConformalSets
    threshold: float | None

    def apply(self, output: PredictionOutput) -> PredictionOutput:
        """The model's own output -> calibrated probabilities with their classes, uncertainty and sets."""
        probabilities = self.calibrator.apply(output.probabilities)
        windows = pd.DataFrame({"datetime": output.timestamps, "symbol": output.symbols})
        horizon = int(output.horizons[0]) if len(output) else 0
        sets = self.conformal.sets(probabilities)
        return PredictionOutput.from_probabilities(probabilities, windows, horizon, sets)

    def positions(self, output: PredictionOutput) -> dict[str, Labels]:
        """The positions `[N]` in {−1, 0, 1} of the strategies `sets` and `threshold`, from what `apply` returned;
        DataError if the output has no sets."""
        if output.sets is None:
            raise DataError("positions: the output has no prediction sets; call apply on the model's output first")
        threshold = threshold_positions(output.probabilities, self.threshold)
        return {"sets": singleton_positions(output.sets), "threshold": threshold}

    def to_json(self) -> dict[str, Any]:
        scaling, conformal = asdict(self.calibrator), asdict(self.conformal)
        return {"scaling": scaling, "conformal": conformal, "threshold": self.threshold}

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the `postprocess.json` that `evaluate` wrote; DataError if there is none, or its content is broken."""
        if not path.is_file():
            raise DataError(f"{path}: no such file; run `dvc repro evaluate` first")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            scaling, conformal = content["scaling"], ConformalSets(**content["conformal"])
            calibrator = Calibrator(scaling["method"], tuple(scaling["weights"]), tuple(scaling["bias"]))
            return cls(calibrator, conformal, content["threshold"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: broken content ({error!r}); restore it with `dvc checkout -f`") from None


def singleton_positions(sets: Sets) -> Labels:
    """The class of each set that contains only one, else 0 (no position), `[N]`."""
    return np.where(sets.sum(axis=1) == 1, np.asarray(CLASSES)[sets.argmax(axis=1)], 0)


def threshold_positions(probabilities: Probabilities, threshold: float | None) -> Labels:
    """Long where p_up − p_down ≥ `threshold`, short where p_down − p_up is, else 0, `[N]`; None: always 0."""
    if threshold is None:
        return np.zeros(len(probabilities), np.int64)
    edge = probabilities[:, 2] - probabilities[:, 0]
    return np.where(np.abs(edge) >= threshold, np.sign(edge), 0).astype(np.int64)


def choose_threshold(probabilities: Probabilities, bars: pd.DataFrame, cost_bps: float) -> float | None:
    """The threshold with the best Sharpe ratio net of costs (see `backtest`); None if none has one above 0.

    Candidates are 0 and the quantiles 5%, 10% … 95% of |p_up − p_down|; of equal ones the highest wins, as it has the
    lowest turnover. `probabilities` is `[N, 3]`, `bars` has their N rows of `datetime, symbol, close`.
    """
    edges, best, chosen = np.abs(probabilities[:, 2] - probabilities[:, 0]), 0.0, None
    for threshold in np.unique(np.quantile(edges, np.arange(0.0, 1.0, 0.05), method="lower")):
        trades = bars.assign(prediction=threshold_positions(probabilities, float(threshold)))
        sharpe = backtest(trades, cost_bps).metrics["sharpe"]
        if sharpe is not None and sharpe > 0 and sharpe >= best:
            best, chosen = sharpe, float(threshold)
    return chosen
