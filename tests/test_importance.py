"""Permutation importance finds what a prediction depends on, and nothing else."""

import numpy as np
import pytest

from _cells import register_stubs, train_stub, write_windows
from barcast import cli
from barcast.data.windows import Windows
from barcast.evaluation.importance import lag_importance, permutation_importance
from barcast.models.base import BaseModel
from barcast.paths import Paths

LENGTH, FEATURES = 5, ["a", "b", "c", "d"]


class Known(BaseModel):
    """Up or down by `b` one bar before the last, and twice as much by `c` three bars before it."""

    def _fit(self, X_train, y_train, X_val, y_val, weight, log): ...
    def _save(self, folder): ...
    def _load(self, folder): ...

    def _predict_proba(self, X):
        signal = X.lag(1)[:, 1] + 2 * X.lag(3)[:, 2]
        scores = np.exp(np.outer(signal, (-1, 0, 1)).astype(float))
        return scores / scores.sum(axis=1, keepdims=True)


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((500, len(FEATURES))).astype(np.float32)
    X = Windows(rows, np.arange(LENGTH - 1, 500), LENGTH)
    values = {"model_name": "known", "model_family": "test", "horizon": 5, "random_seed": 0, "threads": 1}
    model = Known(values, 5, FEATURES)
    y = (rng.random(len(X)) * 3).astype(int) - 1
    model.fit(X, y, X, y)
    y = model.predict_proba(X).argmax(axis=1) - 1
    return model, X, y


def test_features_in_the_order_of_their_effect_and_no_others(case):
    frame = permutation_importance(*case, windows=300, seed=1)
    assert frame["feature"].tolist() == ["c", "b"]
    assert frame["lag"].isna().all()
    assert frame["importance"].sum() == pytest.approx(1)
    assert frame["importance"].iloc[0] > 0.6


def test_lags_in_the_order_of_their_effect_and_no_others(case):
    frame = lag_importance(*case, windows=300, seed=1)
    assert frame["lag"].tolist() == [3, 1]
    assert frame["importance"].sum() == pytest.approx(1)


def test_the_same_seed_gives_the_same_table_and_the_windows_stay_as_they_were(case):
    model, X, y = case
    before = X.rows.copy()
    first, second = (permutation_importance(model, X, y, windows=50, seed=2) for _ in range(2))
    assert first.equals(second)
    np.testing.assert_array_equal(X.rows, before)


def test_if_shuffling_makes_nothing_worse_the_table_is_empty(case):
    model, X, y = case
    frame = permutation_importance(model, X, -y, windows=300, seed=1)
    assert frame.empty
    assert list(frame.columns) == ["feature", "lag", "importance"]


def test_the_command_shows_the_importance_of_a_trained_cell(tmp_path, monkeypatch, capsys):
    register_stubs(monkeypatch, "stub")
    paths = Paths(tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    write_windows(paths)
    train_stub(paths, "stub", 5, sharpness=2.0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["barcast", "importance", "stub", "--horizon", "5", "--windows", "100"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert not stopped.value.code
    shown = capsys.readouterr().out
    assert "momentum │ 100.0%" in shown
    assert "│ 0   │ 100.0%" in shown

    monkeypatch.setattr("sys.argv", ["barcast", "importance", "stub", "--horizon", "20"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 1
    assert "no trained model; run `dvc repro train@stub-20` first" in capsys.readouterr().err
