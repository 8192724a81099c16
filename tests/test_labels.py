"""Triple-barrier labels and sample weights against slow plain code, ties, ends of series, overrides and errors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.audit.leakage import LabelOracle
from barcast.config import validate
from barcast.data.frames import is_label_column, label_columns
from barcast.data.label_weights import sample_weights
from barcast.data.labels import BarrierConfig, LabelConfig, label_bars
from barcast.errors import ConfigError, DataError

VALUES: dict[str, Any] = {
    "atr_period": 3,
    "horizons": {
        "h5": {"k_up": 1.0, "k_down": 1.5, "max_bars": 6},
        "h20": {"k_up": 2.0, "k_down": 2.0, "max_bars": 15},
    },
    "symbols": {"ETH": {"h5": {"k_up": 1.7}, "h20": {"k_down": 0.5, "max_bars": 40}}},
}


def config_of(**changes: Any) -> LabelConfig:
    return validate(LabelConfig, VALUES | changes, "params.yaml", "label")


def one_horizon(k_up: float, k_down: float, max_bars: int, atr_period: int = 1) -> LabelConfig:
    return config_of(
        atr_period=atr_period, symbols={}, horizons={"h5": {"k_up": k_up, "k_down": k_down, "max_bars": max_bars}}
    )


def frame_of(rows: list[tuple[float, float, float]]) -> pd.DataFrame:
    """Bars from (high, low, close); open and volume are not used."""
    high, low, close = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    times = pd.date_range("2024-01-01", periods=len(rows), freq="30min", tz="UTC")
    columns = {"open": close, "high": high, "low": low, "close": close, "volume": 1.0}
    return pd.DataFrame({"datetime": times, "symbol": "BTC", **columns})


@st.composite
def paths(draw: st.DrawFn, most: int = 60) -> pd.DataFrame:
    """Bars on a coarse grid, so that touches exactly at a barrier, flat bars and both barriers at once are common."""
    steps = draw(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 4), st.integers(0, 4)), max_size=most))
    close, rows = 1000.0, []
    for move, above, below in steps:
        previous, close = close, close + move
        rows.append((max(previous, close) + above, min(previous, close) - below, close))
    return frame_of(rows or [(1000.0, 1000.0, 1000.0)])


def wilder(bars: pd.DataFrame, period: int) -> list[float]:
    high, low, close = (bars[name].tolist() for name in ("high", "low", "close"))
    ranges = [max(high[t], close[t - 1]) - min(low[t], close[t - 1]) for t in range(1, len(close))]
    atr = [math.nan] * len(close)
    for t in range(period, len(close)):
        atr[t] = sum(ranges[:period]) / period if t == period else (atr[t - 1] * (period - 1) + ranges[t - 1]) / period
    return atr


def plain_label(bars: pd.DataFrame, atr: float, barrier: BarrierConfig, t: int) -> dict[str, float] | None:
    """The definition, word by word; None for an outcome not known."""
    close = bars["close"][t]
    upper, lower = close + barrier.k_up * atr, close - barrier.k_down * atr
    if math.isnan(atr) or atr == 0.0:
        return None
    after = bars.iloc[t + 1 : t + 1 + barrier.max_bars]
    for bars_to_hit in range(1, len(after) + 1):
        so_far = after.head(bars_to_hit)
        up, down = so_far["high"].iloc[-1] >= upper, so_far["low"].iloc[-1] <= lower
        if up or down:
            break
    else:
        if len(after) < barrier.max_bars:
            return None
        so_far, up, down = after, False, False
    mae = max(0.0, close - so_far["low"].min()) / atr
    mfe = max(0.0, so_far["high"].max() - close) / atr
    label = -1 if down else int(up)
    touch = 2 if up and down else label
    against = {1: mae / barrier.k_down, -1: mfe / barrier.k_up}.get(label, 0.0)
    speed = 1 - (len(so_far) - 1) / barrier.max_bars
    quality = (speed + 1 - min(against, 1)) / 2
    if label == 0:
        quality = 1 - max(mae / barrier.k_down, mfe / barrier.k_up) / 2
    names = ("label", "bars_to_hit", "mae", "mfe", "touch_type", "quality")
    return dict(zip(names, (label, len(so_far), mae, mfe, touch, quality), strict=True))


def expected_outcomes(
    bars: pd.DataFrame, config: LabelConfig, symbol: str, horizon: int
) -> list[tuple[int | None, int | None]]:
    oracle, barrier = LabelOracle(bars, config.atr_period), config.barriers(symbol, horizon)
    return [oracle.outcome(t, barrier) for t in range(len(bars))]


def stored(labels: pd.DataFrame, horizon: int) -> list[tuple[int | None, int | None]]:
    pairs = zip(labels[f"label_h{horizon}"], labels[f"bars_to_hit_h{horizon}"], strict=True)
    return [(None, None) if label is pd.NA else (label, hits) for label, hits in pairs]


# --- labels ----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(bars=paths(), symbol=st.sampled_from(["BTC", "ETH"]), period=st.integers(1, 5))
def test_labels_are_exactly_those_of_the_audits_oracle(bars: pd.DataFrame, symbol: str, period: int) -> None:
    config = config_of(atr_period=period)
    labels = label_bars(bars, config, symbol, [5, 20])
    for horizon in (5, 20):
        assert expected_outcomes(bars, config, symbol, horizon) == stored(labels, horizon)


def test_labels_of_the_embedded_bars_are_exactly_those_of_the_audits_oracle() -> None:
    bars = pd.read_parquet(Path(__file__).parents[1] / "data/raw/bars.parquet")[:8_000]
    config = config_of(atr_period=14)
    labels = label_bars(bars, config, "ETH", [5, 20])
    for horizon in (5, 20):
        found = stored(labels, horizon)
        assert expected_outcomes(bars, config, "ETH", horizon) == found
        assert {label for label, _ in found} == {-1, 0, 1, None}


def test_where_rounding_decides_the_oracle_accepts_both_outcomes() -> None:
    """The true ranges are 2 throughout; bar 3 stops short of the barrier at 102 by `away`."""
    for away, labels in {0.0: {1, 0}, 1e-10: {1, 0}, 1e-4: {0}, -1e-4: {1}}.items():
        last = (102 - away, 100 - away, 101 - away)
        oracle = LabelOracle(frame_of([(101.0, 99.0, 100.0)] * 3 + [last, (101.0, 99.0, 100.0)]), 1)
        barrier = BarrierConfig(k_up=1.0, k_down=1.0, max_bars=1)
        assert {label for label in (-1, 0, 1) if oracle.matches((label, 1), 2, barrier)} == labels


@settings(max_examples=40, deadline=None)
@given(bars=paths(), symbol=st.sampled_from(["BTC", "ETH"]), period=st.integers(1, 5))
def test_labels_equal_the_plain_definition(bars: pd.DataFrame, symbol: str, period: int) -> None:
    config = config_of(atr_period=period)
    found = label_bars(bars, config, symbol, [5, 20])
    atr = wilder(bars, period)
    for horizon in (5, 20):
        for t in range(len(bars)):
            expected = plain_label(bars, atr[t], config.barriers(symbol, horizon), t)
            row = found.loc[t, label_columns(horizon)[:6]]
            if expected is None:
                assert row.isna().all(), (t, horizon)
            else:
                for name, value in expected.items():
                    assert row[f"{name}_h{horizon}"] == pytest.approx(value, rel=1e-6), (t, name)


@settings(max_examples=40, deadline=None)
@given(bars=paths(), other=paths(), data=st.data())
def test_bars_after_the_touch_change_no_label(bars: pd.DataFrame, other: pd.DataFrame, data: st.DataObject) -> None:
    labels = label_bars(bars, config_of(), "BTC", [5])
    known = labels.index[labels["label_h5"].notna()]
    if len(known) == 0:
        return
    t = data.draw(st.sampled_from(list(known)))
    end = t + int(labels["bars_to_hit_h5"][t])
    for tail in (other.iloc[:0], other, other.iloc[::-1]):
        changed = pd.concat([bars.iloc[: end + 1], tail], ignore_index=True)
        pd.testing.assert_series_equal(label_bars(changed, config_of(), "BTC", [5]).loc[t], labels.loc[t])


def test_values_are_in_their_ranges_and_of_their_types() -> None:
    rng = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.004, 3000)))
    rows = list(zip(close * np.exp(abs(rng.normal(0, 0.003, 3000))), close * 0.998, close, strict=True))
    labels = label_bars(frame_of(rows), config_of(atr_period=14), "BTC", [5, 20])
    assert list(labels.columns) == label_columns(5)[:6] + label_columns(20)[:6]
    types = {"label": "Int8", "bars_to_hit": "Int32", "touch_type": "Int8"}
    for name, dtype in labels.dtypes.items():
        assert str(dtype) == types.get(str(name).rsplit("_h", 1)[0], "float32")
    known = labels.dropna()
    assert set(known["label_h20"]) == {-1, 0, 1}
    assert known["quality_h20"].between(0, 1).all()
    assert (known["quality_h20"] > 0).all()
    assert (known[["mae_h5", "mfe_h5", "mae_h20", "mfe_h20"]] >= 0).all(axis=None)
    assert (known.loc[known["label_h20"] == 0, "bars_to_hit_h20"] == 15).all()


# A first bar gives the ATR of 1; entry is at its close of 100, k 1 up and 2 down, over 3 bars.
ENTRY = [(100.0, 99.0, 99.5), (100.0, 99.0, 100.0)]


@pytest.mark.parametrize(
    ("after", "label", "bars_to_hit", "touch_type"),
    [
        ([(101.0, 99.9, 100.5)], 1, 1, 1),  # exactly at the barrier is a touch
        ([(100.9, 99.9, 100.5), (102.0, 99.9, 100.5)], 1, 2, 1),
        ([(100.5, 98.0, 100.5)], -1, 1, -1),
        ([(101.5, 97.5, 100.5)], -1, 1, 2),  # both in one bar: the stop
        ([(100.5, 99.5, 100.0), (101.5, 97.5, 100.5)], -1, 2, 2),
        ([(100.5, 99.5, 100.0)] * 3, 0, 3, 0),
        ([(100.5, 99.5, 100.0)] * 3 + [(200.0, 1.0, 50.0)], 0, 3, 0),
        ([(100.5, 99.5, 100.0)] * 2, None, None, None),  # the bars end before the outcome
        ([], None, None, None),
    ],
)
def test_each_outcome(after: list[Any], label: int | None, bars_to_hit: int | None, touch_type: int | None) -> None:
    row = label_bars(frame_of(ENTRY + after), one_horizon(1.0, 2.0, 3), "BTC", [5]).loc[1]
    found = [row["label_h5"], row["bars_to_hit_h5"], row["touch_type_h5"]]
    assert [None if pd.isna(value) else value for value in found] == [label, bars_to_hit, touch_type]


def test_excursions_and_quality_of_one_path() -> None:
    rows = [*ENTRY, (100.6, 99.0, 100.0), (101.3, 99.4, 101.0)]
    row = label_bars(frame_of(rows), one_horizon(1.0, 2.0, 4), "BTC", [5]).loc[1]
    assert row["mae_h5"] == pytest.approx(1.0)
    assert row["mfe_h5"] == pytest.approx(1.3)  # the touching bar counts whole
    assert row["quality_h5"] == pytest.approx((0.75 + 0.5) / 2)  # second of four bars; half-way to the stop


def test_no_label_before_the_atr_is_known_or_while_nothing_moves() -> None:
    flat, moving = [(100.0, 100.0, 100.0)] * 6, [(101.0, 99.0, 100.0)] * 20
    labels = label_bars(frame_of(flat + moving), one_horizon(1.0, 1.0, 3, atr_period=4), "BTC", [5])
    assert labels["label_h5"].isna().tolist()[:6] == [True] * 6  # rows 0..3 no ATR, 4..5 an ATR of 0
    assert labels["label_h5"][6] == -1
    assert labels[["mae_h5", "quality_h5"]][:6].isna().all(axis=None)


@pytest.mark.parametrize("n", [1, 2, 3, 14])
def test_fewer_bars_than_the_atr_needs_have_no_label(n: int) -> None:
    labels = label_bars(frame_of([(101.0, 99.0, 100.0)] * n), config_of(atr_period=14), "BTC", [5])
    assert len(labels) == n
    assert labels.isna().all(axis=None)


def test_the_unit_of_price_changes_nothing_and_the_index_is_kept() -> None:
    rows = [(100.0 + (t * 7) % 5, 97.0 + (t * 3) % 3, 100.0 + (t * 11) % 3 - 1) for t in range(80)]
    bars = frame_of(rows).set_index(pd.RangeIndex(500, 580))
    scaled = bars.assign(**{name: bars[name] * 2.0**-20 for name in ("high", "low", "close")})
    labels = label_bars(bars, config_of(), "BTC", [5, 20])
    assert labels.index.equals(bars.index)
    pd.testing.assert_frame_equal(label_bars(scaled, config_of(), "BTC", [5, 20]), labels)


# --- configuration ---------------------------------------------------------------------------------


def test_an_override_changes_its_keys_for_its_symbol_only() -> None:
    config = config_of()
    assert config.barriers("BTC", 5) == BarrierConfig(k_up=1.0, k_down=1.5, max_bars=6)
    assert config.barriers("ETH", 5) == BarrierConfig(k_up=1.7, k_down=1.5, max_bars=6)
    assert config.barriers("ETH", 20) == BarrierConfig(k_up=2.0, k_down=0.5, max_bars=40)
    assert config.longest_label_end_offset() == 40
    assert config_of(symbols={}).longest_label_end_offset() == 15
    config.check(["BTC", "ETH"], [5, 20])


def test_a_horizon_without_barriers_is_named_with_the_closest() -> None:
    message = r"params.yaml: horizon 7 needs the block 'label.horizons.h7', which is missing; .* 'h5'"
    with pytest.raises(ConfigError, match=message):
        config_of().check(["BTC", "ETH"], [5, 7])
    with pytest.raises(ConfigError, match=r"h50'.* 'h5'"):
        label_bars(frame_of(ENTRY), config_of(), "BTC", [50])
    with pytest.raises(ConfigError, match=r"label.horizons is empty"):
        config_of(horizons={}, symbols={}).barriers("BTC", 5)


def test_an_override_of_an_unknown_symbol_or_horizon_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'label.symbols.ETHH'; did you mean 'ETH'"):
        config_of(symbols={"ETHH": {}}).check(["BTC", "ETH"], [5])
    with pytest.raises(ConfigError, match=r"unknown key 'label.symbols.ETH.h6'; did you mean 'h5'"):
        config_of(symbols={"ETH": {"h6": {"k_up": 1.0}}}).check(["BTC", "ETH"], [5])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"atr_period": 0}, r"label.atr_period = 0: expected greater than or equal to 1"),
        ({"atr_perod": 14}, r"unknown key 'label.atr_perod'; did you mean 'atr_period'"),
        ({"horizons": {"5": VALUES["horizons"]["h5"]}}, r"= '5': expected the name of a horizon, such as h5"),
        ({"horizons": {"h5": {"k_up": 1.0, "k_down": 1.0}}}, r"'label.horizons.h5.max_bars' is missing"),
        ({"horizons": {"h5": {"k_up": 0.0, "k_down": 1.0, "max_bars": 5}}}, r"h5.k_up = 0.0: expected greater than 0"),
        ({"horizons": {"h5": {"k_up": math.inf, "k_down": 1.0, "max_bars": 5}}}, r"h5.k_up = inf: expected a finite"),
        (
            {"horizons": {"h5": {"k_up": 1.0, "k_down": 1.0, "max_bars": 2.5}}},
            r"h5.max_bars = 2.5: expected a valid",
        ),
        (
            {"symbols": {"ETH": {"h5": {"k_upp": 1.0}}}},
            r"key 'label.symbols.ETH.h5.k_upp'; did you mean 'k_up'",
        ),
        ({"symbols": {"ETH": {"h5": {"max_bars": 0}}}}, r"label.symbols.ETH.h5.max_bars = 0: expected greater"),
    ],
)
def test_a_wrong_value_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(**changes)


def test_label_columns_are_distinguishable_from_features() -> None:
    assert label_columns(5)[0] == "label_h5"
    assert len(label_columns(20)) == 7
    assert all(map(is_label_column, label_columns(20)))
    assert is_label_column("anything_h120")
    assert not any(map(is_label_column, ["close", "rsi_14", "autocorr_1_50", "label_h5_x", "h5"]))


# --- sample weights ----------------------------------------------------------------------------------


def plain_uniqueness(label_end_offset: list[int | None]) -> list[float]:
    """AFML 4.3-4.4 with the whole matrix: one row per bar, one column per label, 1 where the label uses the return."""
    bars = len(label_end_offset) + max([offset or 0 for offset in label_end_offset], default=0) + 1
    uses = np.zeros((bars, len(label_end_offset)))
    for t, offset in enumerate(label_end_offset):
        uses[t + 1 : t + 1 + (offset or 0), t] = 1
    concurrent = uses.sum(axis=1)
    return [
        float(np.mean(1 / concurrent[uses[:, t] == 1])) if offset else math.nan
        for t, offset in enumerate(label_end_offset)
    ]


@settings(max_examples=80, deadline=None)
@given(rows=st.lists(st.tuples(st.one_of(st.none(), st.integers(1, 30)), st.floats(0.01, 1.0)), max_size=60))
def test_weights_are_average_uniqueness_times_quality(rows: list[tuple[int | None, float]]) -> None:
    reach, quality = [row[0] for row in rows], np.array([row[1] for row in rows])
    expected = np.array(plain_uniqueness(reach)) * quality
    np.testing.assert_allclose(sample_weights(pd.array(reach, dtype="Int32"), quality), expected, rtol=1e-9)
    as_floats = np.array(reach, dtype=float)
    np.testing.assert_allclose(sample_weights(as_floats, pd.Series(quality)), expected, rtol=1e-9)


def test_labels_that_share_no_bar_are_unique() -> None:
    weights = sample_weights(np.array([2, np.nan, 1, 3]), np.array([1.0, np.nan, 0.5, 1.0]))
    np.testing.assert_array_equal(weights, [1.0, np.nan, 0.5, 1.0])


def test_labels_of_the_same_length_overlap_evenly_far_from_the_ends() -> None:
    weights = sample_weights(np.full(200_000, 10), np.ones(200_000))
    np.testing.assert_allclose(weights[20:-20], 0.1, rtol=1e-8)
    assert weights.max() <= 1.0


def test_weights_of_labelled_bars() -> None:
    rng = np.random.default_rng(2)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.004, 500)))
    labels = label_bars(frame_of(list(zip(close * 1.002, close * 0.998, close, strict=True))), config_of(), "BTC", [5])
    weights = sample_weights(labels["bars_to_hit_h5"], labels["quality_h5"])
    assert np.array_equal(np.isnan(weights), labels["label_h5"].isna())
    assert np.nanmin(weights) > 0


def test_wrong_input_of_weights_is_named() -> None:
    with pytest.raises(DataError, match="3 values of bars_to_hit but 2 of quality"):
        sample_weights(np.ones(3), np.ones(2))
    with pytest.raises(DataError, match=r"bars_to_hit in row 1 is 0.0; expected a whole number from 1 up"):
        sample_weights(np.array([1.0, 0.0]), np.ones(2))
    with pytest.raises(DataError, match=r"row 0 is 1.5"):
        sample_weights(np.array([1.5, 2.0]), np.ones(2))
