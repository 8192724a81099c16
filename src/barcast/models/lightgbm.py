"""LightGBM (Ke et al. 2017), leaf-wise histogram trees on streamed windows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from barcast.data.windows import FloatArray
from barcast.models._gbdt import BoosterConfig, BoosterModel, Count, EarlyStopping, Labelled
from barcast.models._lags import CHUNK_BYTES

DIGITS = 9  # of a metric: LightGBM sums it in an order that depends on its threads


class LightGBMConfig(BoosterConfig):
    """`model.lightgbm` of params.yaml; `extra_trees` is after Geurts, Ernst and Wehenkel 2006."""

    num_leaves: Annotated[int, Field(ge=2)]
    min_child_samples: Count
    extra_trees: bool  # a split's threshold is drawn at random, and the best of the drawn is taken


class LightGBMModel(BoosterModel):
    """LightGBM, leaf-wise histogram trees.

    Softmax boosting; the flattened windows are pushed once, in parts, and held only as bin numbers.
    """

    name, family = "lightgbm", "gbdt"
    config_class = LightGBMConfig
    _booster: Any

    def _boost(self, train: Labelled, val: Labelled, bins: FloatArray, stopping: EarlyStopping) -> None:
        import lightgbm

        parameters = self._parameters()
        edges = lightgbm.Dataset(bins, np.zeros(len(bins)), params=parameters).construct()
        train_set = _stream(train, edges, parameters)
        val_set = _stream(val, edges, parameters)
        trees: list[int] = []  # a round that finds no split adds none, so rounds and trees drift apart

        def report(state: Any) -> None:
            losses = {name: round(float(value), DIGITS) for name, _, value, *_ in state.evaluation_result_list}
            trees.append(state.model.current_iteration())
            if stopping.after_round(losses["train"], losses["val"]):
                raise lightgbm.callback.EarlyStopException(state.iteration, state.evaluation_result_list)

        booster = lightgbm.train(
            parameters,
            train_set,
            self.config.max_rounds,
            valid_sets=[train_set, val_set],
            valid_names=["train", "val"],
            callbacks=[report],
        )
        text = booster.model_to_string(num_iteration=trees[stopping.kept - 1])
        self._booster = lightgbm.Booster(model_str=re.sub(r"\[num_threads: \d+\]\n", "", text))

    def _parameters(self) -> dict[str, Any]:
        config = self.config
        return {
            "objective": "multiclass",
            "num_class": len(self._classes.present),
            "metric": "multi_logloss",
            "verbosity": -1,
            "seed": config.random_seed,
            "num_threads": config.threads,
            "deterministic": True,
            "force_col_wise": True,  # left open, LightGBM times both ways and may choose another one next time
            "enable_bundle": False,  # it would bundle columns by the few rows of the bin table
            "feature_pre_filter": False,  # and drop columns by them
            "min_data_in_bin": 1,  # each of these rows stands for many
            "learning_rate": config.learning_rate,
            "max_depth": config.max_depth,
            "max_bin": config.max_bins,
            "feature_fraction": config.colsample,
            "bagging_fraction": config.subsample,
            "bagging_freq": 1,
            "num_leaves": config.num_leaves,
            "min_data_in_leaf": config.min_child_samples,
            "lambda_l2": config.reg_lambda,
            "extra_trees": config.extra_trees,
        }

    def _predict_block(self, block: FloatArray) -> npt.NDArray[np.floating]:
        probabilities: npt.NDArray[np.floating] = self._booster.predict(block, num_threads=self._threads(block))
        return probabilities

    def _gains(self) -> npt.NDArray[np.floating]:
        gains: npt.NDArray[np.floating] = self._booster.feature_importance("gain")
        return gains

    def _save(self, folder: Path) -> None:
        super()._save(folder)
        self._booster.save_model(folder / "booster.txt")

    def _load(self, folder: Path) -> None:
        super()._load(folder)
        import lightgbm

        self._booster = lightgbm.Booster(model_file=folder / "booster.txt")


def _stream(data: Labelled, edges: Any, parameters: dict[str, Any]) -> Any:
    """A Dataset with the bin edges of `edges`, filled a few windows at a time.

    The validation windows take them from `edges` too and not from the train set: of a reference that has
    weights LightGBM makes Datasets with weights 0, which its `set_weight` leaves when it is given ones.
    """
    import lightgbm

    class Rows(lightgbm.Sequence):  # type: ignore[misc]
        batch_size = max(1, CHUNK_BYTES // (4 * data.table.shape[1]))

        def __len__(self) -> int:
            return len(data.table)

        def __getitem__(self, key: slice) -> FloatArray:
            return data.table[key]

    dataset = lightgbm.Dataset(Rows(), data.y, weight=data.weight, reference=edges, params=parameters)
    return dataset.construct()
