"""Splits by time with purge and embargo, and the scaler that sees train rows alone.

Purge and embargo follow López de Prado, Advances in Financial Machine Learning, ch. 7: the purge drops
the rows before a cut whose labels could reach over it, the embargo drops rows after the cut on top of that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field, model_validator

from barcast.config import Section
from barcast.data.bars import KEYS, OHLCV
from barcast.data.labels import is_label_column, sample_weights
from barcast.data.tables import isoformat, nanoseconds, symbol_slices
from barcast.errors import DataError, LeakageError
from barcast.paths import SPLITS

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Fraction = Annotated[float, Field(gt=0, lt=1)]
_BLOCK = 16_384  # rows scaled at a time, for float64 copies to stay small


class SplitConfig(Section):
    """`split:` of params.yaml."""

    train: Fraction
    val: Fraction
    test: Fraction
    purge_bars: Annotated[int, Field(ge=0)]
    embargo_bars: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _whole(self) -> SplitConfig:
        total = self.train + self.val + self.test
        if not math.isclose(total, 1.0, abs_tol=1e-9):
            raise ValueError(f"train + val + test to be 1, they sum to {total:g}")
        return self


class ScalerConfig(Section):
    """`data.scaler:` of params.yaml; `clip` is in units of the scale."""

    kind: Literal["robust", "standard"]
    clip: Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Scaler:
    """`clip((x - center) / scale)` for every feature; robust is median and IQR, standard mean and deviation.

    Values are rounded to float32 first, then scaled in float64 and rounded to float32: so it makes no
    difference whether the features were held in float32 or float64. A column whose IQR is zero though
    its values differ is scaled by its deviation, a constant column by 1.
    """

    kind: str
    clip: float
    columns: tuple[str, ...]
    center: tuple[float, ...]  # [F]
    scale: tuple[float, ...]  # [F]

    @classmethod
    def fit(cls, frame: pd.DataFrame, config: ScalerConfig) -> Scaler:
        """Fit on the rows of `frame` `[R, F]`: give it the train split's features and nothing else."""
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
            raise DataError(
                f"scaler: expected column '{missing[0]}', the table has not got it; run `dvc repro prepare`"
            )
        scaled = np.empty((len(self.columns), len(frame)), np.float32)  # a row a column, as pandas holds it
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

    def cut_off(self, frame: pd.DataFrame) -> pd.DataFrame:
        """What `transform` cuts off: `row` (position), `column` and the scaled `value` before the cut, float32.

        With it the scaled table says all that the unscaled one said, so a scaler can be refitted on part of it.
        """
        parts = []
        for name, values in zip(self.columns, self._unclipped(frame), strict=True):
            rows = np.flatnonzero(np.abs(values) > self.clip)
            parts.append(
                pd.DataFrame({"row": rows.astype(np.int32), "column": name, "value": values[rows].astype(np.float32)})
            )
        return pd.concat(parts, ignore_index=True)

    def _unclipped(self, frame: pd.DataFrame) -> Iterator[FloatArray]:
        for name, center, scale in zip(self.columns, self.center, self.scale, strict=True):
            yield (_exact(frame, name) - center) / scale

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; Python writes floats so that they read back bit for bit."""
        lists = {name: list(getattr(self, name)) for name in ("columns", "center", "scale")}
        return {"kind": self.kind, "clip": self.clip, **lists}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Scaler:
        lists = (tuple(content[name]) for name in ("columns", "center", "scale"))
        return cls(content["kind"], content["clip"], *lists)


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


def feature_columns(columns: Iterable[str]) -> list[str]:
    """The columns a model may see: all but keys, raw prices and volume, and what looks ahead (`_h<number>`)."""
    never = {*KEYS, *OHLCV}
    return [name for name in columns if name.lower() not in never and not is_label_column(name.lower())]


def check_purge(config: SplitConfig, reach: int) -> None:
    """Refuse a purge that is shorter than the longest label's reach, in bars.

    Raises:
        LeakageError: it is, so labels of one split would be decided by bars of the next.
    """
    if config.purge_bars < reach:
        raise LeakageError(
            f"split.purge_bars = {config.purge_bars}: expected at least {reach}, the longest label reach "
            f"(max_bars under label); raise split.purge_bars to {reach} or shorten the labels"
        )


def cut_times(times: Iterable[IntArray], config: SplitConfig) -> tuple[int, int]:
    """The first time of val and of test, the same for every symbol: quantiles of the union of all times."""
    union = np.unique(np.concatenate(list(times)))
    if len(union) < len(SPLITS):
        raise DataError(f"bars: {len(union)} different times are left after the warm-up, too few for three splits")
    at = [round(len(union) * part) for part in (config.train, config.train + config.val)]
    val, test = (int(union[min(position, len(union) - 1)]) for position in at)
    return val, test


def split_rows(times: IntArray, cuts: tuple[int, int], config: SplitConfig) -> dict[str, slice]:
    """The rows of one symbol that each split keeps.

    Args:
        times: `[R]` ascending nanoseconds of the symbol's rows.
        cuts: see `cut_times`.
        config: purge and embargo are counted in rows of the symbol.
    """
    val, test = (int(row) for row in np.searchsorted(times, cuts))
    purge, embargo = config.purge_bars, config.embargo_bars
    starts = {"train": 0, "val": min(val + embargo, test), "test": min(test + embargo, len(times))}
    stops = {"train": max(val - purge, 0), "val": test - purge, "test": len(times)}
    return {name: slice(starts[name], max(starts[name], stops[name])) for name in SPLITS}


def split_frame(
    frame: pd.DataFrame, config: SplitConfig, horizons: Sequence[int], reach: int, min_rows: int
) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Cut the table of all symbols into train, val and test, and add the sample weights.

    Args:
        frame: keys, bars, features and labels `[R, C]`, sorted by symbol and time, warm-up rows dropped.
        config: fractions, purge, embargo.
        horizons: the labels' horizons in the table.
        reach: bars that the longest label looks ahead.
        min_rows: the fewest rows that a symbol must keep in a split.

    Returns:
        The splits, and the report with every boundary, for JSON.

    Raises:
        LeakageError: the purge is shorter than the reach, or a label ends at or after the next cut.
        DataError: a symbol keeps fewer than `min_rows` rows in a split, or a horizon has no label in train.
    """
    check_purge(config, reach)
    symbols = symbol_slices(frame["symbol"])
    times = {symbol: nanoseconds(frame["datetime"].iloc[rows]) for symbol, rows in symbols.items()}
    cuts = cut_times(times.values(), config)
    parts: dict[str, dict[str, pd.DataFrame]] = {name: {} for name in SPLITS}
    report: dict[str, Any] = {name: {} for name in SPLITS}
    for symbol, whole in symbols.items():
        kept = split_rows(times[symbol], cuts, config)
        limits = [int(row) for row in np.searchsorted(times[symbol], cuts)]
        for name in SPLITS:
            part = frame.iloc[whole.start + kept[name].start : whole.start + kept[name].stop]
            _check_size(part, symbol, name, max(min_rows, 1), config, times[symbol], cuts)
            if name != "test":
                rows = np.arange(kept[name].start, kept[name].stop)
                check_reach(part, rows, limits[SPLITS.index(name)], horizons)
            parts[name][symbol] = part
            report[name][symbol] = {**describe(part, horizons), **_dropped(kept[name], name, limits)}
    splits = {name: pd.concat(parts.pop(name).values(), ignore_index=True) for name in SPLITS}
    add_weights(splits, horizons)
    boundaries = {"val": isoformat(cuts[0]), "test": isoformat(cuts[1])}
    return splits, {"cuts": boundaries, "config": config.model_dump(), "splits": report}


