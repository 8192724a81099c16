"""From what a model says to what is published: calibrated probabilities, prediction sets, and when to act."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pandas as pd

from barcast.errors import DataError
from barcast.evaluation.abstention import act_beyond, act_on_singletons
from barcast.evaluation.conformal import ConformalSets
from barcast.evaluation.scaling import Scaling
from barcast.files import read_json, write_json
from barcast.models.base import Labels, PredictionOutput


@dataclass(frozen=True)
class Postprocess:
    """All that was fitted or chosen on validation after the model itself; one small JSON file.

    Serving applies exactly what evaluation measured: `Postprocess.load(path).apply(model.predict(X, metadata))`.
    """

    scaling: Scaling
    conformal: ConformalSets
    threshold: float | None

    def apply(self, output: PredictionOutput) -> PredictionOutput:
        """The model's own output -> calibrated probabilities with their classes, uncertainty and sets."""
        probabilities = self.scaling.apply(output.probabilities)
        windows = pd.DataFrame({"datetime": output.timestamps, "symbol": output.symbols})
        horizon = int(output.horizons[0]) if len(output) else 0
        sets = self.conformal.sets(probabilities)
        return PredictionOutput.from_probabilities(probabilities, windows, horizon, sets)

    def positions(self, output: PredictionOutput) -> dict[str, Labels]:
        """The positions `[N]` in {−1, 0, 1} of the abstaining rules, from what `apply` returned.

        `sets` acts on sets of one class alone, `threshold` where |p_up − p_down| is large enough.

        Raises:
            DataError: the output has no sets, so it did not come from `apply`.
        """
        if output.sets is None:
            raise DataError(
                "positions: expected an output with prediction sets; call apply on the model's output first"
            )
        return {
            "sets": act_on_singletons(output.sets),
            "threshold": act_beyond(output.probabilities, self.threshold),
        }

    def save(self, path: Path) -> None:
        """Write JSON that `load` reads back to an equal object."""
        content = {
            "scaling": self.scaling.to_json(),
            "conformal": self.conformal.to_json(),
            "threshold": self.threshold,
        }
        write_json(path, content)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `evaluate` wrote beside a cell's metrics.

        Raises:
            DataError: there is no such file.
        """
        if not path.is_file():
            raise DataError(f"{path}: no such file; run `dvc repro evaluate` first")
        content = read_json(path)
        return cls(
            Scaling.from_json(content["scaling"]),
            ConformalSets.from_json(content["conformal"]),
            content["threshold"],
        )
