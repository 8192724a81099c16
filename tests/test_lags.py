"""The tabular view of windows against slow, obvious code."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.config import validate
from barcast.data.windows import Windows, as_windows
from barcast.errors import ConfigError, ModelError
from barcast.models import _lags
from barcast.models._lags import STATISTICS, WHOLE, FlatTable, LagView, bin_table, importance_frame
from barcast.models.catboost import WindowGrid
from barcast.models.logistic import LogisticConfig

LOGISTIC = {
    "model_name": "logistic",
    "model_family": "linear",
    "horizon": 5,
    "random_seed": 1,
    "threads": 1,
    "train_stride": 1,
    "lags": [0],
    "spans": [],
    "C": 1.0,
    "max_iterations": 10,
}


def random_windows(seed, seq_len=6, width=2, rows=40, count=15):
    rng = np.random.default_rng(seed)
    ends = np.sort(rng.choice(np.arange(seq_len - 1, rows), count, replace=False))
    return Windows(rng.standard_normal((rows, width)).astype(np.float32), ends, seq_len)


def slow_table(windows, lags, spans):
    """Every cell computed by itself, with numpy's own statistics."""
    table = []
    for window in np.asarray(windows, np.float64):
        cells = [window[-1 - lag, j] for lag in lags for j in range(window.shape[1])]
        for span in spans:
            tail = window[-span:]
            slopes = np.polyfit(np.arange(span), tail, 1)[0]
            cells += [*tail.mean(0), *tail.std(0), *tail.min(0), *tail.max(0), *slopes]
        table.append(cells)
    return np.asarray(table)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    width=st.integers(1, 3),
    lags=st.lists(st.integers(0, 5), min_size=1, unique=True),
    spans=st.lists(st.integers(2, 6), unique=True),
)
def test_a_lag_list_with_spans_equals_the_slow_table(seed, width, lags, spans):
    windows = random_windows(seed, width=width)
    view = LagView(lags, spans, 6, width)
    table = view.table(windows)
    assert table.shape == (15, len(view.columns[0]))
    np.testing.assert_allclose(table, slow_table(windows, lags, spans), atol=2e-6)


def test_all_is_the_flattened_window_oldest_bar_first():
    windows = random_windows(0)
    view = LagView("all", [], 6, 2)
    table = view.table(windows)
    assert isinstance(table, FlatTable)
    np.testing.assert_array_equal(table[:], windows[:].reshape(15, 12))
    np.testing.assert_array_equal(table[4:9], windows[4:9].reshape(5, 12))
    feature, lag = view.columns
    for column in range(12):
        np.testing.assert_array_equal(table[:][:, column], windows.lag(lag[column])[:, feature[column]])


def test_the_columns_name_feature_and_lag_and_spans_as_a_whole():
    feature, lag = LagView([3, 0], [2], 6, 2).columns
    assert feature.tolist() == [0, 1] * (2 + len(STATISTICS))
    assert lag.tolist() == [3, 3, 0, 0] + [WHOLE] * 2 * len(STATISTICS)


@pytest.mark.parametrize(("lags", "spans"), [("all", []), ([0, 2], [3, 5])])
def test_cells_are_the_same_bits_in_any_company_and_any_chunk(monkeypatch, lags, spans):
    windows = random_windows(1, count=30)
    view = LagView(lags, spans, 6, 2)
    whole = view.table(windows)[:]
    for i in (0, 7, 29):
        np.testing.assert_array_equal(view.table(windows.select([i]))[:], whole[[i]])
    monkeypatch.setattr(_lags, "CHUNK_BYTES", 300)
    blocks = list(view.blocks(windows))
    assert len(blocks) > 2
    np.testing.assert_array_equal(np.concatenate(blocks), whole)
    np.testing.assert_array_equal(view.table(windows)[:], whole)


def test_a_feature_that_stands_still_has_no_deviation_and_no_slope():
    rows = np.full((20, 1), 0.1, np.float32)
    table = LagView([0], [7], 8, 1).table(Windows(rows, np.arange(7, 20), 8))
    np.testing.assert_array_equal(table[:, 2], 0)  # std
    np.testing.assert_array_equal(table[:, 5], 0)  # slope
    np.testing.assert_array_equal(table[:, 1], rows[0, 0])  # mean