def _check_size(
    part: pd.DataFrame, symbol: str, name: str, needed: int, config: SplitConfig, times: IntArray, cuts: tuple[int, int]
) -> None:
    """Purge and embargo are to blame only where enough of the symbol's rows lie between the split's cuts."""
    if len(part) >= needed:
        return
    problem = f"{symbol}: {len(part)} rows are left in {name}, at least {needed} are needed"
    edges, place = [0, *np.searchsorted(times, cuts).tolist(), len(times)], SPLITS.index(name)
    if edges[place + 1] - edges[place] >= needed:
        remedy = f"lower split.embargo_bars ({config.embargo_bars}) or split.purge_bars ({config.purge_bars})"
        raise DataError(f"{problem}; {remedy}, or give more bars")
    span = f"after the warm-up it lasts from {isoformat(times[0])} to {isoformat(times[-1])}"
    borders = f"for every symbol val starts {isoformat(cuts[0])} and test {isoformat(cuts[1])}"
    raise DataError(f"{problem}; {span}, {borders}; give more of its bars or take it out of symbols in params.yaml")


def check_reach(part: pd.DataFrame, rows: IntArray, limit: int, horizons: Sequence[int]) -> int:
    """Check that labels are decided before bar `limit`, the first of the next split.

    Args:
        part: one symbol's rows of one split `[R, C]`.
        rows: `[R]` where these rows stand among the symbol's bars.
        limit: number of a bar among the same bars.
        horizons: the labels to check.

    Returns:
        The fewest bars that lie between the end of a label and `limit`.

    Raises:
        LeakageError: naming the column and the first row whose label ends at `limit` or later.
    """
    spare = limit - 1
    for horizon in horizons:
        column = f"bars_to_hit_h{horizon}"
        ends = rows + part[column].to_numpy(np.float64, na_value=-np.inf)
        crossing = np.flatnonzero(ends >= limit)
        if len(crossing):
            row = part.iloc[crossing[0]]
            raise LeakageError(
                f"{row['symbol']} {row['datetime'].isoformat()}: {column} = {row[column]} reaches into the next split; "
                "raise split.purge_bars"
            )
        spare = min(spare, limit - 1 - int(max(ends.max(initial=-np.inf), 0)))
    return spare


