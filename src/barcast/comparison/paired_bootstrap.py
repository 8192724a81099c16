"""The same cell before and after a change: which metrics moved by more than noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

import pandas as pd
from pydantic import Field

from barcast.comparison.intervals import Delta, deltas
from barcast.comparison.resampled_metrics import ScoredPredictions, bootstrap_metrics
from barcast.comparison.resampling import BootstrapConfig
from barcast.errors import DataError


class PairedSettings(BootstrapConfig):
    """How two sets of predictions are compared."""

    cost_bps: Annotated[float, Field(ge=0)]
    calibration_bins: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0, lt=2**31)]

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Self:
        """From the content of `experiments/specs/compare.yaml`."""
        return cls(**{name: spec["config"][name] for name in cls.model_fields})


def paired_deltas(before: pd.DataFrame, after: pd.DataFrame, settings: PairedSettings) -> dict[str, Delta]:
    """The difference *after − before* of every metric, with its paired confidence interval and the verdict, from two
    `test_predictions.parquet` of the same windows; DataError if windows or labels differ, or there are too few times to
    resample."""
    windows = ["datetime", "symbol", "label"]
    if not before[windows].reset_index(drop=True).equals(after[windows].reset_index(drop=True)):
        raise DataError(
            f"{len(before)} windows before and {len(after)} after are not the same windows with the same labels; "
            "a paired difference needs the same data and labels on both sides"
        )
    scored = {
        name: ScoredPredictions.from_frame(frame, settings.cost_bps, settings.calibration_bins)
        for name, frame in (("before", before), ("after", after))
    }
    sample, values = bootstrap_metrics(scored, settings, settings.seed)
    return deltas(values["after"], values["before"], sample)
