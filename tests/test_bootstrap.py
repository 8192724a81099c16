"""Resampled metrics against explicit resampling of rows and scikit-learn; intervals against their promised coverage."""

import dataclasses
import functools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.comparison.intervals import Interval, deltas, intervals, simultaneous_band, upper_quantile
from barcast.comparison.paired_bootstrap import PairedSettings, paired_deltas
from barcast.comparison.resampled_metrics import ScoredPredictions, bootstrap_metrics, observed_metrics
from barcast.comparison.resampling import BootstrapConfig, BootstrapIndices, BootstrapSample, block_length, draw
from barcast.config import validate
from barcast.errors import ConfigError, DataError
from barcast.evaluation.backtest import backtest
from barcast.evaluation.metrics import classification_metrics
from barcast.probabilities import PROBABILITY_COLUMNS

CONFIG = BootstrapConfig(level=0.95, resamples=200, block_factor=1.0)
BINS, COST = 7, 3.0


def predictions(seed=0, times=60, symbols=("AAA", "BBB"), skill=1.0, missing=0, constant=False):
    """A cell's test predictions; the second symbol starts `missing` bars later."""
    rng = np.random.default_rng(seed)
    stamps = pd.date_range("2020-01-01", periods=times, freq="30min", tz="UTC")
    parts = []
    for number, symbol in enumerate(symbols):
        moves = rng.normal(0, 0.003, times + 1)
        signal = skill * moves[1:] * 300 + rng.normal(0, 1, times)
        scores = np.outer(signal, (-1, 0, 1)) * (not constant) + np.log([0.3, 0.4, 0.3])
        p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        frame = pd.DataFrame(p.round(3) / p.round(3).sum(axis=1, keepdims=True), columns=PROBABILITY_COLUMNS)  # ties
        frame = frame.assign(datetime=stamps, symbol=symbol, close=100 * np.exp(np.cumsum(moves[:-1])))
        frame["label"] = np.select([moves[1:] > 0.001, moves[1:] < -0.001], [1, -1], 0)
        parts.append(frame.iloc[number * missing :])
    whole = pd.concat(parts, ignore_index=True)
    return whole.assign(prediction=whole[[*PROBABILITY_COLUMNS]].to_numpy().argmax(axis=1) - 1)


def scored(**options):
    return ScoredPredictions.from_frame(predictions(**options), COST, BINS)


# metrics


@pytest.mark.parametrize("options", [{}, {"missing": 7}, {"symbols": ("AAA",)}, {"constant": True}, {"skill": -2.0}])
def test_drawing_each_time_once_gives_the_plain_metrics(options):
    frame = predictions(**options)
    result = observed_metrics(ScoredPredictions.from_frame(frame, COST, BINS))
    plain = classification_metrics(frame[[*PROBABILITY_COLUMNS]], frame["label"], BINS)
    traded = backtest(frame[["datetime", "symbol", "close", "prediction"]], COST).metrics
    assert set(result) == set(plain) | set(traded)
    for name, value in (plain | traded).items():
        assert result[name] == (None if value is None else pytest.approx(value, abs=1e-9)), name


def resampled_rows(frame, drawn):
    """The rows of each drawn time, one after the other."""
    by_time = {time: rows for time, (_, rows) in enumerate(frame.groupby("datetime"))}
    return pd.concat([by_time[time] for time in drawn], ignore_index=True)


@given(st.integers(0, 2**32 - 1), st.integers(0, 5), st.booleans())
@settings(max_examples=15, deadline=None)
def test_class_metrics_are_those_of_explicitly_resampled_rows(seed, missing, rare):
    frame = predictions(seed % 1000, times=25, missing=missing, skill=0.2 if rare else 1.0)
    if rare:
        frame.loc[frame["label"] == 1, "label"] = 0
    model = ScoredPredictions.from_frame(frame, COST, BINS)
    drawn = np.random.default_rng(seed).integers(0, 25, (4, 25)).astype(np.int32)
    result = model.resample(BootstrapIndices(drawn))
    for number, row in enumerate(drawn):
        rows = resampled_rows(frame, row)
        for name, value in classification_metrics(rows[[*PROBABILITY_COLUMNS]], rows["label"], BINS).items():
            got = result[name][number]
            assert np.isnan(got) if value is None else got == pytest.approx(value, abs=1e-9), name


