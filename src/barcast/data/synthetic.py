"""Seeded synthetic bars and splits with a planted signal of known strength, for tests and benchmarks.

The price model: with σ_t the volatility of bar t (the exponential of an AR(1), independent of all else), z_t standard
normal and s the signal, the log return of bar t is

    r_t = σ_t (s · m_{t-1} + z_t) - σ_t² / 2,    m_t = φ m_{t-1} + sqrt(1 - φ²) z_t,    φ = 0.9

At s = 0 the price is a martingale. At s > 0 the drift of bar t + 1, in units of its own volatility, is s times m_t,
the exponentially weighted mean (scaled to unit variance) of the last standardised shocks, about 10 bars deep. Momentum
over 5 to 20 bars relative to volatility shows m_t nearly whole. The past explains s² / (1 + s²) of the variance of the
next return.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pandas as pd

from barcast.data.frames import OHLCV, SPLITS
from barcast.data.split_files import split_file, write_split

Floats = npt.NDArray[np.floating]

START = pd.Timestamp("2015-01-05", tz="UTC")  # a Monday
MEMORY = 0.9  # φ
VOLATILITY = 0.002  # the usual σ of one bar
SIGNAL_FEATURES = 4  # the first features of synthetic splits carry the signal, the others are noise
CLIP = 5.0

_STEPS = 8  # prices inside a bar, from which its high and low come
_SPLIT_GAP = 1_500  # bars between two splits, as after a purge and an embargo


@dataclass(frozen=True)
class Sessions:
    """Trading hours, in UTC: a bar may open from `opens` until before `closes`, maybe through midnight.

    With `weekends` false nothing trades from Friday's `closes` to Sunday's `opens` (Monday's, if the hours are
    within one day).
    """

    opens: int
    closes: int
    weekends: bool

    def trading(self, times: pd.DatetimeIndex) -> npt.NDArray[np.bool_]:
        """Whether a bar that opens at each of the times trades, [n]."""
        hours = times.hour.to_numpy()
        if self.opens < self.closes:
            open_now, day = (hours >= self.opens) & (hours < self.closes), times
        else:  # after the evening's open it is the next day's session
            open_now, day = (hours >= self.opens) | (hours < self.closes), times + pd.Timedelta(hours=24 - self.opens)
        return open_now & (self.weekends | (day.day_of_week.to_numpy() < 5))


FUTURES = Sessions(opens=22, closes=21, weekends=False)


def synthetic_bars(
    symbols: Sequence[str],
    n_bars: int,
    *,
    seed: int,
    spacing: str = "30min",
    signal: float = 0.0,
    sessions: Sessions | None = None,
) -> pd.DataFrame:
    """Bars in the common form, `n_bars` of each symbol at the same times: [len(symbols) · n_bars, 7].

    Symbols don't depend on each other. The same seed gives the same bars. `spacing` is the time from bar to bar, and
    `signal` s of the module's price model. Without `sessions` symbols trade round the clock. Over a closed time the
    price jumps.
    """
    times = _times(n_bars, spacing, sessions)
    frames = []
    for symbol in sorted(set(symbols)):
        rng = _generator(seed, symbol)
        shocks = rng.standard_normal((n_bars, _STEPS))  # [n, steps]
        drift = signal * _known_before(_autoregression(shocks.sum(axis=1) / np.sqrt(_STEPS), MEMORY))
        frames.append(_price_bars(rng, symbol, times, shocks, drift))
    return pd.concat(frames, ignore_index=True)


def synthetic_splits(
    *,
    seed: int,
    n_rows: tuple[int, int, int] = (87_094, 18_591, 18_592),
    n_features: int = 107,
    horizons: Sequence[int] = (5, 20),
    symbols: Sequence[str] = ("MES", "MGC"),
    signal: float = 0.3,
    signal_lags: Sequence[int] = (0,),
) -> dict[str, pd.DataFrame]:
    """Train, val and test as another system makes them: 7 columns, features and 6 label columns per horizon.

    Features are independent standard normals, clipped at ±5. The score of bar t is the sum of the first
    `SIGNAL_FEATURES` of them at each of the lags, scaled to unit variance. A horizon's label is the tercile (-1, 0, 1)
    of `signal` · score + sqrt(1 - signal²) · noise, so `signal` is a correlation; the next bar's return follows the
    score as strongly. Every row is labelled, and lags at the head of a split use rows that aren't returned. Each split
    is sorted by symbol and time, and later than the one before.

    Args:
        seed: the same seed gives the same splits.
        n_rows: rows of train, val and test, spread evenly over the symbols.
        n_features: columns `f000`, `f001`, …
        horizons, symbols: one block of label columns per horizon, one block of rows per symbol and split.
        signal: the correlation, from 0 (nothing to find) to 1 (the label is the score's tercile).
        signal_lags: how many bars back the signal's features are.
    """
    if min(signal_lags) < 0:
        raise ValueError(f"signal_lags are bars back, 0 or more; got {tuple(signal_lags)}")
    names, lags = sorted(set(symbols)), sorted(set(signal_lags))
    longest = [-(-rows // len(names)) for rows in n_rows]
    times = _times(sum(longest) + _SPLIT_GAP * (len(longest) - 1), "30min", FUTURES)
    frames, first = {}, 0
    for split, rows, length in zip(SPLITS, n_rows, longest, strict=True):
        parts = []
        for symbol, part in zip(names, np.array_split(np.arange(rows), len(names)), strict=True):
            rng, own_times = _generator(seed, f"{split} {symbol}"), times[first : first + len(part)]
            parts.append(_split_part(rng, symbol, own_times, n_features, horizons, signal, lags))
        frames[split] = pd.concat(parts, ignore_index=True)
        first += length + _SPLIT_GAP
    for name in (f"sample_weight_h{horizon}" for horizon in horizons):
        mean = frames["train"][name].mean()
        for frame in frames.values():
            frame[name] = (frame[name] / mean).astype(np.float32)
    return frames


def write_splits(frames: Mapping[str, pd.DataFrame], folder: Path) -> None:
    """Write each split as `{split}_scaled.parquet` into the folder, the form that `source: splits` takes."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, frame in frames.items():
        write_split(frame, split_file(folder, split))


def _generator(seed: int, name: str) -> np.random.Generator:
    """A random stream for each name, independent of other names."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _times(count: int, spacing: str, sessions: Sessions | None) -> pd.DatetimeIndex:
    """The first `count` bar times from `START` on at which trading is open."""
    step = pd.Timedelta(spacing)
    if sessions is None:
        return pd.date_range(START, periods=count, freq=step, unit="ns")
    week = sessions.trading(pd.date_range(START, START + pd.Timedelta(days=7), freq=step, inclusive="left"))
    grid = pd.date_range(START, periods=int(count / week.mean()) + len(week), freq=step, unit="ns")
    return grid[sessions.trading(grid)][:count]


def _autoregression(shocks: Floats, memory: float) -> Floats:
    """m_t = memory · m_{t-1} + sqrt(1 - memory²) · shocks_t from m = 0 on: unit variance, once it has warmed up."""
    mean = pd.Series(np.append(0.0, shocks)).ewm(alpha=1 - memory, adjust=False).mean().to_numpy()[1:]
    return np.asarray(mean * np.sqrt((1 + memory) / (1 - memory)))


def _known_before(values: Floats) -> Floats:
    """The value of the bar before; 0 for the first."""
    return np.append(0.0, values[:-1])


def _price_bars(
    rng: np.random.Generator, symbol: str, times: pd.DatetimeIndex, shocks: Floats, drift: Floats
) -> pd.DataFrame:
    """Bars of one symbol from standard normal shocks [n, steps] inside each bar and a drift [n] in units of σ."""
    sigma = VOLATILITY * np.exp(0.4 * _autoregression(rng.standard_normal(len(times)), 0.98))
    moves = sigma[:, None] * (shocks / np.sqrt(_STEPS) + (drift - sigma / 2)[:, None] / _STEPS)
    gaps = np.append(False, np.diff(times.asi8) > np.diff(times.asi8).min(initial=np.iinfo(np.int64).max))
    wide = np.where(gaps, 3 * VOLATILITY, 0.0)
    jumps = wide * rng.standard_normal(len(times)) - wide**2 / 2
    start = np.cumsum(jumps + _known_before(moves.sum(axis=1)))
    path = np.concatenate([np.zeros((len(times), 1)), np.cumsum(moves, axis=1)], axis=1)
    prices = 100 * np.exp(start[:, None] + path)  # [n, steps + 1]
    volume = 1_000 * sigma / VOLATILITY * np.exp(0.5 * rng.standard_normal(len(times)))
    columns = (prices[:, 0], prices.max(axis=1), prices.min(axis=1), prices[:, -1], volume)
    frame = pd.DataFrame({"datetime": times, "symbol": pd.Series(symbol, range(len(times)), dtype="str")})
    return frame.assign(**dict(zip(OHLCV, columns, strict=True)))


def _split_part(
    rng: np.random.Generator,
    symbol: str,
    times: pd.DatetimeIndex,
    n_features: int,
    horizons: Sequence[int],
    signal: float,
    lags: Sequence[int],
) -> pd.DataFrame:
    """One symbol's rows of one split; the weights aren't normalised yet."""
    count, depth = len(times), max(lags)
    features = rng.standard_normal((count + depth, n_features), dtype=np.float32)  # [depth + n, F]
    np.clip(features, -CLIP, CLIP, out=features)
    carriers = features[:, :SIGNAL_FEATURES].astype(np.float64)
    lagged = sum(carriers[depth - lag : depth - lag + count].sum(axis=1) for lag in lags)
    score = np.asarray(lagged) / np.sqrt(len(lags) * carriers.shape[1])  # [n], unit variance
    shocks = rng.standard_normal((count, _STEPS)) * np.sqrt(1 - signal**2)
    bars = _price_bars(rng, symbol, times, shocks, signal * _known_before(score))
    names = [f"f{number:03d}" for number in range(n_features)]
    labels = [_label_block(rng, score, horizon, signal) for horizon in horizons]
    return pd.concat([bars, pd.DataFrame(features[depth:], columns=names), *labels], axis=1)


def _label_block(rng: np.random.Generator, score: Floats, horizon: int, signal: float) -> pd.DataFrame:
    """One horizon's label columns, [n, 6]; like real ones, all of them are informative about the label."""
    count = len(score)
    latent = signal * score + np.sqrt(1 - signal**2) * rng.standard_normal(count)
    label = np.sign(latent) * (np.abs(latent) > NormalDist().inv_cdf(2 / 3))
    bars_to_hit = np.where(label == 0, 3 * horizon, rng.integers(1, 3 * horizon + 1, count))
    adverse = rng.exponential(0.5, count) + (label == -1)
    favourable = rng.exponential(0.5, count) + (label == 1)
    quality = np.maximum(favourable, adverse) / (favourable + adverse)
    columns = {"label": label.astype(np.int8), "bars_to_hit": bars_to_hit.astype(np.int32)}
    columns |= {"mae": adverse.astype(np.float32), "mfe": favourable.astype(np.float32)}
    columns |= {"quality": quality.astype(np.float32), "sample_weight": quality / bars_to_hit}
    return pd.DataFrame({f"{name}_h{horizon}": values for name, values in columns.items()})
