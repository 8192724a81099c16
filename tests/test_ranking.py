"""The order of the cells against plain means; how well it predicts test against SciPy's rank correlation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from barcast.comparison.ranking import rank_correlation, rank_scores
from barcast.comparison.resampling import BootstrapConfig, BootstrapIndices, BootstrapSample, draw

CONFIG = BootstrapConfig(level=0.95, resamples=200, block_factor=1.0)
few_values = st.sampled_from([0.9, 1.0, 1.05, 1.1, 1.2])  # so that ties are common


def metrics(val, ranked, folds=None):
    """What ranks a row: `folds` is its log-loss out of fold and the windows of that."""
    result = None if folds is None else {"log_loss": folds[0], "windows": folds[1], "by_fold": [folds[0]]}
    return {"val": {"log_loss": val}, "windows": {"ranked": ranked, "calibration": 7, "test": 9}, "folds": result}


def test_a_score_is_the_mean_over_all_windows_out_of_fold_and_in_the_selection_subset():
    rng = np.random.default_rng(0)
    out_of_fold, ranked = rng.uniform(0.5, 1.5, 300), rng.uniform(0.5, 1.5, 100)
    content = metrics(ranked.mean(), 100, (out_of_fold.mean(), 300))
    other = metrics(1.0, 100, (1.1, 300))
    scores = rank_scores({"a": content, "b": other})
    assert scores["a"] == pytest.approx(np.concatenate([out_of_fold, ranked]).mean())
    assert scores["b"] == pytest.approx(1.075)


def test_one_row_without_folds_has_all_ranked_by_validation_only():
    rows = {"a": metrics(1.0, 100, (1.2, 300)), "b": metrics(1.1, 100, (0.8, 300)), "c": metrics(0.9, 100)}
    assert rank_scores(rows) == {"a": 1.0, "b": 1.1, "c": 0.9}
    del rows["c"]
    scores = rank_scores(rows)
    assert scores["b"] < scores["a"]


def sample_of(resamples, models, seed=0):
    """Any resamples: what they are drawn from does not matter."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, 50, (resamples, 50)).astype(np.int32)
    return BootstrapSample(BootstrapIndices(drawn), 1.0, 0.95), rng.uniform(0.9, 1.2, (resamples, models))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(few_values, few_values), min_size=4, max_size=9))
def test_the_correlation_is_scipy_s_ties_included(pairs):
    scores, losses = [score for score, _ in pairs], np.array([loss for _, loss in pairs])
    sample, resampled = sample_of(100, len(pairs))
    result = rank_correlation(scores, losses, resampled, sample)
    if np.ptp(scores) == 0:
        assert result is None
    elif np.ptp(losses) > 0:
        assert result.value == pytest.approx(spearmanr(scores, losses).statistic, abs=1e-12)


def test_the_interval_is_that_of_scipy_s_correlations_on_each_resample():
    rng = np.random.default_rng(1)
    scores = rng.uniform(0.9, 1.2, 8).tolist()
    resampled = np.array(scores) + rng.normal(0, 0.03, (200, 8)).round(2)
    losses = resampled.mean(axis=0)
    sample = draw(500, 2.0, CONFIG, seed=3)
    result = rank_correlation(scores, losses, resampled, sample)
    each = np.array([spearmanr(scores, row).statistic for row in resampled])
    half = np.sort(np.abs(each - result.value))[191 - 1] * sample.small_sample_correction  # the ⌈201 · 0.95⌉-th
    assert (result.low, result.high) == pytest.approx((result.value - half, min(result.value + half, 1.0)))


@given(st.integers(0, 1000), st.integers(4, 8))
@settings(max_examples=30, deadline=None)
def test_the_interval_holds_the_value_and_stays_within_minus_1_and_1(seed, models):
    sample, resampled = sample_of(100, models, seed)
    scores = np.random.default_rng(seed).uniform(0.9, 1.2, models).tolist()
    result = rank_correlation(scores, resampled.mean(axis=0), resampled, sample)
    assert -1 <= result.low <= result.value <= result.high <= 1


def test_the_same_order_is_1_and_the_opposite_minus_1():
    losses = np.array([1.0, 1.1, 1.2, 1.3, 1.4])
    sample, _ = sample_of(100, 5)
    resampled = np.tile(losses, (100, 1))
    for scores, expected in (([0.1, 0.2, 0.3, 0.4, 9.0], 1.0), ([5.0, 4.0, 3.0, 2.0, 1.0], -1.0)):
        result = rank_correlation(scores, losses, resampled, sample)
        assert (result.value, result.low, result.high) == pytest.approx((expected, expected, expected))


@pytest.mark.parametrize("scores", [[1.0, 1.1, 1.2], [1.0], [1.0] * 6])
def test_too_few_models_or_equal_scores_have_no_correlation(scores):
    sample, resampled = sample_of(100, len(scores))
    assert rank_correlation(scores, resampled.mean(axis=0), resampled, sample) is None


def test_equal_losses_on_test_have_no_correlation_either():
    sample, _ = sample_of(100, 4)
    assert rank_correlation([1.0, 1.1, 1.2, 1.3], np.ones(4), np.ones((100, 4)), sample) is None
