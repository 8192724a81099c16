"""Folds against slow obvious code, purgedcv and skfolio; each fold's scaler against one fitted on raw values."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from purgedcv import WalkForwardSplit
from skfolio.model_selection import WalkForward

from _cells import write_windows
from barcast.config import validate
from barcast.data.dataset import DatasetConfig, TimeSeriesDataset
from barcast.data.scaler import Scaler, ScalerConfig
from barcast.data.window_files import CLIPPED
from barcast.errors import ConfigError, DataError
from barcast.paths import Paths
from barcast.tuning.fold_scaler import FoldScaler, covered_rows, write_scaled
from barcast.tuning.folds import FoldConfig, cut_folds, open_fold, read_index

BAR = 1_800_000_000_000


def config(scheme="expanding", count=3, first_train=0.4, embargo_bars=0):
    return FoldConfig(scheme=scheme, count=count, first_train=first_train, embargo_bars=embargo_bars)


@st.composite
def tables(draw):
    """Times of one to three symbols with gaps, windows on some of their rows, and the end of each label."""
    times, symbols = [], []
    for _ in range(draw(st.integers(1, 3))):
        start, count = draw(st.integers(0, 10)), draw(st.integers(15, 60))
        steps = draw(st.lists(st.integers(1, 3), min_size=count, max_size=count))
        symbols.append(slice(len(times), len(times) + count))
        times += [BAR * (start + int(at)) for at in np.cumsum(steps)]
    rows = np.arange(len(times))
    ends = rows[np.array(draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))]
    label_end_offset = np.array(draw(st.lists(st.integers(0, 6), min_size=len(ends), max_size=len(ends))), np.int32)
    return np.array(times), symbols, ends, label_end_offset


def slow_folds(ends, label_end_offset, times, symbols, settings):
    """One window at a time, as the docstring describes."""
    inside = sorted({t for t in times.tolist() if times[ends].min() <= t <= times[ends].max()})
    first = round(len(inside) * settings.first_train)
    edges = [
        first + round(len(inside) * (1 - settings.first_train) * part / settings.count)
        for part in range(settings.count)
    ]
    edges.append(len(inside))
    for start, stop in pairwise(edges):
        train, val = [], []
        for position, (end, bars) in enumerate(zip(ends.tolist(), label_end_offset.tolist(), strict=True)):
            rows = next(rows for rows in symbols if rows.start <= end < rows.stop)
            before = [row for row in range(rows.start, rows.stop) if times[row] < inside[start]]
            limit = rows.start + len(before)
            oldest = inside[start - first] if settings.scheme == "rolling" else inside[0]
            if end + bars < limit and times[end] >= oldest:
                train.append(position)
            if end - limit >= settings.embargo_bars and times[end] <= inside[stop - 1]:
                val.append(position)
        yield train, val


@settings(max_examples=80, deadline=None)
@given(
    tables(),
    st.sampled_from(["expanding", "rolling"]),
    st.integers(1, 3),
    st.sampled_from([0.3, 0.5]),
    st.integers(0, 3),
)
def test_folds_equal_the_slow_oracle(table, scheme, count, first_train, embargo):
    times, symbols, ends, label_end_offset = table
    settings = config(scheme, count, first_train, embargo)
    if len(ends) < 10:
        return
    expected = list(slow_folds(ends, label_end_offset, times, symbols, settings))
    if any(not train or not val for train, val in expected):
        with pytest.raises(DataError, match=r"window is left|too few"):
            cut_folds(ends, label_end_offset, times, symbols, settings)
        return
    folds = cut_folds(ends, label_end_offset, times, symbols, settings)
    assert [(fold.train.tolist(), fold.val.tolist()) for fold in folds] == expected
    for fold in folds:  # the purpose: no outcome of training is known later than validation begins
        known = times[np.minimum(ends[fold.train] + label_end_offset[fold.train], len(times) - 1)]
        first_of = {rows.start: times[ends[fold.val]].min() for rows in symbols}
        same = [next(r for r in symbols if r.start <= e < r.stop) for e in ends[fold.train]]
        inside = ends[fold.train] + label_end_offset[fold.train] < np.array([rows.stop for rows in same])
        assert (known[inside] < np.array([first_of[rows.start] for rows in same])[inside]).all()


@pytest.mark.parametrize("seed", range(5))
def test_an_expanding_fold_is_that_of_purgedcv(seed):
    """A bar is stamped with its opening and its outcome is known at a close, one bar later."""
    rng = np.random.default_rng(seed)
    rows, count, size = 200, 4, 30
    label_end_offset = rng.integers(1, 15, rows).astype(np.int32)
    times = np.arange(rows) * BAR
    opened = pd.Series(pd.to_datetime(times, utc=True))
    known = pd.Series(pd.to_datetime(times + (label_end_offset.astype(np.int64) + 1) * BAR, utc=True))
    oracle = WalkForwardSplit(count, size, prediction_times=opened, evaluation_times=known)
    settings = config(count=count, first_train=(rows - count * size) / rows)
    folds = cut_folds(np.arange(rows), label_end_offset, times, [slice(0, rows)], settings)
    for fold, (train, val) in zip(folds, oracle.split(np.zeros((rows, 1))), strict=True):
        assert fold.train.tolist() == train.tolist()
        assert fold.val.tolist() == val.tolist()


@pytest.mark.parametrize("scheme", ["expanding", "rolling"])
@pytest.mark.parametrize("label_end_offset", [0, 1, 9])
def test_with_one_reach_for_all_a_fold_is_that_of_skfolio(scheme, label_end_offset):
    rows, count, size = 220, 4, 25
    first = rows - count * size
    oracle = WalkForward(
        test_size=size,
        train_size=first - label_end_offset,
        expand_train=scheme == "expanding",
        purged_size=label_end_offset,
    )
    settings = config(scheme, count, first / rows)
    folds = cut_folds(
        np.arange(rows), np.full(rows, label_end_offset, np.int32), np.arange(rows) * BAR, [slice(0, rows)], settings
    )
    for fold, (train, val) in zip(folds, oracle.split(np.zeros((rows, 1))), strict=True):
        assert fold.train.tolist() == train.tolist()
        assert fold.val.tolist() == val.tolist()


def test_the_embargo_is_added_to_the_purge_in_bars_of_each_symbol():
    times = np.concatenate([np.arange(100) * BAR, np.arange(0, 200, 2)[:50] * BAR])  # the second has half the bars
    symbols = [slice(0, 100), slice(100, 150)]
    plain = cut_folds(np.arange(150), np.full(150, 3, np.int32), times, symbols, config(count=1))
    embargoed = cut_folds(np.arange(150), np.full(150, 3, np.int32), times, symbols, config(count=1, embargo_bars=5))
    assert embargoed[0].train.tolist() == plain[0].train.tolist()
    assert sorted(set(plain[0].val) - set(embargoed[0].val)) == [40, 41, 42, 43, 44, 120, 121, 122, 123, 124]


def test_a_stride_moves_no_cut():
    times, every = np.arange(300) * BAR, np.arange(300)
    thin = every[every % 4 == 3]
    full = cut_folds(every, np.zeros(300, np.int32), times, [slice(0, 300)], config())
    some = cut_folds(thin, np.zeros(75, np.int32), times, [slice(0, 300)], config())
    for one, other in zip(full, some, strict=True):
        assert abs(int(every[one.val].min()) - int(thin[other.val].min())) <= 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (config(first_train=0.001), "fold 1: no training window is left; raise tune.folds.first_train"),
        (config(embargo_bars=99), "fold 1: no validation window is left; lower tune.folds.count or tune.folds"),
        (config(count=99), "tune.folds: 50 bars of train are too few for 99 folds"),
    ],
)
def test_folds_that_can_not_be_cut_are_refused(settings, message):
    with pytest.raises(DataError, match=message):
        cut_folds(np.arange(50), np.zeros(50, np.int32), np.arange(50) * BAR, [slice(0, 50)], settings)


def test_a_share_outside_0_and_1_is_refused():
    with pytest.raises(ConfigError, match="first_train"):
        validate(FoldConfig, {"scheme": "rolling", "count": 1, "first_train": 1.0, "embargo_bars": 0}, "params.yaml")


def heavy(rows, seed=0):
    """Features of each kind: heavy tails, a shift in time, few values, one value."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "tails": rng.standard_t(2, rows) * 3 + 7,
            "drift": rng.normal(size=rows) + np.linspace(0, 4, rows),
            "spikes": np.where(rng.random(rows) < 0.2, rng.normal(size=rows) * 9, 0.0),
            "steps": rng.integers(0, 3, rows) / 4,
            "still": np.full(rows, 0.25),
        }
    )
    return frame.astype(np.float32)


