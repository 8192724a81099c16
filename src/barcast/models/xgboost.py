"""XGBoost (Chen and Guestrin 2016), histogram trees on streamed windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from barcast.data.windows import FloatArray
from barcast.models._gbdt import BoosterConfig, BoosterModel, EarlyStopping, Labelled, NonNegative
from barcast.models._lags import row_chunks


class XGBoostConfig(BoosterConfig):
    """`model.xgboost` of params.yaml. Histograms are built of all columns: `colsample` saves no time here."""

    min_child_weight: NonNegative


class XGBoostModel(BoosterModel):
    """XGBoost, depth-wise histogram trees.

    Softmax boosting; flattened windows pass through once per scan and are held only as bin numbers.
    """

    name, family = "xgboost", "gbdt"
    config_class = XGBoostConfig
    _booster: Any

    def _boost(self, train: Labelled, val: Labelled, bins: FloatArray, stopping: EarlyStopping) -> None:
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
            callbacks=[_report(stopping)],
            verbose_eval=False,
        )
        self._booster = booster[: stopping.kept]

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

    def _predict_block(self, block: FloatArray) -> npt.NDArray[np.floating]:
        self._booster.set_param("nthread", self._threads(block))
        probabilities: npt.NDArray[np.floating] = self._booster.inplace_predict(block)
        return probabilities

    def _gains(self) -> npt.NDArray[np.floating]:
        gains = np.zeros(self._booster.num_features())
        for name, gain in self._booster.get_score(importance_type="total_gain").items():
            gains[int(name.removeprefix("f"))] = gain
        return gains

    def _save(self, folder: Path) -> None:
        super()._save(folder)
        self._booster.save_model(folder / "booster.ubj")

    def _load(self, folder: Path) -> None:
        super()._load(folder)
        import xgboost

        self._booster = xgboost.Booster({"nthread": self.config.threads}, model_file=folder / "booster.ubj")


def _stream(data: Labelled) -> Any:
    """An iterator that hands XGBoost a few windows at a time, as often as it starts over."""
    import xgboost

    class Stream(xgboost.DataIter):  # type: ignore[misc]
        def __init__(self) -> None:
            self.reset()
            super().__init__()

        def next(self, input_data: Any) -> bool:
            part = next(self._parts, None)
            if part is not None:
                input_data(data=data.table[part], label=data.y[part], weight=data.weight[part])
            return part is not None

        def reset(self) -> None:
            self._parts = row_chunks(*data.table.shape)

    return Stream()


def _report(stopping: EarlyStopping) -> Any:
    """A callback that hands each round's losses to `stopping`, and stops where it stops."""
    import xgboost

    class Report(xgboost.callback.TrainingCallback):  # type: ignore[misc]
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            return stopping.after_round(*(float(evals_log[name]["mlogloss"][-1]) for name in ("train", "val")))

    return Report()
