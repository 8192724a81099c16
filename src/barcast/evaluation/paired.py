"""The same cell before and after a change: what moved, and by more than noise?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

import pandas as pd
from pydantic import Field

from barcast.errors import DataError
from barcast.evaluation.bootstrap import BootstrapConfig, deltas, measure_all
from barcast.evaluation.resampled import Measured
from barcast.evaluation.verdicts import Delta


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
    """The difference *after − before* of every metric, with its paired confidence interval and the verdict.

    Args:
        before: the content of a `test_predictions.parquet`.
        after: the same, of the same windows.
        settings: level, number of resamples, seed, trading costs, bins of the calibration error.

    Raises:
        DataError: the two are about different windows, or about other labels of them, or there are too few times to
            resample.
    """
    windows = ["datetime", "symbol", "label"]
    if not before[windows].reset_index(drop=True).equals(after[windows].reset_index(drop=True)):
        raise DataError(
            f"{len(before)} windows before and {len(after)} after are not the same windows with the same labels; "
            "a paired difference needs the same data and labels on both sides"
        )
    both = {
        name: Measured.of(frame, settings.cost_bps, settings.calibration_bins)
        for name, frame in (("before", before), ("after", after))
    }
    sample, measured = measure_all(both, settings, settings.seed)
    return deltas(measured["after"], measured["before"], sample)
