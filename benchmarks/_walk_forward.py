"""Settings scored on purged walk-forward folds of a market's bars before its test period.

A fold is train | early stopping | scored, in the order of time, with purge and embargo in between; each fold has a
scaler of its own, fitted on the rows of its training windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from barcast.data.dataset import normalize_weights_per_class
from barcast.data.features import FeatureConfig, feature_names, warmup_bars
from barcast.data.frames import KEYS, nanoseconds, symbol_slices
from barcast.data.label_weights import sample_weights
from barcast.data.preparation import PrepareConfig, build_rows
from barcast.data.scaler import Scaler
from barcast.data.splits import cut_times
from barcast.data.window_ends import window_ends
from barcast.data.windows import FloatArray, IntArray, Windows
from barcast.models.base import ModelConfig
from barcast.models.registry import ModelRegistry
from barcast.params import Params
from barcast.probabilities import EPSILON
from barcast.tuning.fold_scaler import covered_rows
from barcast.tuning.folds import FoldConfig, cut_folds
from benchmarks._measure import Stopwatch, rounded

Array = npt.NDArray[np.float64]

ATR_14 = "atr_14"  # units that params.yaml doesn't have: the 14-bar ATR of the same bar
STOP = 0.15  # share of a fold's training time that early stopping watches


@dataclass(frozen=True)
class Setting:
    """What is compared: a model's config, the weights of its training labels and the units of its features."""

    config: ModelConfig
    weights: str
    units: str

    @classmethod
    def of(cls, params: Params, config: ModelConfig, changes: Mapping[str, Any]) -> Setting:
        """The committed setting with some changes: `weights`, `units`, or keys of the model's config."""
        committed = {"weights": params.label.weights, "units": params.data.features.units}
        own = {key: value for key, value in changes.items() if key not in committed}
        changed = type(config).model_validate(config.model_dump() | own)
        return cls(changed, **{key: changes.get(key, value) for key, value in committed.items()})

    def values(self, keys: Iterable[str]) -> dict[str, Any]:
        return {key: getattr(self if hasattr(self, key) else self.config, key) for key in keys}


@dataclass(frozen=True)
class Score:
    """A setting's log-loss on each scored window, by fold, and the seconds that all folds took to fit and predict."""

    losses: list[Array] = field(default_factory=list)
    clock: Stopwatch = field(default_factory=Stopwatch)

    def figures(self) -> dict[str, Any]:
        whole, folds = np.concatenate(self.losses), [rounded(losses.mean(), 6) for losses in self.losses]
        loss, seconds = rounded(whole.mean(), 6), rounded(self.clock.cpu, 3)
        return {"log_loss": loss, "folds": folds, "windows": len(whole), "seconds": seconds}


class Fold(NamedTuple):
    """Positions among a market's windows."""

    train: IntArray
    stop: IntArray  # what early stopping watches
    scored: IntArray


def before_test(bars: pd.DataFrame, params: Params) -> pd.DataFrame:
    """The bars of train and val: without those from `split`'s test cut on, and without the purge before it."""
    warmup, symbols = warmup_bars(params.data.features), symbol_slices(bars["symbol"]).values()
    times = [nanoseconds(bars["datetime"].iloc[rows]) for rows in symbols]
    _, test = cut_times((of_symbol[warmup:] for of_symbol in times), params.split)
    counts = [max(np.searchsorted(each, test) - params.split.purge_bars, 0) for each in times]
    kept = [bars.iloc[rows.start : rows.start + count] for rows, count in zip(symbols, counts, strict=True)]
    return pd.concat(kept, ignore_index=True)


