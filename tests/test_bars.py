from __future__ import annotations

import math
import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.data import bar_files
from barcast.data.bars import bar_spacing, check_bars, find_gaps, load_bars, require_rows
from barcast.data.frames import KEYS, OHLCV
from barcast.data.synthetic import synthetic_bars
from barcast.errors import DataError

BASE = synthetic_bars(["BTC", "ETH"], 12, seed=1)


def store(frame: pd.DataFrame, file: Path) -> Path:
    if file.suffix == ".csv":
        frame.to_csv(file, index=False)
    else:
        frame.to_parquet(file, index=False)
    return file


def message(path: Path, symbols: list[str]) -> str:
    with pytest.raises(DataError) as caught:
        load_bars(path, symbols)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(row: int, **values: object) -> pd.DataFrame:
    frame = BASE.copy()
    for name, value in values.items():
        if isinstance(value, str):
            frame[name] = frame[name].astype(object)
        frame.loc[row, name] = value
    return frame


# ---- reading ----


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_one_file_gives_the_wanted_symbols_in_the_common_form(tmp_path: Path, suffix: str) -> None:
    file = store(BASE, tmp_path / f"bars.{suffix}")
    both = load_bars(file, ["ETH", "BTC", "ETH"])
    pd.testing.assert_frame_equal(both, BASE)
    assert [str(kind) for kind in both.dtypes] == ["datetime64[ns, UTC]", "str", *["float64"] * 5]
    eth = load_bars(file, ["ETH"])
    pd.testing.assert_frame_equal(eth, BASE[BASE["symbol"] == "ETH"].reset_index(drop=True))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rows_of_several_symbols_may_be_interleaved_and_columns_in_any_order(tmp_path: Path, suffix: str) -> None:
    mixed = BASE.sort_values(["datetime", "symbol"], ascending=[True, False]).assign(extra="x")
    file = store(
        mixed[["volume", "extra", "close", "open", "symbol", "high", "datetime", "low"]], tmp_path / f"b.{suffix}"
    )
    pd.testing.assert_frame_equal(load_bars(file, ["BTC", "ETH"]), BASE)


def test_a_folder_has_one_file_per_symbol_of_either_kind(tmp_path: Path) -> None:
    store(BASE[BASE["symbol"] == "BTC"].drop(columns="symbol"), tmp_path / "BTC.csv")
    store(BASE[BASE["symbol"] == "ETH"], tmp_path / "from_march.parquet")
    (tmp_path / "LTC.csv").write_text("this,is,never,read\n")
    (tmp_path / "README.md").write_text("about the files")
    pd.testing.assert_frame_equal(load_bars(tmp_path, ["BTC", "ETH"]), BASE)


def test_a_file_without_symbols_serves_the_one_wanted_symbol(tmp_path: Path) -> None:
    only = BASE[BASE["symbol"] == "BTC"].reset_index(drop=True)
    file = store(only.drop(columns="symbol"), tmp_path / "prices.parquet")
    pd.testing.assert_frame_equal(load_bars(file, ["BTC"]), only)
    text = message(file, ["BTC", "ETH"])
    assert text == (
        f"{file}: column 'symbol' is missing, and 2 symbols are wanted; "
        "add it, or give a folder with one file per symbol"
    )


@pytest.mark.parametrize(
    "column",
    [
        BASE["datetime"].dt.tz_localize(None),
        BASE["datetime"].dt.tz_convert("America/New_York"),
        BASE["datetime"].dt.as_unit("ms"),
        BASE["datetime"].dt.strftime("%Y-%m-%d %H:%M:%S"),
        BASE["datetime"].dt.tz_convert("Asia/Tokyo").map(str),
        BASE["datetime"].map(lambda time: time.strftime("%Y%m%dT%H%M%SZ")),
    ],
    ids=["naive", "new york", "milliseconds", "naive text", "text with an offset", "basic form"],
)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_times_without_a_zone_are_utc_and_others_are_converted(tmp_path: Path, suffix: str, column: pd.Series) -> None:
    file = store(BASE.assign(datetime=column), tmp_path / f"bars.{suffix}")
    pd.testing.assert_frame_equal(load_bars(file, ["BTC", "ETH"]), BASE)


