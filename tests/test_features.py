"""Features: causal bit for bit, scale-free, finite on ugly bars, and equal to slow plain formulas."""

from __future__ import annotations

import itertools
import math
import re
import statistics as stats

import numba
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.caching import CacheImpl

from barcast.config import validate
from barcast.data import features as table
from barcast.data._activity import mean_true_range
from barcast.data._rolling import Bars, Group, compiled
from barcast.data.features import FeatureConfig, compute_features, feature_names, memory_bars, warmup_bars
from barcast.errors import ConfigError

UNITS = ["price", "atr"]
GROUPS = [name for name in FeatureConfig.model_fields if name != "units"]
EVERY = {units: FeatureConfig(units=units, **dict.fromkeys(GROUPS, True)) for units in UNITS}
SIZES = {  # 107 in all; a new feature is counted here
    "returns": 14,
    "candles": 12,
    "trend": 20,
    "momentum": 14,
    "volatility": 16,
    "volume": 15,
    "regime": 12,
    "calendar": 4,
}
COUNT = sum(SIZES.values())
RECURSIVE = re.compile("ema|rsi|adx|di_diff|macd|trix|atr_share|keltner")
in_both_units = pytest.mark.parametrize("units", UNITS)
PRICES = ["open", "high", "low", "close"]


def only(group: str, units: str = "price") -> FeatureConfig:
    return FeatureConfig(units=units, **{name: name == group for name in GROUPS})


def make_bars(n: int, seed: int = 0, tick: float | None = None) -> pd.DataFrame:
    """A random walk with bursts of volatility; with a tick all prices are multiples of it."""
    rng = np.random.default_rng(seed)
    scale = 0.004 * np.exp(0.5 * np.sin(np.arange(n) / 25.0))
    close = 100.0 * np.exp(np.cumsum(scale * rng.standard_t(5, n)))
    open_ = np.concatenate([[100.0], close[:-1]]) * np.exp(rng.normal(0.0, 0.0005, n))
    if tick:
        close, open_ = np.maximum(np.round(close / tick), 1) * tick, np.maximum(np.round(open_ / tick), 1) * tick
    high = np.maximum(open_, close) * np.exp(np.abs(rng.normal(0.0, 0.002, n)))
    low = np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0.0, 0.002, n)))
    if tick:
        high, low = np.ceil(high / tick) * tick, np.maximum(np.floor(low / tick), 1) * tick
        high, low = np.maximum(high, np.maximum(open_, close)), np.minimum(low, np.minimum(open_, close))
    return frame_of(open_, high, low, close, rng.lognormal(3.0, 1.0, n))


def frame_of(open_: object, high: object, low: object, close: object, volume: object) -> pd.DataFrame:
    n = len(np.asarray(close))
    times = pd.date_range("2024-01-05 21:30", periods=n, freq="30min", tz="UTC")
    columns = {"open": open_, "high": high, "low": low, "close": close, "volume": volume}
    return pd.DataFrame({"datetime": times, "symbol": "AAA", **columns})


def flat_stretch(bars: pd.DataFrame, start: int, stop: int, volume: float | None = None) -> pd.DataFrame:
    bars = bars.copy()
    bars.loc[start:stop, PRICES] = bars.loc[start, "close"]
    if volume is not None:
        bars.loc[start:stop, "volume"] = volume
    return bars


@st.composite
def ugly_bars(draw: st.DrawFn) -> pd.DataFrame:
    """A random walk with stretches, of random kinds and lengths, in which divisions could go wrong."""
    kinds = st.sampled_from(["walk", "flat", "flat, no volume", "no volume", "grow", "jump", "ticks"])
    segments = draw(st.lists(st.tuples(kinds, st.integers(1, 250)), min_size=1, max_size=8))
    bars = make_bars(202 + sum(length for _, length in segments), seed=draw(st.integers(0, 2**31)))
    start = 100
    for kind, length in segments:
        rows = slice(start, start + length)  # of .loc: both ends included
        if "flat" in kind:
            bars.loc[rows, PRICES] = bars.loc[start, "close"]
        if "no volume" in kind:
            bars.loc[rows, "volume"] = 0.0
        if kind == "grow":
            for name in PRICES:
                bars.loc[rows, name] = bars.loc[start, "close"] * 1.0001 ** np.arange(length + 1)
        if kind == "jump":
            bars.loc[start:, PRICES] *= 10.0 ** (length % 13 - 6)
        if kind == "ticks":
            bars.loc[rows, PRICES] = np.ceil(bars.loc[rows, PRICES])
        start += length
    return bars


def same_bits(a: pd.DataFrame, b: pd.DataFrame) -> bool:
    return bool(np.array_equal(a.to_numpy().view(np.int64), b.to_numpy().view(np.int64)))


