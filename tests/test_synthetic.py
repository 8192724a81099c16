from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.data import synthetic
from barcast.data.bars import bar_spacing, check_bars, find_gaps
from barcast.data.frames import KEYS, OHLCV, SPLITS
from barcast.data.synthetic import FUTURES, Sessions, synthetic_bars, synthetic_splits, write_splits

SMALL = {"n_rows": (600, 201, 200), "n_features": 9}

sessions = st.none() | st.builds(
    Sessions, opens=st.integers(0, 23), closes=st.integers(1, 23), weekends=st.booleans()
).filter(lambda hours: hours.opens != hours.closes)


@given(
    count=st.integers(2, 400),
    seed=st.integers(0, 2**32 - 1),
    signal=st.sampled_from([0.0, 0.3, 2.0]),
    spacing=st.sampled_from(["1min", "30min", "1h"]),
    hours=sessions,
)
@settings(max_examples=30, deadline=None)
def test_bars_pass_every_check_and_are_reproducible(
    count: int, seed: int, signal: float, spacing: str, hours: Sessions | None
) -> None:
    def make(symbols: list[str]) -> pd.DataFrame:
        return synthetic_bars(symbols, count, seed=seed, spacing=spacing, signal=signal, sessions=hours)

    bars = make(["B", "A"])
    check_bars(bars, "synthetic")
    assert bars["symbol"].tolist() == ["A"] * count + ["B"] * count
    assert bars["datetime"][:count].tolist() == bars["datetime"][count:].tolist()
    pd.testing.assert_frame_equal(bars, make(["A", "B"]))
    pd.testing.assert_frame_equal(bars[count:].reset_index(drop=True), make(["B"]))
    if hours is not None:
        assert all(trades(time, hours) for time in bars["datetime"])


def trades(time: pd.Timestamp, hours: Sessions) -> bool:
    """One time after another, in plain words: within the hours, in a session that begins from Sunday to Thursday."""
    if hours.opens < hours.closes:
        return hours.opens <= time.hour < hours.closes and (hours.weekends or time.day_name()[0:2] not in ("Sa", "Su"))
    evening = time.hour >= hours.opens
    closed = ("Fr", "Sa") if evening else ("Sa", "Su")
    return (evening or time.hour < hours.closes) and (hours.weekends or time.day_name()[0:2] not in closed)


def test_futures_hours_leave_a_gap_each_day_and_each_weekend() -> None:
    bars = synthetic_bars(["MES"], 46 * 5 * 3, seed=0, sessions=FUTURES)
    gaps = find_gaps(bars)
    assert bar_spacing(bars["datetime"]) == pd.Timedelta("30min")
    assert set(gaps["missing_bars"]) == {2, 98}  # an hour a day; from Friday 21:00 to Sunday 22:00 49 hours
    assert set(gaps["start"].dt.strftime("%H:%M")) == {"20:30"}
    assert set(gaps["end"][gaps["missing_bars"] == 98].dt.day_name()) == {"Sunday"}
    full = pd.date_range(bars["datetime"].iloc[0], bars["datetime"].iloc[-1], freq="30min")
    assert full[[trades(time, FUTURES) for time in full]].tolist() == bars["datetime"].tolist()
    inside = ~bars["datetime"].isin(gaps["end"])[1:].to_numpy()
    jumps = np.abs(np.log(bars["open"].to_numpy()[1:] / bars["close"].to_numpy()[:-1]))
    assert jumps[inside].max() < 1e-12 < jumps[~inside].min()