def test_dates_whole_numbers_decimals_and_categories_are_converted(tmp_path: Path) -> None:
    days = pd.date_range("2020-01-01", periods=3).date
    prices = {"open": [10, 11, 12], "high": [12, 13, 14], "low": [9, 9, 9], "close": [11, 12, 13]}
    table = arrow.table(
        {
            "datetime": arrow.array(days, arrow.date32()),
            "symbol": arrow.array(["A"] * 3).dictionary_encode(),
            **{name: arrow.array(values, arrow.int32()) for name, values in prices.items()},
            "volume": arrow.array([Decimal("1.5"), Decimal(2), Decimal(3)], arrow.decimal128(10, 2)),
        }
    )
    parquet.write_table(table, tmp_path / "days.parquet")
    bars = load_bars(tmp_path / "days.parquet", ["A"])
    assert bars["datetime"].tolist() == [pd.Timestamp(day, tz="UTC") for day in days]
    assert bars["symbol"].tolist() == ["A"] * 3
    assert bars["volume"].tolist() == [1.5, 2.0, 3.0]
    assert set(bars[list(OHLCV)].dtypes.astype(str)) == {"float64"}


def test_symbols_that_look_like_numbers_or_nothing_stay_text(tmp_path: Path) -> None:
    frame = BASE.assign(symbol=BASE["symbol"].map({"BTC": "007", "ETH": "NA"}))
    bars = load_bars(store(frame, tmp_path / "bars.csv"), ["007", "NA"])
    assert bars["symbol"].unique().tolist() == ["007", "NA"]


def test_a_csv_whose_first_prices_are_whole_is_read_as_floats(tmp_path: Path) -> None:
    frame = synthetic_bars(["A"], 40_000, seed=2)
    frame.loc[:39_000, ["open", "high", "low", "close"]] = 100
    file = tmp_path / "bars.csv"
    text = frame.to_csv(index=False).replace("100.0,", "100,")
    file.write_text(text)
    pd.testing.assert_frame_equal(load_bars(file, ["A"]), frame)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_rows_read_at_a_time_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    mixed = BASE.sort_values(["datetime", "symbol"], ascending=[True, False])
    file = store(mixed, tmp_path / f"bars.{suffix}")
    monkeypatch.setattr(bar_files, "_CHUNK", 5)
    pd.testing.assert_frame_equal(load_bars(file, ["BTC", "ETH"]), BASE)
    store(mixed.assign(low=mixed["low"].where(mixed.index != 23, math.nan)), file)
    assert message(file, ["ETH"]).startswith(f"{file}: ETH, row 22 (2015-01-05 05:30:00+00:00): low = nan is not")


def test_text_far_down_a_large_csv_is_named_and_spoils_no_other_symbol(tmp_path: Path) -> None:
    frame = synthetic_bars(["A", "B"], 20_000, seed=2)
    text = frame.to_csv(index=False)
    file = tmp_path / "bars.csv"
    file.write_text(text[: text.rindex(",")] + ",many\n")  # the last volume, in the third block that Arrow reads
    pd.testing.assert_frame_equal(load_bars(file, ["A"]), frame[frame["symbol"] == "A"])
    assert f"{file}: B, row 39999 (" in message(file, ["B"])
    assert "volume = 'many' has type string, not number" in message(file, ["B"])