BARS = make_bars(600, seed=1)
FEATURES = {units: compute_features(BARS, EVERY[units]) for units in UNITS}


# --- columns and groups ----------------------------------------------------------------------------


@in_both_units
def test_feature_names_are_unique_lower_snake_case(units: str) -> None:
    names = feature_names(EVERY[units])
    assert len(names) == len(set(names)) == COUNT
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in names)
    assert not any(re.search(r"_h\d+$", name) for name in names)
    assert list(FEATURES[units].columns) == names
    assert FEATURES[units].index.equals(BARS.index)
    assert set(FEATURES[units].dtypes) == {np.dtype(np.float64)}


@in_both_units
@pytest.mark.parametrize("group", GROUPS)
def test_a_group_on_its_own_has_the_same_columns_as_among_all(group: str, units: str) -> None:
    config = only(group, units)
    own = compute_features(BARS, config)
    assert list(own.columns) == feature_names(config)
    assert own.shape[1] == SIZES[group]
    assert same_bits(own, FEATURES[units][list(own.columns)])
    assert np.isfinite(own.to_numpy()[warmup_bars(config) :]).all()


@pytest.mark.parametrize("group", ["returns", "candles", "volume", "regime"])
def test_the_warmup_of_windowed_groups_is_no_longer_than_their_longest_window(group: str) -> None:
    last = compute_features(BARS, only(group)).iloc[warmup_bars(only(group)) - 1]
    assert last.isna().any()


@in_both_units
def test_warmup_is_at_most_200_bars(units: str) -> None:
    assert warmup_bars(EVERY[units]) == 200
    assert warmup_bars(only("calendar", units)) == 0


@pytest.mark.parametrize("group", GROUPS)
def test_in_units_of_atr_a_group_warms_up_as_long_as_the_atr_where_it_divides_a_feature(group: str) -> None:
    config = only(group, "atr")
    divided = [name for name in feature_names(config) if name.endswith("_atr")]
    assert warmup_bars(config) == (200 if divided else warmup_bars(only(group)))
    features = compute_features(BARS, config)
    assert features[divided].iloc[:200].isna().all(axis=None)
    assert features[divided].iloc[200:].notna().all(axis=None)


@in_both_units
def test_a_group_switched_off_takes_its_columns_and_nothing_else(units: str) -> None:
    config = EVERY[units].model_copy(update={"momentum": False})
    names = feature_names(config)
    assert len(names) == COUNT - SIZES["momentum"]
    assert not any(name.startswith(("rsi", "macd")) for name in names)


def test_a_feature_is_added_by_entering_its_function_into_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    committed = table._GROUPS["candles"]
    group = Group(committed.warmup, list(committed.features))
    monkeypatch.setitem(table._GROUPS, "candles", group)

    @group.feature("body_times_{}_{}", (2, 3), (4, 5), log_price=True)
    def body_times(bars: Bars, a: int, b: int) -> np.ndarray:
        return bars.log_body * a * b

    for units, end in (("price", ""), ("atr", "_atr")):
        names = feature_names(only("candles", units))
        assert names[SIZES["candles"] :] == [f"body_times_2_3{end}", f"body_times_4_5{end}"]
        features = compute_features(BARS, only("candles", units))
        np.testing.assert_allclose(features[names[-1]], 20.0 * features[f"candle_body{end}"])


def test_all_groups_off_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data.features: expected at least one group of features to be true"):
        validate(FeatureConfig, {"units": "atr", **dict.fromkeys(GROUPS, False)}, "params.yaml", "data.features")


def test_an_unknown_group_is_refused_with_the_closest() -> None:
    values = {"units": "price", **dict.fromkeys(GROUPS, True), "candels": True}
    with pytest.raises(ConfigError, match=r"unknown key 'data.features.candels'; did you mean 'candles'"):
        validate(FeatureConfig, values, "params.yaml", "data.features")


def test_an_unknown_unit_is_refused() -> None:
    values = {"units": "points", **dict.fromkeys(GROUPS, True)}
    with pytest.raises(ConfigError, match=r"data.features.units = 'points': expected 'price' or 'atr'"):
        validate(FeatureConfig, values, "params.yaml", "data.features")


@in_both_units
@pytest.mark.parametrize("n", [0, 1, 2, 3, 15, 60])
def test_fewer_bars_than_the_windows_give_rows_without_infinities(n: int, units: str) -> None:
    features = compute_features(BARS.head(n), EVERY[units])
    assert features.shape == (n, COUNT)
    assert not np.isinf(features.to_numpy()).any()
    assert same_bits(features, FEATURES[units].head(n))


