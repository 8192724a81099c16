"""Prediction sets and the strategies that trade on them, against crepes and against what they promise."""

import numpy as np
import pandas as pd
import pytest
from crepes import ConformalClassifier
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.errors import DataError
from barcast.evaluation.backtest import backtest
from barcast.evaluation.calibration import NO_CALIBRATION, Calibrator, Period, fit_calibrator
from barcast.evaluation.conformal import ConformalSets, coverage_by_month, coverage_metrics, nonconformity_scores
from barcast.evaluation.postprocess import Postprocess, choose_threshold, singleton_positions, threshold_positions
from barcast.files import write_json
from barcast.probabilities import PredictionOutput

SCORES = ("lac", "aps")


def sample(rng, n, sharpness=1.0):
    logits = rng.normal(0, sharpness, (n, 3))
    truth = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = (rng.random((n, 1)) > truth.cumsum(axis=1)).sum(axis=1) - 1
    return truth, y


def test_scores_by_hand():
    p = np.array([[0.2, 0.5, 0.3]])
    assert nonconformity_scores(p, "lac")[0] == pytest.approx([0.8, 0.5, 0.7])
    assert nonconformity_scores(p, "aps")[0] == pytest.approx([0.9, 0.25, 0.65])


@pytest.mark.parametrize("score", SCORES)
def test_the_quantile_by_hand(score):
    p, y = sample(np.random.default_rng(0), 9)
    true = np.sort(nonconformity_scores(p, score)[np.arange(9), y + 1])
    for alpha, rank in ((0.1, 9), (0.2, 8), (0.5, 5), (0.9, 1)):  # ⌈10(1−α)⌉
        assert ConformalSets.fit(p, y, score, alpha).quantile == true[rank - 1]
    assert ConformalSets.fit(p, y, score, 0.05).quantile is None


@given(st.integers(0, 2**32 - 1), st.sampled_from(SCORES), st.sampled_from([0.05, 0.1, 0.25, 0.5]))
@settings(max_examples=30, deadline=None)
def test_sets_are_those_of_crepes(seed, score, alpha):
    rng = np.random.default_rng(seed)
    (p, y), (q, _) = sample(rng, 58), sample(rng, 40)  # 59·α is no whole number, where crepes adds one more class
    fitted = ConformalSets.fit(p, y, score, alpha)
    oracle = ConformalClassifier().fit(nonconformity_scores(p, score)[np.arange(58), y + 1])
    expected = oracle.predict_set(nonconformity_scores(q, score), confidence=1 - alpha, smoothing=False).astype(bool)
    expected[np.arange(40), q.argmax(axis=1)] = True  # never empty
    assert (fitted.sets(q) == expected).all()


@pytest.mark.parametrize("score", SCORES)
def test_sets_contain_the_truth_as_often_as_they_should(score):
    hits = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        (p, y), (q, z) = sample(rng, 99), sample(rng, 50)
        hits.append(coverage_metrics(ConformalSets.fit(p, y, score, 0.2).sets(q), z)["coverage"])
    error = np.std(hits) / np.sqrt(300)
    assert 0.8 - 3 * error <= np.mean(hits) <= 0.8 + 0.01 + 3 * error


def test_sets_are_never_empty_and_larger_at_a_lower_alpha():
    rng = np.random.default_rng(1)
    (p, y), (q, _) = sample(rng, 200, sharpness=4), sample(rng, 200, sharpness=4)
    for score in SCORES:
        sizes = [ConformalSets.fit(p, y, score, alpha).sets(q).sum(axis=1) for alpha in (0.01, 0.1, 0.5)]
        assert min(size.min() for size in sizes) == 1
        assert (sizes[0] >= sizes[1]).all()
        assert (sizes[1] >= sizes[2]).all()


def test_with_too_few_windows_for_alpha_sets_contain_all_classes():
    p, y = sample(np.random.default_rng(2), 5)
    fitted = ConformalSets.fit(p, y, "lac", 0.1)
    assert fitted.sets(p).all()
    assert fitted.quantile is None


def test_coverage_is_reported_by_month():
    times = pd.Series(
        pd.to_datetime(["2020-01-31 23:30", "2020-02-01 00:00", "2020-02-02 00:00", "2020-02-03 00:00"], utc=True)
    )
    sets = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [1, 1, 1]], bool)
    table = coverage_by_month(sets, np.array([-1, 1, 1, 0]), times)
    assert table.to_dict("list") == {
        "month": ["2020-01", "2020-02"],
        "windows": [1, 3],
        "coverage": [1.0, pytest.approx(2 / 3)],
        "mean_size": [1.0, 2.0],
        "singletons": [1.0, pytest.approx(1 / 3)],
    }


# strategies


def test_only_sets_of_one_class_are_traded():
    sets = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1]], bool)
    assert singleton_positions(sets).tolist() == [-1, 0, 1, 0, 0]


