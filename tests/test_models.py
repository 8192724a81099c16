"""One contract, run over every registered model: a new model joins by being registered.

The hyperparameters are those of params.yaml with a few made small; `SMALL` is applied to whichever of its
keys a model has.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from barcast.data.window_ends import window_ends
from barcast.data.windows import Windows
from barcast.errors import ModelError
from barcast.models import _lags
from barcast.models._gbdt import EarlyStopping
from barcast.models.registry import ModelRegistry
from barcast.params import load_params, resolve_model
from barcast.probabilities import CLASSES, log_loss

REPOSITORY = Path(__file__).resolve().parents[1]
PARAMS = load_params(REPOSITORY / "params.yaml")

NAMES = ModelRegistry.list_models()
BOOSTERS = ModelRegistry.list_models("gbdt")
ROUNDWISE = [name for name in NAMES if hasattr(resolve_model(PARAMS, name, 5, Path("params.yaml")), "early_stopping")]
NETWORKS = [name for name in ROUNDWISE if name not in BOOSTERS]
LEARNERS = [name for name in NAMES if name != "prior"]

SMALL = {
    "threads": 1,
    "learning_rate": 0.3,
    "max_rounds": 20,
    "patience": 5,
    "colsample": 0.6,
    "min_child_samples": 5,
    "min_child_weight": 2.0,
    "C": 0.01,  # of few windows with a plain signal
    "train_stride": 1,
}
SMALL_BOOSTER = {"lags": "all"}
SMALL_NETWORK = {
    "lookback": None,
    "average_seeds": 1,
    "learning_rate": 0.01,
    "max_epochs": 12,
    "batch_size": 64,
    "embed_size": 8,
    "hidden_size": 16,
    "d_model": 16,
    "d_ff": 32,
    "layers": 1,
    "heads": 2,
    "dropout": 0.0,
    "watch_stride": 1,
    "run_length": 1,  # runs share rows, so that gradients are added up in another order than those of plain arrays
}
SEQ_LEN = 8
FEATURES = ["noise", "now", "then", "more noise"]
PLANTED = {("now", 0), ("then", 3)}


def config(name, **changes):
    values = resolve_model(PARAMS, name, 5, Path("params.yaml")).model_dump()
    own = SMALL_NETWORK if name in NETWORKS else SMALL_BOOSTER if name in BOOSTERS else {}
    small = SMALL | own | changes
    return values | {key: value for key, value in small.items() if key in values}


def create(name, features=FEATURES, **changes):
    return ModelRegistry.create(name, config(name, **changes), 5, list(features))


def make(seed, bars=200, symbols=3, width=4, stride=1):
    """Windows of several symbols, one of them with a gap, and labels that two bars of a window tell of."""
    rng = np.random.default_rng(seed)
    count = bars * symbols
    rows = rng.standard_normal((count, width)).astype(np.float32)
    times = np.arange(count)
    times[count // 3 + 20 :] += 50
    ends = window_ends(np.repeat(np.arange(symbols), bars), times, SEQ_LEN, 1)
    ends = ends[ends % stride == 0]
    signal = 1.5 * rows[ends, 1 % width] + rows[ends - 3, 2 % width] * (width > 1)
    y = np.digitize(signal + 0.7 * rng.standard_normal(len(ends)), [-0.8, 0.8]) - 1
    return Windows(rows, ends, SEQ_LEN), y, rng.uniform(0.5, 1.5, len(ends)).astype(np.float32)


TRAIN_X, TRAIN_Y, WEIGHT = make(0)
VAL_X, VAL_Y, _ = make(1, bars=100)
VAL_META = pd.DataFrame(
    {"datetime": pd.date_range("2020-01-01", periods=len(VAL_X), freq="30min", tz="UTC"), "symbol": "BTC"}
)


def fit(model, train=(TRAIN_X, TRAIN_Y, WEIGHT), val=(VAL_X, VAL_Y), **options):
    return model.fit(*train[:2], *val, sample_weight=train[2], **options)


_fitted = {}


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def model(name):
    """The model fitted on the planted signal; shared, so never fit it again."""
    if name not in _fitted:
        _fitted[name] = fit(create(name))
    return _fitted[name]


def prior_loss(train_y=TRAIN_Y, val_y=VAL_Y):
    frequencies = np.bincount(train_y + 1, minlength=3) / len(train_y)
    return log_loss(np.tile(frequencies, (len(val_y), 1)), val_y)


def test_probabilities_are_an_ordered_distribution(model):
    output = model.predict(VAL_X, VAL_META)
    probabilities = output.probabilities
    assert probabilities.shape == (len(VAL_X), 3)
    assert probabilities.dtype == np.float64
    assert np.isfinite(probabilities).all()
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_array_equal(output.predictions, np.array(CLASSES)[probabilities.argmax(axis=1)])
    assert (output.horizons == 5).all()
    assert ((output.uncertainty >= 0) & (output.uncertainty <= 1)).all()
    assert output.sets is None
    assert not output.set_size.any()  # no conformal step was done
    frame = output.to_dataframe()
    np.testing.assert_array_equal(frame[["p_down", "p_flat", "p_up"]], probabilities)
    assert frame["datetime"].equals(VAL_META["datetime"])


@pytest.mark.parametrize("name", LEARNERS)
def test_a_planted_signal_is_found_in_the_right_direction(model):
    probabilities = model.predict_proba(VAL_X)
    assert log_loss(probabilities, VAL_Y) < prior_loss() - 0.1
    down, _, up = (probabilities[label == VAL_Y].mean(axis=0) for label in CLASSES)
    assert down[0] > up[0] + 0.1
    assert up[2] > down[2] + 0.1


def test_nothing_is_found_in_shuffled_labels(name):
    rng = np.random.default_rng(3)
    train_y, val_y = rng.permutation(TRAIN_Y), rng.permutation(VAL_Y)
    model = fit(create(name), (TRAIN_X, train_y, None), (VAL_X, val_y))
    X, y, _ = make(4)
    y = rng.permutation(y)
    assert log_loss(model.predict_proba(X), y) > prior_loss(train_y, y) - 0.01


def test_lazy_windows_and_plain_arrays_give_identical_results(name, model):
    plain = fit(create(name), (TRAIN_X[:], TRAIN_Y, WEIGHT), (VAL_X[:], VAL_Y))
    assert plain.training_history == model.training_history
    expected = model.predict_proba(VAL_X)
    for predictions in (plain.predict_proba(VAL_X[:]), plain.predict_proba(VAL_X), model.predict_proba(VAL_X[:])):
        np.testing.assert_array_equal(predictions, expected)


def test_a_prediction_depends_on_its_own_window_alone(model):
    expected = model.predict_proba(VAL_X)
    for i in (0, 57, len(VAL_X) - 1):
        np.testing.assert_allclose(model.predict_proba(VAL_X.select([i])), expected[[i]], rtol=0, atol=1e-6)
    changed = VAL_X[:]
    changed[1::2] = 7
    np.testing.assert_allclose(model.predict_proba(changed)[::2], expected[::2], rtol=0, atol=1e-6)


def test_later_bars_do_not_change_a_prediction(model):
    until = 140
    rows = VAL_X.rows.copy()
    rows[until + 1 :] = np.random.default_rng(0).standard_normal(rows[until + 1 :].shape)
    past = VAL_X.ends <= until
    before = model.predict_proba(VAL_X)[past]
    after = model.predict_proba(Windows(rows, VAL_X.ends, SEQ_LEN))[past]
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-6)


def test_a_saved_model_predicts_the_same_bits(name, model, tmp_path):
    model.save(tmp_path / "saved")
    loaded = type(model).load(tmp_path / "saved")
    np.testing.assert_array_equal(loaded.predict_proba(VAL_X), model.predict_proba(VAL_X))
    assert loaded.config == model.config
    assert loaded.training_history == model.training_history
    assert loaded.get_feature_importance().equals(model.get_feature_importance())


def test_two_fits_write_the_same_files_and_no_pickle(name, model, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    model.save(tmp_path / "first")
    fit(create(name)).save(tmp_path / "second")
    assert contents(tmp_path / "first") == contents(tmp_path / "second")
    assert list((tmp_path / "elsewhere").iterdir()) == []
    for path, content in contents(tmp_path / "first").items():
        assert not path.endswith((".pkl", ".pickle", ".joblib"))
        assert str(tmp_path).encode() not in content


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_history_is_what_was_logged(name):
    logged = []
    model = fit(create(name), log=lambda metrics, step: logged.append({"step": step, **metrics}))
    assert model.training_history == logged
    assert [entry["step"] for entry in logged] == list(range(len(logged)))
    for entry in logged:
        assert np.isfinite([entry["train_log_loss"], entry["val_log_loss"]]).all()


@pytest.mark.parametrize("name", ROUNDWISE)
@pytest.mark.parametrize("early_stopping", [True, False])
def test_early_stopping_keeps_the_best_round_and_without_it_the_last(name, early_stopping):
    shuffled = np.random.default_rng(5).permutation(TRAIN_Y)  # so that validation soon gets worse
    model = create(name, early_stopping=early_stopping, patience=3, max_rounds=15, max_epochs=15)
    losses = [entry["val_log_loss"] for entry in fit(model, (TRAIN_X, shuffled, WEIGHT)).training_history]
    best = int(np.argmin(losses))
    assert len(losses) == (min(best + 1 + 3, 15) if early_stopping else 15)
    assert len(losses) - 1 > best, "the case shows nothing: its last round is the best one"
    expected = losses[best] if early_stopping else losses[-1]
    assert log_loss(model.predict_proba(VAL_X), VAL_Y) == pytest.approx(expected, abs=1e-6)


def test_a_window_without_weight_has_no_influence(name):
    weight = WEIGHT.copy()
    silenced = np.random.default_rng(6).random(len(weight)) < 0.3
    weight[silenced] = 0
    X, y = TRAIN_X[:], TRAIN_Y.copy()
    X[silenced] = 40
    y[silenced] = 1
    models = [fit(create(name), case) for case in ((TRAIN_X, TRAIN_Y, weight), (X, y, weight))]
    np.testing.assert_array_equal(*(model.predict_proba(VAL_X) for model in models))


def test_weights_move_the_answer(name, model):
    weight = np.where(TRAIN_Y == 1, 10 * WEIGHT, WEIGHT)
    heavier = fit(create(name), (TRAIN_X, TRAIN_Y, weight))
    assert heavier.predict_proba(VAL_X)[:, 2].mean() > model.predict_proba(VAL_X)[:, 2].mean() + 0.05


@pytest.mark.parametrize("missing", CLASSES)
def test_a_class_that_train_lacks_is_answered_with_little_and_never_nothing(name, missing, tmp_path):
    known = missing != TRAIN_Y
    model = fit(create(name), (TRAIN_X.select(known), TRAIN_Y[known], WEIGHT[known]))
    probabilities = model.predict_proba(VAL_X)
    column = probabilities[:, CLASSES.index(missing)]
    assert probabilities.shape == (len(VAL_X), 3)
    assert (column > 1e-6).all()
    assert (column < 0.1).all()
    if name in ROUNDWISE:  # the library never saw those windows, the log must count them all the same
        best = min(entry["val_log_loss"] for entry in model.training_history)
        assert log_loss(probabilities, VAL_Y) == pytest.approx(best, abs=1e-6)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(type(model).load(tmp_path / "model").predict_proba(VAL_X), probabilities)


@pytest.mark.parametrize(
    "options",
    [{"symbols": 1, "bars": 300}, {"symbols": 12, "bars": 40}, {"width": 1}, {"stride": 4, "bars": 600}],
    ids=["one symbol", "many symbols", "one feature", "thinned"],
)
def test_other_shapes_of_data(name, options):
    X, y, weight = make(7, **options)
    val_X, val_y, _ = make(8, **options | {"stride": 1})
    features = [f"f{j}" for j in range(X.shape[2])]
    model = fit(create(name, features), (X, y, weight), (val_X, val_y))
    loss = log_loss(model.predict_proba(val_X), val_y)
    assert loss < prior_loss(y, val_y) - (0.05 if name in LEARNERS else -0.05)
    plain = fit(create(name, features), (X[:], y, weight), (val_X[:], val_y))
    np.testing.assert_array_equal(plain.predict_proba(val_X), model.predict_proba(val_X))


@pytest.mark.parametrize("among", [slice(0, None, 3), slice(0, 150)], ids=["with holes", "without"])
def test_windows_in_any_order(name, among):
    order = np.random.default_rng(9).permutation(np.arange(len(TRAIN_X))[among])
    case = TRAIN_X.select(order), TRAIN_Y[order], WEIGHT[order]
    lazy = fit(create(name), case)
    plain = fit(create(name), (case[0][:], *case[1:]))
    np.testing.assert_array_equal(lazy.predict_proba(VAL_X), plain.predict_proba(VAL_X))


def test_importance_sums_to_one(model):
    frame = model.get_feature_importance()
    assert list(frame.columns) == ["feature", "lag", "importance"]
    if len(frame):
        assert frame["importance"].sum() == pytest.approx(1)
        assert frame["importance"].is_monotonic_decreasing
        assert set(frame["feature"]) <= set(FEATURES)
        assert frame["lag"].dropna().between(0, SEQ_LEN - 1).all()
        assert frame["feature"].iloc[0] == "now"


class TestWhatIsRefused:
    """By the public methods, so by every model alike."""

    @pytest.fixture
    def unfitted(self, name):
        return create(name)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"X_train": TRAIN_X[:][:, :, :3]}, r"X_train: expected 4 features, got 3"),
            ({"X_val": VAL_X[:][:, :5]}, r"X_val: expected windows of 8 bars like X_train, got 5"),
            ({"X_train": TRAIN_X.rows}, r"expected windows \[N, L, F\], got an array of shape \(600, 4\)"),
            (
                {"X_train": TRAIN_X[:0], "y_train": TRAIN_Y[:0]},
                r"X_train: expected at least one window",
            ),
            ({"X_train": np.empty((len(TRAIN_X), 0, 4))}, r"expected at least one window of at least one bar"),
            ({"y_train": TRAIN_Y[1:]}, r"y_train: expected \d+ labels, one per window, got shape"),
            ({"y_val": VAL_Y + 1}, r"y_val: expected labels in \{-1, 0, 1\}, got 2"),
            ({"sample_weight": -WEIGHT}, r"sample_weight: expected \d+ finite values"),
            ({"sample_weight": WEIGHT[1:]}, r"sample_weight: expected \d+ finite values"),
            ({"sample_weight": 0 * WEIGHT}, r"every weight is 0"),
        ],
    )
    def test_wrong_inputs(self, unfitted, changes, message):
        right = {"X_train": TRAIN_X, "y_train": TRAIN_Y, "X_val": VAL_X, "y_val": VAL_Y, "sample_weight": WEIGHT}
        with pytest.raises(ModelError, match=message):
            unfitted.fit(**right | changes)
        assert not unfitted.is_fitted

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_values_that_are_not_finite(self, model, unfitted, value):
        X = TRAIN_X[:]
        X[5, 2, 1] = value
        with pytest.raises(ModelError, match=r"X_train: .*now.* not finite"):
            unfitted.fit(X, TRAIN_Y, VAL_X, VAL_Y)
        with pytest.raises(ModelError, match="not finite"):
            model.predict_proba(X)

    def test_predicting_and_saving_before_fitting(self, unfitted, tmp_path):
        with pytest.raises(ModelError, match="predict was called before fit"):
            unfitted.predict(VAL_X, VAL_META)
        with pytest.raises(ModelError, match="save was called before fit"):
            unfitted.save(tmp_path / "model")
        assert list(tmp_path.iterdir()) == []

    def test_windows_of_another_length_and_metadata_of_another_size(self, model):
        with pytest.raises(ModelError, match=r"X: expected windows of 8 bars as in fit, got 6"):
            model.predict_proba(VAL_X[:][:, :6])
        with pytest.raises(ModelError, match=r"metadata: expected \d+ rows, one per window, got 3"):
            model.predict(VAL_X, VAL_META[:3])

    def test_another_horizon_and_a_folder_without_a_model(self, name, tmp_path):
        with pytest.raises(ModelError, match="horizon 7 was asked for, but the config has 5"):
            ModelRegistry.create(name, config(name), 7, FEATURES)
        with pytest.raises(ModelError, match=r"no model.json here; train the model first"):
            ModelRegistry.get_metadata(name).model_class.load(tmp_path)


@pytest.mark.parametrize("name", LEARNERS)
def test_one_class_alone_is_nothing_to_learn(name):
    with pytest.raises(ModelError, match=r"y_train: all \d+ windows that weigh anything have label 0"):
        fit(create(name), (TRAIN_X, 0 * TRAIN_Y, WEIGHT))


# What the boosters promise beyond the contract


@pytest.mark.parametrize("name", BOOSTERS)
def test_importance_points_at_the_planted_features_and_lags(model):
    top = model.get_feature_importance().head(2)
    assert set(zip(top["feature"], top["lag"], strict=True)) == PLANTED


@pytest.mark.parametrize("name", BOOSTERS)
def test_one_and_two_threads_write_the_same_bytes(name, model, tmp_path):
    """So `threads` is in no spec of a booster, and in none of its files."""
    other = fit(create(name, threads=2))
    np.testing.assert_array_equal(other.predict_proba(VAL_X), model.predict_proba(VAL_X))
    for number, each in enumerate((model, other)):
        each.save(tmp_path / str(number))
    one, two = ({file.name: file.read_bytes() for file in (tmp_path / n).iterdir()} for n in "01")
    assert one == two
    assert b"threads" not in one["model.json"]


@pytest.mark.parametrize("name", BOOSTERS)
def test_chunks_change_no_bit(name, model, monkeypatch):
    expected = model.predict_proba(VAL_X)
    monkeypatch.setattr(_lags, "CHUNK_BYTES", 5000)
    np.testing.assert_array_equal(model.predict_proba(VAL_X), expected)
    np.testing.assert_array_equal(fit(create(name)).predict_proba(VAL_X), expected)


@pytest.mark.parametrize("name", BOOSTERS)
def test_all_lags_by_list_come_close_to_the_streamed_windows(name, model):
    listed = fit(create(name, lags=list(range(SEQ_LEN - 1, -1, -1)), colsample=1.0))
    streamed = fit(create(name, colsample=1.0))
    losses = [log_loss(each.predict_proba(VAL_X), VAL_Y) for each in (listed, streamed)]
    assert losses[0] == pytest.approx(losses[1], abs=0.03)


def test_streamed_xgboost_comes_close_to_a_dense_matrix():
    import xgboost

    model = fit(create("xgboost", early_stopping=False, max_bins=256, colsample=1.0, subsample=1.0))
    dense = [xgboost.DMatrix(X[:].reshape(len(X), -1), y + 1) for X, y in ((TRAIN_X, TRAIN_Y), (VAL_X, VAL_Y))]
    dense[0].set_weight(WEIGHT)
    booster = xgboost.train(model._parameters(), dense[0], model.config.max_rounds)
    losses = [log_loss(answer, VAL_Y) for answer in (booster.predict(dense[1]), model.predict_proba(VAL_X))]
    assert losses[0] == pytest.approx(losses[1], abs=0.03)


@pytest.mark.parametrize("name", BOOSTERS)
def test_the_flattened_windows_are_never_held_as_a_whole(name, monkeypatch):
    import tracemalloc

    rng = np.random.default_rng(0)
    rows = rng.standard_normal((3000, 10)).astype(np.float32)
    X = Windows(rows, np.arange(49, 3000), 50)
    y = rng.integers(-1, 2, len(X))
    monkeypatch.setattr(_lags, "CHUNK_BYTES", 2**18)
    monkeypatch.setattr(f"barcast.models.{name}.CHUNK_BYTES", 2**18, raising=False)
    model = create(name, [f"f{j}" for j in range(10)], max_rounds=1, max_bins=8, lags="all")
    fit(model, (X[:100], y[:100], None), (X[:100], y[:100]))  # imports its library
    tracemalloc.start()
    fit(model, (X, y, None), (X, y)).predict_proba(X)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(X) * 50 * 10 * 4 / 2


@pytest.mark.parametrize("name", BOOSTERS)
def test_columns_that_all_stand_still_are_refused(name):
    X = np.ones((20, SEQ_LEN, 4), np.float32)
    with pytest.raises(ModelError, match="X_train: all columns are constant"):
        fit(create(name), (X, TRAIN_Y[:20], None))


@pytest.mark.parametrize("name", BOOSTERS)
def test_a_rare_value_keeps_its_bin(name, monkeypatch):
    """A flag that is up in 1% of the bars lies between no two quantiles of a small table."""
    rng = np.random.default_rng(0)
    rows = np.stack([rng.standard_normal(4000), rng.random(4000) < 0.01], axis=1).astype(np.float32)
    X = Windows(rows, np.arange(2, 4000), 3)
    y = np.where(X.lag(0)[:, 1] == 1, 1, rng.integers(-1, 1, len(X)))
    model = create(name, ["noise", "flag"], colsample=1.0, subsample=1.0, max_bins=8, min_child_weight=1.0)
    fit(model, (X, y, None), (X, y))
    assert (model.predict_proba(X)[y == 1].argmax(axis=1) == 2).all()


@pytest.mark.parametrize("name", BOOSTERS)
def test_labels_that_train_never_showed_are_no_validation(name):
    known = TRAIN_Y != 1
    with pytest.raises(ModelError, match=r"y_val: expected some of the labels \[-1, 0\] that y_train has"):
        fit(create(name), (TRAIN_X.select(known), TRAIN_Y[known], WEIGHT[known]), (VAL_X, np.ones_like(VAL_Y)))


@pytest.mark.parametrize("name", BOOSTERS)
def test_a_loss_that_is_not_finite_stops_the_training(name, monkeypatch):
    after_round = EarlyStopping.after_round
    monkeypatch.setattr(EarlyStopping, "after_round", lambda self, train, val: after_round(self, train, float("nan")))
    with pytest.raises(ModelError, match=rf"{name}: round 1: log-loss is .* on train and nan on val"):
        fit(create(name))


@pytest.mark.parametrize("name", BOOSTERS)
def test_an_error_of_the_log_comes_through(name):
    def log(metrics, step):
        if step == 2:
            raise OSError("no space left on device")

    model = create(name)
    with pytest.raises(OSError, match="no space left on device"):
        fit(model, log=log)
    assert not model.is_fitted


@pytest.mark.parametrize("name", ["gru", "xgboost"])
def test_a_second_fit_that_fails_leaves_no_model(name):
    def fail(metrics, step):
        raise RuntimeError("the log failed")

    model = fit(create(name, max_rounds=2, max_epochs=2))
    with pytest.raises(RuntimeError, match="the log failed"):
        fit(model, log=fail)
    assert not model.is_fitted
    with pytest.raises(ModelError, match=f"{name}: predict was called before fit"):
        model.predict_proba(VAL_X)


@pytest.mark.parametrize("name", ["patchtst", "gru"])
def test_threads_that_ask_at_once_get_the_same_answers(name, tmp_path):
    """In training mode, for one thread alone, batch norm and dropout would spoil those of the others."""
    fitted = fit(create(name, max_epochs=1, dropout=0.5))
    fitted.save(tmp_path / "model")
    loaded = type(fitted).load(tmp_path / "model")
    expected = fitted.predict_proba(VAL_X)
    for model in (fitted, loaded):
        with ThreadPoolExecutor(4) as pool:
            for answer in pool.map(lambda _, one=model: one.predict_proba(VAL_X), range(16)):
                np.testing.assert_array_equal(answer, expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_another_device_answers_here_and_says_so(name, model, tmp_path):
    model.save(tmp_path / "model")
    file = tmp_path / "model/model.json"
    file.write_text(file.read_text().replace('"device": "cpu"', '"device": "mps"'))
    elsewhere = type(model).load(tmp_path / "model")
    with pytest.warns(UserWarning, match="device = 'mps': this machine has none that torch can use"):
        np.testing.assert_array_equal(elsewhere.predict_proba(VAL_X[:5]), model.predict_proba(VAL_X[:5]))


def test_logistic_says_when_it_has_not_converged(recwarn):
    for iterations, converged in ((1, 0.0), (500, 1.0)):
        model = fit(create("logistic", max_iterations=iterations, C=1.0))
        assert model.training_history[-1]["converged"] == converged
    assert not recwarn.list


def test_logistic_equals_scikit_learn_on_standardised_last_bars():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = fit(create("logistic"))
    oracle = make_pipeline(StandardScaler(), LogisticRegression(C=model.config.C, max_iter=500))
    oracle.fit(TRAIN_X.lag(0), TRAIN_Y, logisticregression__sample_weight=WEIGHT)
    np.testing.assert_allclose(model.predict_proba(VAL_X), oracle.predict_proba(VAL_X.lag(0)), atol=1e-4)


def test_the_prior_is_the_smoothed_weighted_frequency():
    model = fit(create("prior"), (TRAIN_X, TRAIN_Y, 3 * WEIGHT))
    counts = np.array([WEIGHT[label == TRAIN_Y].sum() for label in CLASSES], np.float64)
    counts *= len(WEIGHT) / counts.sum()
    np.testing.assert_allclose(model.predict_proba(VAL_X[:1])[0], (counts + 1) / (len(WEIGHT) + 3), rtol=1e-6)


@pytest.mark.parametrize("early_stopping", [True, False])
def test_trees_that_found_nothing_to_split_are_trees_too(early_stopping, tmp_path):
    """CatBoost makes them where the columns that it drew tell nothing."""
    X = np.zeros_like(TRAIN_X[:])
    X[:, -1, 0] = np.arange(len(X)) % 2
    y = np.where(X[:, -1, 0] > 0, TRAIN_Y, 0)
    model = create("catboost", lags="all", colsample=0.05, early_stopping=early_stopping, patience=3)
    losses = [entry["val_log_loss"] for entry in fit(model, (X, y, WEIGHT), (X, y)).training_history]
    kept = min(losses) if early_stopping else losses[-1]
    answers = model.predict_proba(X)
    assert log_loss(answers, y) == pytest.approx(kept, abs=1e-6)
    assert not np.allclose(answers[0], answers[1])
    model.save(tmp_path)
    again = create("catboost", lags="all").load(tmp_path)
    np.testing.assert_array_equal(again.predict_proba(X), answers)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_stride_learns_from_every_nth_training_window_and_watches_all_of_validation(name):
    strided = fit(create(name, train_stride=3, max_epochs=3, watch_stride=2))
    kept = TRAIN_X.thinned(3)
    assert len(kept) < len(TRAIN_X) / 2
    by_hand = fit(create(name, max_epochs=3, watch_stride=2), (TRAIN_X.select(kept), TRAIN_Y[kept], WEIGHT[kept]))
    np.testing.assert_array_equal(strided.predict_proba(VAL_X), by_hand.predict_proba(VAL_X))
    assert strided.training_history == by_hand.training_history