@in_both_units
def test_the_index_of_a_later_symbol_is_kept(units: str) -> None:
    shifted = BARS.set_index(BARS.index + 5000)
    features = compute_features(shifted, EVERY[units])
    assert features.index.equals(shifted.index)
    assert same_bits(features, FEATURES[units])


# --- nothing from the future -----------------------------------------------------------------------


@in_both_units
@settings(max_examples=20, deadline=None)
@given(t=st.integers(0, 598), seed=st.integers(0, 2**31), factor=st.floats(1e-3, 1e3))
def test_bars_after_t_change_no_feature_up_to_t(units: str, t: int, seed: int, factor: float) -> None:
    cut = compute_features(BARS.head(t + 1), EVERY[units])
    assert same_bits(cut, FEATURES[units].head(t + 1))
    other = make_bars(599 - t, seed=seed)
    altered = BARS.copy()
    altered.loc[t + 1 :, PRICES] = other[PRICES].to_numpy() * factor
    altered.loc[t + 1 :, "volume"] = other["volume"].to_numpy() * factor
    assert same_bits(compute_features(altered, EVERY[units]).head(t + 1), FEATURES[units].head(t + 1))


@in_both_units
@pytest.mark.parametrize("t", [2046, 2047, 2048, 2246, 2247, 4300])
def test_the_future_stays_out_across_the_blocks_of_the_window_kernels(t: int, units: str) -> None:
    bars, config = make_bars(4500, seed=3, tick=0.05), EVERY[units]
    assert same_bits(compute_features(bars.head(t + 1), config), compute_features(bars, config).head(t + 1))


@in_both_units
def test_where_the_history_starts_changes_only_recursive_features_and_only_a_little(units: str) -> None:
    start = 137
    late = compute_features(BARS.iloc[start:], EVERY[units]).iloc[200:]
    full = FEATURES[units].loc[late.index]
    for name in full:
        if RECURSIVE.search(name):
            assert (late[name] - full[name]).abs().max() < 0.03 * full[name].std(), name
        else:
            assert same_bits(late[[name]], full[[name]]), name


@in_both_units
@pytest.mark.parametrize("start", [1, 700, 1399])
@pytest.mark.parametrize("tick", [0.0001, 0.05])
def test_after_the_memory_the_start_of_the_history_changes_no_bit(start: int, tick: float, units: str) -> None:
    config = EVERY[units]
    bars = make_bars(memory_bars(config) + 1700, seed=start, tick=tick)
    late = compute_features(bars.iloc[start:], config).iloc[memory_bars(config) :]
    assert len(late) > 200
    assert same_bits(late, compute_features(bars, config).loc[late.index])


@in_both_units
def test_groups_without_recursive_features_remember_only_their_windows(units: str) -> None:
    for group in GROUPS:
        config = only(group, units)
        recursive = any(RECURSIVE.search(name) for name in feature_names(config))
        assert (memory_bars(config) > warmup_bars(config)) == recursive, group


@in_both_units
@pytest.mark.parametrize("last", [1, 60, 399, 400, 600, 10_000])
def test_only_the_last_rows_have_the_same_bits(last: int, units: str) -> None:
    assert same_bits(compute_features(BARS, EVERY[units], last), FEATURES[units].tail(last))


@in_both_units
@pytest.mark.parametrize("group", GROUPS)
def test_fewer_groups_need_fewer_bars_for_the_last_rows(group: str, units: str) -> None:
    config = only(group, units)
    assert same_bits(compute_features(BARS, config, 3), compute_features(BARS, config).tail(3))


# --- scale-free ------------------------------------------------------------------------------------


@in_both_units
def test_a_power_of_two_as_the_unit_changes_no_bit(units: str) -> None:
    scaled = BARS.assign(**{name: BARS[name] * 2.0**-60 for name in PRICES}, volume=BARS["volume"] * 2.0**40)
    assert same_bits(compute_features(scaled, EVERY[units]), FEATURES[units])


def check_scale_free(bars: pd.DataFrame, units: str, price: float, volume: float) -> None:
    scaled = bars.copy()
    scaled[PRICES] *= price
    scaled["volume"] *= volume
    expected, found = (compute_features(these, EVERY[units]).iloc[200:] for these in (bars, scaled))
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=1e-6, err_msg=name)


@in_both_units
@settings(max_examples=15, deadline=None)
@given(
    price=st.floats(1e-6, 1e6),
    volume=st.floats(1e-6, 1e6),
    tick=st.sampled_from([None, 0.01, 0.5]),
    seed=st.integers(0, 2**31),
)
def test_units_of_price_and_volume_change_no_feature(
    units: str, price: float, volume: float, tick: float | None, seed: int
) -> None:
    check_scale_free(flat_stretch(make_bars(420, seed=seed, tick=tick), 250, 290), units, price, volume)