# ---- what is refused, by its message ----


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"open": math.nan}, "open = nan is not a finite number; fix or drop the row"),
        ({"volume": math.inf}, "volume = inf is not a finite number; fix or drop the row"),
        ({"low": 0.0}, "low = 0.0 is not above 0; fix or drop the row"),
        ({"close": -1.5}, "close = -1.5 is not above 0; fix or drop the row"),
        ({"volume": -3.0}, "volume = -3.0 is below 0; fix or drop the row"),
        ({"open": 2.0, "close": 3.0, "low": 1.0, "high": 2.5}, "high = 2.5 is below open = 2.0 or close = 3.0; fix"),
        ({"open": 2.0, "close": 3.0, "low": 2.5, "high": 4.0}, "low = 2.5 is above open = 2.0 or close = 3.0; fix"),
    ],
)
def test_a_bad_value_is_named(tmp_path: Path, suffix: str, values: dict[str, float], problem: str) -> None:
    file = store(changed(17, **values), tmp_path / f"bars.{suffix}")
    assert message(file, ["BTC", "ETH"]).startswith(f"{file}: ETH, row 17 (2015-01-05 02:30:00+00:00): {problem}")
    assert len(load_bars(file, ["BTC"])) == 12  # rows of other symbols are not checked


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_duplicate_and_unsorted_times_are_named(tmp_path: Path, suffix: str) -> None:
    at = f"{tmp_path}/bars.{suffix}: BTC, row 5"
    file = store(changed(5, datetime=BASE["datetime"][4]), tmp_path / f"bars.{suffix}")
    assert message(file, ["BTC"]) == (
        f"{at} (2015-01-05 02:00:00+00:00): the symbol has two rows with this time; drop one of them"
    )
    file = store(changed(5, datetime=pd.Timestamp("2014-01-01", tz="UTC")), file)
    assert message(file, ["BTC"]) == (
        f"{at} (2014-01-01 00:00:00+00:00): the time is before that of the symbol's row above; "
        "sort the file by datetime"
    )


@pytest.mark.parametrize(
    "text", ["01/02/2020", "now", "2020", "2020-13-01", "1577836800", "0001-01-01", "9999-12-31", ""]
)
def test_an_unreadable_time_is_named(tmp_path: Path, text: str) -> None:
    frame = BASE.assign(datetime=BASE["datetime"].map(str))
    frame.loc[17, "datetime"] = text
    file = store(frame, tmp_path / "bars.csv")
    problem = f"datetime = '{text}' can't be read as a UTC time; write it like 2020-01-31T09:30:00Z"
    assert message(file, ["BTC", "ETH"]) == f"{file}: ETH, row 17: {problem}"


def test_a_missing_or_far_time_of_a_parquet_file_is_named(tmp_path: Path) -> None:
    file = store(changed(3, datetime=pd.NaT), tmp_path / "bars.parquet")
    assert "BTC, row 3: datetime = 'NaT' can't be read as a UTC time" in message(file, ["BTC"])
    times = BASE["datetime"].dt.as_unit("us")
    times[4] = pd.Timestamp("9999-01-01", tz="UTC")
    store(BASE.assign(datetime=times), file)
    assert "BTC, row 4: datetime = '9999-01-01 00:00:00+00:00' can't be read as a UTC time" in message(file, ["BTC"])


def test_times_as_numbers_are_refused(tmp_path: Path) -> None:
    file = store(BASE.assign(datetime=np.arange(24)), tmp_path / "bars.parquet")
    problem = "datetime = 12 has type int64; write timestamps or ISO 8601 text"
    assert message(file, ["ETH"]) == f"{file}: ETH, row 12: {problem}"


@pytest.mark.parametrize("value", ["abc", "1,000.5", "true", "12 USD"])
def test_text_among_the_numbers_of_a_csv_is_named(tmp_path: Path, value: str) -> None:
    file = store(changed(14, close=value), tmp_path / "bars.csv")
    problem = f"close = '{value}' has type string, not number; write only numbers into the column"
    assert message(file, ["BTC", "ETH"]) == f"{file}: ETH, row 14 (2015-01-05 01:00:00+00:00): {problem}"
    pd.testing.assert_frame_equal(load_bars(file, ["BTC"]), BASE[:12])


def test_a_parquet_column_of_text_or_truth_values_is_refused(tmp_path: Path) -> None:
    file = store(BASE.assign(open=BASE["open"].map(str)), tmp_path / "bars.parquet")
    assert f"row 0 (2015-01-05 00:00:00+00:00): open = '{BASE['open'][0]}' has type " in message(file, ["BTC"])
    file = store(BASE.assign(volume=True), file)
    assert "row 0 (2015-01-05 00:00:00+00:00): volume = 'True' has type bool, not number" in message(file, ["BTC"])


