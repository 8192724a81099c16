"""params.yaml as a whole: which value reaches which cell, and what is refused before any training."""

import pytest

from barcast.errors import ConfigError
from barcast.experiments import check_overrides
from barcast.params import load_params, resolve_model


def resolved(path, model, horizon):
    return resolve_model(load_params(path), model, horizon, path)


def test_the_committed_file_is_valid(write_params):
    params = load_params(write_params())
    assert list(params.cells())[:2] == [("prior", 5), ("prior", 20)]


def test_a_block_wins_over_the_shared_value_and_a_horizon_over_the_block(write_params):
    path = write_params(
        {"model.max_depth": 3, "model.xgboost.max_depth": 4, "model.xgboost.h20": {"max_depth": 5}},
    )
    assert resolved(path, "lightgbm", 5).max_depth == 3
    assert resolved(path, "xgboost", 5).max_depth == 4
    assert resolved(path, "xgboost", 20).max_depth == 5


def test_null_in_a_block_leaves_the_shared_value(write_params):
    path = write_params({"model.max_depth": 3, "model.xgboost.max_depth": None})
    assert resolved(path, "xgboost", 5).max_depth == 3
    with pytest.raises(ConfigError, match=r"key 'model.\w+.max_depth' is missing"):
        load_params(write_params({"model.max_depth": None}))


def test_a_cell_takes_only_the_keys_that_its_model_declares(write_params):
    config = resolved(write_params(), "prior", 5)
    assert not hasattr(config, "max_depth")
    assert (config.model_name, config.horizon, config.random_seed) == ("prior", 5, 42)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.max_dept": 8}, r"unknown key 'model.max_dept'; did you mean 'max_depth'\?"),
        ({"model.xgboost.max_dept": 8}, r"unknown key 'model.xgboost.max_dept'; did you mean 'max_depth'\?"),
        ({"model.prior.max_depth": 8}, r"unknown key 'model.prior.max_depth'"),
        ({"model.xgbost": {"max_depth": 8}}, r"unknown key 'model.xgbost'; did you mean 'xgboost'\?"),
        ({"model.xgboost.h5": {"max_dept": 8}}, r"unknown key 'model.xgboost.h5.max_dept'"),
        ({"model.xgboost": 8}, r"model.xgboost = 8: expected a block of keys"),
        ({"model.max_depth": "deep"}, r"model.max_depth = 'deep': expected a valid integer"),
        ({"model.catboost.max_depth": 4.5}, r"model.catboost.max_depth = 4.5: expected a valid integer"),
        ({"model.xgboost.h20": {"max_depth": "x"}}, r"model.xgboost.h20.max_depth = 'x': expected a valid integer"),
        ({"model.max_depth": ...}, r"key 'model.\w+.max_depth' is missing"),
        ({"model.xgboost.random_seed": 1}, r"unknown key 'model.xgboost.random_seed'"),
        ({"model.xgboost.h7": {"max_depth": "x"}}, r"model.xgboost.h7.max_depth = 'x': expected a valid integer"),
        ({"model.xgboost": {5: {"max_depth": 3}}}, r"unknown key 'model.xgboost.5'; did you mean 'h5'\?"),
        ({"models": ["xgbost"]}, r"models\[0\]: unknown model 'xgbost'; did you mean 'xgboost'\?"),
        ({"models": ["prior", "prior"]}, r"models = .*: expected each entry once; 'prior' is repeated"),
        ({"horizons": [7]}, r"params.yaml: .*h7"),
        ({"label.symbols": {"DOGE": {"h5": {"k_up": 1.0}}}}, r"unknown key 'label.symbols.DOGE'"),
        ({"evaluate.seeds": [1, 1]}, r"expected evaluate.seeds that differ from each other and from seed 42"),
        (
            {"evaluate.seeds": [42]},
            r"params.yaml: expected evaluate.seeds that differ from each other and from seed 42",
        ),
        ({"compare.pbo_blocks": 7}, r"compare.pbo_blocks = 7: expected a multiple of 2"),
        ({"symbols": []}, r"symbols = \[\]"),
        (
            {"split.purge_bars": 10},
            r"params.yaml: expected split.purge_bars ≥ 20, the longest label end offset, got 10",
        ),
        ({"window.seq_length": 10}, r"unknown key 'window.seq_length'; did you mean 'seq_len'\?"),
        ({"window.train_stride": 4}, r"unknown key 'window.train_stride'; it is 'model.train_stride' now"),
        ({"model.train_stride": 0}, r"model.train_stride = 0: expected greater than or equal to 1"),
        ({"model.train_stride": ...}, r"key 'model.\w+.train_stride' is missing"),
        ({"model.prior.train_stride": 4}, r"unknown key 'model.prior.train_stride'"),
        ({"model.lookback": 0}, r"model.lookback = 0: expected greater than or equal to 1"),
        ({"model.gru.average_seeds": 0}, r"model.gru.average_seeds = 0: expected greater than or equal to 1"),
        ({"model.lightgbm.lookback": 5}, r"unknown key 'model.lightgbm.lookback'"),
        ({"label.weights": "unique"}, r"label.weights = 'unique': expected 'none', 'uniqueness', 'quality' or 'both'"),
        ({"label.weights": ...}, r"key 'label.weights' is missing"),
        ({"data.features.units": "points"}, r"data.features.units = 'points': expected 'price' or 'atr'"),
        ({"ensemble.stack": ["logistic"]}, r"unknown key 'ensemble.stack'; .* 'evaluate.out_of_fold'"),
        ({"ensemble.weights": {"h5": {"prior": 1.0}}}, r"unknown key 'ensemble.weights.h5.prior'"),
        ({"ensemble.weights": {"h5": {"gru": 0.5, "lstm": 0.4}}}, r"expected weights of at least 0 that sum to 1"),
        ({"ensemble.shrink": 1.5}, r"ensemble.shrink = 1.5: expected less than or equal to 1"),
        ({"ensemble.shrink": -0.1}, r"ensemble.shrink = -0.1: expected greater than or equal to 0"),
        ({"evaluate.out_of_fold": ["xgbost"]}, r"out_of_fold\[0\]: unknown model 'xgbost'; did you mean 'xgboost'\?"),
        ({"evaluate.out_of_fold": "some"}, r"evaluate.out_of_fold.* = 'some': expected 'all'"),
        ({"data.source": "csv"}, r"data.source = 'csv': expected 'bars' or 'splits'"),
        ({"sed": 3}, r"unknown key 'sed'; did you mean 'seed'\?"),
    ],
)
def test_what_is_wrong_is_refused_with_key_and_remedy(write_params, changes, message):
    with pytest.raises(ConfigError, match=message) as error:
        load_params(write_params(changes))
    assert "params.yaml: " in str(error.value)
    assert "\n" not in str(error.value)


