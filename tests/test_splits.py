"""Splits by time against brute force, and the scaler against NumPy."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.config import validate
from barcast.data.frames import feature_columns, isoformat, nanoseconds, symbol_slices
from barcast.data.label_weights import sample_weights
from barcast.data.scaler import Scaler, ScalerConfig
from barcast.data.split_files import write_split
from barcast.data.splits import SplitConfig, check_label_ends, check_purge, cut_times, split_frame, split_rows
from barcast.errors import ConfigError, DataError, LeakageError
from barcast.files import read_json, write_json

HOUR = 3_600_000_000_000
ROBUST = ScalerConfig(kind="robust", clip=5.0)


def split_config(purge=3, embargo=4, train=0.7, val=0.15, test=0.15):
    return SplitConfig(train=train, val=val, test=test, purge_bars=purge, embargo_bars=embargo)


def table(counts, seed=0, longest=3, missing=()):
    """Rows of several symbols with two features and labels of horizon 5, all ending together; `missing` drops rows."""
    rng = np.random.default_rng(seed)
    parts = []
    for symbol, count in counts.items():
        kept = np.setdiff1d(np.arange(count), missing)
        hours = max(counts.values()) - count + np.arange(count)
        hits = rng.integers(1, longest + 1, count)
        hits = np.minimum(hits, np.arange(count)[::-1])  # a label ends at a bar that is there
        label = rng.integers(-1, 2, count)
        known = hits > 0
        part = pd.DataFrame(
            {
                "datetime": pd.to_datetime(hours * HOUR, utc=True),
                "symbol": symbol,
                **dict.fromkeys(("open", "high", "low", "close"), 100.0),
                "volume": 1.0,
                "a": rng.normal(size=count).astype(np.float32),
                "b": rng.normal(size=count).astype(np.float32),
                "label_h5": pd.array(label, "Int8"),
                "bars_to_hit_h5": pd.array(hits, "Int32"),
                "quality_h5": rng.random(count).astype(np.float32),
            }
        )
        part.loc[~known, ["label_h5", "bars_to_hit_h5", "quality_h5"]] = pd.NA
        parts.append(part.iloc[kept])
    return pd.concat(parts, ignore_index=True).astype({"symbol": "str"})


times_of_symbols = st.lists(
    st.sets(st.integers(0, 400), min_size=20, max_size=200).map(lambda hours: np.array(sorted(hours)) * HOUR),
    min_size=1,
    max_size=3,
)


@settings(max_examples=60, deadline=None)
@given(
    times=times_of_symbols,
    purge=st.integers(0, 20),
    embargo=st.integers(0, 30),
    parts=st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 8)),
)
def test_splits_are_those_of_brute_force(times, purge, embargo, parts):
    train, val = parts[0] / sum(parts), parts[1] / sum(parts)
    config = split_config(purge, embargo, train, val, 1 - train - val)
    cuts = cut_times(times, config)
    union = sorted({int(time) for own in times for time in own})
    assert cuts[0] <= cuts[1]
    assert sum(time < cuts[0] for time in union) == min(round(len(union) * train), len(union) - 1)
    for own in times:
        sides = [own[own < cuts[0]], own[(own >= cuts[0]) & (own < cuts[1])], own[own >= cuts[1]]]
        expected = {
            "train": sides[0][: max(len(sides[0]) - purge, 0)],
            "val": sides[1][embargo:][: max(len(sides[1]) - embargo - purge, 0)],
            "test": sides[2][embargo:],
        }
        found = {name: own[rows] for name, rows in split_rows(own, cuts, config).items()}
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 99),
    counts=st.lists(st.integers(180, 230), min_size=1, max_size=3),
    missing=st.sets(st.integers(0, 179), max_size=30),
    purge=st.integers(3, 8),
    embargo=st.integers(0, 6),
)
def test_splits_are_disjoint_ordered_and_separated(seed, counts, missing, purge, embargo):
    names = ["AAA", "BBB", "CCC"][: len(counts)]
    frame = table(dict(zip(names, counts, strict=True)), seed, missing=list(missing))
    splits, report = split_frame(frame, split_config(purge, embargo), [5], longest=3, min_rows=1)
    cuts = [pd.Timestamp(report["cuts"][name]) for name in ("val", "test")]
    for symbol in names:
        bars = frame[frame["symbol"] == symbol]["datetime"]
        own = {name: split[split["symbol"] == symbol] for name, split in splits.items()}
        for earlier, later, cut in (("train", "val", cuts[0]), ("val", "test", cuts[1])):
            last, first = own[earlier]["datetime"].iloc[-1], own[later]["datetime"].iloc[0]
            assert last < cut <= first
            assert ((bars > last) & (bars < cut)).sum() == purge == report["splits"][earlier][symbol]["purged"]
            assert ((bars >= cut) & (bars < first)).sum() == embargo == report["splits"][later][symbol]["embargoed"]
            ends = own[earlier].index - own[earlier].index[0] + own[earlier]["bars_to_hit_h5"].to_numpy(float)
            assert bars.iloc[bars.searchsorted(own[earlier]["datetime"].iloc[0]) + int(np.nanmax(ends))] < cut
    kept = sum(len(split) for split in splits.values())
    dropped = [content for part in report["splits"].values() for content in part.values()]
    assert kept + sum(content["purged"] + content["embargoed"] for content in dropped) == len(frame)


def test_the_report_states_rows_times_labels_and_shares():
    frame = table({"AAA": 200, "BBB": 180})
    splits, report = split_frame(frame, split_config(), [5], longest=3, min_rows=1)
    own = splits["test"][splits["test"]["symbol"] == "BBB"]
    content = report["splits"]["test"]["BBB"]
    assert (content["first"], content["last"]) == (own["datetime"].min().isoformat(), own["datetime"].max().isoformat())
    assert content["rows"] == len(own)
    labels = own["label_h5"].dropna()
    assert content["labels"]["h5"]["labelled"] == len(labels) == len(own) - 1
    shares = content["labels"]["h5"]["shares"]
    assert shares == {str(c): pytest.approx(float((labels == c).mean())) for c in (-1, 0, 1)}
    assert report["config"] == split_config().model_dump()
    json.dumps(report, allow_nan=False)


def test_weights_use_only_their_own_split_and_symbol_and_have_mean_one_over_train():
    splits, _ = split_frame(table({"AAA": 300, "BBB": 250}), split_config(), [5], longest=3, min_rows=1)
    weights = splits["train"]["sample_weight_h5"]
    assert weights.dtype == np.float32
    assert weights.dropna().mean() == pytest.approx(1, abs=1e-6)

    def raw(name):
        own = [part for _, part in splits[name].groupby("symbol")]
        parts = [sample_weights(p["bars_to_hit_h5"].to_numpy(float, na_value=np.nan), p["quality_h5"]) for p in own]
        return np.concatenate(parts)

    divisor = np.nanmean(raw("train"))
    for name, split in splits.items():
        np.testing.assert_array_equal(split["sample_weight_h5"], (raw(name) / divisor).astype(np.float32))
        assert (split["sample_weight_h5"].isna() == split["label_h5"].isna()).all()


def test_a_train_split_without_labels_is_refused():
    frame = table({"AAA": 200})
    frame[["label_h5", "bars_to_hit_h5", "quality_h5"]] = pd.NA
    with pytest.raises(DataError, match=r"train: no row has a label_h5"):
        split_frame(frame, split_config(), [5], longest=3, min_rows=1)


def test_a_purge_shorter_than_the_longest_label_is_refused():
    check_purge(split_config(purge=3), 3)
    with pytest.raises(
        LeakageError, match=r"split\.purge_bars = 3: expected at least 4, .* raise split\.purge_bars to 4"
    ):
        split_frame(table({"AAA": 200}), split_config(purge=3), [5], longest=4, min_rows=1)


def test_a_label_that_ends_in_the_next_split_is_refused():
    frame = table({"AAA": 100})
    frame.loc[60, "bars_to_hit_h5"] = 10  # row 70 is the first of val
    message = r"AAA 1970-01-03T12:00:00\+00:00: bars_to_hit_h5 = 10: the label ends in the next split"
    with pytest.raises(LeakageError, match=message):
        split_frame(frame, split_config(), [5], longest=3, min_rows=1)
    frame.loc[60, "bars_to_hit_h5"] = 9
    split_frame(frame, split_config(), [5], longest=3, min_rows=1)


def test_the_bars_to_spare_after_the_last_label_are_counted():
    part = table({"AAA": 20})
    part["bars_to_hit_h5"] = pd.array([3] * 20, "Int32")
    assert check_label_ends(part, np.arange(20), 23, [5]) == 0
    assert check_label_ends(part, np.arange(20), 30, [5]) == 7
    part["bars_to_hit_h5"] = pd.array([pd.NA] * 20, "Int32")
    assert check_label_ends(part, np.arange(20), 20, [5]) == 19


def test_a_split_without_enough_rows_names_the_key_to_lower():
    frame = table({"AAA": 200, "BBB": 200})
    message = r"AAA: 3 rows are left in val, at least 12 are needed; lower split\.embargo_bars \(24\) or split\.purge"
    with pytest.raises(DataError, match=message):
        split_frame(frame, split_config(purge=3, embargo=24), [5], longest=3, min_rows=12)
    with pytest.raises(DataError, match=r"AAA: 0 rows are left in val, at least 1 are needed"):
        split_frame(frame, split_config(embargo=100), [5], longest=3, min_rows=0)


def test_a_symbol_that_starts_late_is_named():
    message = (
        r"BBB: 0 rows are left in train, at least 1 are needed; after the warm-up its bars last from 1970-01-07T16:00"
        r".* for every symbol val starts 1970-01-06T20:00:00.* and test .*; give more of its bars or take it out of"
    )
    with pytest.raises(DataError, match=message) as caught:
        split_frame(table({"AAA": 200, "BBB": 40}), split_config(), [5], longest=3, min_rows=1)
    assert "lower" not in str(caught.value)


def test_too_few_times_for_three_splits():
    with pytest.raises(DataError, match=r"2 different times"):
        cut_times([np.array([1, 2])], split_config())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val": 0.2}, r"split: expected train \+ val \+ test to be 1, they sum to 1.05"),
        ({"test": 0.0}, r"split.test = 0.0: expected greater than 0"),
        ({"purge_bars": -1}, r"split.purge_bars = -1"),
        ({"embargo_bars": 1.5}, r"split.embargo_bars = 1.5"),
    ],
)
def test_split_values_out_of_range_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        validate(SplitConfig, {**split_config().model_dump(), **change}, "params.yaml", "split")


@pytest.mark.parametrize("change", [{"kind": "minmax"}, {"clip": 0.0}])
def test_scaler_values_out_of_range_are_refused(change):
    with pytest.raises(ConfigError, match=f"scaler.{next(iter(change))} = "):
        validate(ScalerConfig, {**ROBUST.model_dump(), **change}, "params.yaml", "scaler")


def features(seed=0, rows=500):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "normal": rng.normal(3, 2, rows),
            "heavy": rng.standard_t(2, rows) * 1e-3,
            "constant": np.full(rows, 0.1),
            "rare": np.where(np.arange(rows) % 10 == 0, rng.normal(size=rows), 0.0),
        }
    )


@pytest.mark.parametrize("kind", ["robust", "standard"])
def test_the_scaler_is_the_plain_formula(kind):
    train, other = features(0), features(1)
    scaler = Scaler.fit(train, ScalerConfig(kind=kind, clip=4.0))
    found = scaler.transform(other)
    assert found.dtypes.eq(np.float32).all()
    for name in train:
        seen = train[name].to_numpy(np.float32).astype(float)
        if kind == "robust":
            center, scale = np.median(seen), np.quantile(seen, 0.75) - np.quantile(seen, 0.25)
        else:
            center, scale = seen.mean(), seen.std()
        if name == "constant":
            scale = 1.0
        elif scale == 0:  # most values are equal
            scale = seen.std()
        values = (other[name].to_numpy(np.float32) - center) / scale
        np.testing.assert_allclose(found[name], np.clip(values, -4, 4), rtol=1e-6, atol=1e-12)
    assert found["heavy"].abs().max() == 4.0


def test_the_scaler_makes_the_same_bytes_after_json_and_from_float32(tmp_path):
    scaler = Scaler.fit(features(0), ROBUST)
    write_json(tmp_path / "scaler.json", scaler.to_dict())
    again = Scaler.from_dict(read_json(tmp_path / "scaler.json"))
    assert again == scaler
    assert Scaler.fit(features(0).astype(np.float32), ROBUST) == scaler
    first, second = scaler.transform(features(1)), again.transform(features(1).astype(np.float32))
    assert first.to_numpy().tobytes() == second.to_numpy().tobytes()


def test_the_scaler_ignores_other_columns_and_needs_its_own():
    scaler = Scaler.fit(features(0), ROBUST)
    shuffled = features(1)[["rare", "constant", "heavy", "normal"]].assign(close=1.0)
    pd.testing.assert_frame_equal(scaler.transform(shuffled), scaler.transform(features(1)))
    with pytest.raises(DataError, match=r"scaler: column 'heavy' is missing"):
        scaler.transform(features(1).drop(columns="heavy"))


def test_features_are_neither_keys_nor_prices_nor_labels():
    columns = [
        "datetime",
        "symbol",
        "open",
        "high",
        "low",
        "close",
        "volume",
        "ret_5",
        "label_h5",
        "quality_h20",
        "h5_x",
    ]
    assert feature_columns([*columns, "Close", "MAE_H5", "x_h"]) == ["ret_5", "h5_x", "x_h"]


def test_the_rows_of_a_symbol_must_be_consecutive():
    assert symbol_slices(pd.Series(["A", "A", "B"])) == {"A": slice(0, 2), "B": slice(2, 3)}
    with pytest.raises(DataError, match="sort the table by symbol"):
        symbol_slices(pd.Series(["A", "B", "A"]))


def test_a_split_is_written_as_it_is_and_always_the_same(tmp_path):
    frame = table({"AAA": 50, "BBB": 40})
    for name in ("one", "two"):
        write_split(frame, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "one"), frame)


def test_times_are_utc_nanoseconds():
    times = pd.Series(pd.to_datetime(["2019-01-01T01:00:00+01:00", "2019-01-01T00:30:00Z"], utc=True)).dt.as_unit("s")
    assert [isoformat(time) for time in nanoseconds(times)] == [
        "2019-01-01T00:00:00+00:00",
        "2019-01-01T00:30:00+00:00",
    ]
    assert math.isclose(np.diff(nanoseconds(times))[0], HOUR / 2)
