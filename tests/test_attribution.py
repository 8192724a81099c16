"""Integrated gradients: complete, as slow gradients say, and where the signal is."""

from __future__ import annotations

import numpy as np
import pytest

from barcast.data.windows import Windows
from barcast.evaluation.attribution import importance_of, integrated_gradients
from barcast.models.base import log_loss
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


@pytest.mark.parametrize("name", NETWORKS)
def test_attributions_sum_to_what_the_path_changes(name, windows):
    model, (X, _) = fitted(name, windows), windows
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


def test_the_same_windows_give_the_same_bytes(windows):
    model, (X, _) = fitted("lstm", windows), windows
    assert importance_of(model, X).equals(importance_of(model, X))


def test_other_models_say_it_themselves(windows):
    X, y = windows
    model = create("prior", width=FEATURES).fit(X, y, X, y)
    assert importance_of(model, X).empty