def test_trading_metrics_are_those_of_resampled_bars():
    import empyrical

    model = scored(missing=5)
    by_time = model.traded.by_time
    drawn = np.random.default_rng(1).integers(0, 60, (20, 60)).astype(np.int32)
    result = model.resample(BootstrapIndices(drawn))
    a_year = 59 / ((by_time["datetime"].iloc[-1] - by_time["datetime"].iloc[0]) / pd.Timedelta(days=365.25))
    for number, row in enumerate(drawn):
        bars = by_time.iloc[row]
        net = bars["net"].to_numpy()
        expected = {
            "sharpe": empyrical.sharpe_ratio(net, annualization=a_year),
            "sortino": empyrical.sortino_ratio(net, annualization=a_year),
            "max_drawdown": empyrical.max_drawdown(net),
            "total_return": np.prod(1 + net) - 1,
            "hit_rate": bars["won"].sum() / bars["trades"].sum(),
            "profit_factor": bars["gains"].sum() / bars["losses"].sum(),
            "turnover": bars["turnover"].sum() / bars["rows"].sum(),
            "exposure": bars["invested"].sum() / bars["between"].sum(),
            "trades": bars["trades"].sum(),
        }
        for name, value in expected.items():
            assert result[name][number] == pytest.approx(value, abs=1e-9), name


def test_the_mean_of_the_losses_is_the_log_loss():
    model = scored(missing=9)
    assert model.losses.mean() == pytest.approx(observed_metrics(model)["log_loss"], abs=1e-12)


# resamples


def test_resamples_are_blocks_of_neighbours():
    sample = draw(500, 20.0, CONFIG, seed=1)
    steps = (np.diff(sample.indices.drawn, axis=1) % 500 == 1).mean()
    assert steps == pytest.approx(1 - 1 / 20, abs=0.01)
    assert sample.indices.drawn.shape == (200, 500)
    assert sample.indices.counts.sum(axis=1).tolist() == [500] * 200
    assert np.bincount(sample.indices.drawn[0], minlength=500).tolist() == sample.indices.counts[0].tolist()


def test_the_same_seed_gives_the_same_resamples():
    one, two, other = (draw(100, 5.0, CONFIG, seed) for seed in (1, 1, 2))
    assert np.array_equal(one.indices.drawn, two.indices.drawn)
    assert not np.array_equal(one.indices.drawn, other.indices.drawn)


def test_the_block_length_is_the_longest_needed():
    from arch.bootstrap import optimal_block_length

    rng = np.random.default_rng(2)
    noise = rng.normal(size=1000)
    slow = np.convolve(rng.normal(size=1019), np.ones(20), "valid")
    expected = optimal_block_length(slow)["stationary"].iloc[0]
    assert block_length([noise, slow, np.ones(1000)]) == pytest.approx(expected)
    assert block_length([noise]) < expected / 3
    assert block_length([np.zeros(50)]) == 1.0


def test_the_block_factor_makes_blocks_longer():
    models = {"a": scored(times=200), "b": scored(times=200, skill=0.5)}
    single, _ = bootstrap_metrics(models, CONFIG, 0)
    double, _ = bootstrap_metrics(models, CONFIG.model_copy(update={"block_factor": 2.0}), 0)
    assert double.block_length == 2 * single.block_length


# intervals


def sample_of(times=1000, length=1.0, level=0.95):
    return BootstrapSample(BootstrapIndices.identity(times), length, level)


