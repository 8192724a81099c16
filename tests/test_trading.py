from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.errors import DataError
from barcast.evaluation.backtest import backtest

START = pd.Timestamp("2021-03-01", tz="UTC")
HALF_HOUR = pd.Timedelta("30min")


def bars(closes: list[float], predictions: list[int], symbol: str = "AAA", steps: list[int] | None = None):
    steps = list(range(len(closes))) if steps is None else steps
    times = [START + step * HALF_HOUR for step in steps]
    return pd.DataFrame({"datetime": times, "symbol": symbol, "close": closes, "prediction": predictions})


def random_bars(seed: int, symbols: int = 3, length: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    parts = []
    for number in range(symbols):
        steps = np.sort(rng.choice(length * 2, length, replace=False)).tolist()  # each symbol has its own gaps
        closes = (100 * np.exp(rng.normal(0, 0.01, length).cumsum())).tolist()
        parts.append(bars(closes, rng.integers(-1, 2, length).tolist(), f"S{number}", steps))
    return pd.concat(parts).sample(frac=1, random_state=seed)


def slow_backtest(frame: pd.DataFrame, cost_bps: float) -> dict[str, float | None]:
    """One symbol and one bar at a time, with a trader's bookkeeping."""
    cost = cost_bps / 10_000
    flows: dict[pd.Timestamp, list[float]] = {}
    trades: list[float] = []
    changes: list[float] = []
    in_position, intervals = 0, 0
    for _, group in frame.groupby("symbol"):
        rows = group.sort_values("datetime").to_dict("records")
        position, open_trade = 0, 0.0
        for i, row in enumerate(rows):
            result = position * (row["close"] / rows[i - 1]["close"] - 1) if i else 0.0
            open_trade += result
            wanted = row["prediction"] if i < len(rows) - 1 else 0
            if wanted != position:
                result -= cost * abs(wanted - position)
                if position != 0:
                    trades.append(open_trade - 2 * cost)  # paid on the way in and on the way out
                open_trade = 0.0
            changes.append(abs(wanted - position))
            position = wanted
            in_position += position != 0
            flows.setdefault(row["datetime"], []).append(result)
        intervals += len(rows) - 1
    times = sorted(flows)
    count = frame["symbol"].nunique()
    returns = [max(sum(flows[time]) / count, -1.0) for time in times]
    equity, peak, drawdown = 1.0, 1.0, 0.0
    for value in returns:
        equity *= 1 + value
        peak = max(peak, equity)
        drawdown = min(drawdown, equity / peak - 1)
    years = (times[-1] - times[0]) / pd.Timedelta(days=365.25)
    a_year = (len(times) - 1) / years
    mean = sum(returns) / len(returns)
    deviation = math.sqrt(sum((r - mean) ** 2 for r in returns) / (len(returns) - 1))
    downside = math.sqrt(sum(min(r, 0) ** 2 for r in returns) / len(returns))
    gains, losses = sum(t for t in trades if t > 0), -sum(t for t in trades if t < 0)
    return {
        "sharpe": mean / deviation * math.sqrt(a_year),
        "sortino": mean / downside * math.sqrt(a_year),
        "max_drawdown": drawdown,
        "hit_rate": sum(t > 0 for t in trades) / len(trades),
        "profit_factor": gains / losses,
        "trades": len(trades),
        "turnover": sum(changes) / len(changes),
        "exposure": in_position / intervals,
        "total_return": equity - 1,
    }


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("cost_bps", [0.0, 7.5])
def test_against_slow_bookkeeping(seed, cost_bps):
    frame = random_bars(seed)
    assert backtest(frame, cost_bps).metrics == pytest.approx(slow_backtest(frame, cost_bps))


def test_costs_of_entering_reversing_and_leaving():
    cost = 0.001
    result = backtest(bars([100, 110, 110, 99, 99], [1, -1, -1, 0, 1]), cost_bps=10)
    expected = [-cost, 0.1 - 2 * cost, 0.0, 0.1 - cost, 0.0]  # the last prediction has no bar to earn in
    assert result.equity["equity"].to_numpy() == pytest.approx(np.cumprod([1 + value for value in expected]))
    assert result.metrics["trades"] == 2
    assert result.metrics["turnover"] == pytest.approx((1 + 2 + 0 + 1 + 0) / 5)
    assert result.metrics["exposure"] == pytest.approx(3 / 4)
    assert result.metrics["hit_rate"] == 1.0
    assert result.metrics["profit_factor"] is None  # no trade lost


def test_a_position_is_closed_at_the_symbols_last_bar():
    result = backtest(bars([100, 100, 100], [1, 1, 1]), cost_bps=10)
    assert result.metrics["total_return"] == pytest.approx(0.999 * 0.999 - 1)
    assert result.metrics["trades"] == 1


def test_a_gap_is_held_through():
    near, far = bars([100, 100, 120], [1, 1, 0]), bars([100, 100, 120], [1, 1, 0], steps=[0, 1, 500])
    assert backtest(far, 0).metrics["total_return"] == pytest.approx(backtest(near, 0).metrics["total_return"])
    assert backtest(far, 0).metrics["total_return"] == pytest.approx(0.2)


def test_no_position_leaks_from_one_symbol_into_the_next():
    long, flat = bars([100, 110, 121], [1, 1, 1], "AAA"), bars([5, 50, 500], [0, 0, 0], "BBB")
    together = backtest(pd.concat([long, flat]), 0)
    assert together.equity["equity"].tolist() == pytest.approx([1, 1.05, 1.05**2])


def test_half_the_portfolio_earns_nothing_while_its_symbol_has_no_bar():
    first, second = bars([100, 110], [1, 0], "AAA"), bars([100, 110], [1, 0], "BBB", steps=[1, 2])
    assert backtest(pd.concat([first, second]), 0).equity["equity"].tolist() == pytest.approx([1, 1.05, 1.05**2])


def test_annualised_by_the_real_spacing():
    frame = random_bars(3, symbols=1)
    quick = backtest(frame, 5).metrics
    slow = backtest(frame.assign(datetime=START + (frame["datetime"] - START) * 4), 5).metrics
    for key in ("sharpe", "sortino"):
        assert slow[key] == pytest.approx(quick[key] / 2)
    for key in ("max_drawdown", "total_return", "trades"):
        assert slow[key] == quick[key]


def test_never_trading_leaves_ratios_undefined():
    metrics = backtest(bars([100, 90, 110], [0, 0, 1]), 5).metrics
    for key in ("sharpe", "sortino", "hit_rate", "profit_factor"):
        assert metrics[key] is None
    for key in ("max_drawdown", "trades", "turnover", "exposure", "total_return"):
        assert metrics[key] == 0


def test_a_single_bar_cannot_be_traded():
    metrics = backtest(bars([100], [1]), 5).metrics
    assert (metrics["trades"], metrics["exposure"], metrics["sharpe"]) == (0, None, None)


def test_ruin_is_final():
    result = backtest(bars([100, 250, 100, 50], [-1, -1, -1, -1]), 0)
    assert result.equity["equity"].tolist() == [1, 0, 0, 0]
    assert (result.metrics["max_drawdown"], result.metrics["total_return"]) == (-1, -1)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), cost_bps=st.floats(0, 50))
def test_trades_add_up_to_the_portfolio(seed, cost_bps):
    frame = random_bars(seed, symbols=2, length=12)
    result = backtest(frame, cost_bps)
    free = backtest(frame, 0.0)
    returns = np.diff(np.log(np.concatenate([[1.0], result.equity["equity"]])))
    untaxed = np.diff(np.log(np.concatenate([[1.0], free.equity["equity"]])))
    paid = (np.expm1(untaxed) - np.expm1(returns)).sum()
    assert paid == pytest.approx(result.metrics["turnover"] * len(frame) * cost_bps / 1e4 / 2, abs=1e-9)
    assert result.metrics["turnover"] * len(frame) == pytest.approx(2 * result.metrics["trades"])


@pytest.mark.parametrize("close", [0.0, -1.0, float("nan"), float("inf")])
def test_a_close_that_is_not_a_price(close):
    frame = bars([100, close, 100], [1, 1, 1], "XRP")
    with pytest.raises(DataError, match=r"XRP at 2021-03-01 00:30:00\+00:00: close = .*: expected a price above 0"):
        backtest(frame, 5)