class Market:
    """The labelled windows of bars before their test period, at one horizon; features stay unscaled."""

    def __init__(self, bars: pd.DataFrame, params: Params, horizon: int) -> None:
        self._bars, self._params, self._horizon = bars, params, horizon
        self.frame, _ = self._rows(params.data.features.units)  # [R, C] keys, bars, features, labels
        self._times, self._symbols = nanoseconds(self.frame["datetime"]), symbol_slices(self.frame["symbol"]).values()
        codes, window = pd.factorize(self.frame["symbol"])[0], params.window
        ends = window_ends(codes, self._times, window.seq_len, window.max_gap_ns)
        self.ends = ends[self.frame[f"label_h{horizon}"].notna().to_numpy()[ends]]  # [N]
        labelled = self.frame.iloc[self.ends]
        self.y = labelled[f"label_h{horizon}"].to_numpy(np.int64)
        self.label_end_offset = labelled[f"bars_to_hit_h{horizon}"].to_numpy(np.int64)

    def folds(self, count: int) -> Iterator[Fold]:
        """`count` folds by `tune.folds`; the end of what each would train on is for early stopping."""
        own, symbols = self._params.tune.folds, list(self._symbols)
        outer = FoldConfig(scheme="expanding", count=count, first_train=own.first_train, embargo_bars=own.embargo_bars)
        inner = outer.model_copy(update={"count": 1, "first_train": 1 - STOP})
        for part in cut_folds(self.ends, self.label_end_offset, self._times, symbols, outer):
            before = part.train
            (cut,) = cut_folds(self.ends[before], self.label_end_offset[before], self._times, symbols, inner)
            yield Fold(before[cut.train], before[cut.val], part.val)

    def times(self, chosen: IntArray) -> IntArray:
        return self._times[self.ends[chosen]]

    def scores(self, settings: Sequence[Setting], folds: Sequence[Fold], seeds: Sequence[int]) -> list[Score]:
        """The scores of each setting; with several seeds the mean of their losses."""
        scores = [Score() for _ in settings]
        for units in dict.fromkeys(setting.units for setting in settings):
            frame, features = self._rows(units)
            if not frame[[*KEYS]].equals(self.frame[[*KEYS]]):
                raise RuntimeError(f"units {units}: other rows than the committed units, which need another warm-up")
            raw = np.ascontiguousarray(frame[features].to_numpy(np.float32))
            for fold in folds:
                seen = covered_rows(self.ends[fold.train], self._params.window.seq_len, len(raw))
                rows = Scaler.fit(frame.loc[seen, features], self._params.data.scaler).scaled(raw)
                for setting, score in zip(settings, scores, strict=True):
                    if setting.units == units:
                        each = [self._losses(fold, rows, features, setting, seed, score.clock) for seed in seeds]
                        score.losses.append(np.mean(each, axis=0))
        return scores

    def _losses(
        self, fold: Fold, rows: FloatArray, features: list[str], setting: Setting, seed: int, clock: Stopwatch
    ) -> Array:
        """The log-loss of each scored window, `[n]`."""
        config = setting.config.model_copy(update={"random_seed": seed})
        model = ModelRegistry.create(config.model_name, config, self._horizon, features)
        train, stop, scored = (Windows(rows, self.ends[part], self._params.window.seq_len) for part in fold)
        weight = self._weight(setting.weights, fold.train)
        with clock:
            model.fit(train, self.y[fold.train], stop, self.y[fold.stop], sample_weight=weight)
            said = model.predict_proba(scored)  # [n, 3]
        true = said[np.arange(len(said)), self.y[fold.scored] + 1]
        losses: Array = -np.log(np.clip(true, EPSILON, 1.0))
        return losses

    def _weight(self, kind: str, train: IntArray) -> FloatArray:
        """As `label.weights` says; uniqueness is among the labels of `train` only."""
        ends, label_end_offset = self.ends[train], np.full(len(self.frame), np.nan)
        quality = self.frame[f"quality_h{self._horizon}"].to_numpy(np.float64)
        weight = quality.copy() if kind in ("quality", "both") else np.ones(len(self.frame))
        if kind in ("uniqueness", "both"):
            label_end_offset[ends] = self.label_end_offset[train]
            for rows in self._symbols:
                weight[rows] = sample_weights(label_end_offset[rows], weight[rows])
        return normalize_weights_per_class(weight[ends], self.y[train])

    def _rows(self, units: str) -> tuple[pd.DataFrame, list[str]]:
        """All rows `[R, C]` with features in the given units, and the names of these."""
        params = self._params
        sections = {name: getattr(params, name) for name in ("symbols", "label", "split")}
        own = self._features("price" if units == ATR_14 else units)
        data = params.data.model_copy(update={"features": own})
        frame = build_rows(self._bars, PrepareConfig(data=data, horizons=[self._horizon], **sections))
        names = feature_names(own)
        if units == ATR_14:
            pairs = zip(names, feature_names(self._features("atr")), strict=True)
            in_price = [name for name, in_atr in pairs if name != in_atr]
            unit = frame[["atr_share_14"]].to_numpy()
            frame[in_price] = np.where(unit > 0, frame[in_price].to_numpy() / np.where(unit > 0, unit, 1), 0)
        return frame, names

    def _features(self, units: str) -> FeatureConfig:
        return self._params.data.features.model_copy(update={"units": units})