def test_only_an_edge_beyond_the_threshold_is_traded():
    p = np.array([[0.5, 0.1, 0.4], [0.2, 0.2, 0.6], [0.6, 0.3, 0.1], [0.3, 0.4, 0.3]])
    assert threshold_positions(p, 0.3).tolist() == [0, 1, -1, 0]
    assert threshold_positions(p, 0.0).tolist() == [-1, 1, -1, 0]
    assert threshold_positions(p, None).tolist() == [0, 0, 0, 0]


def market(rng, n=400, skill=1.0):
    moves = rng.normal(0, 0.002, n)
    edge = np.clip(skill * np.append(moves[1:], 0) * 100 + rng.normal(0, 0.1, n), -0.6, 0.6)
    p = np.column_stack([(0.7 - edge) / 2, np.full(n, 0.3), (0.7 + edge) / 2])
    times = pd.date_range("2020-01-01", periods=n, freq="30min", tz="UTC")
    return p, pd.DataFrame({"datetime": times, "symbol": "AAA", "close": 100 * np.exp(np.cumsum(moves))})


def test_the_threshold_is_the_best_of_its_candidates():
    p, bars = market(np.random.default_rng(3))
    chosen = choose_threshold(p, bars, 5.0)

    def sharpe(threshold):
        return backtest(bars.assign(prediction=threshold_positions(p, threshold)), 5.0).metrics["sharpe"]

    edges = np.sort(np.abs(p[:, 2] - p[:, 0]))
    assert sharpe(chosen) == max(sharpe(edges[int(share * 399 + 1e-9)]) for share in np.arange(20) / 20)


def test_costs_raise_the_threshold_until_it_never_trades():
    p, bars = market(np.random.default_rng(4), skill=0.5)
    cheap, dear = choose_threshold(p, bars, 0.0), choose_threshold(p, bars, 10.0)
    assert cheap < dear
    assert choose_threshold(p, bars, 1000.0) is None


def test_a_model_without_skill_seldom_trades():
    thresholds = [choose_threshold(*market(np.random.default_rng(seed), skill=0.0), 20.0) for seed in range(10)]
    assert thresholds.count(None) >= 8


# one file for all of it


def output_of(p):
    times = pd.date_range("2020-01-01", periods=len(p), freq="30min", tz="UTC")
    return PredictionOutput.from_probabilities(p, pd.DataFrame({"datetime": times, "symbol": "AAA"}), 5)


@pytest.mark.parametrize("windows", [5, 100])  # 5 are too few for alpha, so the quantile is null
@pytest.mark.parametrize("threshold", [0.123, None])
def test_postprocess_survives_its_file(tmp_path, windows, threshold):
    p, y = sample(np.random.default_rng(5), windows)
    calibrator = fit_calibrator("vector", [Period(p, y)])
    before = Postprocess(calibrator, ConformalSets.fit(calibrator.apply(p), y, "aps", 0.1), threshold)
    write_json(tmp_path / "postprocess.json", before.to_json())
    after = Postprocess.load(tmp_path / "postprocess.json")
    assert after == before
    assert after.apply(output_of(p)).to_dataframe().equals(before.apply(output_of(p)).to_dataframe())


def test_postprocess_calibrates_probabilities_and_adds_their_sets():
    p, y = sample(np.random.default_rng(6), 100)
    calibrator = Calibrator("temperature", (0.5,) * 3, (0.0,) * 3)
    found = Postprocess(calibrator, ConformalSets.fit(p, y, "lac", 0.2), None)
    output = found.apply(output_of(p))
    assert np.array_equal(output.probabilities, calibrator.apply(p))
    assert output.set_size.tolist() == found.conformal.sets(calibrator.apply(p)).sum(axis=1).tolist()
    entropy = -(output.probabilities * np.log(output.probabilities)).sum(axis=1) / np.log(3)
    assert output.uncertainty == pytest.approx(entropy)
    assert output.horizons.tolist() == [5] * 100


def test_positions_need_sets():
    p, y = sample(np.random.default_rng(7), 20)
    found = Postprocess(NO_CALIBRATION, ConformalSets.fit(p, y, "lac", 0.2), None)
    with pytest.raises(DataError, match="the output has no prediction sets; call apply on the model"):
        found.positions(output_of(p))
    assert set(found.positions(found.apply(output_of(p)))) == {"sets", "threshold"}


def test_a_missing_file_names_the_command(tmp_path):
    with pytest.raises(DataError, match=r"postprocess.json: no such file; run `dvc repro evaluate` first"):
        Postprocess.load(tmp_path / "postprocess.json")


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_broken_file_is_reported(tmp_path, content):
    (tmp_path / "postprocess.json").write_text(content)
    with pytest.raises(DataError, match=r"postprocess.json: broken content .*; restore it with `dvc checkout -f`"):
        Postprocess.load(tmp_path / "postprocess.json")
