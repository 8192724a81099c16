"""Verdicts: what they are, what they are based on, and how often they are wrong."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from barcast.comparison.horizon import ModelResult, SignificanceConfig, compare_models
from barcast.comparison.intervals import verdict
from barcast.comparison.resampled_metrics import ScoredPredictions
from barcast.evaluation.backtest import Backtest

CONFIG = SignificanceConfig(level=0.95, resamples=200, block_factor=1.0, mcs_size=0.1, pbo_blocks=4)
T = 200


# verdicts


@pytest.mark.parametrize(
    ("metric", "low", "high", "expected"),
    [
        ("log_loss", -0.2, -0.1, "better"),
        ("log_loss", 0.1, 0.2, "worse"),
        ("ece", -0.2, -0.1, "better"),
        ("mcc", -0.2, -0.1, "worse"),
        ("sharpe", 0.1, 0.2, "better"),
        ("max_drawdown", 0.1, 0.2, "better"),  # drawdowns are negative: a smaller one is higher
        ("log_loss", -0.1, 0.1, "noise"),
        ("log_loss", 0.0, 0.1, "noise"),
        ("log_loss", None, None, "noise"),
        ("log_loss", float("nan"), 1.0, "noise"),
        ("trades", 1.0, 2.0, None),
    ],
)
def test_verdict(metric, low, high, expected):
    assert verdict(metric, low, high) == expected


@given(st.floats(-1, 1), st.floats(0, 1), st.sampled_from(["log_loss", "mcc", "sharpe", "brier"]))
def test_the_opposite_difference_has_the_opposite_verdict(centre, half, metric):
    turned = {"better": "worse", "worse": "better", "noise": "noise"}
    word = verdict(metric, centre - half, centre + half)
    assert verdict(metric, -centre - half, -centre + half) == turned[word]


# comparisons


def model_result(name, seed=0, gap=0.0, noise=0.05, runs=1, spread=0.0):
    """A model of one symbol whose log-loss at each time is 1 + noise that all share + its own noise + gap."""
    shared = 0.3 * np.random.default_rng([seed, 0]).normal(size=T)
    rng = np.random.default_rng([seed, *name.encode()])
    return ModelResult(name, *_runs(1 + shared + gap, rng, noise, runs, spread))


def _runs(loss, rng, noise, runs, spread):
    made = [_scored(loss + noise * rng.normal(size=T) + spread * rng.normal(), rng) for _ in range(runs)]
    return made[0], made[1:]


def _scored(loss, rng):
    true = np.exp(-loss)
    p = np.column_stack([(1 - true) / 2, (1 - true) / 2, true])
    net = rng.normal(0, 0.01, T)
    zeros = dict.fromkeys(("turnover", "invested", "trades", "won", "gains", "losses"), np.zeros(T))
    times = pd.date_range("2020-01-01", periods=T, freq="30min", tz="UTC")
    by_time = pd.DataFrame({"net": net, "rows": 1.0, "between": 1.0, **zeros, "datetime": times})
    traded = Backtest(pd.DataFrame(), by_time, np.zeros(0))
    return ScoredPredictions(p, np.ones(T, np.int64), 5, np.arange(T), traded)


def compared(models, reference, seed=0):
    return compare_models(models, reference, label_end_offset=1, config=CONFIG, seed=seed)


def test_a_better_model_is_called_so_and_an_equal_one_noise():
    reference = model_result("reference")
    models = [model_result("good", gap=-0.1), model_result("equal"), reference, model_result("bad", gap=0.1)]
    result = compared(models, reference).models
    words = {name: model.delta_reference and model.delta_reference.verdict for name, model in result.items()}
    assert words == {"good": "better", "equal": "noise", "reference": None, "bad": "worse"}
    assert result["good"].delta_best is None
    assert result["bad"].delta_best.verdict == "worse"
    assert result["good"].deltas["log_loss"].verdict == "better"
    assert result["reference"].deltas is None


def test_the_simultaneous_interval_is_wider_than_that_of_one_difference():
    reference = model_result("reference")
    models = [model_result(f"m{number}") for number in range(6)]
    together = compared([*models, reference], reference).models["m0"].delta_reference
    single = compared([models[0], reference], reference).models["m0"].delta_reference
    assert together.value == single.value
    assert together.high - together.low > 1.15 * (single.high - single.low)


def test_equal_models_are_seldom_called_different():
    """Of five equal models none may be called better or worse than the reference more often than 1 − level."""
    wrong = []
    for seed in range(60):
        reference = model_result("reference", seed)
        models = [model_result(f"m{number}", seed) for number in range(5)]
        result = compared([*models, reference], reference, seed).models
        wrong.append(
            any(model.delta_reference and model.delta_reference.verdict != "noise" for model in result.values())
        )
    assert np.mean(wrong) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 60)


def test_pairs_are_tested_too():
    reference = model_result("reference")
    result = compared([model_result("good", gap=-0.1), model_result("equal"), reference], reference)
    pairs = {(pair.first, pair.second): pair for pair in result.pairs}
    assert list(pairs) == [("good", "equal"), ("good", "reference"), ("equal", "reference")]
    assert pairs["good", "equal"].delta.verdict == "better"
    assert pairs["good", "equal"].dm_p < 1e-6
    assert pairs["equal", "reference"].delta.verdict == "noise"


# seeds


def test_a_single_run_has_no_seed_spread():
    result = compared([model_result("a"), model_result("reference")], model_result("reference")).models["a"]
    assert result.seeds is None


def test_seeds_widen_the_interval_and_the_mean_over_them_is_compared():
    reference = model_result("reference")
    steady, shaky = model_result("a", runs=4, gap=-0.03), model_result("a", runs=4, gap=-0.03, spread=0.05)
    one = compared([steady, reference], reference).models["a"]
    two = compared([shaky, reference], reference).models["a"]
    assert one.delta_reference.verdict == "better"
    assert two.delta_reference.verdict == "noise"
    assert two.seeds.runs == 4
    assert two.seeds.mean == pytest.approx(np.mean([run.losses.mean() for run in shaky.runs]))
    assert two.seeds.sd == pytest.approx(np.std([run.losses.mean() for run in shaky.runs], ddof=1))
    assert two.delta_reference.value == pytest.approx(two.seeds.mean - reference.losses.mean())
    assert one.seeds.share < 0.6 < 0.9 < two.seeds.share


def test_the_seeds_part_is_students_interval_of_a_mean():
    from scipy.stats import t

    shaky = model_result("a", runs=5, spread=0.05)
    sd = np.std([run.losses.mean() for run in shaky.runs], ddof=1)
    assert shaky.seed_half_width(0.95) == pytest.approx(t.ppf(0.975, 4) * sd / np.sqrt(5))
    assert model_result("a").seed_half_width(0.95) == 0.0


def test_other_seeds_of_the_reference_are_seldom_called_a_difference():
    wrong = []
    for seed in range(60):
        reference = model_result("reference", seed, runs=3, spread=0.05)
        model = model_result("a", seed, runs=3, spread=0.05)
        result = compared([model, reference], reference, seed).models["a"].delta_reference
        wrong.append(result.verdict != "noise")
    assert np.mean(wrong) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 60)


# overfitting


def test_overfitting_is_over_every_run_that_traded():
    reference = model_result("reference")
    result = compared([model_result("a", runs=3), model_result("b"), reference], reference)
    assert result.overfitting.columns == 5
    still = model_result("still")
    traded = dataclasses.replace(still.scored.traded, by_time=still.scored.traded.by_time.assign(net=0.0))
    still = ModelResult("still", dataclasses.replace(still.scored, traded=traded))
    assert compared([model_result("a"), still], still).overfitting is None
    assert compared([model_result("a"), still], still).ranked[-1].moments == [None]