@in_both_units
@settings(max_examples=15, deadline=None)
@given(bars=ugly_bars(), price=st.floats(1e-6, 1e6), volume=st.floats(1e-6, 1e6))
def test_units_change_no_feature_of_ugly_bars_either(
    units: str, bars: pd.DataFrame, price: float, volume: float
) -> None:
    check_scale_free(bars, units, price, volume)


# --- in units of what the market usually moves -----------------------------------------------------


def powers(power: float, seed: int, units: str) -> pd.DataFrame:
    """Features of prices near 1, each raised to a power: all log prices are multiplied by it."""
    bars = make_bars(500, seed=seed)
    bars[PRICES] = (bars[PRICES] / 100.0) ** (power * 1e-3)
    return compute_features(bars, EVERY[units]).iloc[200:]


def exponents(power: float, seed: int, units: str) -> pd.Series:
    """For each feature, k where a market that moves `power` times as much gives power**k times the feature."""
    plain, raised = powers(1.0, seed, units), powers(power, seed, units)
    grown = (plain * raised).sum() / (plain**2).sum()  # the slope through 0
    off = (raised - grown * plain).abs().max() / plain.abs().max()
    assert off.max() < 1e-2, off.idxmax()
    return np.log(grown) / math.log(power)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("power", [0.5, 3.0])
def test_features_in_units_of_price_are_those_that_grow_as_the_market_moves_more(power: float, seed: int) -> None:
    found, names = exponents(power, seed, "price"), feature_names(EVERY["atr"])
    in_price = pd.Series([name.endswith("_atr") or name == "atr_share_14" for name in names], found.index)
    np.testing.assert_allclose(found[in_price], 1.0, atol=2e-3)
    np.testing.assert_allclose(found[~in_price], 0.0, atol=2e-3)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("power", [0.5, 3.0])
def test_in_units_of_atr_only_the_level_of_volatility_grows(power: float, seed: int) -> None:
    found = exponents(power, seed, "atr")
    assert found.pop("atr_share_14") == pytest.approx(1.0, abs=2e-3)
    np.testing.assert_allclose(found, 0.0, atol=2e-3)


def test_a_feature_in_units_of_atr_is_the_one_in_units_of_price_over_the_mean_true_range() -> None:
    unit = mean_true_range(Bars(BARS), 200)
    for plain, scaled in zip(feature_names(EVERY["price"]), feature_names(EVERY["atr"]), strict=True):
        by = unit if scaled == f"{plain}_atr" else np.where(np.isnan(unit), np.nan, 1.0)
        expected = FEATURES["price"][plain].to_numpy() / by
        np.testing.assert_array_equal(FEATURES["atr"][scaled].iloc[200:], expected[200:], err_msg=scaled)


@settings(max_examples=20, deadline=None)
@given(bars=ugly_bars(), window=st.sampled_from([1, 3, 14, 200]))
def test_the_mean_true_range_equals_a_plain_loop(bars: pd.DataFrame, window: int) -> None:
    high, low, close = (bars[name].tolist() for name in ("high", "low", "close"))
    ranges = [math.nan] + [
        max(high[t] - low[t], abs(high[t] - close[t - 1]), abs(close[t - 1] - low[t])) for t in range(1, len(close))
    ]
    expected = [
        math.fsum(ranges[t - window + 1 : t + 1]) / window / close[t] if t >= window else math.nan
        for t in range(len(close))
    ]
    np.testing.assert_allclose(mean_true_range(Bars(bars), window), expected, rtol=1e-12)


def test_without_any_move_a_feature_in_units_of_atr_is_0() -> None:
    bars = flat_stretch(BARS, 250, 599)
    features = compute_features(bars, EVERY["atr"])
    divided = features[[name for name in features if name.endswith("_atr")]]
    assert (mean_true_range(Bars(bars), 200)[450:] == 0.0).all()
    assert (divided.iloc[450:] == 0.0).all(axis=None)
    assert (divided.iloc[200:250] != 0.0).any().all()


# --- ugly bars -------------------------------------------------------------------------------------