def standardised(bars: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Each bar's log return over its range-based volatility, and the momentum before it, as features would see them."""
    returns = np.log(bars["close"]).diff()
    scale = returns.rolling(48).std().shift()
    past = (returns / scale).ewm(alpha=1 - synthetic.MEMORY, adjust=False).mean().shift()
    known = slice(100, None)
    return (returns / scale).to_numpy()[known], past.to_numpy()[known]


@pytest.mark.parametrize("signal", [0.0, 0.1, 0.3])
def test_the_planted_signal_is_as_strong_as_said_and_visible_in_the_past(signal: float) -> None:
    bars = synthetic_bars(["A"], 60_000, seed=5, signal=signal)
    returns, momentum = standardised(bars)
    planted = signal / np.sqrt(1 + signal**2)  # corr(s·m + z, m); what is seen of m and σ is a little less
    assert 0.8 * planted - 0.015 < np.corrcoef(returns, momentum)[0, 1] < planted + 0.015


def test_without_a_signal_the_price_is_a_martingale_with_clustered_volatility() -> None:
    bars = synthetic_bars(["A"], 100_000, seed=6)
    simple = bars["close"] / bars["open"] - 1
    assert abs(simple.mean()) < 4 * simple.std() / np.sqrt(len(simple))
    # The next return can't be told from signs and sizes of the past, its size can.
    for lag in (1, 2, 5, 10, 20):
        assert abs(simple.autocorr(lag)) < 0.02
        assert simple.abs().autocorr(lag) > 0.03
    assert simple.kurt() > 0.5


def test_two_seeds_and_two_symbols_give_independent_bars() -> None:
    bars = synthetic_bars(["A", "B"], 20_000, seed=7)
    one, two = (np.log(bars["close"][bars["symbol"] == name]).diff().to_numpy()[1:] for name in "AB")
    other = np.log(synthetic_bars(["A"], 20_000, seed=8)["close"]).diff().to_numpy()[1:]
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.03
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03


# ---- splits ----


def test_the_full_shape_is_that_of_real_files() -> None:
    frames = synthetic_splits(seed=0)
    assert list(frames) == list(SPLITS)
    assert [frame.shape for frame in frames.values()] == [(87_094, 126), (18_591, 126), (18_592, 126)]
    names = ("label", "bars_to_hit", "mae", "mfe", "quality", "sample_weight")
    expected = [*KEYS, *OHLCV, *(f"f{i:03d}" for i in range(107)), *(f"{n}_h{h}" for h in (5, 20) for n in names)]
    for frame in frames.values():
        assert list(frame.columns) == expected
        assert set(frame["symbol"]) == {"MES", "MGC"}
        assert frame["symbol"].value_counts().max() - frame["symbol"].value_counts().min() <= 1
        assert not frame.isna().any(axis=None)
    assert {str(frames["test"][f"f{i:03d}"].dtype) for i in range(107)} == {"float32"}
    assert frames["train"]["sample_weight_h5"].mean() == pytest.approx(1, abs=1e-4)


@given(
    seed=st.integers(0, 1_000), signal=st.sampled_from([0.0, 0.4, 1.0]), lags=st.sets(st.integers(0, 30), min_size=1)
)
@settings(max_examples=15, deadline=None)
def test_splits_are_reproducible_ordered_and_separated(seed: int, signal: float, lags: set[int]) -> None:
    frames = synthetic_splits(seed=seed, **SMALL, horizons=(3,), signal=signal, signal_lags=sorted(lags))
    again = synthetic_splits(seed=seed, **SMALL, horizons=(3,), signal=signal, signal_lags=sorted(lags))
    assert [len(frame) for frame in frames.values()] == [600, 201, 200]
    for split, frame in frames.items():
        check_bars(frame, split)
        assert frame["symbol"].is_monotonic_increasing
        pd.testing.assert_frame_equal(frame, again[split])
        assert set(frame["label_h3"]) <= {-1, 0, 1}
        assert frame["bars_to_hit_h3"].between(1, 9).all()
        assert (frame[["mae_h3", "mfe_h3", "sample_weight_h3"]] > 0).all(axis=None)
        assert frame["quality_h3"].between(0.5, 1).all()
        assert frame.filter(regex=r"^f\d+$").abs().max(axis=None) <= synthetic.CLIP
    for before, after in (("train", "val"), ("val", "test")):
        apart = frames[after]["datetime"].min() - frames[before]["datetime"].max()
        assert apart > 1_500 * pd.Timedelta("30min")


def lagged_score(frame: pd.DataFrame, lags: tuple[int, ...]) -> pd.Series:
    """What the labels should follow, from the rows as they are stored."""
    carriers = frame[[f"f{i:03d}" for i in range(synthetic.SIGNAL_FEATURES)]].sum(axis=1)
    shifted = [carriers.groupby(frame["symbol"]).shift(lag) for lag in lags]
    return sum(shifted[1:], shifted[0])


@pytest.mark.parametrize("lags", [(0,), (7,), (3, 7, 13)])
def test_labels_and_next_returns_follow_the_features_at_the_given_lags_only(lags: tuple[int, ...]) -> None:
    frames = synthetic_splits(seed=1, n_rows=(40_000, 500, 500), n_features=8, signal=0.5, signal_lags=lags)
    train = frames["train"]
    score = lagged_score(train, lags)
    returns = np.log(train["close"] / train["open"]).groupby(train["symbol"]).shift(-1)
    assert score.corr(train["label_h5"]) == pytest.approx(0.5 * 0.891, abs=0.02)  # 0.891 = corr(N(0,1), its tercile)
    assert score.corr(train["label_h20"]) == pytest.approx(0.5 * 0.891, abs=0.02)
    assert 0.4 < score.corr(returns) < 0.5
    for other in {0, 1, 6, 8, 20} - set(lags):
        assert abs(lagged_score(train, (other,)).corr(train["label_h5"])) < 0.02
    noise = train[[f"f{i:03d}" for i in range(synthetic.SIGNAL_FEATURES, 8)]].corrwith(train["label_h5"].astype(float))
    assert noise.abs().max() < 0.02


def test_without_a_signal_there_is_nothing_to_predict_and_with_a_full_one_everything() -> None:
    blind = synthetic_splits(seed=2, n_rows=(20_000, 100, 100), n_features=6, signal=0.0)["train"]
    assert abs(lagged_score(blind, (0,)).corr(blind["label_h5"])) < 0.03
    clear = synthetic_splits(seed=2, n_rows=(20_000, 100, 100), n_features=6, signal=1.0)["train"]
    highest = clear.assign(score=lagged_score(clear, (0,))).groupby("label_h5")["score"].agg(["min", "max"])
    assert highest["max"][-1] <= highest["min"][0] <= highest["max"][0] <= highest["min"][1]


def test_a_lag_into_the_future_is_refused() -> None:
    with pytest.raises(ValueError, match=r"signal_lags are bars back, 0 or more; got \(0, -1\)"):
        synthetic_splits(seed=0, **SMALL, signal_lags=(0, -1))


def test_splits_are_written_under_the_names_that_the_pipeline_reads(tmp_path: Path) -> None:
    frames = synthetic_splits(seed=3, **SMALL)
    write_splits(frames, tmp_path / "new")
    write_splits(synthetic_splits(seed=3, **SMALL), tmp_path / "again")
    names = [f"{split}_scaled.parquet" for split in ("test", "train", "val")]
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == names
    for split in SPLITS:
        file = tmp_path / f"new/{split}_scaled.parquet"
        pd.testing.assert_frame_equal(pd.read_parquet(file), frames[split])
        assert file.read_bytes() == (tmp_path / f"again/{split}_scaled.parquet").read_bytes()
