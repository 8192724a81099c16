"""Simulated markets in which the truth is known: the real probabilities of a label, and what a model makes of them.

A hidden signal x of each symbol is an AR(1) with unit variance and moves the next return: r(t+1) = σ(k·x(t) + e). The
label of t says whether the sum of the next `horizon` returns passes ±θ, so neighbouring labels share most of their
bars. Given x(t) that sum is normal with a mean and a variance that can be written down, and so are the probabilities
of the classes. A model sees x with noise of its own; two models whose noise is as strong have the same expected loss,
and differ by chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.signal import lfilter
from scipy.stats import norm

from barcast.probabilities import PROBABILITY_COLUMNS

Array = npt.NDArray[np.float64]

PERSISTENCE = 0.9
STRENGTH = 0.2  # k
VOLATILITY = 0.004  # σ
BARRIER = 0.43  # θ in standard deviations of a sum of noise: three classes, about as frequent
SYMBOLS = ("AAA", "BBB")


@dataclass(frozen=True)
class Market:
    """T bars of two symbols: the signal `[S, T]`, closes `[S, T]`, labels `[S, T]` at one horizon."""

    horizon: int
    signal: Array
    close: Array
    label: npt.NDArray[np.int64]

    def probabilities(self, signal: Array) -> Array:
        """What is true of labels where the signal is `[S, T]`: `[S, T, 3]`."""
        h, decay = self.horizon, PERSISTENCE
        mean = STRENGTH * signal * (1 - decay**h) / (1 - decay)
        carried = [((1 - decay ** (h - i)) / (1 - decay)) ** 2 for i in range(1, h)]
        spread = np.sqrt(h + STRENGTH**2 * (1 - decay**2) * sum(carried))
        theta = BARRIER * np.sqrt(h)
        up, down = norm.sf((theta - mean) / spread), norm.cdf((-theta - mean) / spread)
        return np.stack([down, 1 - up - down, up], axis=-1)

    def predictions(self, noise: float, rng: np.random.Generator) -> pd.DataFrame:
        """What a model that sees the signal with `noise` (standard deviations) says: a cell's test predictions."""
        seen = self.signal + noise * rng.standard_normal(self.signal.shape)
        p = self.probabilities(seen)
        times = pd.date_range("2020-01-01", periods=self.signal.shape[1], freq="30min", tz="UTC")
        parts = []
        for number, symbol in enumerate(SYMBOLS):
            frame = pd.DataFrame(p[number], columns=[*PROBABILITY_COLUMNS])
            frame = frame.assign(datetime=times, symbol=symbol, close=self.close[number], label=self.label[number])
            parts.append(frame.assign(prediction=p[number].argmax(axis=1) - 1))
        return pd.concat(parts, ignore_index=True)

    def models(self, noises: Mapping[str, float], rng: np.random.Generator) -> dict[str, pd.DataFrame]:
        return {name: self.predictions(noise, rng) for name, noise in noises.items()}


def simulate(bars: int, horizon: int, rng: np.random.Generator) -> Market:
    """A new market of `bars` bars whose labels are all known."""
    whole = bars + horizon
    shocks = rng.standard_normal((len(SYMBOLS), whole)) * np.sqrt(1 - PERSISTENCE**2)
    start = PERSISTENCE * rng.standard_normal((len(SYMBOLS), 1))
    signal, _ = lfilter([1], [1, -PERSISTENCE], shocks, axis=1, zi=start)
    noise = rng.standard_normal((len(SYMBOLS), whole - 1))
    steps = STRENGTH * signal[:, :-1] + noise  # the return from bar t to t+1, in units of σ
    log_price = np.concatenate([np.zeros((len(SYMBOLS), 1)), np.cumsum(steps, axis=1)], axis=1)
    ahead = log_price[:, horizon:] - log_price[:, :-horizon]  # [S, T]
    theta = BARRIER * np.sqrt(horizon)
    label = np.where(ahead > theta, 1, np.where(ahead < -theta, -1, 0))
    close = 100 * np.exp(VOLATILITY * log_price[:, :bars])
    return Market(horizon, signal[:, :bars], close, label)