def ugly() -> dict[str, pd.DataFrame]:
    plain = make_bars(700, seed=5)
    n = len(plain)
    ones, up = np.ones(n), 1.001 ** np.arange(n)
    jumps = plain.copy()
    jumps.loc[350:, PRICES] *= 1e6
    jumps.loc[450:, PRICES] *= 1e-9
    gaps = plain.copy()
    gaps.loc[300:, "datetime"] += pd.Timedelta(days=400)
    spikes = plain.copy()
    spikes.loc[300::50, "volume"] *= 1e12
    zigzag = np.where(np.arange(n) % 2, 1.01, 1.0)
    return {
        "one price": frame_of(0.1 * ones, 0.1 * ones, 0.1 * ones, 0.1 * ones, 0.0 * ones),
        "one price, traded": frame_of(0.1 * ones, 0.1 * ones, 0.1 * ones, 0.1 * ones, 7.3 * ones),
        "constant growth": frame_of(up, up, up, up, 0.1 * ones),
        "zigzag": frame_of(zigzag, zigzag, zigzag, zigzag, ones),
        "flat stretch, no volume": flat_stretch(plain, 250, 600, volume=0.0),
        "flat from the start": flat_stretch(plain, 0, 500),
        "no volume": plain.assign(volume=0.0),
        "volume stops and comes back": plain.assign(volume=plain["volume"].where(plain.index % 300 < 100, 0.0)),
        "jumps": jumps,
        "time gap": gaps,
        "volume spikes": spikes,
        "coarse ticks": make_bars(700, seed=6, tick=5.0),
        "tiny prices": plain.assign(**{name: plain[name] * 1e-10 for name in PRICES}),
    }


@in_both_units
@pytest.mark.parametrize("name", list(ugly()))
def test_no_nan_or_infinity_after_the_warmup(name: str, units: str) -> None:
    features = compute_features(ugly()[name], EVERY[units]).iloc[warmup_bars(EVERY[units]) :]
    bad = features.columns[~np.isfinite(features.to_numpy()).all(axis=0)]
    assert list(bad) == []


@in_both_units
@settings(max_examples=25, deadline=None)
@given(bars=ugly_bars())
def test_no_nan_or_infinity_in_any_sequence_of_ugly_stretches(units: str, bars: pd.DataFrame) -> None:
    assert np.isfinite(compute_features(bars, EVERY[units]).iloc[200:].to_numpy()).all()


@in_both_units
def test_a_market_without_moves_gives_the_neutral_values(units: str) -> None:
    row = compute_features(ugly()["one price"], EVERY[units]).iloc[-1]
    half = ["candle_close_place", "candle_close_place_mean_20", "stoch_k_14", "stoch_d_14_3", "up_share_20"]
    neutral = dict.fromkeys([*half, "vol_down_share_50"], 0.5) | dict.fromkeys(["mfi_14", "rsi_7", "rsi_28"], 50.0)
    ones = ["candle_overlap", "candle_range_over_mean_20", "vol_ratio_10_50", "variance_ratio_5_100", "rsi_14"]
    neutral |= dict.fromkeys([*ones, "volume_trend_5_20", "volume_trend_20_100"], 1.0) | {"rsi_14": 50.0}
    neutral |= {f"volume_ratio_{window}": math.log(2.0) for window in (5, 20, 100)} | {"vol_ratio_20_100": 1.0}
    for name, value in row.drop([name for name in row.index if name.startswith(("day", "week"))]).items():
        assert value == pytest.approx(neutral.get(str(name), 0.0), abs=1e-12), name


def test_a_market_that_came_to_rest_gives_what_rest_means_and_no_rounding_noise() -> None:
    bars = make_bars(1200, seed=5)
    bars.loc[240:, PRICES] *= 12345.678  # far from the first close, in whose units TA-Lib works
    bars = flat_stretch(bars, 250, 1199)
    features = compute_features(bars, EVERY["price"]).iloc[1000:]
    for name in ("cci_20", "bollinger_place_20", "keltner_place_20", "skew_100", "autocorr_1_100", "chande_10"):
        assert (features[name] == 0.0).all(), name
    assert (features[["vol_close_100", "atr_share_14", "dist_sma_200", "macd_12_26"]].abs() < 1e-12).all(axis=None)


def test_without_volume_the_vwap_is_the_mean_typical_price() -> None:
    bars = BARS.assign(volume=0.0)
    typical = (bars["high"] + bars["low"] + bars["close"]) / 3
    expected = math.log(bars["close"].iloc[-1] / typical.iloc[-20:].mean())
    assert compute_features(bars, only("volume"))["dist_vwap_20"].iloc[-1] == pytest.approx(expected)


# --- against slow plain formulas ---------------------------------------------------------------------

OPEN, H, L, C, V = (BARS[name].tolist() for name in ("open", "high", "low", "close", "volume"))
R = [math.nan] + [math.log(b / a) for a, b in itertools.pairwise(C)]
TP = [(h + low + c) / 3 for h, low, c in zip(H, L, C, strict=True)]


def last(x: list[float], t: int, w: int) -> list[float]:
    return x[t - w + 1 : t + 1]


def rows(t: int, w: int) -> range:
    return range(t - w + 1, t + 1)


def sma_share(t: int, w: int) -> float:
    return math.log(C[t] / (sum(last(C, t, w)) / w))


