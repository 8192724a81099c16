"""Scaling of probabilities: what is fitted, on what, and when it is used."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from barcast.errors import DataError
from barcast.evaluation.scaling import NO_SCALING, Judge, Scaling, choose_scaling, fit_scaling
from barcast.evaluation.slices import validation_parts
from barcast.models.base import log_loss

METHODS = ("temperature", "vector")


def softmax(scores):
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def sample(rng, n, sharpness=1.0, scale=1.0, bias=(0.0, 0.0, 0.0)):
    """Probabilities of a model whose logits are the true ones times `scale` plus `bias`, and labels from the truth."""
    logits = rng.normal(0, sharpness, (n, 3))
    truth = softmax(logits)
    y = (rng.random((n, 1)) > truth.cumsum(axis=1)).sum(axis=1) - 1
    return softmax(logits * scale + np.asarray(bias)), y


def judge(p, y, reach=1):
    return Judge(p, y, np.arange(len(y)), reach)


# fitting


@pytest.mark.parametrize("scale", [0.4, 1.0, 2.5])
def test_temperature_finds_the_truth(scale):
    p, y = sample(np.random.default_rng(0), 20_000, scale=scale)
    found = fit_scaling("temperature", p, y)
    assert found.weights == (found.weights[0],) * 3
    assert found.weights[0] * scale == pytest.approx(1, abs=0.05)


def test_vector_finds_the_truth():
    p, y = sample(np.random.default_rng(1), 20_000, scale=2.0, bias=(0.8, 0.0, -0.5))
    repaired = fit_scaling("vector", p, y).apply(p)
    truth = softmax((np.log(p) - np.array([0.8, 0, -0.5])) / 2.0)
    assert np.abs(repaired - truth).max() < 0.04


def test_temperature_is_the_best_there_is():
    p, y = sample(np.random.default_rng(2), 500, scale=1.7)
    found = fit_scaling("temperature", p, y)
    grid = [log_loss(softmax(np.log(p) * w), y) for w in np.geomspace(0.06, 18, 4000)]
    assert log_loss(found.apply(p), y) <= min(grid) + 1e-9


def test_vector_is_the_best_there_is():
    p, y = sample(np.random.default_rng(3), 400, scale=1.5, bias=(0.5, -0.2, 0.1))

    def objective(v):
        scaled = softmax(v[:3] * np.log(p) + v[3:])
        return log_loss(scaled, y) + 0.5 * np.sum((v - [1, 1, 1, 0, 0, 0]) ** 2) / len(y)

    slow = minimize(objective, [1, 1, 1, 0, 0, 0], method="Nelder-Mead", options={"maxiter": 20_000, "fatol": 1e-12})
    found = fit_scaling("vector", p, y)
    assert objective(np.array([*found.weights, *found.bias])) <= slow.fun + 1e-7


@pytest.mark.parametrize("method", METHODS)
def test_a_class_that_never_came_leaves_finite_probabilities(method):
    p, _ = sample(np.random.default_rng(4), 200)
    scaled = fit_scaling(method, p, np.full(200, 1)).apply(p)
    assert np.isfinite(scaled).all()
    assert scaled.sum(axis=1) == pytest.approx(1)


@given(st.integers(0, 2**32 - 1), st.sampled_from(METHODS))
@settings(max_examples=25, deadline=None)
def test_fitting_never_makes_its_own_slice_worse(seed, method):
    rng = np.random.default_rng(seed)
    p, y = sample(rng, int(rng.integers(20, 300)), scale=float(rng.uniform(0.3, 3)))
    scaled = fit_scaling(method, p, y).apply(p)
    assert log_loss(scaled, y) <= log_loss(p, y) + 1e-6
    assert scaled.sum(axis=1) == pytest.approx(1)


def test_a_temperature_changes_no_prediction():
    p, y = sample(np.random.default_rng(5), 300, scale=3.0)
    assert (fit_scaling("temperature", p, y).apply(p).argmax(axis=1) == p.argmax(axis=1)).all()


def test_none_changes_no_bit():
    p, y = sample(np.random.default_rng(6), 50)
    assert fit_scaling("none", p, y) is NO_SCALING
    assert NO_SCALING.apply(p) is p


def test_scaling_survives_json():
    p, y = sample(np.random.default_rng(7), 200, scale=2.0)
    found = fit_scaling("vector", p, y)
    assert Scaling.from_json(found.to_json()) == found


# choosing


def test_what_helps_is_used():
    rng = np.random.default_rng(8)
    p, y = sample(rng, 2000, scale=3.0)
    choice = choose_scaling(METHODS, p, y, judge(*sample(rng, 2000, scale=3.0)))
    assert choice.scaling.method == "temperature"
    assert choice.losses["temperature"] < choice.losses["none"] - 0.1
    p, y = sample(rng, 2000, scale=3.0, bias=(2.0, 0.0, 0.0))
    choice = choose_scaling(METHODS, p, y, judge(*sample(rng, 2000, scale=3.0, bias=(2.0, 0.0, 0.0))))
    assert choice.scaling.method == "vector"


def test_what_does_not_help_elsewhere_is_not_used():
    rng = np.random.default_rng(9)
    p, y = sample(rng, 2000, scale=3.0)
    other = judge(*sample(rng, 2000))  # calibrated there
    assert choose_scaling(METHODS, p, y, other).scaling is NO_SCALING


def test_a_gain_within_one_standard_error_is_no_reason():
    kept = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        p, y = sample(rng, 300)
        kept += choose_scaling(METHODS, p, y, judge(*sample(rng, 300))).scaling is NO_SCALING
    assert kept >= 34


def test_no_methods_leave_probabilities_as_they_are():
    p, y = sample(np.random.default_rng(10), 100, scale=3.0)
    choice = choose_scaling([], p, y, judge(p, y))
    assert (choice.scaling, list(choice.losses)) == (NO_SCALING, ["none"])


@pytest.mark.parametrize(("reach", "method"), [(100, "temperature"), (101, "none"), (1000, "none")])
def test_too_few_batches_to_judge_by_leave_probabilities_as_they_are(reach, method):
    rng = np.random.default_rng(12)
    p, y = sample(rng, 2000, scale=3.0)
    choice = choose_scaling(METHODS, p, y, judge(*sample(rng, 401, scale=3.0), reach))
    assert choice.scaling.method == method
    assert choice.losses["temperature"] < choice.losses["none"]


def test_the_standard_error_knows_that_neighbours_depend():
    rng = np.random.default_rng(11)
    values = np.repeat(rng.normal(size=400), 10)  # ten times the same
    p, y = sample(rng, 4000)
    truth = 1 / np.sqrt(400)
    assert judge(p, y, reach=50).standard_error(values) == pytest.approx(truth, rel=0.3)
    assert judge(p, y, reach=1).standard_error(values) == pytest.approx(truth / np.sqrt(10), rel=0.1)


# slices


def windows(bars, symbols=("AAA", "BBB"), missing=0):
    times = pd.date_range("2020-01-01", periods=bars, freq="30min", tz="UTC")
    parts = [pd.DataFrame({"datetime": times[i * missing :], "symbol": s}) for i, s in enumerate(symbols)]
    return pd.concat(parts, ignore_index=True)


@given(st.integers(30, 120), st.floats(0.2, 0.8), st.integers(0, 5), st.integers(0, 3), st.randoms())
@settings(max_examples=40, deadline=None)
def test_parts_are_cut_by_time_and_purged_by_symbol(bars, share, purge, missing, random):
    frame = windows(bars, missing=missing).sample(frac=1, random_state=random.randrange(2**32)).reset_index(drop=True)
    frame["part"] = validation_parts(frame, share, purge)
    cut = frame.loc[frame["part"] == "ranked", "datetime"].min()
    assert (frame.loc[frame["part"] != "ranked", "datetime"] < cut).all()
    assert (frame["datetime"] < cut).any()
    for _, symbol in frame.groupby("symbol"):
        early = symbol[symbol["datetime"] < cut].sort_values("datetime")
        expected = ["calibration"] * max(len(early) - purge, 0) + ["purged"] * min(purge, len(early))
        assert early["part"].tolist() == expected
    count = (frame["datetime"].drop_duplicates() < cut).sum()
    assert count == int(share * frame["datetime"].nunique())


@pytest.mark.parametrize(("share", "purge", "part"), [(0.5, 50, "calibration"), (0.01, 0, "calibration")])
def test_an_empty_part_is_refused(share, purge, part):
    with pytest.raises(DataError, match=rf"no window is left for its {part} part \(80 windows, calibration.share"):
        validation_parts(windows(40), share, purge)
