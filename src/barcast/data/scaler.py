"""The scaler of the features, fitted on train rows only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from barcast.data.frames import FloatArray
from barcast.errors import DataError
from barcast.section import Section

_BLOCK = 16_384  # rows scaled at a time, so that float64 copies stay small


class ScalerConfig(Section):
    """`data.scaler:` of params.yaml; `clip` is in units of the scale."""

    kind: Literal["robust", "standard"]
    clip: Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Scaler:
    """`clip((x - center) / scale)` for every feature; robust is median and IQR, standard mean and deviation.

    Values are rounded to float32, scaled in float64 and rounded to float32 again, so float32 and float64 features
    give the same result. A column with an IQR of 0 whose values differ is scaled by its deviation, a constant
    column by 1.
    """

    kind: str
    clip: float
    columns: tuple[str, ...]
    center: tuple[float, ...]  # [F]
    scale: tuple[float, ...]  # [F]

    @classmethod
    def fit(cls, frame: pd.DataFrame, config: ScalerConfig) -> Scaler:
        """Fit on the rows of `frame` `[R, F]`: pass only the features of the train split."""
        fitted = [center_and_scale(_exact(frame, name), config.kind) for name in frame.columns]
        center, scale = zip(*fitted, strict=True)
        return cls(config.kind, config.clip, tuple(frame.columns), center, scale)

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The scaled features, float32 `[R, F]` in the order of `columns`, with the frame's index.

        Raises:
            DataError: a column of the scaler is missing.
        """
        missing = [name for name in self.columns if name not in frame.columns]
        if missing:
            raise DataError(f"scaler: column '{missing[0]}' is missing from the table; run `dvc repro prepare`")
        scaled = np.empty((len(self.columns), len(frame)), np.float32)  # [F, R], as pandas holds it
        for start in range(0, len(frame), _BLOCK):
            block = frame.iloc[start : start + _BLOCK][list(self.columns)].to_numpy(np.float32)
            scaled[:, start : start + _BLOCK] = self.scaled(block).T
        return pd.DataFrame(scaled.T, index=frame.index, columns=list(self.columns), copy=False)

    def scaled(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """`[R, F]` features in the order of `columns`, scaled."""
        center, scale = np.array(self.center), np.array(self.scale)
        scaled = np.empty(rows.shape, np.float32)
        for start in range(0, len(rows), _BLOCK):
            away = (rows[start : start + _BLOCK].astype(np.float64) - center) / scale
            scaled[start : start + _BLOCK] = np.clip(away, -self.clip, self.clip)
        return scaled

    def clipped_values(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The values that `transform` clips: `row` (position), `column` and the scaled, unclipped `value`, float32.

        Together with the scaled table they allow to refit a scaler on part of the rows.
        """
        parts = []
        for name, center, scale in zip(self.columns, self.center, self.scale, strict=True):
            values = (_exact(frame, name) - center) / scale
            rows = np.flatnonzero(np.abs(values) > self.clip).astype(np.int32)
            parts.append(pd.DataFrame({"row": rows, "column": name, "value": values[rows].astype(np.float32)}))
        return pd.concat(parts, ignore_index=True)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, which reads floats back bit for bit."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Scaler:
        return cls(content["kind"], content["clip"], *(tuple(content[name]) for name in ("columns", "center", "scale")))


def _exact(frame: pd.DataFrame, name: str) -> FloatArray:
    return frame[name].to_numpy(np.float32).astype(np.float64)


def center_and_scale(values: FloatArray, kind: str) -> tuple[float, float]:
    """What `Scaler` subtracts from a feature `[R]` and divides it by; `kind` as in `ScalerConfig`."""
    low, center, high = (float(q) for q in np.percentile(values, [25, 50, 75]))
    scale = high - low
    if kind == "standard":
        center, scale = float(values.mean()), 0.0
    if scale == 0.0 and values.min() < values.max():
        scale = float(values.std())
    return center, scale or 1.0
