"""What would it have earned? The predicted class as a position, net of costs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from barcast.errors import DataError
from barcast.evaluation.metrics import Array, Metrics, compute_metrics

_YEAR = pd.Timedelta(days=365.25).to_timedelta64()


@dataclass(frozen=True)
class Backtest:
    """The outcome of following every prediction.

    `equity` has a row per bar time: `datetime`, and `equity`, the worth of 1 after it. `by_time` has a row for each of
    the same times: `net` (the portfolio's return), the sums over its rows `rows, between, turnover, invested`, and over
    the trades opened then `trades, won, gains, losses`. `results` has the net result of each trade.
    """

    equity: pd.DataFrame
    by_time: pd.DataFrame
    results: Array

    @cached_property
    def metrics(self) -> Metrics:
        """Those of `METRICS` whose source is "trades"."""
        return compute_metrics("trades", self)

    @property
    def net(self) -> Array:
        return self.by_time["net"].to_numpy(np.float64)

    @property
    def bars_per_year(self) -> float:
        """The bar times per year of the T times, (T−1) / span; 1 for a single time."""
        times = self.by_time["datetime"].to_numpy("datetime64[ns]")
        return float((len(times) - 1) / ((times[-1] - times[0]) / _YEAR)) if len(times) > 1 else 1.0


def backtest(bars: pd.DataFrame, cost_bps: float) -> Backtest:
    """Hold each prediction until the next one of its symbol, and pay for every change.

    The class predicted at a bar's close (−1 short, 0 flat, +1 long) is the position from that close to the close of the
    symbol's next row, also over a gap. The last row of a symbol has no close to follow, so its prediction is not traded
    and the position is closed there. Entering and leaving cost `cost_bps` of a position each, a reversal twice that; a
    position's own drift in size costs nothing. Each of S symbols has 1/S of the portfolio, and earns nothing at times
    when it has no row. A portfolio that has lost everything stays at zero.

    Ratios are annualised by the bar times per year that the data has, (T−1) / span. Sharpe (1994) and Sortino (target
    0, downside deviation over all bars) are empyrical's. A trade is a run of rows at one position other than flat;
    `hit_rate` is the share of trades with a net gain, `profit_factor` net gains over net losses of trades. `turnover`
    is the mean change of position per row (0 … 2), `exposure` the share of the time between rows spent in a position.
    None where a value is undefined: ratios of an equity that never moves, `hit_rate` without trades, `profit_factor`
    without a losing trade.

    `bars` has one row per prediction, in any order: `datetime`, `symbol`, `close`, `prediction` in {−1, 0, 1}; costs
    are in 1/10,000 of the value traded.

    Raises:
        DataError: a close is not a price; names symbol and time.
    """
    bars = bars.sort_values(["symbol", "datetime"], kind="stable", ignore_index=True)
    symbol, close, cost = bars["symbol"].to_numpy(), bars["close"].to_numpy(np.float64), cost_bps / 1e4
    bad = np.flatnonzero(~(np.isfinite(close) & (close > 0)))
    if len(bad):
        row = bars.iloc[bad[0]]
        raise DataError(f"{row['symbol']} at {row['datetime']}: close = {row['close']}: expected a price above 0")
    continues = np.append(symbol[1:] == symbol[:-1], False)
    position = bars["prediction"].to_numpy(np.float64)  # from the row's close on
    position[~continues] = 0
    held = np.concatenate([[0.0], position[:-1]])  # into the row's close
    gain = held * np.concatenate([[0.0], close[1:] / close[:-1] - 1])
    turnover = np.abs(position - held)
    opened = (position != held) & (position != 0)
    trade, holding = np.concatenate([[0], np.cumsum(opened)[:-1]]), held != 0  # a gain's trade, counted from 1
    results = np.asarray(np.bincount(trade[holding] - 1, gain[holding]) - 2 * cost, np.float64)  # net, as they open
    times, time_index = np.unique(bars["datetime"].to_numpy("datetime64[ns]"), return_inverse=True)

    def by_time(values: npt.ArrayLike, at: npt.NDArray[np.int64] = time_index) -> Array:
        return np.asarray(np.bincount(at, np.asarray(values, np.float64), len(times)), np.float64)

    sums = pd.DataFrame(
        {
            "net": np.maximum(by_time(gain - cost * turnover) / len(np.unique(symbol)), -1.0),
            "rows": by_time(np.ones(len(symbol))),
            "between": by_time(continues),
            "turnover": by_time(turnover),
            "invested": by_time(position != 0),
            "trades": by_time(np.ones(len(results)), time_index[opened]),
            "won": by_time(results > 0, time_index[opened]),
            "gains": by_time(np.maximum(results, 0), time_index[opened]),
            "losses": by_time(np.maximum(-results, 0), time_index[opened]),
            "datetime": pd.to_datetime(times, utc=True),
        }
    )
    equity = pd.DataFrame({"datetime": sums["datetime"], "equity": np.cumprod(1 + sums["net"].to_numpy())})
    return Backtest(equity, sums, results)