def smooth(x: list[float], seed_rows: int, weight: float, t: int) -> float:
    value = sum(x[:seed_rows]) / seed_rows
    for s in range(seed_rows, t + 1):
        value += weight * (x[s] - value)
    return value


def wilder(x: list[float], period: int, t: int) -> float:
    """x[0] is unknown; the first value is the mean of x[1..period]."""
    return smooth(x[1:], period, 1 / period, t - 1)


def true_ranges() -> list[float]:
    pairs = [max(H[t], C[t - 1]) - min(L[t], C[t - 1]) for t in range(1, len(C))]
    return [math.nan, *pairs]


def rsi(t: int, period: int) -> float:
    moves = [math.nan] + [b - a for a, b in itertools.pairwise(C)]
    gain = wilder([max(move, 0.0) for move in moves], period, t)
    loss = wilder([max(-move, 0.0) for move in moves], period, t)
    return 100 * gain / (gain + loss)


def directions(t: int) -> tuple[list[float], list[float]]:
    plus, minus = [math.nan], [math.nan]
    for s in range(1, t + 1):
        up, down = H[s] - H[s - 1], L[s - 1] - L[s]
        plus.append(up if up > down and up > 0 else 0.0)
        minus.append(down if down > up and down > 0 else 0.0)
    return plus, minus


def di_difference(t: int) -> float:
    plus, minus = directions(t)
    return 100 * (wilder(plus, 14, t) - wilder(minus, 14, t)) / wilder(true_ranges(), 14, t)


def adx(t: int) -> float:
    plus, minus = directions(t)
    index = [math.nan] * 14
    for s in range(14, t + 1):
        a, b = wilder(plus, 14, s), wilder(minus, 14, s)
        index.append(100 * abs(a - b) / (a + b))
    return smooth(index[14:], 14, 1 / 14, t - 14)


def emas(x: list[float], period: int) -> list[float]:
    value = sum(x[:period]) / period
    values = [value]
    for price in x[period:]:
        value += 2 / (period + 1) * (price - value)
        values.append(value)
    return values  # the first belongs to row period - 1


def macd_line(t: int) -> float:
    return emas(C, 12)[t - 11] - emas(C, 26)[t - 25]


def macd_histogram(t: int) -> float:
    lines = [macd_line(s) for s in range(25, t + 1)]
    return (lines[-1] - emas(lines, 9)[-1]) / C[t]


def trix(t: int) -> float:
    triple = emas(emas(emas(C[: t + 1], 15), 15), 15)
    return 100 * (triple[-1] / triple[-2] - 1)


def cci(t: int, w: int) -> float:
    centre = sum(last(TP, t, w)) / w
    return (TP[t] - centre) / (0.015 * sum(abs(x - centre) for x in last(TP, t, w)) / w)


def bollinger(t: int, w: int) -> float:
    return (C[t] - stats.fmean(last(C, t, w))) / (2 * stats.pstdev(last(C, t, w)))


def keltner(t: int) -> float:
    return (C[t] - emas(C, 20)[t - 19]) / wilder(true_ranges(), 14, t)


def slope(t: int, w: int) -> float:
    return stats.linear_regression(range(w), [math.log(c) for c in last(C, t, w)]).slope


def aroon(t: int) -> float:
    highs, lows = last(H, t, 26), last(L, t, 26)
    return 100 * (highs.index(max(highs)) - lows.index(min(lows))) / 25


def overlap(t: int) -> float:
    return (min(H[t], H[t - 1]) - max(L[t], L[t - 1])) / (max(H[t], H[t - 1]) - min(L[t], L[t - 1]))


def stochastic(t: int) -> float:
    return (C[t] - min(last(L, t, 14))) / (max(last(H, t, 14)) - min(last(L, t, 14)))


def parkinson(t: int, w: int) -> float:
    return math.sqrt(sum(math.log(H[s] / L[s]) ** 2 for s in rows(t, w)) / (4 * w * math.log(2)))


def garman_klass(t: int, w: int) -> float:
    terms = (math.log(H[s] / L[s]) ** 2 / 2 - (2 * math.log(2) - 1) * math.log(C[s] / OPEN[s]) ** 2 for s in rows(t, w))
    return math.sqrt(sum(terms) / w)


def rogers_satchell(t: int, w: int) -> float:
    total = 0.0
    for s in rows(t, w):
        u, d, c = math.log(H[s] / OPEN[s]), math.log(L[s] / OPEN[s]), math.log(C[s] / OPEN[s])
        total += u * (u - c) + d * (d - c)
    return math.sqrt(total / w)