@pytest.mark.parametrize(
    ("lags", "spans", "message"),
    [
        ([0, 6], [], r"lags: lag 6 is outside a window of seq_len 6; use 0 … 5"),
        ([0], [7], r"spans: span 7 is longer than a window of seq_len 6"),
    ],
)
def test_what_reaches_beyond_the_window_is_refused(lags, spans, message):
    with pytest.raises(ModelError, match=message):
        LagView(lags, spans, 6, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lags": []}, r"lags = \[\]: expected 'all', or a list"),
        ({"lags": [1, 1]}, r"lags = \[1, 1\]: expected .*none twice"),
        ({"lags": [-1]}, r"lags = \[-1\]: expected 'all', or a list"),
        ({"lags": [True]}, r"lags = \[True\]: expected 'all', or a list"),
        ({"lags": [[1]]}, r"lags = \[\[1\]\]: expected 'all', or a list"),
        ({"lags": "every"}, r"lags = 'every': expected 'all', or a list"),
        ({"lags": 3}, r"lags = 3: expected 'all', or a list"),
        ({"spans": [1]}, r"spans = \[1\]: expected a list of at least 2 bars"),
        ({"spans": [5, 5]}, r"spans = \[5, 5\]: expected .*none twice"),
        ({"spans": ["five"]}, r"spans.0 = 'five': expected a valid integer"),
        ({"lags": "all", "spans": [5]}, r"spans = \[5\]: expected no spans beside .*spans need a lag list"),
    ],
)
def test_wrong_lags_and_spans_are_refused_by_key(changes, message):
    with pytest.raises(ConfigError, match=message):
        validate(LogisticConfig, LOGISTIC | changes, "params.yaml")


@pytest.mark.parametrize("lags", ["all", [0, 3]])
def test_a_config_with_lags_survives_json(lags):
    config = validate(LogisticConfig, LOGISTIC | {"lags": lags}, "params.yaml")
    assert LogisticConfig.model_validate_json(config.model_dump_json()) == config
    assert config.model_dump(mode="json")["lags"] == lags


def test_bin_edges_are_found_once_a_feature_between_its_least_and_greatest_value():
    windows = as_windows(random_windows(2)[:])
    table = bin_table(FlatTable(windows), 9, seed=0)
    bars = windows[:].reshape(-1, 2)
    assert table.shape == (9, 12)
    np.testing.assert_array_equal(table[:, :2], table[:, 10:])
    np.testing.assert_array_equal(table[[0, -1], :2], [bars.min(0), bars.max(0)])
    assert np.isin(table[:, 0], bars[:, 0]).all()


@pytest.mark.parametrize("sampled", [10**6, 50])
def test_bin_edges_of_lazy_windows_and_of_the_plain_array_are_the_same(monkeypatch, sampled):
    monkeypatch.setattr(_lags, "SAMPLED_ROWS", sampled)
    lazy = random_windows(3, count=25)
    edges = [bin_table(FlatTable(windows), 20, seed=5) for windows in (lazy, as_windows(lazy[:]))]
    np.testing.assert_array_equal(*edges)


def test_bin_edges_come_from_asked_for_windows_alone():
    windows = random_windows(4)
    changed = windows.rows.copy()
    untouched = np.unique([np.arange(end - 5, end + 1) for end in windows.ends[5:]])
    changed[np.setdiff1d(np.arange(40), untouched)] = 1e6
    other = Windows(changed, windows.ends[5:], 6)
    edges = [bin_table(FlatTable(part), 8, seed=0) for part in (windows.select(slice(5, None)), other)]
    np.testing.assert_array_equal(*edges)


def test_importance_sums_to_one_and_merges_what_speaks_of_the_whole_window():
    view = LagView([0, 3], [2], 6, 2)
    scores = np.zeros(len(view.columns[0]))
    scores[[1, 2, 4, 6]] = [2, 1, 3, 4]  # b at lag 0, a at lag 3, two statistics of a
    frame = importance_frame(view, scores, ["a", "b"])
    assert frame["feature"].tolist() == ["a", "b", "a"]
    assert frame["lag"].isna().tolist() == [True, False, False]
    assert frame["lag"].dropna().tolist() == [0, 3]
    assert frame["importance"].tolist() == [0.7, 0.2, 0.1]
    assert importance_frame(view, scores * 0, ["a", "b"]).empty


@pytest.mark.parametrize(
    ("ends", "step"),
    [
        (np.arange(7, 60), 1),
        (np.arange(9, 60, 4), 4),
        (np.arange(7, 60, 8), 8),  # a plain array: no bar is shared
        (np.arange(11, 60, 15), 15),  # bars between the windows
        (np.r_[10:30:4, 42:58:4], 4),  # a hole
        (np.array([40, 20, 30]), 10),  # any order
        (np.array([20, 21, 23, 24, 27]), 1),
    ],
)
def test_catboost_columns_are_views_that_hold_the_windows(ends, step):
    rows = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
    windows = Windows(rows, ends, 8)
    grid = WindowGrid.of(windows)
    assert grid is not None
    assert grid.step == step
    columns = grid.columns()
    np.testing.assert_array_equal(columns.to_numpy()[grid.rows], windows[:].reshape(len(ends), -1))
    assert not any(columns[name].to_numpy().flags.owndata for name in columns)


@pytest.mark.parametrize("ends", [[10], [10, 10, 20], [10, 41, 58], [10, 20, 20, 30]])
def test_catboost_finds_no_grid_where_flattening_takes_less_room(ends):
    windows = Windows(np.zeros((60, 3), np.float32), np.array(ends), 8)
    assert WindowGrid.of(windows) is None
