"""What would it have earned? The predicted class as a position, net of costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from barcast.errors import DataError
from barcast.evaluation.metrics import Metrics, defined

YEAR = pd.Timedelta(days=365.25)

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Backtest:
    """The outcome of following every prediction.

    `equity` has columns `datetime, equity`: one row a bar time, the worth of 1 after it. `metrics`:
    sharpe, sortino, max_drawdown (≤ 0), hit_rate, profit_factor, turnover, trades, exposure, total_return.
    `by_time` has a row for each of the same times, with all that the metrics are made of: `net` (the
    portfolio's return), and the sums over its rows `rows, between, turnover, invested`, and over the trades
    opened then `trades, won, gains, losses`.
    """

    equity: pd.DataFrame
    metrics: Metrics
    by_time: pd.DataFrame


@dataclass(frozen=True)
class _Ledger:
    """By row, sorted by symbol and time: what was held into the bar's close, and what was held from it on."""

    held: Array
    position: Array
    gain: Array
    cost: float

    @property
    def turnover(self) -> Array:
        return np.abs(self.position - self.held)

    @property
    def net(self) -> Array:
        return self.gain - self.cost * self.turnover

    @property
    def opened(self) -> npt.NDArray[np.bool_]:
        """The rows at which a trade starts: a stretch of one symbol at one position other than flat."""
        starts: npt.NDArray[np.bool_] = (self.position != self.held) & (self.position != 0)
        return starts

    def trade_results(self) -> Array:
        """The net result of each trade, in the order of `opened`."""
        opened = np.cumsum(self.opened)
        owner = np.concatenate([[0], opened[:-1]])  # the trade that a row's gain belongs to, counted from 1
        holding = self.held != 0
        return np.asarray(np.bincount(owner[holding] - 1, self.gain[holding]) - 2 * self.cost, np.float64)


def backtest(bars: pd.DataFrame, cost_bps: float) -> Backtest:
    """Hold each prediction until the next one of its symbol, and pay for every change.

    The class predicted at a bar's close (−1 short, 0 flat, +1 long) is the position from that close to the
    close of the symbol's next row. A hole between two rows is held through. The last row of a symbol has
    no close to follow, so its prediction is not traded and the position is closed there. Entering and
    leaving cost `cost_bps` of a position each, a reversal twice that; a position's own drift in size costs
    nothing. Each of S symbols has 1/S of the portfolio, and earns nothing at times when it has no row. A
    portfolio that has lost everything stays at zero.

    Ratios are annualised by the bar times a year that the data really has, (T−1) / span. Sharpe (1994)
    and Sortino (target 0, downside deviation over all bars) are empyrical's. A trade is a stretch at one
    position other than flat; `hit_rate` is the share of trades with a net gain, `profit_factor` net gains
    over net losses of trades. `turnover` is the mean change of position a row (0 … 2), `exposure` the
    share of the time between rows spent in a position. None where a value is undefined: ratios of an
    equity that never moves, `hit_rate` without trades, `profit_factor` without a losing trade.

    Args:
        bars: one row a prediction, in any order: `datetime`, `symbol`, `close`, `prediction` in {−1, 0, 1}.
        cost_bps: costs in 1/10,000 of the value traded.

    Raises:
        DataError: a close that is no price, naming symbol and time.
    """
    bars = bars.sort_values(["symbol", "datetime"], kind="stable", ignore_index=True)
    _check_closes(bars)
    ledger = _ledger(bars, cost_bps)
    times, place = np.unique(bars["datetime"].to_numpy("datetime64[ns]"), return_inverse=True)
    by_time = _by_time(ledger, bars["symbol"].to_numpy(), place)
    stamps, net = pd.to_datetime(times, utc=True), by_time["net"].to_numpy()
    equity = pd.DataFrame({"datetime": stamps, "equity": np.cumprod(1 + net)})
    between = by_time["between"].sum()
    metrics: Metrics = {
        **_ratios(net, times),
        **_trades(ledger.trade_results()),
        "turnover": float(ledger.turnover.mean()),
        "exposure": float((ledger.position != 0).sum() / between) if between else None,
        "total_return": float(equity["equity"].iloc[-1] - 1),
    }
    return Backtest(equity, metrics, by_time.assign(datetime=stamps))


def bars_a_year(times: npt.NDArray[np.datetime64]) -> float:
    """The bar times a year of `[T]` ascending times, (T−1) / span; 1 for a single time."""
    return float((len(times) - 1) / ((times[-1] - times[0]) / YEAR.to_timedelta64())) if len(times) > 1 else 1.0


def _by_time(ledger: _Ledger, symbol: npt.NDArray[Any], place: npt.NDArray[np.int64]) -> pd.DataFrame:
    """Rows and trades summed into the T times that `place` `[N]` counts; `net` is what the portfolio earned."""
    results, opened = ledger.trade_results(), place[ledger.opened]
    count = place.max() + 1

    def add(values: npt.ArrayLike, at: npt.NDArray[np.int64] = place) -> Array:
        return np.asarray(np.bincount(at, np.asarray(values, np.float64), count), np.float64)

    return pd.DataFrame(
        {
            "net": np.maximum(add(ledger.net) / len(np.unique(symbol)), -1.0),
            "rows": add(np.ones(len(place))),
            "between": add(np.append(symbol[1:] == symbol[:-1], False)),
            "turnover": add(ledger.turnover),
            "invested": add(ledger.position != 0),
            "trades": add(np.ones(len(results)), opened),
            "won": add(results > 0, opened),
            "gains": add(np.maximum(results, 0), opened),
            "losses": add(np.maximum(-results, 0), opened),
        }
    )


def _check_closes(bars: pd.DataFrame) -> None:
    close = bars["close"].to_numpy(np.float64)
    bad = np.flatnonzero(~(np.isfinite(close) & (close > 0)))
    if len(bad):
        row = bars.iloc[bad[0]]
        raise DataError(f"{row['symbol']} at {row['datetime']}: close = {row['close']}: expected a price above 0")


def _ledger(bars: pd.DataFrame, cost_bps: float) -> _Ledger:
    """Rows sorted by symbol and time. A symbol's last position is flat, and so is what the next one starts from."""
    symbol, close = bars["symbol"].to_numpy(), bars["close"].to_numpy(np.float64)
    position = bars["prediction"].to_numpy(np.float64)
    position[np.append(symbol[1:] != symbol[:-1], True)] = 0
    held = np.concatenate([[0.0], position[:-1]])
    change = np.concatenate([[0.0], close[1:] / close[:-1] - 1])
    return _Ledger(held, position, held * change, cost_bps / 1e4)


def _ratios(net: Array, times: npt.NDArray[np.datetime64]) -> Metrics:
    import empyrical  # here, since it takes a second that those who only read params.yaml need not wait

    moved = len(net) > 1 and bool(net.any())
    a_year = bars_a_year(times)
    return {
        "sharpe": defined(empyrical.sharpe_ratio(net, annualization=a_year)) if moved else None,
        "sortino": defined(empyrical.sortino_ratio(net, annualization=a_year)) if moved else None,
        "max_drawdown": float(empyrical.max_drawdown(net)),
    }


def _trades(results: Array) -> Metrics:
    won, lost = results[results > 0].sum(), -results[results < 0].sum()
    return {
        "hit_rate": float((results > 0).mean()) if len(results) else None,
        "profit_factor": float(won / lost) if lost > 0 else None,
        "trades": len(results),
    }
