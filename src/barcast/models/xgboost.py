"""XGBoost (Chen and Guestrin 2016), histogram trees on streamed windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from barcast.data.windows import FloatArray
from barcast.models._gbdt import (
    Bins,
    BoosterModel,
    Count,
    Depth,
    Fraction,
    Labelled,
    NonNegative,
    RoundWatch,
)
from barcast.models._lags import Lags, Spans, row_chunks
from barcast.models.base import EarlyStoppingConfig
from barcast.models.registry import ModelRegistry


class XGBoostConfig(EarlyStoppingConfig):
    """`model.xgboost` of params.yaml. Histograms are built of all columns: `colsample` saves no time here."""

    learning_rate: Fraction
    max_rounds: Count
    max_depth: Depth
    max_bins: Bins
    colsample: Fraction
    subsample: Fraction
    lags: Lags
    spans: Spans
    min_child_weight: NonNegative
    reg_lambda: NonNegative


@ModelRegistry.register("xgboost", family="gbdt", description="XGBoost, depth-wise histogram trees")
class XGBoostModel(BoosterModel):
    """Softmax boosting; the flattened windows pass through once per scan and are held as bin numbers alone."""

    config_class = XGBoostConfig
    _booster: Any

    def _boost(self, train: Labelled, val: Labelled, bins: FloatArray, watch: RoundWatch) -> None:
        import xgboost

        options = {"max_bin": self.config.max_bins, "nthread": self.config.threads}
        edges = xgboost.QuantileDMatrix(bins, np.zeros(len(bins)), **options)
        train_matrix = xgboost.QuantileDMatrix(_stream(train), ref=edges, **options)
        val_matrix = xgboost.QuantileDMatrix(_stream(val), ref=train_matrix, **options)
        booster = xgboost.train(
            self._parameters(),
            train_matrix,
            self.config.max_rounds,
            evals=[(train_matrix, "train"), (val_matrix, "val")],
            callbacks=[_report(watch)],
            verbose_eval=False,
        )
        self._booster = booster[: watch.kept]

    def _parameters(self) -> dict[str, Any]:
        config = self.config
        return {
            "objective": "multi:softprob",
            "num_class": len(self._classes.present),
            "eval_metric": "mlogloss",
            "tree_method": "hist",
            "seed": config.random_seed,
            "nthread": config.threads,
            "eta": config.learning_rate,
            "max_depth": config.max_depth,
            "max_bin": config.max_bins,
            "colsample_bytree": config.colsample,
            "subsample": config.subsample,
            "min_child_weight": config.min_child_weight,
            "lambda": config.reg_lambda,
        }

    def _answer(self, block: FloatArray) -> npt.NDArray[np.floating]:
        self._booster.set_param("nthread", self._threads(block))
        answer: npt.NDArray[np.floating] = self._booster.inplace_predict(block)
        return answer

    def _gains(self) -> npt.NDArray[np.floating]:
        gains = np.zeros(self._booster.num_features())
        for name, gain in self._booster.get_score(importance_type="total_gain").items():
            gains[int(name.removeprefix("f"))] = gain
        return gains

    def _save_booster(self, folder: Path) -> None:
        self._booster.save_model(folder / "booster.ubj")

    def _load_booster(self, folder: Path) -> None:
        import xgboost

        self._booster = xgboost.Booster({"nthread": self.config.threads}, model_file=folder / "booster.ubj")


def _stream(data: Labelled) -> Any:
    """An iterator that hands XGBoost a few windows at a time, as often as it starts over."""
    import xgboost

    class Stream(xgboost.DataIter):  # type: ignore[misc]
        def __init__(self) -> None:
            self._parts = list(row_chunks(*data.table.shape))
            self._next = 0
            super().__init__()

        def next(self, input_data: Any) -> bool:
            if self._next == len(self._parts):
                return False
            part = self._parts[self._next]
            input_data(data=data.table[part], label=data.y[part], weight=data.weight[part])
            self._next += 1
            return True

        def reset(self) -> None:
            self._next = 0

    return Stream()


def _report(watch: RoundWatch) -> Any:
    """A callback that hands each round's losses to `watch`, and stops where it says so."""
    import xgboost

    class Report(xgboost.callback.TrainingCallback):  # type: ignore[misc]
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            return watch.after_round(*(float(evals_log[name]["mlogloss"][-1]) for name in ("train", "val")))

    return Report()