def test_a_symbol_that_is_missing_or_no_text_is_named(tmp_path: Path) -> None:
    for file in (tmp_path / "bars.csv", tmp_path / "bars.parquet"):
        store(changed(7, symbol=None), file)
        assert message(file, ["BTC"]) == f"{file}: row 7: the symbol is missing; give every row its symbol"
    file = store(BASE.assign(symbol=1), tmp_path / "bars.parquet")
    assert message(file, ["BTC"]) == f"{file}: row 0: symbol = 1 has type int64; write the symbols as text"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("renamed", "remedy"),
    [
        ({"datetime": "date"}, "column 'datetime' is missing; rename 'date' to 'datetime'"),
        ({"datetime": "timestamp"}, "column 'datetime' is missing; rename 'timestamp' to 'datetime'"),
        ({"datetime": "Time"}, "column 'datetime' is missing; rename 'Time' to 'datetime'"),
        ({"open": "Open"}, "column 'open' is missing; rename 'Open' to 'open'"),
        ({"volume": "vol"}, "column 'volume' is missing; rename 'vol' to 'volume'"),
        ({"symbol": "ticker"}, "column 'symbol' is missing; rename 'ticker' to 'symbol'"),
        ({"low": "qqq"}, "column 'low' is missing; add it, the columns are: datetime, symbol, open, high, qqq, close"),
    ],
)
def test_a_missing_column_is_named_with_what_to_rename(
    tmp_path: Path, suffix: str, renamed: dict[str, str], remedy: str
) -> None:
    file = store(BASE.rename(columns=renamed), tmp_path / f"bars.{suffix}")
    assert message(file, ["BTC"]).startswith(f"{file}: {remedy}")


def test_a_repeated_column_is_named(tmp_path: Path) -> None:
    file = tmp_path / "bars.csv"
    file.write_text("datetime,open,high,low,close,volume,open\n2020-01-01,1,1,1,1,1,1\n")
    assert message(file, ["BTC"]) == f"{file}: column 'open' occurs 2 times; keep one"


def test_an_unknown_symbol_is_named_with_the_nearest(tmp_path: Path) -> None:
    file = store(BASE, tmp_path / "bars.parquet")
    assert message(file, ["BTC", "eth"]) == f"{file}: symbol 'eth' is missing; did you mean 'ETH'?"
    assert message(file, ["BTX"]) == f"{file}: symbol 'BTX' is missing; did you mean 'BTC'?"
    assert message(file, ["SPY"]) == f"{file}: symbol 'SPY' is missing; it has: BTC, ETH"
    assert message(file, []) == f"{file}: no symbol is wanted; list some under symbols in params.yaml"
    store(BASE.drop(columns="symbol")[:5], tmp_path / "solusd.csv")
    assert message(tmp_path, ["SOLUSD"]) == f"{tmp_path}: symbol 'SOLUSD' is missing; did you mean 'solusd'?"


def test_a_symbol_in_two_files_is_refused(tmp_path: Path) -> None:
    store(BASE, tmp_path / "all.parquet")
    store(BASE[:12].drop(columns="symbol"), tmp_path / "BTC.csv")
    text = message(tmp_path, ["BTC"])
    assert text == f"{tmp_path}: symbol 'BTC' is in BTC.csv and all.parquet; keep one"


def test_empty_and_unreadable_files_are_named(tmp_path: Path) -> None:
    header = tmp_path / "header.csv"
    header.write_text("datetime,symbol,open,high,low,close,volume\n")
    zero = tmp_path / "zero.parquet"
    zero.touch()
    for file in (header, zero, store(BASE[:0], tmp_path / "rowless.parquet")):
        assert message(file, ["BTC"]) == f"{file}: no bars; give a file with at least one row"
    junk = tmp_path / "junk.parquet"
    junk.write_bytes(b"no parquet at all")
    assert re.fullmatch(
        rf"{junk}: can't be read as parquet: .+; check that the file is whole and may be read", message(junk, ["BTC"])
    )
    ragged = tmp_path / "ragged.csv"
    ragged.write_text(header.read_text() + "2020-01-01,BTC,1,1\n")
    assert "can't be read as csv: CSV parse error: Row #2: Expected 7 columns, got 4" in message(ragged, ["BTC"])
    latin = tmp_path / "latin.csv"
    latin.write_bytes("datetime,symbol,öpen".encode("latin-1"))
    assert "can't be read as csv" in message(latin, ["BTC"])