def _dropped(kept: slice, name: str, limits: Sequence[int]) -> dict[str, int]:
    """How many rows between a split's cuts the purge and the embargo took."""
    purged = {"train": limits[0] - kept.stop, "val": limits[1] - kept.stop, "test": 0}
    embargoed = {"train": 0, "val": kept.start - limits[0], "test": kept.start - limits[1]}
    return {"purged": purged[name], "embargoed": embargoed[name]}


def describe(part: pd.DataFrame, horizons: Sequence[int]) -> dict[str, Any]:
    """What one symbol holds in one split: first and last time, rows, labelled rows and class shares."""
    content: dict[str, Any] = {
        "first": part["datetime"].iloc[0].isoformat(),
        "last": part["datetime"].iloc[-1].isoformat(),
        "rows": len(part),
        "labels": {},
    }
    for horizon in horizons:
        labels = part[f"label_h{horizon}"].dropna().to_numpy(np.int64)
        shares = {str(c): float((labels == c).mean()) if len(labels) else 0.0 for c in (-1, 0, 1)}
        content["labels"][f"h{horizon}"] = {"labelled": len(labels), "shares": shares}
    return content


def add_weights(splits: dict[str, pd.DataFrame], horizons: Sequence[int]) -> None:
    """Add `sample_weight_h{h}` (float32): computed inside each split and symbol, mean 1 over train's labelled rows.

    Raises:
        DataError: train has no labelled row of a horizon.
    """
    for horizon in horizons:
        divisor = math.nan
        for name in SPLITS:
            raw = _raw_weights(splits[name], horizon)
            if name == "train":
                divisor = float(np.mean(raw[~np.isnan(raw)])) if not np.isnan(raw).all() else 0.0
            if divisor == 0.0:
                raise DataError(f"train: no row has a label_h{horizon} of weight above 0; give more bars or shorten it")
            splits[name][f"sample_weight_h{horizon}"] = (raw / divisor).astype(np.float32)


def _raw_weights(split: pd.DataFrame, horizon: int) -> FloatArray:
    weights = np.empty(len(split))
    for rows in symbol_slices(split["symbol"]).values():
        part = split.iloc[rows]
        hits, quality = part[f"bars_to_hit_h{horizon}"], part[f"quality_h{horizon}"]
        weights[rows] = sample_weights(
            hits.to_numpy(np.float64, na_value=np.nan), quality.to_numpy(np.float64, na_value=np.nan)
        )
    return weights
