"""Verdicts: the words, what they rest on, and how often they are wrong."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from barcast.evaluation.resampled import Measured
from barcast.evaluation.standings import Entrant, SignificanceConfig, judge
from barcast.evaluation.verdicts import LOWER_IS_BETTER, NEITHER_IS_BETTER, verdict

CONFIG = SignificanceConfig(level=0.95, resamples=200, block_factor=1.0, mcs_size=0.1, pbo_blocks=4)
T = 200


# the words


@pytest.mark.parametrize(
    ("metric", "low", "high", "word"),
    [
        ("log_loss", -0.2, -0.1, "better"),
        ("log_loss", 0.1, 0.2, "worse"),
        ("ece", -0.2, -0.1, "better"),
        ("mcc", -0.2, -0.1, "worse"),
        ("sharpe", 0.1, 0.2, "better"),
        ("max_drawdown", 0.1, 0.2, "better"),  # falls are negative: less of one is more
        ("log_loss", -0.1, 0.1, "noise"),
        ("log_loss", 0.0, 0.1, "noise"),
        ("log_loss", None, None, "noise"),
        ("log_loss", float("nan"), 1.0, "noise"),
        ("trades", 1.0, 2.0, None),
    ],
)
def test_words(metric, low, high, word):
    assert verdict(metric, low, high) == word


@given(st.floats(-1, 1), st.floats(0, 1), st.sampled_from(["log_loss", "mcc", "sharpe", "brier"]))
def test_a_difference_turned_around_turns_its_word(centre, half, metric):
    turned = {"better": "worse", "worse": "better", "noise": "noise"}
    word = verdict(metric, centre - half, centre + half)
    assert verdict(metric, -centre - half, -centre + half) == turned[word]


def test_no_metric_is_of_two_kinds():
    assert not LOWER_IS_BETTER & NEITHER_IS_BETTER


# standings


def entrant(name, seed=0, gap=0.0, noise=0.05, runs=1, spread=0.0):
    """A model of one symbol whose log-loss at each time is 1 + noise that all share + its own noise + gap."""
    shared = 0.3 * np.random.default_rng([seed, 0]).normal(size=T)
    rng = np.random.default_rng([seed, *name.encode()])
    return Entrant(name, *_runs(1 + shared + gap, rng, noise, runs, spread))


def _runs(loss, rng, noise, runs, spread):
    made = [_measured(loss + noise * rng.normal(size=T) + spread * rng.normal(), rng) for _ in range(runs)]
    return made[0], made[1:]


def _measured(loss, rng):
    true = np.exp(-loss)
    p = np.column_stack([(1 - true) / 2, (1 - true) / 2, true])
    net = rng.normal(0, 0.01, T)
    zeros = dict.fromkeys(("turnover", "invested", "trades", "won", "gains", "losses"), np.zeros(T))
    times = pd.date_range("2020-01-01", periods=T, freq="30min", tz="UTC")
    by_time = pd.DataFrame({"net": net, "rows": 1.0, "between": 1.0, **zeros, "datetime": times})
    return Measured(p, np.ones(T, np.int64), np.arange(T), SimpleNamespace(by_time=by_time), bins=5)


def standings(models, reference, seed=0):
    return judge(models, reference, reach=1, config=CONFIG, seed=seed)


def test_a_better_model_is_called_so_and_an_equal_one_noise():
    reference = entrant("reference")
    models = [entrant("good", gap=-0.1), entrant("equal"), reference, entrant("bad", gap=0.1)]
    found = standings(models, reference).models
    words = {name: standing.delta_reference and standing.delta_reference.verdict for name, standing in found.items()}
    assert words == {"good": "better", "equal": "noise", "reference": None, "bad": "worse"}
    assert found["good"].delta_best is None
    assert found["bad"].delta_best.verdict == "worse"
    assert found["good"].deltas["log_loss"].verdict == "better"
    assert found["reference"].deltas is None


def test_the_joint_interval_is_wider_than_that_of_one_alone():
    reference = entrant("reference")
    models = [entrant(f"m{number}") for number in range(6)]
    together = standings([*models, reference], reference).models["m0"].delta_reference
    alone = standings([models[0], reference], reference).models["m0"].delta_reference
    assert together.value == alone.value
    assert together.high - together.low > 1.15 * (alone.high - alone.low)


def test_models_that_are_the_same_are_seldom_told_apart():
    """Of five equal models none may be called better or worse than the reference more often than 1 − level."""
    wrong = []
    for seed in range(60):
        reference = entrant("reference", seed)
        models = [entrant(f"m{number}", seed) for number in range(5)]
        found = standings([*models, reference], reference, seed).models
        wrong.append(any(s.delta_reference and s.delta_reference.verdict != "noise" for s in found.values()))
    assert np.mean(wrong) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 60)


def test_pairs_are_tested_too():
    reference = entrant("reference")
    found = standings([entrant("good", gap=-0.1), entrant("equal"), reference], reference)
    pairs = {(pair.first, pair.second): pair for pair in found.pairs}
    assert list(pairs) == [("good", "equal"), ("good", "reference"), ("equal", "reference")]
    assert pairs["good", "equal"].delta.verdict == "better"
    assert pairs["good", "equal"].test.p_value < 1e-6
    assert pairs["equal", "reference"].delta.verdict == "noise"


# seeds


def test_one_run_knows_nothing_of_seeds():
    found = standings([entrant("a"), entrant("reference")], entrant("reference")).models["a"]
    assert found.seeds is None


def test_seeds_widen_the_interval_and_the_mean_over_them_is_judged():
    reference = entrant("reference")
    steady, shaky = entrant("a", runs=4, gap=-0.03), entrant("a", runs=4, gap=-0.03, spread=0.05)
    one = standings([steady, reference], reference).models["a"]
    two = standings([shaky, reference], reference).models["a"]
    assert one.delta_reference.verdict == "better"
    assert two.delta_reference.verdict == "noise"
    assert two.seeds.runs == 4
    assert two.seeds.mean == pytest.approx(np.mean([run.losses.mean() for run in shaky.runs]))
    assert two.seeds.sd == pytest.approx(np.std([run.losses.mean() for run in shaky.runs], ddof=1))
    assert two.delta_reference.value == pytest.approx(two.seeds.mean - reference.losses.mean())
    assert one.seeds.share < 0.6 < 0.9 < two.seeds.share


def test_the_seeds_part_is_students_interval_of_a_mean():
    from scipy.stats import t

    shaky = entrant("a", runs=5, spread=0.05)
    sd = np.std([run.losses.mean() for run in shaky.runs], ddof=1)
    assert shaky.seed_half_width(0.95) == pytest.approx(t.ppf(0.975, 4) * sd / np.sqrt(5))
    assert entrant("a").seed_half_width(0.95) == 0.0


def test_seeds_of_a_model_that_is_the_reference_in_truth_are_seldom_called_a_difference():
    wrong = []
    for seed in range(60):
        reference = entrant("reference", seed, runs=3, spread=0.05)
        model = entrant("a", seed, runs=3, spread=0.05)
        found = standings([model, reference], reference, seed).models["a"].delta_reference
        wrong.append(found.verdict != "noise")
    assert np.mean(wrong) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 60)


# overfitting


def test_overfitting_is_over_every_run_that_traded():
    reference = entrant("reference")
    found = standings([entrant("a", runs=3), entrant("b"), reference], reference)
    assert found.overfitting.columns == 5
    still = entrant("still")
    by_time = still.measured.traded.by_time.assign(net=0.0)
    still = Entrant("still", dataclasses.replace(still.measured, traded=SimpleNamespace(by_time=by_time)))
    assert standings([entrant("a"), still], still).overfitting is None
    assert standings([entrant("a"), still], still).models["still"].moments is None
