"""Splits made elsewhere: the 126-column form passes as it is, and each broken rule is named."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from barcast.data.frames import feature_columns
from barcast.data.split_files import load_splits
from barcast.data.synthetic import synthetic_splits, write_splits
from barcast.errors import DataError, LeakageError

HORIZONS, SYMBOLS = [5, 20], ["MES", "MGC"]


@pytest.fixture(scope="module")
def made():
    return synthetic_splits(seed=1, n_rows=(301, 80, 81))


@pytest.fixture
def load(made, tmp_path):
    """Write the splits, changed by a function, and load them."""

    def run(change=None, symbols=SYMBOLS, horizons=HORIZONS):
        frames = {name: frame.copy() for name, frame in made.items()}
        if change:
            frames = change(frames) or frames
        write_splits(frames, tmp_path)
        return load_splits(tmp_path, symbols, horizons)

    return run


def put(column, value, split="val", row=7):
    def change(frames):
        frame = frames[split]
        if isinstance(value, float) and not pd.api.types.is_float_dtype(frame[column].dtype):
            frame[column] = frame[column].astype(float)
        frame.loc[row, column] = value

    return change


def retype(column, function, splits=("train", "val", "test")):
    def change(frames):
        for name in splits:
            frames[name][column] = function(frames[name][column])

    return change


def drop(*columns, splits=("train", "val", "test")):
    return lambda frames: {n: f.drop(columns=list(columns)) if n in splits else f for n, f in frames.items()}


def test_the_126_columns_come_through_unchanged(made, load):
    splits = load()
    for name, frame in made.items():
        assert splits[name].shape == frame.shape
        assert frame.shape[1] == 126
        pd.testing.assert_frame_equal(splits[name], frame, check_dtype=False)
        assert splits[name]["datetime"].dtype == "datetime64[ns, UTC]"
        assert (splits[name]["label_h5"].dtype, splits[name]["bars_to_hit_h20"].dtype) == ("Int8", "Int32")
        assert splits[name]["f000"].dtype == np.float32
    assert feature_columns(splits["train"].columns) == [f"f{number:03d}" for number in range(107)]


def test_rows_in_any_order_are_sorted(made, load):
    splits = load(lambda frames: {n: f.sample(frac=1, random_state=0) for n, f in frames.items()})
    pd.testing.assert_frame_equal(splits["train"], made["train"], check_dtype=False)


@pytest.mark.parametrize(
    "spell",
    [
        lambda times: times.dt.tz_localize(None),
        lambda times: times.dt.tz_convert("Asia/Tokyo"),
        lambda times: times.dt.as_unit("s"),
        lambda times: times.map(pd.Timestamp.isoformat),
    ],
)
def test_times_of_any_spelling_become_utc(made, load, spell):
    splits = load(retype("datetime", spell))
    pd.testing.assert_series_equal(splits["val"]["datetime"], made["val"]["datetime"])


def test_only_the_wanted_symbols_are_kept(made, load):
    splits = load(symbols=["MGC"])
    assert {name: len(split) for name, split in splits.items()} == {
        name: (frame["symbol"] == "MGC").sum() for name, frame in made.items()
    }
    assert splits["test"].index.tolist() == list(range(len(splits["test"])))


def test_other_horizons_are_accepted_but_are_no_features(load):
    splits = load(horizons=[5])
    assert splits["train"].shape[1] == 126
    assert len(feature_columns(splits["train"].columns)) == 107


def test_touch_type_and_categories_may_be_there(load):
    def change(frames):
        for frame in frames.values():
            frame["touch_type_h5"] = "up"
            frame["symbol"] = frame["symbol"].astype("category")

    splits = load(change)
    assert "touch_type_h5" in splits["val"]
    assert splits["val"]["symbol"].dtype == "str"


def test_an_unknown_outcome_is_null_in_all_its_columns(load):
    def change(frames):
        frames["test"].loc[:4, [c for c in frames["test"] if c.endswith("_h5")]] = np.nan

    labels = load(change)["test"]["label_h5"]
    assert labels.isna().sum() == 5
    assert labels.dtype == "Int8"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("volume"), r"train_scaled.parquet: column 'volume' is missing; expected datetime, symbol, open"),
        (drop("f003", splits=["val"]), r"val_scaled.parquet: column 'f003' is missing, train has it; write the same"),
        (drop("f003", splits=["train"]), r"train_scaled.parquet: column 'f003' is missing, (val|test) has it"),
        (drop("mae_h20"), r"column 'mae_h20' is missing, but label_h20 is there"),
        (drop(*[f"f{n:03d}" for n in range(107)]), r"train_scaled.parquet: no feature; all columns are keys"),
        (put("f003", np.nan), r"val_scaled.parquet: MES 20.*T.*\+00:00: f003 = nan: expected a finite number"),
        (put("f003", np.inf, "test", 50), r"test_scaled.parquet: MGC 20.*: f003 = inf: expected a finite number"),
        (
            retype("f003", lambda column: column.astype(float).mask(column.index == 7, 1e39)),
            r"train_scaled.parquet: MES 20.*: f003 = 1e\+39: expected a finite number, in float32 as well; fix",
        ),
        (put("close", 0.0), r"val_scaled.parquet: MES 20.*: close = 0.0: expected a raw price above 0"),
        (put("volume", np.nan), r"volume = nan: expected a finite number"),
        (put("label_h5", 2), r"val_scaled.parquet: MES 20.*: label_h5 = 2: expected -1, 0, 1 or null"),
        (put("label_h20", 0.5), r"label_h20 = 0.5: expected -1, 0, 1 or null"),
        (put("bars_to_hit_h5", -1), r"bars_to_hit_h5 = -1: expected a whole number from 0"),
        (put("bars_to_hit_h5", 1.5), r"bars_to_hit_h5 = 1.5: expected a whole number from 0"),
        (
            retype("bars_to_hit_h5", lambda column: column.astype(float).mask(column.index == 7, 3e9)),
            r"bars_to_hit_h5 = 3000000000.0: expected a whole number from 0 to 2147483647",
        ),
        (put("bars_to_hit_h5", np.nan), r"bars_to_hit_h5 = nan: expected a whole number from 0"),
        (
            put("sample_weight_h5", -0.1),
            r"sample_weight_h5 = -0.1.*: expected a finite weight from 0 up on a labelled row",
        ),
        (
            retype("sample_weight_h20", lambda column: column.astype(float) * 1e39),
            r"sample_weight_h20 = .*e\+3\d: expected a finite weight",
        ),
        (
            retype("label_h20", lambda column: column.astype(float) * np.nan, splits=["test"]),
            r"test_scaled.parquet: label_h20 is null in all 81 rows; give more rows, or drop 20 from horizons",
        ),
        (put("sample_weight_h20", np.nan), r"sample_weight_h20 = nan: expected a finite weight"),
        (put("mfe_h20", np.inf), r"mfe_h20 = inf: expected a finite number or null"),
        (retype("f003", lambda column: column.astype(str)), r"column 'f003' has type str; convert it to a number"),
        (retype("datetime", lambda column: column.astype("int64")), r"datetime has type int64; write timestamps"),
        (retype("datetime", lambda column: column.astype(str) + "?"), r"row 0: datetime = '.*\?' can't be read"),
        (put("datetime", pd.NaT), r"val_scaled.parquet: row 7: datetime is missing"),
        (put("symbol", None), r"val_scaled.parquet: row 7: symbol is missing"),
        (lambda frames: {**frames, "val": frames["val"].iloc[:0]}, r"val_scaled.parquet: no rows"),
        (
            lambda frames: {**frames, "val": pd.concat([frames["val"], frames["val"].iloc[[3]]])},
            r"val_scaled.parquet: MES 20.*: datetime = 20.*: expected each time once per symbol",
        ),
    ],
)
def test_a_broken_rule_is_named(load, change, message):
    with pytest.raises(DataError, match=message) as caught:
        load(change)
    assert "\n" not in str(caught.value)


def test_a_repeated_column_is_named(load, tmp_path):
    load()
    table = pq.read_table(tmp_path / "test_scaled.parquet")
    pq.write_table(table.append_column("f002", table["f003"]), tmp_path / "test_scaled.parquet")
    with pytest.raises(DataError, match=r"test_scaled.parquet: column 'f002' occurs 2 times; keep one"):
        load_splits(tmp_path, SYMBOLS, HORIZONS)


def test_a_missing_horizon_names_the_horizons_of_the_file(load):
    with pytest.raises(DataError, match=r"no label_h10; its horizons are: 5, 20; set horizons in params.yaml"):
        load(horizons=[5, 10])


def test_a_missing_symbol_names_the_symbols_of_the_file(load):
    with pytest.raises(DataError, match=r"train_scaled.parquet: no rows of symbol 'ES'; it has: MES, MGC"):
        load(symbols=["MES", "ES"])

    def only_mes(frames):
        frames["test"] = frames["test"][frames["test"]["symbol"] == "MES"]

    with pytest.raises(DataError, match=r"test_scaled.parquet: no rows of symbol 'MGC'; it has: MES"):
        load(only_mes)


def test_splits_out_of_order_are_a_leak(load):
    def overlap(frames):
        moved = frames["val"]["symbol"] == "MGC"
        frames["val"].loc[moved, "datetime"] -= pd.Timedelta(days=60)

    with pytest.raises(
        LeakageError,
        match=r"val of MGC starts 20.*, but train of M.* ends 20.*; split all symbols at the same times",
    ):
        load(overlap)
    with pytest.raises(LeakageError, match=r"test of M.* starts 20.*, but val of M.* ends 20"):
        load(lambda frames: {**frames, "val": frames["test"], "test": frames["val"]})


def test_a_split_may_not_start_before_another_symbol_has_ended_the_one_before(load):
    def overlap(frames):
        for frame in frames.values():  # MES as a whole later than MGC: each is in order, together they overlap
            frame.loc[frame["symbol"] == "MES", "datetime"] += pd.Timedelta(days=60)

    message = r"val of MGC starts 20.*\+00:00, but train of MES ends 20.*\+00:00; split all symbols at the same times"
    with pytest.raises(LeakageError, match=message):
        load(overlap)
    load(overlap, symbols=["MES"])


def test_missing_and_unreadable_files_are_named(load, tmp_path):
    load()
    (tmp_path / "val_scaled.parquet").write_text("no parquet")
    with pytest.raises(DataError, match=r"val_scaled.parquet: can't be read as Parquet"):
        load_splits(tmp_path, SYMBOLS, HORIZONS)
    (tmp_path / "val_scaled.parquet").unlink()
    with pytest.raises(DataError, match=r"val_scaled.parquet: no such file; .* needs train_scaled.parquet, val_scaled"):
        load_splits(tmp_path, SYMBOLS, HORIZONS)
    with pytest.raises(DataError, match=r"val_scaled.parquet: no such file; run `dvc repro prepare`$"):
        load_splits(tmp_path, SYMBOLS, HORIZONS, prepared=True)
