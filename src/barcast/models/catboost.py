"""CatBoost (Prokhorenkova et al. 2018), symmetric trees on columns cut out of the base rows."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from barcast.data.windows import FloatArray, IntArray, Windows
from barcast.models._gbdt import BoosterConfig, BoosterModel, EarlyStopping, Labelled, NonNegative
from barcast.models._lags import FlatTable
from barcast.models.base import read_json, write_json

_VOLATILE = ("train_finish_time", "model_guid")  # metadata that differs from one fit to the next
_DENSEST = 4  # a float takes the room of so many bin numbers


class CatBoostConfig(BoosterConfig):
    """`model.catboost` of params.yaml."""

    random_strength: NonNegative


class CatBoostModel(BoosterModel):
    """CatBoost, symmetric trees.

    Softmax boosting with plain (not ordered) boosting; held as bin numbers while it learns.
    """

    name, family = "catboost", "gbdt"
    config_class = CatBoostConfig
    _booster: Any
    _lean: LeanTrees

    def _boost(self, train: Labelled, val: Labelled, bins: FloatArray, stopping: EarlyStopping) -> None:
        import catboost

        report = _Report(stopping)
        with tempfile.TemporaryDirectory() as folder:
            borders = Path(folder) / "borders.tsv"
            self._write_borders(bins, borders)
            pools = [self._pool(data, borders) for data in (train, val)]
        booster = catboost.CatBoost(self._parameters())
        booster.fit(pools[0], eval_set=pools[1], use_best_model=False, callbacks=[report])
        if report.error:
            raise report.error
        booster = _first(booster, stopping.kept)
        metadata = booster.get_metadata()
        for key in _VOLATILE:
            del metadata[key]
        for key in list(metadata.keys()):
            metadata[key] = re.sub(r'"thread_count":\d+', '"thread_count":1', metadata[key])
        self._take(booster)

    def _take(self, booster: Any) -> None:
        self._booster, self._lean = booster, LeanTrees.of(booster)

    def _parameters(self) -> dict[str, Any]:
        config = self.config
        return {
            "loss_function": "MultiClass",
            "classes_count": len(self._classes.present),
            "boosting_type": "Plain",
            "bootstrap_type": "Bernoulli",
            "allow_writing_files": False,
            "logging_level": "Silent",
            "random_seed": config.random_seed,
            "thread_count": config.threads,
            "learning_rate": config.learning_rate,
            "iterations": config.max_rounds,
            "depth": config.max_depth,
            "border_count": config.max_bins - 1,
            "rsm": config.colsample,
            "subsample": config.subsample,
            "l2_leaf_reg": config.reg_lambda,
            "random_strength": config.random_strength,
        }

    def _write_borders(self, bins: FloatArray, target: Path) -> None:
        import catboost

        pool = catboost.Pool(bins, thread_count=self.config.threads)
        pool.quantize(border_count=self.config.max_bins - 1)
        pool.save_quantization_borders(str(target))

    def _pool(self, data: Labelled, borders: Path) -> Any:
        """The windows as bin numbers. CatBoost takes no stream, but it does take columns that lie in memory
        already; so the flattened windows are cut out of the base rows where their ends allow it."""
        import catboost

        grid = WindowGrid.of(data.table.windows) if isinstance(data.table, FlatTable) else None
        table = data.table[:] if grid is None else grid.columns()
        rows = np.arange(len(data.y)) if grid is None else grid.rows
        y, weight = np.zeros(len(table), np.int64), np.zeros(len(table), np.float32)
        y[rows], weight[rows] = data.y, data.weight
        pool = catboost.Pool(table, y, weight=weight, thread_count=self.config.threads)
        pool.quantize(input_borders=str(borders))
        return pool if np.array_equal(rows, np.arange(len(table))) else pool.slice(rows)

    def _predict_block(self, block: FloatArray) -> npt.NDArray[np.floating]:
        return self._lean.predict(block, self._threads(block))

    def _gains(self) -> npt.NDArray[np.floating]:
        gains: npt.NDArray[np.floating] = self._booster.get_feature_importance()
        return gains

    def _save(self, folder: Path) -> None:
        super()._save(folder)
        self._booster.save_model(str(folder / "booster.cbm"))

    def _load(self, folder: Path) -> None:
        super()._load(folder)
        import catboost

        self._take(catboost.CatBoost().load_model(str(folder / "booster.cbm")))


@dataclass(frozen=True)
class LeanTrees:
    """The same trees on only those columns that some tree splits on.

    CatBoost spends a microsecond on every column that it is shown, before the first tree: of the 6,420 columns of a
    flattened window that is twenty times what the trees take, in each prediction.
    """

    booster: Any
    columns: IntArray  # [U], of the whole table's

    @classmethod
    def of(cls, booster: Any) -> LeanTrees:
        """Rewrite a fitted booster by way of its JSON form."""
        content = _to_json(booster)
        columns = _keep_used(content)
        return cls(_from_json(content), columns)

    def predict(self, block: FloatArray, threads: int) -> npt.NDArray[np.floating]:
        """`[n, C] -> [n, m]`."""
        probabilities: npt.NDArray[np.floating] = self.booster.predict(
            block[:, self.columns], prediction_type="Probability", thread_count=threads
        )
        return probabilities


def _first(booster: Any, count: int) -> Any:
    """A booster's first `count` trees. CatBoost's own `shrink` miscounts where a tree found nothing to split."""
    content = _to_json(booster)
    if all(tree["splits"] for tree in content["oblivious_trees"]):
        booster.shrink(count)
        return booster
    del content["oblivious_trees"][count:]
    return _from_json(content)


def _to_json(booster: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "booster.json"
        booster.save_model(str(file), format="json")
        return read_json(file)


def _from_json(content: dict[str, Any]) -> Any:
    import catboost

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "booster.json"
        write_json(file, content)
        return catboost.CatBoost().load_model(str(file), format="json")


def _keep_used(content: dict[str, Any]) -> IntArray:
    """Drop the columns without a border from a booster's JSON form, number the others again; returns their places."""
    features = content["features_info"]["float_features"]
    used = [feature for feature in features if feature["borders"]] or features[:1]
    places = {feature["feature_index"]: place for place, feature in enumerate(used)}
    columns = np.array([feature["flat_feature_index"] for feature in used], np.int64)
    for place, feature in enumerate(used):
        feature |= {"feature_index": place, "flat_feature_index": place, "feature_id": str(place)}
    for tree in content["oblivious_trees"]:
        for split in tree["splits"] or []:  # null where a tree found nothing to split
            split["float_feature_index"] = places[split["float_feature_index"]]
    content["features_info"]["float_features"] = used
    return columns


