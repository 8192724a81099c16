"""Windows against slow, obvious code: one loop over every bar."""

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.config import validate
from barcast.data.batching import batches
from barcast.data.dataset import DatasetConfig, TimeSeriesDataset, normalize_weights_per_class
from barcast.data.window_ends import WindowConfig, window_ends
from barcast.data.window_files import pack_labels
from barcast.data.windows import Windows, as_windows
from barcast.errors import ConfigError, DataError, ModelError

HOUR = 3_600_000_000_000


@st.composite
def frames(draw):
    """Symbol codes and times of a few symbols, with holes of one to five hours between rows."""
    symbols, times = [], []
    for code in range(draw(st.integers(1, 3))):
        holes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=30))
        symbols += [code] * len(holes)
        times += list(np.cumsum(holes) * HOUR)
    return np.array(symbols), np.array(times, np.int64)


def slow_ends(symbols, times, seq_len, max_gap):
    ends = []
    for end in range(len(times)):
        first = end - seq_len + 1
        if first < 0 or len(set(symbols[first : end + 1])) > 1:
            continue
        if all(times[row + 1] - times[row] <= max_gap for row in range(first, end)):
            ends.append(end)
    return ends


@given(frames(), st.integers(1, 8), st.integers(1, 5))
def test_ends_equal_the_slow_oracle(frame, seq_len, gap):
    symbols, times = frame
    assert window_ends(symbols, times, seq_len, gap * HOUR).tolist() == slow_ends(symbols, times, seq_len, gap * HOUR)


def example(rows=40, width=3, seq_len=5, ends=None):
    base = np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)
    return Windows(base, np.arange(seq_len - 1, rows) if ends is None else np.asarray(ends), seq_len)


def dense(windows):
    return np.stack([windows.rows[e - windows.seq_len + 1 : e + 1] for e in windows.ends])


def test_every_way_of_indexing_equals_the_stacked_array():
    X = example(ends=[4, 9, 12, 30, 39])
    full = dense(X)
    assert X.shape == full.shape
    assert len(X) == 5
    np.testing.assert_array_equal(X[1], full[1])
    np.testing.assert_array_equal(X[-1], full[-1])
    np.testing.assert_array_equal(X[1:4], full[1:4])
    np.testing.assert_array_equal(X[[3, 0, 3]], full[[3, 0, 3]])
    np.testing.assert_array_equal(X[np.array([True, False, True, False, False])], full[[0, 2]])
    np.testing.assert_array_equal(np.asarray(X), full)
    np.testing.assert_array_equal(X.lag(2), full[:, -3])
    np.testing.assert_array_equal(np.asarray(X.select(slice(2, None))), full[2:])
    assert X[[]].shape == (0, 5, 3)


def test_a_window_is_a_view_and_not_a_copy():
    X = example()
    assert np.shares_memory(X[7], X.rows)


def test_gather_fills_the_buffer_it_is_given():
    X = example()
    buffer = np.zeros((4, 5, 3), np.float32)
    out = X.gather(X.ends[[2, 0, 9]], buffer)
    assert np.shares_memory(out, buffer)
    np.testing.assert_array_equal(out, dense(X)[[2, 0, 9]])
    assert not buffer[3].any()
    assert X.gather(X.ends[:0], buffer).shape == (0, 5, 3)


def slow_thinned(ends, stride, offset):
    """Walk along the grid of the ends, one step a time."""
    step = math.gcd(*(later - first for first, later in itertools.pairwise(ends))) or 1
    wanted, kept = ends[0] + offset * step, []
    for place, end in enumerate(ends):
        while wanted < end:
            wanted += stride * step
        if wanted == end:
            kept.append(place)
    return kept


@given(st.sets(st.integers(0, 60), min_size=1), st.integers(1, 6), st.integers(1, 7), st.integers(0, 6))
def test_thinned_windows_equal_the_slow_oracle(places, spacing, stride, offset):
    ends, offset = [4 + spacing * place for place in sorted(places)], offset % stride
    X, expected = example(rows=500, ends=ends), slow_thinned(ends, stride, offset)
    if expected:
        assert X.thinned(stride, offset).tolist() == expected
    else:
        with pytest.raises(ModelError, match=rf"train_stride {stride} keeps none of {len(ends)} windows; lower it"):
            X.thinned(stride, offset)


