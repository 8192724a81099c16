"""One fit of a booster in a process of its own: `python -m benchmarks._routes`, the request on standard input.

The route is `streamed` (the model class as it is) or dense: the flattened windows as one float32 array `[N, L*F]`,
handed to the library the way its manual shows. The dense routes take the same hyperparameters, and give the array
back as soon as the library has its own copy.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from barcast.data.dataset import DatasetConfig, TimeSeriesDataset
from barcast.data.windows import Windows
from barcast.models._classes import SeenClasses
from barcast.models.base import BaseModel
from barcast.models.registry import ModelRegistry
from barcast.params import load_params, resolve_model
from barcast.probabilities import CLASSES, Labels, Probabilities, log_loss
from benchmarks._measure import ROOT, finish, peak

Predict = Callable[[Windows], Probabilities]
FOR_BIN_TABLES = ("enable_bundle", "feature_pre_filter", "min_data_in_bin")  # what the streamed LightGBM needs


class Clock:
    """Notes when each round ended."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.rounds: list[float] = []

    def tick(self, *_: object) -> None:
        self.rounds.append(time.perf_counter() - self.start)

    def figures(self) -> dict[str, float]:
        """Seconds a round, the first one apart: construction may fall into it."""
        each = median(after - before for before, after in pairwise(self.rounds))
        return {"seconds_a_round": each, "seconds_to_first_round": self.rounds[0] - each}


def new_model(name: str, horizon: int, features: list[str], settings: Mapping[str, Any]) -> BaseModel:
    """As params.yaml has it, with `settings` over it."""
    file = ROOT / "params.yaml"
    params = load_params(file)
    plain = {**resolve_model(params, name, horizon, file).model_dump(), **settings}
    return ModelRegistry.create(name, plain, horizon, features)


def dense(X: Windows) -> npt.NDArray[np.float32]:
    return np.asarray(X).reshape(len(X), -1)  # [N, L, F] -> [N, L*F]


def streamed(model: Any, data: TimeSeriesDataset, clock: Clock) -> Predict:
    train, val = data.split("train"), data.split("val")
    model.fit(train.X, train.y, val.X, val.y, log=clock.tick)
    predict: Predict = model.predict_proba
    return predict


def xgboost(model: Any, data: TimeSeriesDataset, clock: Clock, quantile: bool = False) -> Predict:
    import xgboost as xgb

    def matrix(split: str, ref: Any = None) -> Any:
        X, y, _ = data.get_split(split)
        options = {"nthread": model.config.threads}
        if quantile:
            return xgb.QuantileDMatrix(dense(X), y + 1, max_bin=model.config.max_bins, ref=ref, **options)
        return xgb.DMatrix(dense(X), y + 1, **options)

    class Report(xgb.callback.TrainingCallback):
        def after_iteration(self, *_: object) -> bool:
            clock.tick()
            return False

    train = matrix("train")
    evals = [(train, "train"), (matrix("val", train), "val")]
    booster = xgb.train(
        model._parameters(), train, model.config.max_rounds, evals=evals, callbacks=[Report()], verbose_eval=False
    )
    return lambda X: booster.inplace_predict(dense(X))


def xgboost_quantile(model: Any, data: TimeSeriesDataset, clock: Clock) -> Predict:
    return xgboost(model, data, clock, quantile=True)


def lightgbm(model: Any, data: TimeSeriesDataset, clock: Clock) -> Predict:
    import lightgbm as lgb

    parameters = {key: value for key, value in model._parameters().items() if key not in FOR_BIN_TABLES}
    X, y, _ = data.get_split("train")
    train = lgb.Dataset(dense(X), y + 1, params=parameters).construct()
    X, y, _ = data.get_split("val")
    val = lgb.Dataset(dense(X), y + 1, reference=train, params=parameters).construct()
    sets = {"valid_sets": [train, val], "valid_names": ["train", "val"]}
    booster = lgb.train(parameters, train, model.config.max_rounds, callbacks=[clock.tick], **sets)
    return lambda X: booster.predict(dense(X), num_threads=model.config.threads)


def catboost(model: Any, data: TimeSeriesDataset, clock: Clock) -> Predict:
    import catboost as cb

    class Report:
        def after_iteration(self, _: object) -> bool:
            clock.tick()
            return True

    pools = []
    for split in ("train", "val"):
        X, y, _ = data.get_split(split)
        pools.append(cb.Pool(dense(X), y + 1, thread_count=model.config.threads))
    booster = cb.CatBoost(model._parameters())
    booster.fit(pools[0], eval_set=pools[1], use_best_model=False, callbacks=[Report()])
    return lambda X: booster.predict(dense(X), prediction_type="Probability")


ROUTES: dict[str, Callable[[Any, TimeSeriesDataset, Clock], Predict]] = {
    "streamed": streamed,
    "xgboost_dense": xgboost,
    "xgboost_quantile": xgboost_quantile,
    "lightgbm_dense": lightgbm,
    "catboost_dense": catboost,
}


def prior_loss(y_train: Labels, y: Labels) -> float:
    """The log-loss of the train labels' frequencies."""
    shares = np.bincount(y_train + 1, minlength=len(CLASSES)) / len(y_train)
    return log_loss(np.tile(shares, (len(y), 1)), y)


def fit(route: str, model: str, folder: str, horizon: int, settings: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Fit by a route; what it says of the windows of `split`, and what that cost."""
    data = TimeSeriesDataset(DatasetConfig(path=str(Path(folder)), horizon=horizon))
    made: Any = new_model(model, horizon, data.feature_columns(), settings)
    made._classes = SeenClasses.of(data.split("train").y)  # what the hyperparameters of the library depend on
    clock = Clock()
    predict = ROUTES[route](made, data, clock)
    X, y, _ = data.get_split(split)
    loss, rounds = log_loss(predict(X), y), clock.figures()
    return {
        "log_loss": loss,
        "prior_log_loss": prior_loss(data.split("train").y, y),
        "rounds": len(clock.rounds),
        "peak_rss": peak(),
        **rounds,
    }


if __name__ == "__main__":
    finish(fit(**json.loads(sys.stdin.read())))