def test_splits_made_elsewhere_need_no_barriers(write_params):
    params = load_params(
        write_params({"data.source": "splits", "horizons": [7], "tune.horizons": [7], "split.purge_bars": 0})
    )
    assert ("xgboost", 7) in params.cells()


@pytest.mark.parametrize(
    "overrides",
    [["model.max_depth=8"], ["model.max_depth=4,6,8", "seed=1"], ["models=[prior]"], ["model.gru.learning_rate=5e-5"]],
)
def test_good_overrides_pass(write_params, overrides):
    path = write_params()
    before = path.read_bytes()
    check_overrides(path, overrides)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.max_dept=8", r"^params.yaml: unknown key 'model.max_dept'; did you mean 'max_depth'\?$"),
        ("modle.max_depth=8", r"^params.yaml: unknown key 'modle'; did you mean 'model'\?$"),
        ("+model.max_dept=8", r"^params.yaml: unknown key 'model.max_dept'; did you mean 'max_depth'\?$"),
        ("model.max_depth=deep", r"^params.yaml: model.max_depth = 'deep': expected a valid integer"),
        ("model.max_depth=4,deep", r"^params.yaml: model.max_depth = 'deep': expected a valid integer"),
        ("model.gru.learning_rate=1e400", r"model.gru.learning_rate = inf: expected a finite number"),
        ("model.max_depth", r"expected key=value, such as model.max_depth=8"),
        ("model.max_depth=[1", r"model.max_depth=\[1: "),
    ],
)
def test_bad_overrides_are_refused_before_anything_runs(write_params, override, message):
    with pytest.raises(ConfigError, match=message):
        check_overrides(write_params(), [override])


def test_a_shared_micro_batch_never_reaches_a_batch_norm(write_params):
    path = write_params({"model.micro_batch": 16})
    assert resolved(path, "gru", 5).micro_batch == 16
    assert resolved(path, "patchtst", 5).micro_batch == 0


def test_windows_are_thinned_for_each_model_by_its_own_stride(write_params):
    path = write_params({"model.train_stride": 5, "model.xgboost.train_stride": 2, "model.lightgbm.train_stride": None})
    found = {name: resolved(path, name, 5).train_stride for name in ("xgboost", "lightgbm", "gru")}
    assert found == {"xgboost": 2, "lightgbm": 5, "gru": 5}
    assert not hasattr(resolved(path, "prior", 5), "train_stride")


def test_a_lookback_beyond_the_window_is_refused_before_any_training(write_params):
    message = r"model.gru.lookback = 61: expected at most window.seq_len = 60"
    with pytest.raises(ConfigError, match=message):
        load_params(write_params({"model.gru.lookback": 61}))


def test_a_lookback_of_null_is_the_whole_window(write_params):
    path = write_params({"model.lookback": None, "model.gru.lookback": 7})
    assert resolved(path, "lstm", 5).lookback is None
    assert resolved(path, "gru", 5).lookback == 7