def test_paths_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    gone, sheet = tmp_path / "gone.csv", tmp_path / "bars.xlsx"
    assert message(gone, ["A"]) == f"{gone}: no such file or folder; set data.path in params.yaml"
    sheet.touch()
    assert message(sheet, ["A"]) == f"{sheet}: files of bars end in .parquet or .csv, not '.xlsx'; convert the file"
    assert (
        message(tmp_path, ["A"])
        == f"{tmp_path}: the folder has no .parquet or .csv file; put one file per symbol there"
    )


def test_check_bars_names_columns_types_and_rows_of_a_frame() -> None:
    check_bars(BASE, "frame")
    cases = {
        "frame: column 'low' is missing; add it, the columns are: ": BASE.drop(columns="low"),
        "frame: no bars; give a file with at least one row": BASE[:0],
        "frame: BTC, row 0 (2015-01-05 00:00:00): datetime has type datetime64[ns]; convert it to datetime64[ns, ": (
            BASE.assign(datetime=BASE["datetime"].dt.tz_localize(None))
        ),
        "frame: BTC, row 0 (2015-01-05 00:00:00+00:00): open has type float32; convert it to float64": (
            BASE.astype({"open": "float32"})
        ),
        "frame: BTC, row 2 (2015-01-05 01:00:00+00:00): volume = -1.0 is below 0; fix or drop the row": (
            changed(2, volume=-1.0)
        ),
        "frame: BTC, row 3: the time is missing; give every row its time": changed(3, datetime=pd.NaT),
    }
    for expected, frame in cases.items():
        with pytest.raises(DataError) as caught:
            check_bars(frame, "frame")
        assert str(caught.value).startswith(expected)


# ---- properties against slow oracles ----

BREAKS = {
    "open": [math.nan, math.inf, 0.0, -2.0, 1e9],
    "high": [math.nan, math.inf, -1.0, 1e-9],
    "low": [math.nan, -math.inf, 0.0, 1e9],
    "close": [math.nan, 0.0, 1e-9],
    "volume": [math.nan, math.inf, -0.5],
}


def first_bad_row(frame: pd.DataFrame) -> int | None:
    """Row by row, in plain Python."""
    last: dict[str, pd.Timestamp] = {}
    seen: set[tuple[str, pd.Timestamp]] = set()
    for i, bar in enumerate(frame.itertuples(index=False)):
        key = (bar.symbol, bar.datetime)
        numbers = [bar.open, bar.high, bar.low, bar.close, bar.volume]
        named = isinstance(bar.symbol, str) and bar.symbol != ""
        ordered = key not in seen and bar.datetime >= last.get(bar.symbol, bar.datetime)  # false for NaT
        finite = all(math.isfinite(number) for number in numbers)
        encloses = bar.low <= bar.open <= bar.high and bar.low <= bar.close <= bar.high
        if not (named and ordered and finite and min(numbers[:4]) > 0 and bar.volume >= 0 and encloses):
            return i
        last[bar.symbol] = bar.datetime
        seen.add(key)
    return None


