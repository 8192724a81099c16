"""The folds that settings are chosen on see nothing of the test period, and no label reaches over a cut; the table."""

import json

import numpy as np
import pandas as pd
import pytest

from barcast.data.frames import nanoseconds, symbol_slices
from barcast.data.label_weights import sample_weights
from barcast.data.splits import cut_times, split_rows
from barcast.data.synthetic import FUTURES, synthetic_bars
from barcast.params import load_params
from conftest import REPOSITORY

WARMUP = 200


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY))


@pytest.fixture
def params(write_params):
    changes = {"model.max_rounds": 5, "model.max_epochs": 1, "split.embargo_bars": 60, "compare.resamples": 100}
    return load_params(write_params(changes))


def market(params, horizon=5, bars=3000):
    from benchmarks._walk_forward import Market, before_test

    whole = synthetic_bars(["AAA", "BBB"], bars, seed=3, signal=0.05, sessions=FUTURES)
    return Market(before_test(whole, params), params, horizon)


def test_the_bars_end_where_val_does_and_nothing_later_changes_them(params):
    from benchmarks._walk_forward import before_test

    bars = synthetic_bars(["AAA", "BBB"], 1500, seed=3)
    kept = before_test(bars, params)
    symbols = symbol_slices(bars["symbol"]).values()
    times = [nanoseconds(bars["datetime"].iloc[rows])[WARMUP:] for rows in symbols]
    cuts = cut_times(times, params.split)
    stop = split_rows(times[0], cuts, params.split)["val"].stop
    assert nanoseconds(kept["datetime"]).max() == times[0][stop - 1] < cuts[1]
    altered = bars.copy()
    altered.loc[nanoseconds(bars["datetime"]) > times[0][stop - 1], ["open", "high", "low", "close"]] *= 3
    pd.testing.assert_frame_equal(before_test(altered, params), kept)


@pytest.mark.parametrize("horizon", [5, 20])
def test_purge_and_embargo_hold_between_the_parts_of_a_fold(params, horizon):
    whole = market(params, horizon)
    folds, embargo = list(whole.folds(3)), params.tune.folds.embargo_bars
    assert len(folds) == 3
    for symbol, rows in symbol_slices(whole.frame["symbol"]).items():
        own = (whole.ends >= rows.start) & (whole.ends < rows.stop)
        for fold in folds:
            train, stop, scored = (part[own[part]] for part in fold)
            assert len(train) > len(stop) > 0, symbol
            assert len(scored) > 0
            for before, after in ((train, stop), (stop, scored)):
                known = whole.ends[before] + whole.label_end_offset[before]
                assert known.max() < whole.ends[after].min()
                assert whole.ends[after].min() - whole.ends[before].max() > embargo
    scored = np.concatenate([fold.scored for fold in folds])
    assert len(np.unique(scored)) == len(scored)


def test_each_fold_is_scaled_by_its_training_windows(params, monkeypatch):
    from benchmarks import _walk_forward
    from benchmarks._walk_forward import Scaler, Setting

    from barcast.params import resolve_model

    whole = market(params)
    folds, seen = list(whole.folds(2)), []

    def fit(frame, config):
        seen.append(frame.index)
        return Scaler.fit(frame, config)

    monkeypatch.setattr(_walk_forward, "Scaler", type("Spy", (), {"fit": staticmethod(fit)}))
    prior = resolve_model(params, "prior", 5, REPOSITORY / "params.yaml")
    whole.scores([Setting.of(params, prior, {})], folds, [1])
    for fold, rows in zip(folds, seen, strict=True):
        assert set(rows) == {row for end in whole.ends[fold.train] for row in range(end - 59, end + 1)}


def test_weights_are_those_of_the_training_labels_only(params):
    whole = market(params)
    train = next(whole.folds(2)).train
    assert (whole._weight("none", train) == 1).all()
    label_end_offset, quality = (np.full(len(whole.frame), np.nan) for _ in range(2))
    label_end_offset[whole.ends[train]] = whole.label_end_offset[train]
    quality[whole.ends[train]] = whole.frame["quality_h5"].to_numpy()[whole.ends[train]]
    expected = np.concatenate(
        [
            sample_weights(label_end_offset[rows], quality[rows])
            for rows in symbol_slices(whole.frame["symbol"]).values()
        ]
    )[whole.ends[train]]
    found = whole._weight("both", train)
    for label in (-1, 0, 1):
        own = whole.y[train] == label
        np.testing.assert_allclose(found[own], expected[own] / expected[own].mean(), rtol=1e-5)


def test_the_reference_unit_is_the_short_atr_of_the_same_bar(params):
    whole = market(params)
    price, short = (whole._rows(units)[0] for units in ("price", "atr_14"))
    np.testing.assert_allclose(short["candle_range"] * short["atr_share_14"], price["candle_range"], rtol=1e-5)
    for name in ("rsi_14", "atr_share_14", "label_h5"):
        pd.testing.assert_series_equal(short[name], price[name])


def test_the_table_has_each_setting_beside_the_committed_one(capsys, monkeypatch, tmp_path, write_params):
    from benchmarks import choices

    small = {"model.max_rounds": 5, "model.max_epochs": 1, "compare.resamples": 100}
    committed = {"label.weights": "none", "data.features.units": "atr", "model.lookback": 12}
    monkeypatch.setattr(choices, "PARAMS", write_params(small | committed))
    monkeypatch.setattr(choices, "FOLDS", {"lightgbm": 5, "gru": 3})
    monkeypatch.setitem(choices.PARTS, "networks", {"lookback 8": {"lookback": 8}})
    tiny = ["--markets", "sessions", "--bars", "3000", "--folds", "2", "--horizons", "5", "--jobs", "1"]
    file = tmp_path / "choices.json"

    def run(*parts):
        choices.main(["--only", *parts, *tiny, "--into", str(file)])
        return json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]

    rows = run("weights", "units")
    assert [row["setting"] for row in rows] == ["none", "uniqueness", "quality", "both", "price", "atr", "atr_14"]
    committed = [row for row in rows if row["committed"]]
    assert [row["values"] for row in committed] == [{"weights": "none"}, {"units": "atr"}]
    assert {row["difference"] for row in committed} == {0}
    for row in rows:
        assert row["low"] <= row["difference"] <= row["high"]
        assert row["difference"] == pytest.approx(row["log_loss"] - committed[0]["log_loss"], abs=1e-5)
        assert len(row["folds"]) == 2
        assert row["windows"] == rows[0]["windows"]
    more = run("networks")
    assert more[: len(rows)] == rows
    assert [row["setting"] for row in more[len(rows) :]] == ["lookback 8", "committed"]
    assert [row["values"] for row in more[len(rows) :]] == [{"lookback": 8}, {"lookback": 12}]
    again = run("weights")
    assert len(again) == len(more)
    assert {row["part"] for row in again} == {"weights", "units", "networks"}
    assert json.loads(file.read_text())["rows"] == again