@pytest.mark.parametrize("kind", ["robust", "standard"])
@pytest.mark.parametrize("clip", [2.0, 5.0])
def test_a_fold_is_scaled_as_if_its_scaler_had_seen_the_raw_values(tmp_path, kind, clip):
    raw = heavy(800)
    settings = ScalerConfig(kind=kind, clip=clip)
    whole = Scaler.fit(raw, settings)
    cut = whole.clipped_values(raw)
    assert len(cut) > 5
    records = np.zeros(len(cut), CLIPPED)
    records["row"], records["value"] = cut["row"], cut["value"]
    records["column"] = [raw.columns.get_loc(name) for name in cut["column"]]
    fitted = np.zeros(800, bool)
    fitted[100:400] = True
    rows = np.ascontiguousarray(whole.transform(raw).to_numpy())
    write_scaled(tmp_path / "f.npy", rows, records, fitted, np.ones(800, bool), FoldScaler(kind=kind, clip=clip))
    expected = Scaler.fit(raw[fitted], settings).transform(raw).to_numpy()
    np.testing.assert_allclose(np.load(tmp_path / "f.npy"), expected, atol=2e-5)


def test_values_scaled_elsewhere_are_rescaled_and_never_clipped(tmp_path):
    rows = np.ascontiguousarray(heavy(300)[["tails", "drift"]].to_numpy())
    fitted = np.arange(300) < 150
    none = np.zeros(0, CLIPPED)
    write_scaled(tmp_path / "f.npy", rows, none, fitted, np.ones(300, bool), FoldScaler(kind="standard", clip=None))
    scaled = np.load(tmp_path / "f.npy")
    exact = rows.astype(np.float64)
    expected = (exact - exact[:150].mean(0)) / exact[:150].std(0)
    np.testing.assert_allclose(scaled, expected, rtol=1e-5, atol=1e-6)