@pytest.mark.parametrize("stride", [1, 3, 4])
def test_the_offsets_share_the_windows_out(stride):
    X = example(ends=[4, 5, 6, 7, 20, 21, 23, 30, 31, 32, 33, 39])
    parts = [X.thinned(stride, offset) for offset in range(stride)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(12))
    assert X.thinned(1).tolist() == list(range(12))


def test_a_grid_goes_on_across_a_gap():
    X = example(ends=[4, 5, 6, 7, 8, 20, 21, 22, 23])
    assert X.ends[X.thinned(4)].tolist() == [4, 8, 20]
    assert X.ends[X.thinned(4, 3)].tolist() == [7, 23]


def test_windows_of_a_plain_array_are_counted_one_by_one():
    assert as_windows(np.zeros((7, 5, 3))).thinned(3).tolist() == [0, 3, 6]


def test_no_windows_to_thin_is_an_error():
    with pytest.raises(ModelError, match="train_stride 2 keeps none of 0 windows"):
        example(ends=[]).thinned(2)


@pytest.mark.parametrize("bars", [1, 3, 5, None])
def test_the_last_bars_of_windows_are_the_ends_of_the_stacked_array(bars):
    X = example(ends=[4, 9, 12, 30, 39])
    shorter = X.last(bars)
    assert shorter.shape == (5, bars or 5, 3)
    np.testing.assert_array_equal(np.asarray(shorter), dense(X)[:, -(bars or 5) :])
    assert np.shares_memory(shorter.rows, X.rows)


def test_more_bars_than_a_window_has_are_refused():
    with pytest.raises(ModelError, match="lookback 6 is longer than a window of seq_len 5; shorten it"):
        example().last(6)


@pytest.mark.parametrize("end", [3, 40])
def test_no_window_is_gathered_from_outside_the_rows(end):
    for out in (None, np.empty((1, 5, 3), np.float32)):
        with pytest.raises(ModelError, match="window ends: expected 4 … 39"):
            example().gather(np.array([end]), out)


def test_a_plain_array_becomes_windows_over_rows_that_nobody_shares():
    array = np.random.default_rng(1).normal(size=(6, 5, 3))
    X = as_windows(array)
    np.testing.assert_array_equal(np.asarray(X), array.astype(np.float32))
    assert as_windows(X) is X
    with pytest.raises(ModelError, match=r"expected windows \[N, L, F\], got an array of shape \(6, 5\)"):
        as_windows(array[:, :, 0])


def test_bad_rows_and_ends_are_refused():
    with pytest.raises(ModelError, match="C-contiguous float32"):
        Windows(np.zeros((4, 2)), np.array([3]), 2)
    with pytest.raises(ModelError, match="expected 4 … 39, got 3 … 40"):
        example(ends=[3, 40])


@pytest.fixture
def folder(tmp_path):
    """Two symbols of 12 rows, windows of 4, the last three labels of each symbol not yet known."""
    rng = np.random.default_rng(2)
    symbols = ["A"] * 12 + ["B"] * 12
    times = pd.date_range("2020", periods=12, freq="1h", tz="UTC").append(
        pd.date_range("2020", periods=12, freq="1h", tz="UTC")
    )
    known = np.tile([True] * 9 + [False] * 3, 2)
    for split in ("train", "val"):
        target = tmp_path / split
        target.mkdir()
        np.save(target / "rows.npy", rng.normal(size=(24, 2)).astype(np.float32))
        ends = window_ends(np.repeat([0, 1], 12), times.as_unit("ns").asi8, 4, HOUR)
        np.save(target / "ends.npy", ends)
        index = pd.DataFrame({"datetime": times, "symbol": symbols, "close": np.arange(24.0)})
        index.to_parquet(target / "index.parquet")
        (target / "columns.json").write_text(json.dumps({"features": ["a", "b"], "seq_len": 4}))
        (tmp_path / "labels").mkdir(exist_ok=True)
        labels = pd.Series(rng.integers(-1, 2, 24)).where(known).astype("Int8")
        np.save(
            tmp_path / f"labels/{split}_h5.npy",
            pack_labels(labels, pd.Series(np.linspace(0, 1, 24)), pd.Series(np.arange(24))),
        )
    return tmp_path