class _Report:
    """Hands each round's losses to `stopping`, and stops where it stops, or where it raised an error.

    CatBoost would turn the error into one of its own, with the traceback as its message.
    """

    def __init__(self, stopping: EarlyStopping) -> None:
        self._stopping = stopping
        self.error: BaseException | None = None

    def after_iteration(self, info: Any) -> bool:
        losses = (info.metrics[name]["MultiClass"][-1] for name in ("learn", "validation"))
        try:
            return not self._stopping.after_round(*losses)
        except BaseException as error:  # noqa: BLE001 - raised again after the fit
            self.error = error
            return False


@dataclass(frozen=True)
class WindowGrid:
    """Evenly spaced windows, `rows` of which are the ones asked for (the others lie across gaps or symbols).

    Neighbouring windows of a grid are `step` base rows apart, so the column of feature j at bar k is every
    `step`-th value of base column j from some row on. One copy of the base columns, cut into its residues by
    `step`, holds each of the L*F columns as a contiguous slice.
    """

    base: FloatArray  # [B, F], from the first window's first bar to the last window's last
    step: int
    count: int
    seq_len: int
    rows: IntArray  # [N]

    @classmethod
    def of(cls, windows: Windows) -> WindowGrid | None:
        """The coarsest grid under the windows; None where flattening them takes less room, or some repeat."""
        ends = np.unique(windows.ends)
        if len(ends) < max(2, len(windows)):
            return None
        step = int(np.gcd.reduce(np.diff(ends)))
        count = int(ends[-1] - ends[0]) // step + 1
        if count > _DENSEST * len(windows):
            return None
        base = windows.rows[ends[0] - windows.seq_len + 1 : ends[-1] + 1]
        return cls(base, step, count, windows.seq_len, (windows.ends - ends[0]) // step)

    def columns(self) -> pd.DataFrame:
        """`[count, L*F]`, each column a view into one of the residues."""
        residues = [np.ascontiguousarray(self.base[r :: self.step].T) for r in range(min(self.step, self.seq_len))]
        columns = (
            values[bar // self.step : bar // self.step + self.count]
            for bar in range(self.seq_len)
            for values in residues[bar % self.step]
        )
        return pd.DataFrame(dict(enumerate(columns)), copy=False)