def test_the_small_sample_correction_is_students_and_grows_with_the_blocks():
    from scipy.stats import t

    assert sample_of().small_sample_correction == pytest.approx(1.0, abs=0.005)
    expected = t.ppf(0.975, 20) / 1.959964 / np.sqrt(0.9)
    assert sample_of(length=50.0).small_sample_correction == pytest.approx(expected, rel=1e-6)
    assert sample_of(length=100.0).small_sample_correction > sample_of(length=50.0).small_sample_correction


def test_an_interval_is_symmetric_and_cut_off_at_the_bounds_of_its_metric():
    resampled = {"ece": np.linspace(0.0, 0.1, 1001), "sharpe": np.linspace(-1, 1, 1001), "mcc": np.full(1001, 0.2)}
    result = intervals(({"ece": 0.01, "sharpe": 0.0, "mcc": 0.2}, resampled), sample_of(10**6))
    assert (result["ece"].low, result["ece"].high) == (0.0, pytest.approx(0.01 + 0.085, abs=3e-4))
    assert (result["sharpe"].low, result["sharpe"].high) == pytest.approx((-0.95, 0.95), abs=3e-3)
    assert result["mcc"] == Interval(0.2, 0.2, 0.2)


@given(st.integers(1, 60), st.sampled_from([0.5, 0.9, 0.95]))
def test_a_new_value_is_below_the_quantile_as_often_as_promised(count, level):
    """Of B+1 exchangeable values each is as likely to be the new one."""
    values = np.arange(count + 1.0)
    below = [new <= upper_quantile(np.delete(values, int(new)), level) for new in values]
    if (count + 1) * level <= count:
        assert level <= np.mean(below) < level + 1 / (count + 1) + 1e-9
    else:
        assert upper_quantile(values[:-1], level) == count - 1


def test_an_undefined_metric_has_no_interval():
    resampled = {"sharpe": np.full(100, np.nan), "sortino": np.r_[np.full(11, np.nan), np.ones(89)]}
    result = intervals(({"sharpe": None, "sortino": 1.0}, resampled), sample_of())
    assert result == {"sharpe": Interval(None, None, None), "sortino": Interval(1.0, None, None)}
    differences = deltas(
        ({"sharpe": None, "sortino": 1.0}, resampled), ({"sharpe": 1.0, "sortino": 0.0}, resampled), sample_of()
    )
    assert dataclasses.astuple(differences["sharpe"]) == (None, None, None, "noise")
    assert dataclasses.astuple(differences["sortino"]) == (1.0, None, None, "noise")


def test_differences_are_paired():
    """Two models with common errors: their difference is more certain than either loss."""
    one, two = scored(times=400), scored(times=400)
    bent = two.probabilities**1.1
    two = dataclasses.replace(two, probabilities=bent / bent.sum(axis=1, keepdims=True))
    sample, values = bootstrap_metrics({"one": one, "two": two}, CONFIG, 0)
    delta = deltas(values["two"], values["one"], sample)["log_loss"]
    single = intervals(values["one"], sample)["log_loss"]
    assert delta.high - delta.low < (single.high - single.low) / 3
    assert delta.value == pytest.approx(values["two"][0]["log_loss"] - values["one"][0]["log_loss"])


def test_a_model_does_not_differ_from_itself():
    sample, values = bootstrap_metrics({"one": scored(), "two": scored()}, CONFIG, 0)
    for name, delta in deltas(values["one"], values["two"], sample).items():
        assert delta.value in (0.0, None), name
        assert delta.verdict in ("noise", None), name


def test_a_difference_that_no_resample_moves_is_noise():
    flat = {"log_loss": np.full(100, 0.7), "mcc": np.full(100, 0.2)}
    other = {"log_loss": np.full(100, 0.6), "mcc": np.full(100, 0.2 - 1e-16)}
    result = deltas(({"log_loss": 0.7, "mcc": 0.2}, flat), ({"log_loss": 0.6, "mcc": 0.2 - 1e-16}, other), sample_of())
    assert dataclasses.astuple(result["log_loss"]) == (pytest.approx(0.1), None, None, "noise")
    assert result["mcc"].verdict == "noise"
    assert result["mcc"].low <= 0 <= result["mcc"].high


