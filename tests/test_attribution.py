"""Integrated gradients: complete, equal to slow differences, and where the signal is."""

from __future__ import annotations

import numpy as np
import pytest

from barcast.cache.fingerprint import Fingerprinter
from barcast.data.windows import Windows
from barcast.evaluation.attribution import importance_of, integrated_gradients
from barcast.probabilities import log_loss
from test_network_models import LENGTH, NETWORKS, create

FEATURES, PLACE, LAG = 3, 1, 4


@pytest.fixture(scope="module")
def windows():
    rows = np.random.default_rng(0).standard_normal((700, FEATURES)).astype(np.float32)
    X = Windows(rows, np.arange(LENGTH - 1, 700), LENGTH)
    y = np.digitize(X.lag(LAG)[:, PLACE], [-0.43, 0.43]) - 1  # the label is one feature, a few bars back
    return X, y


def fitted(name, windows, **changes):
    X, y = windows
    return create(name, width=FEATURES, **{"max_epochs": 1, "learning_rate": 0.01, **changes}).fit(X, y, X, y)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        *((name, {}) for name in NETWORKS),
        ("gru", {"average_seeds": 3, "train_stride": 2}),
        ("patchtst", {"average_seeds": 2, "lookback": 8}),
    ],
)
def test_attributions_sum_to_the_change_along_the_path(name, changes, windows):
    model, (X, _) = fitted(name, windows, **changes), windows
    few = X.select(slice(0, 40))
    total = integrated_gradients(model, few, steps=300).sum(axis=(1, 2))
    blank = Windows(np.zeros((LENGTH, FEATURES), np.float32), np.array([LENGTH - 1]), LENGTH)
    here, start = model.predict_proba(few), model.predict_proba(blank)
    favoured = here.argmax(axis=1)
    expected = np.log(here[np.arange(40), favoured]) - np.log(start[0, favoured])
    assert total == pytest.approx(expected, abs=0.01 * max(1, np.abs(expected).max()))


def test_the_signal_is_found_at_its_feature_and_lag(windows):
    X, y = windows
    model = fitted("gru", windows, max_epochs=15, learning_rate=0.03)
    assert log_loss(model.predict_proba(X), y) < 0.6, "there is something to be found"
    table = importance_of(model, X)
    assert table["importance"].sum() == pytest.approx(1)
    assert table["importance"].is_monotonic_decreasing
    assert (table.iloc[0]["feature"], table.iloc[0]["lag"]) == ("f1", LAG)
    assert len(table) == LENGTH * FEATURES


def test_the_mean_of_networks_is_attributed_as_by_slow_differences(windows):
    model, (X, _) = fitted("gru", windows, average_seeds=2, lookback=5, learning_rate=0.03), windows
    few = X.select(slice(0, 6))
    found, favoured = integrated_gradients(model, few, steps=4), model.predict_proba(few).argmax(axis=1)
    assert found.shape == (6, 5, FEATURES)
    x, h = few[:].astype(np.float64), 1e-2
    for window, bar, feature in ((0, LENGTH - 1, 0), (3, LENGTH - 1 - LAG, PLACE), (5, LENGTH - 2, 2)):
        slopes = []
        for step in range(4):
            point = x * (step + 0.5) / 4
            up, down = point.copy(), point.copy()
            up[window, bar, feature] += h
            down[window, bar, feature] -= h
            ahead, behind = (np.log(model.predict_proba(p))[window, favoured[window]] for p in (up, down))
            slopes.append((ahead - behind) / (2 * h))
        expected = np.mean(slopes) * x[window, bar, feature]
        assert found[window, bar - (LENGTH - 5), feature] == pytest.approx(expected, rel=0.02, abs=2e-4)


def test_only_the_bars_that_a_network_sees_have_importance(windows):
    model, (X, _) = fitted("nhits", windows, lookback=7, pool_sizes=[2]), windows
    table = importance_of(model, X)
    assert len(table) == 7 * FEATURES
    assert set(table["lag"]) == set(range(7))
    assert table["importance"].sum() == pytest.approx(1)


def test_the_same_windows_give_the_same_bytes(windows):
    model, (X, _) = fitted("lstm", windows), windows
    assert importance_of(model, X).equals(importance_of(model, X))


def test_other_models_return_their_own_importance(windows):
    X, y = windows
    model = create("prior", width=FEATURES).fit(X, y, X, y)
    assert importance_of(model, X).empty


def test_what_a_model_is_attributed_with_is_loaded_only_for_a_network():
    modules = Fingerprinter().fingerprint("barcast.evaluation.attribution").code
    assert not [name for name in modules if name.startswith(("barcast.models.", "barcast.networks."))]