def test_a_split_holds_only_windows_whose_label_is_known(folder):
    X, y, meta = TimeSeriesDataset(DatasetConfig(path=str(folder), horizon=5)).get_split("train")
    labels = np.load(folder / "labels/train_h5.npy")["label"]
    expected = [3, 4, 5, 6, 7, 8, 15, 16, 17, 18, 19, 20]
    assert X.ends.tolist() == expected
    assert meta["row"].tolist() == expected
    assert meta["symbol"].tolist() == ["A"] * 6 + ["B"] * 6
    assert y.tolist() == labels[expected].tolist()
    assert isinstance(X.rows.base, np.memmap)


@settings(max_examples=25, deadline=None)  # the first example compiles
@given(st.integers(1, 20), st.booleans(), st.integers(0, 9))
def test_batches_give_every_window_once(folder_path, size, shuffle, seed):
    split = TimeSeriesDataset(DatasetConfig(path=str(folder_path), horizon=5)).split("train")
    full, rows = dense(split.X), []
    for X, y, weight in batches(split, size, shuffle, seed):
        assert len(X) == len(y) == len(weight) <= size
        for window, label, w in zip(X, y, weight, strict=True):
            found = [i for i in range(len(full)) if np.array_equal(full[i], window)]
            assert len(found) == 1
            assert split.y[found[0]] == label
            assert split.weight[found[0]] == w
            rows += found
    assert sorted(rows) == list(range(len(full)))
    if not shuffle:
        assert rows == sorted(rows)


@pytest.fixture(scope="module")
def folder_path(tmp_path_factory):
    return folder.__wrapped__(tmp_path_factory.mktemp("windows"))


@given(st.lists(st.tuples(st.sampled_from([-1, 0, 1]), st.floats(0, 10)), min_size=1, max_size=30))
def test_weights_keep_their_ratios_within_a_class_and_tilt_no_class(pairs):
    y, weight = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    scaled = normalize_weights_per_class(weight, y)
    for label in set(y.tolist()):
        mine, before = scaled[y == label].astype(float), weight[y == label]
        np.testing.assert_allclose(mine * before.mean(), before, rtol=1e-5, atol=1e-6)
        assert not before.any() or mine.mean() == pytest.approx(1, rel=1e-5)


def test_shuffling_is_seeded(folder):
    split = TimeSeriesDataset(DatasetConfig(path=str(folder), horizon=5)).split("val")

    def order(seed):
        return np.concatenate([weight for _, _, weight in batches(split, 5, True, seed)]).tolist()

    assert order(1) == order(1) != order(2)


def test_missing_files_and_labels_are_named(folder):
    with pytest.raises(DataError, match=r"test/columns.json: no such window file; run `dvc repro window`"):
        TimeSeriesDataset(DatasetConfig(path=str(folder), horizon=5)).split("test")
    with pytest.raises(DataError, match=r"labels/val_h20.npy: no such window file"):
        TimeSeriesDataset(DatasetConfig(path=str(folder), horizon=20)).split("val")
    labels = np.load(folder / "labels/val_h5.npy")
    labels["known"] = False
    np.save(folder / "labels/val_h5.npy", labels)
    with pytest.raises(DataError, match="no window of val has a known label"):
        TimeSeriesDataset(DatasetConfig(path=str(folder), horizon=5)).split("val")


@pytest.mark.parametrize("gap", ["soon", "0h", "-2h"])
def test_max_gap_must_be_a_duration(gap):
    with pytest.raises(ConfigError, match=r"window.max_gap = '.*': expected a duration .*such as '2h'"):
        validate(WindowConfig, {"seq_len": 4, "max_gap": gap}, "params.yaml", "window")