@given(
    values=st.lists(
        st.sampled_from([(name, value) for name, values in BREAKS.items() for value in values]).flatmap(
            lambda pair: st.tuples(st.just(pair), st.integers(0, 23))
        ),
        max_size=3,
    ),
    moves=st.lists(st.tuples(st.integers(0, 23), st.one_of(st.none(), st.integers(0, 11))), max_size=2),
    names=st.lists(st.tuples(st.integers(0, 23), st.sampled_from(["BTC", "ETH", "", None])), max_size=2),
    order=st.sampled_from(["symbol", "time"]),
)
@settings(max_examples=80, deadline=None)
def test_the_first_bad_row_is_the_one_that_a_slow_reading_finds(
    values: list[tuple[tuple[str, float], int]],
    moves: list[tuple[int, int | None]],
    names: list[tuple[int, str | None]],
    order: str,
) -> None:
    frame = BASE.copy() if order == "symbol" else BASE.sort_values(["datetime", "symbol"], ignore_index=True)
    for (name, value), row in values:
        frame.loc[row, name] = value
    for row, step in moves:
        frame.loc[row, "datetime"] = pd.NaT if step is None else BASE.loc[step, "datetime"]
    for row, name in names:
        frame.loc[row, "symbol"] = name
    bad = first_bad_row(frame)
    if bad is None:
        check_bars(frame, "frame")
        return
    with pytest.raises(DataError, match=rf"^frame: {frame['symbol'][bad]}, row {bad}[ :]"):
        check_bars(frame, "frame")


@given(st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=20), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_gaps_are_those_that_a_slow_walk_finds(steps: list[list[int]]) -> None:
    """Steps of 1 to 7 quarter hours: the spacing may be any of them, and gaps need not fit it."""
    quarter = pd.Timedelta("15min")
    parts = []
    for number, each in enumerate(steps):
        times = pd.Timestamp("2020-01-01", tz="UTC") + quarter * np.cumsum([0, *each])
        parts.append(pd.DataFrame({"datetime": times, "symbol": f"S{number}"}))
    frame = pd.concat(parts, ignore_index=True)
    expected = []
    for part, own in zip(parts, steps, strict=True):
        usual = sorted(own)[(len(own) - 1) // 2]
        assert bar_spacing(part["datetime"]) == usual * quarter
        for before, after in zip(part["datetime"][:-1], part["datetime"][1:], strict=True):
            inside = 0
            while before + (inside + 1) * usual * quarter < after:
                inside += 1
            if inside:
                expected.append((part["symbol"][0], before, after, inside))
    gaps = find_gaps(frame)
    assert list(gaps.columns) == ["symbol", "start", "end", "missing_bars"]
    assert list(gaps.itertuples(index=False, name=None)) == expected


def test_no_gaps_give_an_empty_table_and_one_bar_has_no_spacing() -> None:
    assert find_gaps(BASE).empty
    assert bar_spacing(pd.DatetimeIndex(BASE["datetime"])) == pd.Timedelta("30min")
    with pytest.raises(DataError, match="1 bars have no spacing; give at least two bars of one symbol"):
        bar_spacing(BASE["datetime"][:1])


def test_each_symbol_has_a_spacing_of_its_own() -> None:
    spacings = {"AAA": ("30min", 200), "BBB": ("1h", 100)}
    parts = [
        pd.DataFrame({"datetime": pd.date_range("2020-01-01", periods=count, freq=step, tz="UTC"), "symbol": symbol})
        for symbol, (step, count) in spacings.items()
    ]
    assert find_gaps(pd.concat(parts, ignore_index=True)).empty
    gaps = find_gaps(pd.concat([parts[0].drop(index=7), parts[1].drop(index=[3, 4])], ignore_index=True))
    assert gaps[["symbol", "missing_bars"]].to_numpy().tolist() == [["AAA", 1], ["BBB", 2]]
    with pytest.raises(DataError, match="BBB: 1 bars have no spacing; give at least two bars of one symbol"):
        find_gaps(pd.concat([parts[0], parts[1][:1]], ignore_index=True))


def test_too_few_rows_are_named_by_symbol_count_and_need() -> None:
    frame = BASE[:20]
    require_rows(frame, 8, "bars.csv", "a window of 8 bars")
    expected = (
        "bars.csv: symbol 'ETH' has 8 rows, a window of 9 bars needs 9; give longer bars, or ask for less in params"
    )
    with pytest.raises(DataError, match=re.escape(expected)):
        require_rows(frame, 9, "bars.csv", "a window of 9 bars")


def test_columns_of_the_common_form() -> None:
    assert [*KEYS, *OHLCV] == list(BASE.columns)
