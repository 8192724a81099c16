"""CatBoost's trees on the columns that they use answer as on all of them."""

import numpy as np
import pytest

from barcast.models.catboost import LeanTrees, _keep_used


def fitted(x, y, rounds=5):
    import catboost

    settings = {"loss_function": "MultiClass", "iterations": rounds, "depth": 3, "thread_count": 1}
    booster = catboost.CatBoost({**settings, "allow_writing_files": False, "logging_level": "Silent"})
    return booster.fit(x, y)


@pytest.mark.parametrize("classes", [2, 3])
def test_lean_trees_predict_like_the_whole_booster(classes):
    rng = np.random.default_rng(classes)
    x = rng.normal(size=(400, 60)).astype(np.float32)
    y = np.digitize(x[:, 17] + 0.5 * x[:, 41], [-0.5, 0.5] if classes == 3 else [0.0])
    booster = fitted(x, y)
    lean = LeanTrees.of(booster)
    assert 17 in lean.columns
    assert 2 <= len(lean.columns) < 40
    whole = booster.predict(x, prediction_type="Probability")
    np.testing.assert_allclose(lean.predict(x, 1), whole, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(lean.predict(x[7:8], 1), lean.predict(x, 1)[7:8])
    others = x.copy()
    others[:, np.setdiff1d(np.arange(60), lean.columns)] = 9.0
    np.testing.assert_array_equal(lean.predict(others, 1), lean.predict(x, 1))


def test_trees_that_split_nowhere_keep_one_column():
    features = [{"borders": [], "feature_index": i, "flat_feature_index": i, "feature_id": str(i)} for i in range(3)]
    content = {"features_info": {"float_features": features}, "oblivious_trees": [{"splits": []}]}
    assert _keep_used(content).tolist() == [0]
    assert len(content["features_info"]["float_features"]) == 1
    constant = fitted(np.tile([[1.0, 2.0], [1.0, 3.0]], (30, 1)).astype(np.float32), np.arange(60) // 2 % 3, rounds=1)
    assert np.isfinite(LeanTrees.of(constant).predict(np.ones((2, 2), np.float32), 1)).all()
