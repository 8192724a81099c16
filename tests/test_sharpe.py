"""Sharpe ratios corrected for luck: the papers' worked examples, and other libraries that compute the same."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.comparison.sharpe import (
    Moments,
    backtest_overfitting,
    count_trials,
    deflated_sharpe,
    expected_maximum,
    moments,
    probabilistic_sharpe,
    read_tuning_trials,
)
from barcast.errors import DataError

# the papers


@pytest.mark.parametrize(("skew", "kurtosis", "expected"), [(0.0, 3.0, 0.982), (-2.448, 10.164, 0.913)])
def test_the_frontier_papers_example(skew, kurtosis, expected):
    """Bailey and López de Prado (2012), section 4: 24 monthly returns with a Sharpe ratio of 1.59 a year."""
    result = Moments(sharpe=1.59 / math.sqrt(12), skew=skew, kurtosis=kurtosis, bars=24)
    assert probabilistic_sharpe(result) == pytest.approx(expected, abs=1e-3)


def test_the_deflated_papers_example():
    """Bailey and López de Prado (2014): a ratio of 2.5 a year over 1,250 days, the best of 100 trials whose
    annual ratios vary by 1/2."""
    sd = math.sqrt(0.5 / 250)
    result = Moments(sharpe=2.5 / math.sqrt(250), skew=-3.0, kurtosis=10.0, bars=1250)
    assert expected_maximum(100, sd) == pytest.approx(0.1132, abs=5e-5)
    assert deflated_sharpe(result, 100, sd) == pytest.approx(0.9004, abs=5e-5)


def test_the_deflated_papers_count_of_trials():
    """The same with 46 trials and normal returns: the paper finds 0.9505."""
    normal = Moments(sharpe=2.5 / math.sqrt(250), skew=0.0, kurtosis=3.0, bars=1250)
    skewed = Moments(sharpe=2.5 / math.sqrt(250), skew=-3.0, kurtosis=10.0, bars=1250)
    sd = math.sqrt(0.5 / 250)
    assert deflated_sharpe(skewed, 46, sd) == pytest.approx(0.9505, abs=5e-4)
    assert deflated_sharpe(normal, 88, sd) == pytest.approx(0.9505, abs=1e-3)


def test_the_expected_maximum_is_that_of_simulated_trials():
    rng = np.random.default_rng(0)
    best = rng.normal(0, 0.3, (20_000, 50)).max(axis=1).mean()
    assert expected_maximum(50, 0.3) == pytest.approx(best, rel=0.02)  # an approximation, also in the paper
    assert expected_maximum(1, 0.3) == 0.0


# other libraries


def returns(seed, bars=300):
    rng = np.random.default_rng(seed)
    return 0.0005 + 0.01 * rng.standard_t(5, bars)


@given(st.integers(0, 2**32 - 1), st.floats(-0.1, 0.1))
@settings(max_examples=20, deadline=None)
def test_probabilistic_sharpe_is_skfolios(seed, benchmark):
    from skfolio.measures import probabilistic_sharpe_ratio

    r = returns(seed)
    assert probabilistic_sharpe(moments(r), benchmark) == pytest.approx(
        probabilistic_sharpe_ratio(r, benchmark), abs=2e-3
    )


def test_deflated_sharpe_is_skfolios():
    from skfolio.measures import deflated_sharpe_ratio

    trials = np.random.default_rng(1).normal(0, 0.05, 40)
    r = returns(2)
    expected = deflated_sharpe_ratio(r, trials)
    assert deflated_sharpe(moments(r), 40, trials.std(ddof=1)) == pytest.approx(expected, abs=2e-3)


def test_deflated_sharpe_is_purgedcvs():
    from purgedcv import deflated_sharpe_ratio

    r = returns(3, bars=3000)
    expected = deflated_sharpe_ratio(r, 77, 0.02**2)
    assert deflated_sharpe(moments(r), 77, 0.02) == pytest.approx(expected, abs=2e-3)


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.sampled_from([2, 4, 6]), st.integers(0, 7))
@settings(max_examples=20, deadline=None)
def test_overfitting_is_purgedcvs(seed, columns, blocks, extra):
    """But for the median of an odd number, which purgedcv never counts and we count half."""
    from purgedcv import probability_of_backtest_overfitting

    trials = np.random.default_rng(seed).normal(0.0002, 0.01, (blocks * 10 + extra, columns))
    result = backtest_overfitting(trials, blocks)
    expected = probability_of_backtest_overfitting(trials.T, blocks)
    assert result.pbo == pytest.approx(((1 - np.sign(expected.logits)) / 2).mean())
    assert result.splits == expected.n_combos == math.comb(blocks, blocks // 2)


# properties


def test_choosing_a_skilled_trial_among_lucky_ones_is_not_overfitting():
    rng = np.random.default_rng(4)
    noise = rng.normal(0, 0.01, (1600, 20))
    assert 0.25 < np.mean([backtest_overfitting(rng.normal(0, 1, (320, 20)), 8).pbo for _ in range(30)]) < 0.75
    noise[:, 7] += 0.003
    assert backtest_overfitting(noise, 8).pbo < 0.02


@pytest.mark.parametrize("columns", [2, 3, 4, 5])
def test_any_number_of_worthless_trials_gives_one_half(columns):
    rng = np.random.default_rng(9)
    result = [backtest_overfitting(rng.normal(0, 1, (16, columns)), 2).pbo for _ in range(2000)]
    assert np.mean(result) == pytest.approx(0.5, abs=0.03)


def test_the_median_counts_half():
    """Two halves: the best of the first is the median of the second, and the other way round."""
    means = np.repeat([[0.9, 0.5, 0.1], [0.5, 0.9, 0.1]], 4, axis=0)
    steps = np.tile([1.0, -1.0], 4)[:, None]
    assert backtest_overfitting(means + steps, 2).pbo == 0.5


def test_trials_that_do_not_move_have_ratio_zero():
    still = np.column_stack([np.zeros(40), np.linspace(-1, 1, 40), np.full(40, 0.01)])
    assert 0 <= backtest_overfitting(still, 4).pbo <= 1


@pytest.mark.parametrize(("shape", "blocks"), [((40, 1), 4), ((40, 3), 5), ((7, 3), 4)])
def test_too_few_trials_or_bars_are_refused(shape, blocks):
    with pytest.raises(DataError, match=r"expected 2 trials or more, an even number of blocks and 2 bars in each, got"):
        backtest_overfitting(np.ones(shape), blocks)


def test_moments_by_hand():
    from scipy.stats import kurtosis, skew

    r = returns(5)
    result = moments(r)
    assert result.sharpe == pytest.approx(r.mean() / r.std(ddof=1))
    assert (result.skew, result.kurtosis) == pytest.approx((skew(r), kurtosis(r, fisher=False)))
    assert result.bars == 300


def test_equal_returns_have_no_ratio():
    assert moments(np.zeros(100)) is None
    assert moments(np.full(100, 0.1)) is None
    assert moments(np.array([0.1])) is None


def test_an_extreme_skewness_leaves_no_probability():
    assert probabilistic_sharpe(Moments(sharpe=1.0, skew=5.0, kurtosis=3.0, bars=100)) is None


def test_more_trials_deflate_more():
    result = moments(returns(6))
    values = [deflated_sharpe(result, trials, 0.02) for trials in (1, 2, 10, 100, 1000)]
    assert values == sorted(values, reverse=True)
    assert values[0] == probabilistic_sharpe(result)


# counting


def test_every_trial_counts_and_only_those_with_a_ratio_vary(tmp_path):
    for name, sharpes in (("a_h5", [0.1, 0.2, None]), ("b_h5", [None, float("nan"), 0.3])):
        (tmp_path / name).mkdir()
        states = ["complete", "complete", "failed"] if name == "a_h5" else ["pruned", "pruned", "complete"]
        frame = pd.DataFrame({"state": states, "sharpe_per_bar": sharpes, "value": 1.0})
        frame.to_parquet(tmp_path / name / "trials.parquet")
    tuning = read_tuning_trials(sorted(tmp_path.glob("*/trials.parquet")))
    trials = count_trials([Moments(0.4, 0, 3, 10), None], [Moments(0.5, 0, 3, 10)], tuning)
    assert (trials.cells, trials.repeats, trials.tuning, trials.failed, trials.pruned) == (2, 1, 6, 1, 2)
    assert (trials.total, trials.with_sharpe) == (9, 5)
    assert trials.sharpe_sd == pytest.approx(np.std([0.4, 0.5, 0.1, 0.2, 0.3], ddof=1))
    assert trials.expected_max == expected_maximum(9, trials.sharpe_sd)
    assert trials.deflate(None) is None


def test_a_single_cell_without_tuning_is_one_trial():
    single = count_trials([moments(returns(7))], [], read_tuning_trials([]))
    assert (single.total, single.tuning, single.failed, single.pruned) == (1, 0, 0, 0)
    assert (single.sharpe_sd, single.expected_max) == (0.0, 0.0)