def yang_zhang(t: int, w: int) -> float:
    opening = stats.variance([math.log(OPEN[s] / C[s - 1]) for s in rows(t, w)])
    body = stats.variance([math.log(C[s] / OPEN[s]) for s in rows(t, w)])
    k = 0.34 / (1.34 + (w + 1) / (w - 1))
    return math.sqrt(opening + k * body + (1 - k) * rogers_satchell(t, w) ** 2)


def moment(t: int, w: int, power: int) -> float:
    x = last(R, t, w)
    return sum((value - stats.fmean(x)) ** power for value in x) / w / stats.pstdev(x) ** power


def autocorrelation(x: list[float]) -> float:
    centre = stats.fmean(x)
    products = sum((a - centre) * (b - centre) for a, b in itertools.pairwise(x))
    return products / sum((value - centre) ** 2 for value in x)


def entropy(symbols: list[object], kinds: int) -> float:
    shares = [symbols.count(kind) / len(symbols) for kind in set(symbols)]
    return -sum(share * math.log(share) for share in shares) / math.log(kinds)


def permutation_entropy(t: int, w: int) -> float:
    return entropy([tuple(np.argsort(C[s - 2 : s + 1], kind="stable")) for s in rows(t, w)], 6)


def histogram_entropy(t: int, w: int) -> float:
    x = last(R, t, w)
    edges = [stats.NormalDist().inv_cdf(k / 7) for k in range(1, 7)]
    places = [sum((r - stats.fmean(x)) / stats.pstdev(x) > edge for edge in edges) for r in x]
    return entropy(list(places), 7)


def variance_ratio(t: int, q: int, w: int) -> float:
    x = last(R, t, w)
    centre = stats.fmean(x)
    sums = [sum(x[i : i + q]) for i in range(w - q + 1)]
    unbiased = q * (w - q + 1) * (1 - q / w)
    return sum((s - q * centre) ** 2 for s in sums) / unbiased / stats.variance(x)


def money_flow(t: int) -> float:
    flows = [(TP[s] * V[s], TP[s] - TP[s - 1]) for s in rows(t, 14)]
    up = sum(flow for flow, change in flows if change > 0)
    return 100 * up / (up + sum(flow for flow, change in flows if change < 0))


def vwap(t: int, w: int) -> float:
    return sum(TP[s] * V[s] for s in rows(t, w)) / sum(last(V, t, w))


def day_angle(t: int) -> float:
    moment = BARS["datetime"][t]
    return 2 * math.pi * (moment.hour * 60 + moment.minute) / 1440


def week_angle(t: int) -> float:
    moment = BARS["datetime"][t]
    return 2 * math.pi * (moment.weekday() * 1440 + moment.hour * 60 + moment.minute) / 10080


