"""Labelled windows as files: one horizon's view of them, opened split by split."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from barcast.data.windows import FloatArray, Windows
from barcast.errors import DataError
from barcast.section import Section


@dataclass(frozen=True)
class Split:
    """The labelled windows of one split at one horizon."""

    name: str
    X: Windows  # [N, L, F]
    y: npt.NDArray[np.int64]  # [N] in {-1, 0, 1}
    weight: FloatArray  # [N], mean 1 within each class
    label_end_offset: npt.NDArray[np.int32]  # [N] bars after the window's last one until its outcome is known
    index_file: Path

    @cached_property
    def meta(self) -> pd.DataFrame:
        """`[N]`: datetime, symbol, close and the base row of each window's last bar; read when asked for."""
        index = pd.read_parquet(self.index_file)
        return index.iloc[self.X.ends].reset_index(drop=True).assign(row=self.X.ends)


class DatasetConfig(Section):
    """Where the windows are, and which horizon's labels go with them."""

    path: str
    horizon: Annotated[int, Field(ge=1)]


class TimeSeriesDataset:
    """One horizon's view of the window files; opens a split only when asked for it.

    Args:
        config: where the files are, and the horizon.
        splits: the splits that may be opened.

    Raises:
        DataError: the files are missing, hold no labels for the horizon, or are of a split that may not be opened.
    """

    def __init__(self, config: DatasetConfig, splits: Sequence[str] = ("train", "val", "test")) -> None:
        self.config = config
        self.path = Path(config.path)
        self.splits = tuple(splits)
        self._opened: dict[str, Split] = {}

    def only(self, *splits: str) -> TimeSeriesDataset:
        """The same files with no way to any split but these."""
        return TimeSeriesDataset(self.config, [name for name in self.splits if name in splits])

    def split(self, name: str) -> Split:
        """The split's labelled windows, memory-mapped."""
        if name not in self.splits:
            raise DataError(f"split '{name}': not accessible; allowed: {', '.join(self.splits)}")
        if name not in self._opened:
            self._opened[name] = self._open(name)
        return self._opened[name]

    def get_split(self, name: str) -> tuple[Windows, npt.NDArray[np.int64], pd.DataFrame]:
        """`(X, y, meta)` of a split: lazy `[N, L, F]`, `[N]`, and a frame of N rows."""
        split = self.split(name)
        return split.X, split.y, split.meta

    def feature_columns(self, split: str = "train") -> list[str]:
        """The names of the F features, in the order of X's last axis."""
        return list(self._read(split, "columns.json")["features"])

    def clipped(self) -> npt.NDArray[np.void]:
        """What the scaler's clip cut off in train, as `CLIPPED` records; none of splits that were scaled elsewhere."""
        records: npt.NDArray[np.void] = np.load(self._file("train/clipped.npy"))
        return records

    def _read(self, split: str, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self._file(f"{split}/{name}").read_text(encoding="utf-8"))
        return content

    def _file(self, name: str) -> Path:
        path = self.path / name
        if not path.is_file():
            raise DataError(f"{path}: no such window file; run `dvc repro window` first")
        return path

    def _open(self, name: str) -> Split:
        horizon = self.config.horizon
        layout = self._read(name, "columns.json")
        rows = np.load(self._file(f"{name}/rows.npy"), mmap_mode="r")
        ends = np.load(self._file(f"{name}/ends.npy"))
        file = self._file(f"labels/{name}_h{horizon}.npy")
        labels = np.load(file)[ends]
        ends, labels = ends[labels["known"]], labels[labels["known"]]
        if len(ends) == 0:
            raise DataError(f"{file}: no window of {name} has a known label")
        y = labels["label"].astype(np.int64)
        return Split(
            name=name,
            X=Windows(rows, ends, int(layout["seq_len"])),
            y=y,
            weight=normalize_weights_per_class(labels["sample_weight"].astype(np.float64), y),
            label_end_offset=np.ascontiguousarray(labels["label_end_offset"]),
            index_file=self._file(f"{name}/index.parquet"),
        )


def normalize_weights_per_class(weight: npt.NDArray[np.float64], y: npt.NDArray[np.int64]) -> FloatArray:
    """Scale weights `[N]` to mean 1 within each class of `y [N]`.

    Labels that end at the time barrier overlap more, and so weigh less. Without this, training would see other class
    frequencies than those of the log-loss, and every probability would be biased. A class of weights 0 keeps them.
    """
    scaled = np.array(weight, np.float64)
    for label in np.unique(y):
        mean = weight[y == label].mean()
        if mean > 0:
            scaled[y == label] /= mean
    return scaled.astype(np.float32)
