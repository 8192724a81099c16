"""Nothing from the future, over the whole path: other bars after t change no prediction up to t."""

import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from barcast.config import validate
from barcast.data.dataset import DatasetConfig, TimeSeriesDataset
from barcast.data.synthetic import synthetic_bars
from barcast.models.registry import ModelRegistry
from barcast.params import load_params, resolve_model
from barcast.paths import Paths
from barcast.stages.prepare import PrepareConfig, prepare
from barcast.stages.window import WindowStageConfig, write_windows

PARAMS = load_params(Path(__file__).resolve().parents[1] / "params.yaml")
SYMBOLS = ["AAA", "BBB"]
PREPARE = {
    "symbols": SYMBOLS,
    "horizons": [5],
    "data": {
        "source": "bars",
        "path": "bars.parquet",
        "features": PARAMS.data.features.model_dump(),
        "scaler": PARAMS.data.scaler.model_dump(),
    },
    "label": {
        "atr_period": 14,
        "horizons": {"h5": {"k_up": 1.0, "k_down": 1.0, "max_bars": 5}},
        "symbols": {},
    },
    "split": {"train": 0.7, "val": 0.15, "test": 0.15, "purge_bars": 5, "embargo_bars": 10},
}
WINDOW = {"horizons": [5], "weights": "both", "window": {"seq_len": 12, "max_gap": "2h"}}
SMALL = {
    "threads": 1,
    "train_stride": 2,
    "max_rounds": 3,
    "colsample": 0.5,
    "max_epochs": 1,
    "average_seeds": 1,
    "lookback": 10,
    "lags": [0, 3],
}


def run(root, bars):
    """Bars to windows, as the pipeline's stages do it."""
    paths = Paths(root)
    paths.root.mkdir(exist_ok=True)
    bars.to_parquet(paths.root / "bars.parquet", index=False)
    prepare(validate(PrepareConfig, PREPARE, "prepare.yaml"), paths)
    write_windows(validate(WindowStageConfig, WINDOW, "window.yaml"), paths)
    return TimeSeriesDataset(DatasetConfig(path=str(paths.windows), horizon=5))


@pytest.fixture(scope="module")
def bars():
    return synthetic_bars(SYMBOLS, 1_000, seed=8, signal=0.5)


@pytest.fixture(scope="module")
def dataset(bars, tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole"), bars)


@pytest.fixture(scope="module", params=[0, 43, 80], ids=lambda bar: f"t={bar}")
def altered(request, bars, dataset, tmp_path_factory):
    """(t, the data set made from bars that all differ after t); t is inside the test split."""
    last = sorted(dataset.split("test").meta["datetime"].unique())[request.param]
    other = bars.copy()
    after = (other["datetime"] > last).to_numpy()
    rng = np.random.default_rng(request.param)
    factor = np.exp(rng.normal(0, 0.05, after.sum()))
    for column in ("open", "high", "low", "close"):
        other.loc[after, column] *= factor
    other.loc[after, "volume"] *= rng.uniform(0.1, 10, after.sum())
    return last, run(tmp_path_factory.mktemp("altered"), other)


def known(dataset, split, last):
    """The windows up to `last`, whether or not their labels are known, and who and when they are."""
    part = dataset.split(split)
    ends = np.load(dataset.path / split / "ends.npy")
    index = pd.read_parquet(dataset.path / split / "index.parquet").iloc[ends]
    upto = (index["datetime"] <= last).to_numpy()
    return type(part.X)(part.X.rows, ends[upto], part.X.seq_len), index[upto][["datetime", "symbol"]]


def test_train_and_val_are_the_same_bytes(dataset, altered):
    _, other = altered
    for split in ("train", "val"):
        for name in ("rows.npy", "ends.npy", "index.parquet"):
            assert (dataset.path / split / name).read_bytes() == (other.path / split / name).read_bytes()
        label = f"labels/{split}_h5.npy"
        assert (dataset.path / label).read_bytes() == (other.path / label).read_bytes()


@pytest.mark.parametrize("name", ModelRegistry.list_models())
def test_no_prediction_up_to_t_changes(name, dataset, altered):
    last, other = altered
    values = resolve_model(PARAMS, name, 5, Path("params.yaml")).model_dump()
    config = values | {key: value for key, value in SMALL.items() if key in values}
    predicted = []
    for data in (dataset, other):
        model = ModelRegistry.create(name, copy.deepcopy(config), 5, data.feature_columns())
        train, val = data.split("train"), data.split("val")
        model.fit(train.X, train.y, val.X, val.y, sample_weight=train.weight)
        X, index = known(data, "test", last)
        predicted.append(model.predict(X, index).to_dataframe())
    assert len(predicted[0]) > 0
    pd.testing.assert_frame_equal(*predicted, check_exact=True)


def test_bars_after_t_do_change_what_follows(dataset, altered):
    """The check above would also pass if the altered bars changed nothing at all."""
    assert (dataset.path / "test/rows.npy").read_bytes() != (altered[1].path / "test/rows.npy").read_bytes()


def test_a_shorter_series_keeps_the_rows_of_the_longer(bars):
    """Cutting the future off moves the cuts between the splits, but no feature of a bar that is left."""
    from barcast.data.features import compute_features

    one = bars[bars["symbol"] == "AAA"].reset_index(drop=True)
    whole, cut = (compute_features(part, PARAMS.data.features) for part in (one, one[:700]))
    pd.testing.assert_frame_equal(whole[:700], cut, check_exact=True)
