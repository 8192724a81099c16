"""Calibration: what is fitted, on what, and when it is used."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from barcast.errors import DataError
from barcast.evaluation.calibration import (
    NO_CALIBRATION,
    Period,
    choose_calibrator,
    fit_calibrator,
    fold_periods,
)
from barcast.evaluation.validation_split import cut_calibration, cut_validation
from barcast.probabilities import log_loss

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


def periods(rng, *sizes, **of_each):
    return [Period(*sample(rng, size, **of_each)) for size in sizes]


# fitting


@pytest.mark.parametrize("scale", [0.4, 1.0, 2.5])
def test_temperature_finds_the_truth(scale):
    p, y = sample(np.random.default_rng(0), 20_000, scale=scale)
    found = fit_calibrator("temperature", [Period(p, y)])
    assert found.weights == (found.weights[0],) * 3
    assert found.weights[0] * scale == pytest.approx(1, abs=0.05)


def test_vector_finds_the_truth():
    p, y = sample(np.random.default_rng(1), 20_000, scale=2.0, bias=(0.8, 0.0, -0.5))
    repaired = fit_calibrator("vector", [Period(p, y)]).apply(p)
    truth = softmax((np.log(p) - np.array([0.8, 0, -0.5])) / 2.0)
    assert np.abs(repaired - truth).max() < 0.04


def test_temperature_is_the_best_there_is():
    p, y = sample(np.random.default_rng(2), 500, scale=1.7)
    found = fit_calibrator("temperature", [Period(p, y)])
    grid = [log_loss(softmax(np.log(p) * w), y) for w in np.geomspace(0.06, 18, 4000)]
    assert log_loss(found.apply(p), y) <= min(grid) + 1e-9


def test_vector_is_the_best_there_is():
    p, y = sample(np.random.default_rng(3), 400, scale=1.5, bias=(0.5, -0.2, 0.1))

    def objective(v):
        scaled = softmax(v[:3] * np.log(p) + v[3:])
        return log_loss(scaled, y) + 0.5 * np.sum((v - [1, 1, 1, 0, 0, 0]) ** 2) / len(y)

    slow = minimize(objective, [1, 1, 1, 0, 0, 0], method="Nelder-Mead", options={"maxiter": 20_000, "fatol": 1e-12})
    found = fit_calibrator("vector", [Period(p, y)])
    assert objective(np.array([*found.weights, *found.bias])) <= slow.fun + 1e-7


@pytest.mark.parametrize("method", METHODS)
def test_a_class_that_never_came_leaves_finite_probabilities(method):
    p, _ = sample(np.random.default_rng(4), 200)
    scaled = fit_calibrator(method, [Period(p, np.full(200, 1))]).apply(p)
    assert np.isfinite(scaled).all()
    assert scaled.sum(axis=1) == pytest.approx(1)


@given(st.integers(0, 2**32 - 1), st.sampled_from(METHODS))
@settings(max_examples=25, deadline=None)
def test_fitting_never_makes_the_windows_of_the_fit_worse(seed, method):
    rng = np.random.default_rng(seed)
    p, y = sample(rng, int(rng.integers(20, 300)), scale=float(rng.uniform(0.3, 3)))
    scaled = fit_calibrator(method, [Period(p, y)]).apply(p)
    assert log_loss(scaled, y) <= log_loss(p, y) + 1e-6
    assert scaled.sum(axis=1) == pytest.approx(1)


def test_a_temperature_changes_no_prediction():
    p, y = sample(np.random.default_rng(5), 300, scale=3.0)
    assert (fit_calibrator("temperature", [Period(p, y)]).apply(p).argmax(axis=1) == p.argmax(axis=1)).all()


def test_none_changes_no_bit():
    p, y = sample(np.random.default_rng(6), 50)
    assert fit_calibrator("none", [Period(p, y)]) is NO_CALIBRATION
    assert NO_CALIBRATION.apply(p) is p


# choosing


def slow_choice(methods, folds, own):
    """Leave one period out at a time; the simplest near enough to the best one that loses nothing on `own`."""
    holdout, everything = {}, [*folds, *own]
    for method in ("none", *methods):
        holdout[method] = []
        for left_out in range(len(everything)):
            others = [period for number, period in enumerate(everything) if number != left_out]
            p, y = (np.concatenate([getattr(other, name) for other in others]) for name in ("probabilities", "y"))
            scaled = fit_calibrator(method, [Period(p, y)]).apply(everything[left_out].probabilities)
            true = [row[label + 1] for row, label in zip(scaled, everything[left_out].y, strict=True)]
            holdout[method].append(-np.mean(np.log(true)))
    best = min(holdout, key=lambda method: np.mean(holdout[method]))
    for method, losses in holdout.items():
        worse = [loss - least for loss, least in zip(losses, holdout[best], strict=True)]
        close = np.mean(worse) <= np.sqrt(np.var(worse, ddof=1) / len(worse))
        lost = [loss - plain for loss, plain in zip(losses, holdout["none"], strict=True)][len(folds) :]
        if close and sum(lost) <= 0:
            return method, holdout
    return "none", holdout


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(5, 200), min_size=3, max_size=6),
    st.integers(0, 3),
    st.sampled_from([0.5, 1.0, 1.3, 3.0]),
    st.sampled_from([0.7, 1.0, 3.0]),
    st.sampled_from([(), ("temperature",), ("vector",), METHODS]),
)
@settings(max_examples=40, deadline=None)
def test_the_choice_equals_a_slow_loop(seed, sizes, count, scale, own_scale, methods):
    rng = np.random.default_rng(seed)
    folds, own = periods(rng, *sizes[:count], scale=scale), periods(rng, *sizes[count:], scale=own_scale)
    choice, (method, holdout) = choose_calibrator(methods, folds, own), slow_choice(methods, folds, own)
    assert choice.calibrator.method == method
    assert list(choice.holdout) == list(holdout)
    for name, losses in holdout.items():
        np.testing.assert_allclose(choice.holdout[name], losses, rtol=1e-9)
        assert choice.holdout[name].mean() == pytest.approx(np.mean(losses))
    np.testing.assert_array_equal(choice.chosen_losses, choice.holdout[method])
    assert choice.calibrator == fit_calibrator(method, [*folds, *own])  # what is used is fitted on all of them


@pytest.mark.parametrize("count", [0, 2])  # of folds among the four periods
@pytest.mark.parametrize(("bias", "method"), [((0.0, 0.0, 0.0), "temperature"), ((2.0, 0.0, 0.0), "vector")])
def test_what_helps_is_used(bias, method, count):
    everywhere = periods(np.random.default_rng(0), 500, 500, 500, 500, scale=3.0, bias=bias)
    choice = choose_calibrator(METHODS, everywhere[:count], everywhere[count:])
    assert choice.calibrator.method == method
    assert choice.holdout[method].mean() < choice.holdout["none"].mean() - 0.1


def test_what_does_not_help_elsewhere_is_not_used():
    rng = np.random.default_rng(9)
    choice = choose_calibrator(METHODS, [], [*periods(rng, 2000, scale=3.0), *periods(rng, 500, 500, 500, 500)])
    assert choice.calibrator is NO_CALIBRATION
    assert (choice.holdout["temperature"][1:] > choice.holdout["none"][1:]).all()  # only the first is overconfident


def test_a_gain_on_the_folds_alone_is_not_enough():
    """Their models learnt from less, and are too sure of themselves; the model itself is not."""
    rng = np.random.default_rng(15)
    folds, own = periods(rng, 500, 500, 500, scale=3.0), periods(rng, 500, 500, 500)
    assert choose_calibrator(["temperature"], [], [*folds, *own[:1]]).calibrator.method == "temperature"
    choice = choose_calibrator(METHODS, folds, own)
    assert choice.holdout["temperature"].mean() < choice.holdout["none"].mean() - 0.05
    assert choice.calibrator is NO_CALIBRATION
    also_sure = periods(rng, 500, 500, 500, scale=3.0)
    assert choose_calibrator(["temperature"], folds, also_sure).calibrator.method == "temperature"


@pytest.mark.parametrize(("count", "share"), [(3, 0.85), (6, 0.95)])
def test_a_gain_within_one_standard_error_is_not_enough(count, share):
    choices = [
        choose_calibrator(["temperature"], [], periods(np.random.default_rng(seed), *[100] * count))
        for seed in range(150)
    ]
    assert np.mean([choice.calibrator is NO_CALIBRATION for choice in choices]) >= share
    assert (
        0.1
        < np.mean([choice.holdout["temperature"].mean() < choice.holdout["none"].mean() for choice in choices])
        < 0.5
    )


def test_no_methods_leave_probabilities_as_they_are():
    choice = choose_calibrator([], [], periods(np.random.default_rng(10), 100, 100, 100, scale=3.0))
    assert (choice.calibrator, list(choice.holdout)) == (NO_CALIBRATION, ["none"])


@pytest.mark.parametrize(("count", "method"), [(1, "none"), (2, "none"), (3, "temperature")])
def test_too_few_periods_to_judge_by_leave_probabilities_as_they_are(count, method):
    stretches = periods(np.random.default_rng(12), *[1000] * count, scale=3.0)
    choice = choose_calibrator(METHODS, stretches[:-1], stretches[-1:])
    assert choice.calibrator.method == method
    plain = [log_loss(stretch.probabilities, stretch.y) for stretch in stretches]
    assert choice.holdout["none"].tolist() == pytest.approx(plain)
    assert set(choice.holdout) == ({"none"} if method == "none" else {"none", *METHODS})


def test_a_class_that_only_one_period_has_does_no_harm():
    stretches = periods(np.random.default_rng(13), 300, 300, 300, scale=2.0)
    without = [Period(stretch.probabilities, np.where(stretch.y == 1, 0, stretch.y)) for stretch in stretches[1:]]
    choice = choose_calibrator(METHODS, [stretches[0]], without)
    assert all(np.isfinite(losses).all() for losses in choice.holdout.values())


def test_out_of_fold_predictions_make_one_period_per_fold():
    p, y = sample(np.random.default_rng(14), 9)
    folds = [1, 1, 2, 2, 2, 2, 3, 3, 3]
    frame = pd.DataFrame(p, columns=["p_down", "p_flat", "p_up"]).assign(fold=folds, label=y.astype(np.int8))
    found = fold_periods(frame)
    assert [len(period.y) for period in found] == [2, 4, 3]
    for period, rows in zip(found, (slice(0, 2), slice(2, 6), slice(6, 9)), strict=True):
        np.testing.assert_array_equal(period.probabilities, p[rows])
        assert period.y.tolist() == y[rows].tolist()


# subsets of validation


def windows(bars, symbols=("AAA", "BBB"), missing=0):
    times = pd.date_range("2020-01-01", periods=bars, freq="30min", tz="UTC")
    parts = [pd.DataFrame({"datetime": times[i * missing :], "symbol": s}) for i, s in enumerate(symbols)]
    return pd.concat(parts, ignore_index=True)


@given(st.integers(30, 120), st.floats(0.2, 0.8), st.integers(0, 5), st.integers(0, 3), st.randoms())
@settings(max_examples=40, deadline=None)
def test_subsets_are_cut_by_time_and_purged_by_symbol(bars, share, purge, missing, random):
    frame = windows(bars, missing=missing).sample(frac=1, random_state=random.randrange(2**32)).reset_index(drop=True)
    frame["part"] = cut_validation(frame, share, purge)
    cut = frame.loc[frame["part"] == "ranked", "datetime"].min()
    assert (frame.loc[frame["part"] != "ranked", "datetime"] < cut).all()
    assert (frame["datetime"] < cut).any()
    for _, symbol in frame.groupby("symbol"):
        early = symbol[symbol["datetime"] < cut].sort_values("datetime")
        expected = ["calibration"] * max(len(early) - purge, 0) + ["purged"] * min(purge, len(early))
        assert early["part"].tolist() == expected
    count = (frame["datetime"].drop_duplicates() < cut).sum()
    assert count == int(share * frame["datetime"].nunique())


@pytest.mark.parametrize(("share", "purge", "subset"), [(0.5, 50, "calibration"), (0.01, 0, "calibration")])
def test_an_empty_subset_is_refused(share, purge, subset):
    with pytest.raises(DataError, match=rf"the {subset} subset has no window \(80 windows, calibration.share"):
        cut_validation(windows(40), share, purge)


@st.composite
def calibrated_windows(draw):
    """Windows of symbols that begin late, end early and have gaps, in any order, with their subsets."""
    bars, purge = draw(st.integers(30, 90)), draw(st.integers(0, 6))
    parts = []
    for name in draw(st.sampled_from([["AAA"], ["AAA", "BBB"], ["AAA", "BBB", "CCC"]])):
        first = draw(st.integers(0, bars // 3))
        bar = np.arange(first, draw(st.integers(first + 5, bars)) if name != "AAA" else bars)
        kept = np.array(draw(st.lists(st.integers(0, 4), min_size=len(bar), max_size=len(bar)))) > -(name == "AAA")
        parts.append(pd.DataFrame({"bar": bar, "symbol": name})[kept])
    frame = pd.concat(parts).sample(frac=1, random_state=draw(st.integers(0, 2**32 - 1)))
    frame["datetime"] = pd.Timestamp("2020-01-01", tz="UTC") + frame["bar"] * pd.Timedelta("30min")
    frame = frame.reset_index(drop=True)
    try:
        return frame, cut_validation(frame, draw(st.floats(0.4, 0.9)), purge), purge
    except DataError:  # too few windows to be cut
        assume(False)


@given(calibrated_windows(), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_no_label_of_one_period_reaches_into_the_next(table, count):
    frame, subsets, purge = table
    stretches = cut_calibration(frame, subsets, count, purge)
    assert 1 <= len(stretches) <= count
    everywhere = np.concatenate(stretches)
    assert len(set(everywhere.tolist())) == len(everywhere)
    assert (subsets[everywhere] == "calibration").all()
    for earlier, later in pairwise(stretches):
        assert frame["bar"][earlier].max() + purge < frame["bar"][later].min()


@given(calibrated_windows(), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_periods_are_cut_at_the_same_times_for_every_symbol_and_lose_only_the_purge(table, count):
    frame, subsets, purge = table
    own = frame[subsets == "calibration"]
    times = sorted(set(own["datetime"]))
    expected = []
    for stretch in range(count):
        mine = [time for place, time in enumerate(times) if place * count // len(times) == stretch]
        inside = own[own["datetime"].isin(mine)].sort_values("datetime")
        if stretch < count - 1 and purge:
            inside = inside.drop(inside.groupby("symbol").tail(purge).index)
        expected.append(sorted(inside.index))
    found = [sorted(stretch.tolist()) for stretch in cut_calibration(frame, subsets, count, purge)]
    assert found == [rows for rows in expected if rows]