@pytest.mark.parametrize("times", [1, 2, 10])
def test_too_few_times_are_refused(times):
    with pytest.raises(DataError, match=rf"expected 11 times or more to resample, got {times}; give the test split"):
        bootstrap_metrics({"one": scored(times=times)}, CONFIG, 0)


def test_simultaneous_intervals_hold_together():
    rng = np.random.default_rng(3)
    resampled = rng.normal(0, [1.0, 2.0, 0.0], (4000, 3))
    errors, critical = simultaneous_band(np.zeros(3), resampled, sample_of(10**6))
    assert errors == pytest.approx([1, 2, 0], rel=0.05)
    together = (np.abs(resampled[:, :2]) <= critical * errors[:2]).all(axis=1)
    assert together.mean() == pytest.approx(0.95, abs=0.001)
    assert critical == pytest.approx(2.236, abs=0.1)  # 1−(1−α)² = 0.05
    assert simultaneous_band(np.zeros(1), np.zeros((100, 1)), sample_of())[1] == 0.0


# before and after


SETTINGS = PairedSettings(level=0.95, resamples=200, block_factor=1.0, cost_bps=COST, calibration_bins=BINS, seed=1)


def test_before_and_after_a_change():
    before, after = predictions(times=400, skill=0.2), predictions(times=400, skill=3.0)
    windows = ["datetime", "symbol", "close", "label"]
    after[windows] = before[windows]
    moves = before.groupby("symbol")["close"].pct_change().shift(-1).fillna(0).to_numpy()
    scores = np.outer(moves * 500, (-1, 0, 1))
    after[[*PROBABILITY_COLUMNS]] = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    result = paired_deltas(before, after, SETTINGS)
    assert result["log_loss"].verdict == "better"
    assert result["auc_ovr"].verdict == "better"
    assert result["log_loss"].high < 0 < result["auc_ovr"].low
    back = paired_deltas(after, before, SETTINGS)
    assert back["log_loss"].verdict == "worse"
    assert back["log_loss"].value == -result["log_loss"].value
    assert result["trades"].verdict is None


def test_other_windows_are_refused():
    before = predictions()
    with pytest.raises(DataError, match=r"^120 windows before and 119 after are not the same windows"):
        paired_deltas(before, before.iloc[1:], SETTINGS)
    relabelled = before.assign(label=before["label"].where(before.index > 0, -before["label"] + 1))
    with pytest.raises(DataError, match="with the same labels"):
        paired_deltas(before, relabelled, SETTINGS)


def test_paired_settings_come_from_the_spec_of_compare():
    config = {**SETTINGS.model_dump(), "reference": "prior", "cells": []}
    assert PairedSettings.from_spec({"stage": "compare", "config": config}) == SETTINGS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level": 1.0}, "level = 1.0: expected less than 1"),
        ({"resamples": 10}, "resamples = 10: expected greater than or equal to 100"),
        ({"block_factor": 0.5}, "block_factor = 0.5: expected greater than or equal to 1"),
    ],
)
def test_config_errors(change, message):
    with pytest.raises(ConfigError, match=message):
        validate(BootstrapConfig, CONFIG.model_dump() | change, "params.yaml", "compare")


# coverage


@functools.cache
def coverage():
    """How often the intervals of a known loss contain it: 150 series of overlapping outcomes."""
    contained = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        loss = np.convolve(rng.exponential(size=804), np.ones(5) / 5, "valid")  # mean 1
        length = 2 * block_length([loss])
        sample = draw(800, length, CONFIG, seed)
        means = sample.indices.counts @ loss / 800
        half = np.quantile(np.abs(means - loss.mean()), 0.95) * sample.small_sample_correction
        contained.append(abs(loss.mean() - 1) <= half)
    return np.mean(contained)


def test_intervals_contain_the_truth_as_often_as_promised():
    assert coverage() >= 0.95 - 2.5 * np.sqrt(0.95 * 0.05 / 150)
