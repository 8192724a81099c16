"""Tests of equal and superior ability: against known values, and against their promised error rates in simulations."""

import numpy as np
import pytest
from scipy import stats

from barcast.comparison.resampling import BootstrapConfig, draw
from barcast.comparison.significance import confidence_set, diebold_mariano, superior_ability

CONFIG = BootstrapConfig(level=0.95, resamples=200, block_factor=1.0)
T = 400


def losses(seed, gaps, common=1.0, reach=1):
    """Losses of models with common errors; `gaps` are their expected losses."""
    rng = np.random.default_rng(seed)

    def noise():
        return np.convolve(rng.normal(size=T + reach - 1), np.ones(reach) / np.sqrt(reach), "valid")

    shared = common * noise()
    return {f"m{number}": gap + shared + 0.3 * noise() for number, gap in enumerate(gaps)}


def sample(seed=0, length=3.0):
    return draw(T, length, CONFIG, seed)


# Diebold and Mariano


def test_the_statistic_by_hand():
    first, second = np.array([1.0, 2.0, 3.0, 5.0, 1.0]), np.array([0.5, 2.5, 1.0, 4.0, 1.5])
    difference = first - second
    off = difference - difference.mean()
    variance = (off @ off + 2 * off[1:] @ off[:-1]) / 5
    corrected = np.sqrt((5 + 1 - 2 * 2 + 2 * 1 / 5) / 5)
    result = diebold_mariano(first, second, label_end_offset=2)
    assert result.statistic == pytest.approx(difference.mean() / np.sqrt(variance / 5) * corrected)
    assert result.p_value == pytest.approx(2 * stats.t.sf(abs(result.statistic), 4))


def test_one_step_ahead_it_is_the_paired_t_test():
    one, two = losses(1, [0.0, 0.02]).values()
    result, expected = diebold_mariano(one, two, label_end_offset=1), stats.ttest_rel(one, two)
    assert (result.statistic, result.p_value) == pytest.approx((expected.statistic, expected.pvalue))


def test_the_statistic_turns_with_the_models():
    one, two = losses(2, [0.0, 0.05]).values()
    there, back = diebold_mariano(one, two, 5), diebold_mariano(two, one, 5)
    assert (there.statistic, there.p_value) == (-back.statistic, back.p_value)


def test_equal_losses_do_not_differ():
    one = losses(3, [0.0])["m0"]
    result = diebold_mariano(one, one.copy(), 5)
    assert (result.statistic, result.p_value) == (0.0, 1.0)


@pytest.mark.filterwarnings("error")
def test_a_constant_difference_is_indistinguishable_from_noise():
    one = losses(3, [0.0])["m0"]
    result = diebold_mariano(one + 0.3, one, 5)
    assert (result.statistic, result.p_value) == (0.0, 1.0)
    assert confidence_set({"one": one, "off": one + 0.3}, sample(), 1) == {"one": 1.0, "off": 1.0}
    assert superior_ability({"off": one - 0.3}, one, sample(), 1) is None


def test_a_negative_variance_is_replaced():
    wave = np.tile([1.0, -1.0], 50) + 0.01
    result = diebold_mariano(wave, np.zeros(100), label_end_offset=2)
    assert np.isfinite(result.statistic)
    assert result.statistic > 0


@pytest.mark.parametrize("reach", [1, 5, 20])
def test_it_rejects_equal_models_as_often_as_promised(reach):
    rejected = [
        diebold_mariano(*losses(seed, [0, 0], reach=reach).values(), reach).p_value < 0.05 for seed in range(400)
    ]
    assert np.mean(rejected) == pytest.approx(0.05, abs=0.035)


def test_it_finds_a_difference():
    rejected = [diebold_mariano(*losses(seed, [0, 0.1]).values(), 1).p_value < 0.05 for seed in range(50)]
    assert np.mean(rejected) > 0.9


# the model confidence set


def test_a_clearly_worse_model_leaves_the_set():
    result = confidence_set(losses(4, [0.0, 0.0, 0.5]), sample(), seed=1)
    assert list(result) == ["m0", "m1", "m2"]
    assert result["m2"] < 0.01
    assert min(result["m0"], result["m1"]) > 0.1


def test_the_best_model_stays_in_the_set_as_often_as_promised():
    kept, dropped = [], []
    for seed in range(60):
        p = confidence_set(losses(seed, [0.0, 0.0, 0.0, 0.15]), sample(seed), seed)
        kept.append(all(p[name] >= 0.1 for name in ("m0", "m1", "m2")))
        dropped.append(p["m3"] < 0.1)
    assert np.mean(kept) >= 0.9 - 3 * np.sqrt(0.9 * 0.1 / 60)
    assert np.mean(dropped) > 0.9


def test_twins_share_a_p_value():
    result = losses(5, [0.0, 0.4])
    p = confidence_set({**result, "twin": result["m1"].copy()}, sample(), seed=1)
    assert p["twin"] == p["m1"] < 0.01
    assert confidence_set({"a": result["m0"], "b": result["m0"].copy()}, sample(), 1) == {"a": 1.0, "b": 1.0}
    assert confidence_set({"only": result["m0"]}, sample(), 1) == {"only": 1.0}


def test_the_same_seed_gives_the_same_p_values():
    result = losses(6, [0.0, 0.02, 0.05])
    assert confidence_set(result, sample(), 1) == confidence_set(result, sample(), 1)


# superior predictive ability


def test_a_better_model_is_found_among_worse_ones():
    result = losses(7, [0.0, 0.3, 0.3, -0.2])
    p = superior_ability({name: result[name] for name in ("m1", "m2", "m3")}, result["m0"], sample(), 1)
    assert p.consistent < 0.02
    worse = superior_ability({name: result[name] for name in ("m1", "m2")}, result["m0"], sample(), 1)
    assert worse.consistent > 0.5


def test_it_finds_a_better_model_among_equals_no_more_often_than_promised():
    wrong = []
    for seed in range(60):
        result = losses(seed, [0.0] * 4)
        reference = result.pop("m0")
        wrong.append(superior_ability(result, reference, sample(seed), seed).consistent < 0.1)
    assert np.mean(wrong) <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 60)


def test_models_equal_to_the_reference_have_no_p_value():
    one = losses(8, [0.0])["m0"]
    assert superior_ability({"twin": one.copy()}, one, sample(), 1) is None
    assert superior_ability({}, one, sample(), 1) is None
