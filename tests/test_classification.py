"""Real time-series classification sets: they are read right, and models reach what others have published of them."""

import json

import numpy as np
import pytest

from conftest import REPOSITORY


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY))


def load(name):
    from benchmarks import classification

    return classification.load(name, classification.folder())


# 1 less the error of the nearest neighbour (ED, w = 0) in the archive's own table (Dau et al. 2019)
@pytest.mark.parametrize(
    ("name", "published"), [("ArrowHead", 0.8), ("GunPoint", 0.9133), ("ItalyPowerDemand", 0.9553)]
)
def test_the_nearest_neighbour_is_as_good_as_in_the_archives_table(name, published):
    from benchmarks.classification import nearest_neighbour

    assert nearest_neighbour(load(name)) == pytest.approx(published, abs=5e-5)


# The floor is the lowest published mean of a network that learns at all there, TWIESN's, which is a recurrent one.
@pytest.mark.parametrize("model", ["gru", "lstm", "lightgbm"])
def test_italy_power_demand_is_learnt_as_well_as_published(model):
    from benchmarks.classification import SETS, accuracy

    floor = SETS["ItalyPowerDemand"].accuracy["TWIESN"] / 100
    quick = {"max_epochs": 60, "bidirectional": False, "pooling": "last"}
    assert accuracy(model, load("ItalyPowerDemand"), seed=0, over=quick) > floor


def test_gun_point_is_learnt_as_well_as_published_in_bars_of_several_samples():
    from benchmarks.classification import SETS, accuracy

    known = SETS["GunPoint"]
    task = load("GunPoint").in_bars(known.samples)
    assert accuracy("lstm", task, seed=0, over={"max_epochs": 150}) > min(known.accuracy.values()) / 100


def test_folds_ask_for_every_training_window_once_and_learn_from_the_others():
    from benchmarks.classification import Task, folds, mean

    X, y = np.arange(33.0).reshape(11, 3, 1), np.arange(11) % 2
    parts = folds(Task(X, y, X[:0], y[:0]), 3)
    np.testing.assert_array_equal(np.sort(np.concatenate([part.X_test[:, 0, 0] for part in parts])), X[:, 0, 0])
    for part in parts:
        both = np.concatenate([part.X_train, part.X_test])
        np.testing.assert_array_equal(np.sort(both[:, 0, 0]), X[:, 0, 0])
        np.testing.assert_array_equal(part.y_test, part.X_test[:, 0, 0] / 3 % 2)
        assert set(part.y_test) == {0, 1}
    assert mean([1.0, 0.5, 0.0], parts) == pytest.approx((4 + 2) / 11)


def test_bars_of_several_samples():
    from benchmarks.classification import Task

    X, y = np.arange(20.0).reshape(2, 5, 2), np.zeros(2, int)
    seen = Task(X, y, X[1:], y[1:]).in_bars(2)
    np.testing.assert_array_equal(seen.X_train[0], [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 8, 9]])
    np.testing.assert_array_equal(seen.X_test[0], [[10, 11, 12, 13], [14, 15, 16, 17], [18, 19, 18, 19]])


def test_nine_speakers_are_distinguished_one_against_the_rest():
    """Plain Japanese vowels, 12 channels: one in nine by chance, 94.4 % the lowest published that learns at all."""
    from benchmarks.classification import accuracy

    assert accuracy("lightgbm", load("JapaneseVowels"), seed=0, over={}) > 0.9


def test_a_file_with_series_of_several_lengths(tmp_path):
    from benchmarks.classification import read, stretched

    path = tmp_path / "some.ts"
    path.write_text("# words\n@problemName some\n@classLabel true a b\n@data\n0,1,2:5,5,5:b\n\n4,8:1,3:a\n")
    series, labels = read(path)
    assert labels == ["b", "a"]
    np.testing.assert_array_equal(series[0], [[0, 5], [1, 5], [2, 5]])
    np.testing.assert_array_equal(stretched(series, 3)[1], [[4, 1], [6, 2], [8, 3]])


def test_the_benchmark_states_what_was_published(capsys):
    from benchmarks import classification

    classification.main(["--sets", "GunPoint", "--models", "lightgbm", "--seeds", "0", "1", "--epochs", "20"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["sets"]["GunPoint"]
    assert (found["train"], found["test"], found["length"], found["channels"]) == (50, 150, 150, 1)
    assert found["models"]["lightgbm"]["min"] <= found["models"]["lightgbm"]["mean"]
    assert found["published"]["percent"]["FCN"] == 100.0
    assert "Ismail Fawaz" in found["published"]["source"]


def test_without_aeon_the_error_says_how_to_install_it(capsys, monkeypatch):
    from benchmarks import classification

    monkeypatch.setattr(classification, "folder", lambda: None)
    with pytest.raises(SystemExit):
        classification.main(["--sets", "GunPoint"])
    assert "aeon is not installed" in capsys.readouterr().err