def test_rows_outside_a_fold_are_not_written(tmp_path):
    rows = np.ones((1000, 2), np.float32) * np.arange(1000, dtype=np.float32)[:, None]
    written = covered_rows(np.array([20, 24, 900]), 5, 1000)
    assert np.flatnonzero(written).tolist() == [16, 17, 18, 19, 20, 21, 22, 23, 24, 896, 897, 898, 899, 900]
    write_scaled(tmp_path / "f.npy", rows, np.zeros(0, CLIPPED), written, written, FoldScaler(kind="robust", clip=5.0))
    scaled = np.load(tmp_path / "f.npy")
    assert (scaled[~written] == 0).all()
    assert np.unique(scaled[written], axis=0).shape[0] == written.sum()


def test_a_fold_has_windows_over_its_own_rows_and_shares_the_index(tmp_path):
    paths = Paths(tmp_path)
    write_windows(paths)
    split = TimeSeriesDataset(DatasetConfig(path=str(paths.windows), horizon=5)).split("train")
    index, times, symbols = read_index(split)
    fold = cut_folds(split.X.ends, split.label_end_offset, times, symbols, config())[1]
    np.save(tmp_path / "rows.npy", split.X.rows * 2)
    train, val = open_fold(split, index, fold, tmp_path / "rows.npy")
    np.testing.assert_array_equal(train.X[0], split.X[int(fold.train[0])] * 2)
    assert val.meta["row"].tolist() == split.X.ends[fold.val].tolist()
    assert val.index is train.index
    assert isinstance(val.X.rows.base, np.memmap)
    for label in (-1, 0, 1):
        assert train.weight[train.y == label].mean() == pytest.approx(1.0, abs=1e-5)


def test_reach_and_cut_values_pass_through_the_window_files(tmp_path):
    from barcast.data.synthetic import synthetic_splits, write_splits
    from barcast.stages.window import WindowStageConfig
    from barcast.stages.window import write_windows as lay_out

    paths = Paths(tmp_path)
    write_splits(synthetic_splits(seed=1, n_rows=(400, 200, 201), n_features=6), paths.splits)
    frame = pd.read_parquet(paths.splits / "train_scaled.parquet")
    settings = {"horizons": [5], "weights": "both", "window": {"seq_len": 10, "max_gap": "2h"}}
    dataset = TimeSeriesDataset(DatasetConfig(path=str(paths.windows), horizon=5))
    lay_out(validate(WindowStageConfig, settings, "window.yaml"), paths)
    assert len(dataset.clipped()) == 0
    split = dataset.split("train")
    assert split.label_end_offset.tolist() == frame["bars_to_hit_h5"].iloc[split.X.ends].tolist()
    names = dataset.feature_columns()
    cut = pd.DataFrame({"row": [3, 7], "column": [names[2], names[0]], "value": [6.5, -8.0]})
    cut.to_parquet(paths.clipped_values)
    lay_out(validate(WindowStageConfig, settings, "window.yaml"), paths)
    assert dataset.clipped().tolist() == [(3, 2, 6.5), (7, 0, -8.0)]