ORACLES = {
    "ret_5": lambda t: sum(last(R, t, 5)),
    "ret_open_gap": lambda t: math.log(OPEN[t] / C[t - 1]),
    "ret_5_over_vol_50": lambda t: sum(last(R, t, 5)) / stats.stdev(last(R, t, 50)) / math.sqrt(5),
    "candle_body_share": lambda t: (C[t] - OPEN[t]) / (H[t] - L[t]),
    "candle_upper_share": lambda t: (H[t] - max(OPEN[t], C[t])) / (H[t] - L[t]),
    "candle_lower_share": lambda t: (min(OPEN[t], C[t]) - L[t]) / (H[t] - L[t]),
    "candle_range_over_mean_20": lambda t: (
        math.log(H[t] / L[t]) / stats.fmean(math.log(H[s] / L[s]) for s in rows(t, 20))
    ),
    "range_20": lambda t: math.log(max(last(H, t, 20)) / min(last(L, t, 20))),
    "candle_overlap": overlap,
    "dist_sma_10": lambda t: sma_share(t, 10),
    "dist_sma_200": lambda t: sma_share(t, 200),
    "dist_ema_20": lambda t: math.log(C[t] / emas(C, 20)[t - 19]),
    "cross_ema_10_50": lambda t: math.log(emas(C, 10)[t - 9] / emas(C, 50)[t - 49]),
    "cross_sma_20_100": lambda t: sma_share(t, 100) - sma_share(t, 20),
    "slope_50": lambda t: slope(t, 50),
    "adx_14": adx,
    "di_difference_14": di_difference,
    "aroon_25": aroon,
    "dist_high_20": lambda t: math.log(C[t] / max(last(H, t, 20))),
    "dist_low_100": lambda t: math.log(C[t] / min(last(L, t, 100))),
    "rsi_14": lambda t: rsi(t, 14),
    "rsi_14_change_5": lambda t: rsi(t, 14) - rsi(t - 5, 14),
    "stoch_k_14": stochastic,
    "stoch_d_14_3": lambda t: stats.fmean(stochastic(s) for s in rows(t, 3)),
    "cci_20": lambda t: cci(t, 20),
    "macd_12_26": lambda t: macd_line(t) / C[t],
    "macd_histogram_12_26_9": macd_histogram,
    "trix_15": trix,
    "bollinger_place_20": lambda t: bollinger(t, 20),
    "keltner_place_20": keltner,
    "chande_10": lambda t: sum(last(R, t, 10)) / sum(map(abs, last(R, t, 10))),
    "up_share_20": lambda t: sum(r > 0 for r in last(R, t, 20)) / 20,
    "vol_close_20": lambda t: stats.stdev(last(R, t, 20)),
    "vol_parkinson_20": lambda t: parkinson(t, 20),
    "vol_garman_klass_50": lambda t: garman_klass(t, 50),
    "vol_rogers_satchell_20": lambda t: rogers_satchell(t, 20),
    "vol_yang_zhang_20": lambda t: yang_zhang(t, 20),
    "atr_share_14": lambda t: wilder(true_ranges(), 14, t) / C[t],
    "vol_ratio_10_50": lambda t: stats.stdev(last(R, t, 10)) / stats.stdev(last(R, t, 50)),
    "vol_down_share_50": lambda t: sum(r * r for r in last(R, t, 50) if r < 0) / sum(r * r for r in last(R, t, 50)),
    "volume_ratio_20": lambda t: math.log(1 + V[t] / stats.fmean(last(V, t, 20))),
    "volume_z_50": lambda t: (V[t] - stats.fmean(last(V, t, 50))) / stats.pstdev(last(V, t, 50)),
    "volume_trend_5_20": lambda t: stats.fmean(last(V, t, 5)) / stats.fmean(last(V, t, 20)),
    "dist_vwap_50": lambda t: math.log(C[t] / vwap(t, 50)),
    "obv_share_20": lambda t: sum(math.copysign(V[s], R[s]) for s in rows(t, 20)) / sum(last(V, t, 20)),
    "chaikin_flow_20": lambda t: (
        sum(V[s] * (2 * C[s] - H[s] - L[s]) / (H[s] - L[s]) for s in rows(t, 20)) / sum(last(V, t, 20))
    ),
    "mfi_14": money_flow,
    "volume_move_corr_50": lambda t: stats.correlation(last(V, t, 50), [abs(r) for r in last(R, t, 50)]),
    "volume_weighted_ret_20": lambda t: sum(V[s] * R[s] for s in rows(t, 20)) / sum(last(V, t, 20)),
    "skew_50": lambda t: moment(t, 50, 3),
    "kurtosis_100": lambda t: moment(t, 100, 4) - 3,
    "autocorr_1_50": lambda t: autocorrelation(last(R, t, 50)),
    "autocorr_abs_1_100": lambda t: autocorrelation([abs(r) for r in last(R, t, 100)]),
    "efficiency_20": lambda t: abs(math.log(C[t] / C[t - 20])) / sum(map(abs, last(R, t, 20))),
    "entropy_permutation_100": lambda t: permutation_entropy(t, 100),
    "entropy_histogram_100": lambda t: histogram_entropy(t, 100),
    "variance_ratio_5_100": lambda t: variance_ratio(t, 5, 100),
    "day_sin": lambda t: math.sin(day_angle(t)),
    "day_cos": lambda t: math.cos(day_angle(t)),
    "week_sin": lambda t: math.sin(week_angle(t)),
    "week_cos": lambda t: math.cos(week_angle(t)),
}


@pytest.mark.parametrize("name", list(ORACLES))
def test_feature_equals_its_plain_formula(name: str) -> None:
    # ADX differs by where the two smoothings start: Wilder's own start is forgotten by then
    tolerance = 1e-3 if name in ("adx_14", "di_difference_14") else 1e-9
    for t in (200, 333, 599):
        assert FEATURES["price"][name][t] == pytest.approx(ORACLES[name](t), rel=tolerance, abs=1e-10)


def test_time_is_read_in_utc_whatever_the_zone_of_the_column() -> None:
    tokyo = BARS.assign(datetime=BARS["datetime"].dt.tz_convert("Asia/Tokyo").dt.as_unit("s"))
    assert same_bits(compute_features(tokyo, only("calendar")), compute_features(BARS, only("calendar")))


def test_monday_midnight_is_where_the_week_starts() -> None:
    monday = BARS.head(1).assign(datetime=pd.Timestamp("2024-01-08", tz="UTC"))
    row = compute_features(monday, only("calendar")).iloc[0]
    assert row.to_dict() == {"day_sin": 0.0, "day_cos": 1.0, "week_sin": 0.0, "week_cos": 1.0}


# --- compilation -----------------------------------------------------------------------------------


def test_kernels_compile_where_no_cache_folder_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(lambda x: x)
    assert compiled(lambda x: x + 1)(2) == 3
