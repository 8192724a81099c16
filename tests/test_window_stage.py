"""The window stage: what it writes, and what changes which file."""

import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from barcast.config import validate
from barcast.data.dataset import DatasetConfig, TimeSeriesDataset
from barcast.data.frames import SPLITS, feature_columns
from barcast.data.label_weights import add_weights
from barcast.data.synthetic import synthetic_splits, write_splits
from barcast.errors import ConfigError, DataError
from barcast.paths import Paths
from barcast.stages.window import WindowStageConfig, write_windows

CONFIG = {"horizons": [5], "weights": "both", "window": {"seq_len": 10, "max_gap": "2h"}}


@pytest.fixture
def paths(tmp_path):
    paths = Paths(tmp_path)
    write_splits(synthetic_splits(seed=1, n_rows=(400, 200, 201), n_features=6), paths.splits)
    return paths


def lay_out(paths, weights="both", **window):
    config = {**CONFIG, "weights": weights, "window": {**CONFIG["window"], **window}}
    write_windows(validate(WindowStageConfig, config, "window.yaml"), paths)
    return {p.relative_to(paths.windows).as_posix(): p.read_bytes() for p in paths.windows.rglob("*") if p.is_file()}


def test_windows_labels_and_index_come_from_the_same_rows(paths):
    lay_out(paths)
    for split in SPLITS:
        frame = pd.read_parquet(paths.splits / f"{split}_scaled.parquet")
        X, y, meta = TimeSeriesDataset(DatasetConfig(path=str(paths.windows), horizon=5)).get_split(split)
        features = feature_columns(frame.columns)
        assert json.loads((paths.windows / split / "columns.json").read_text())["features"] == features
        for i in (0, len(X) // 2, len(X) - 1):
            row = meta["row"][i]
            np.testing.assert_array_equal(X[i], frame[features].to_numpy(np.float32)[row - 9 : row + 1])
            assert y[i] == frame["label_h5"][row]
            assert (meta["symbol"][i], meta["close"][i]) == (frame["symbol"][row], frame["close"][row])
            assert frame["symbol"][row - 9 : row + 1].nunique() == 1


def test_the_same_splits_give_the_same_bytes(paths):
    assert lay_out(paths) == lay_out(paths)


def test_every_window_of_every_split_is_kept(paths):
    lay_out(paths)
    for split in SPLITS:
        symbols = pd.read_parquet(paths.splits / f"{split}_scaled.parquet")["symbol"]
        whole = [end for end in range(9, len(symbols)) if symbols[end - 9 : end + 1].nunique() == 1]
        assert np.load(paths.windows / split / "ends.npy").tolist() == whole


def unlabel(paths, split, rows):
    """Make the outcome of some rows unknown, as at the end of a symbol's bars."""
    file = paths.splits / f"{split}_scaled.parquet"
    frame = pd.read_parquet(file).astype({"label_h5": "Int8", "bars_to_hit_h5": "Int32"})
    frame.loc[rows, [name for name in frame if name.endswith("_h5")]] = pd.NA
    frame.to_parquet(file)


def uniqueness(frame):
    """Bar by bar: of each label, the mean over its bars of one over the labels that share the bar."""
    found = np.full(len(frame), np.nan)
    for _, own in frame.groupby("symbol"):
        offsets = own["bars_to_hit_h5"].to_numpy(float, na_value=np.nan)
        bars = [set(range(t + 1, t + 1 + int(n))) if n == n else set() for t, n in enumerate(offsets)]
        sharing = Counter(bar for label in bars for bar in label)
        for row, label in zip(own.index, bars, strict=True):
            if label:
                found[row] = np.mean([1 / sharing[bar] for bar in label])
    return found


@pytest.mark.parametrize("kind", ["none", "uniqueness", "quality", "both"])
def test_labels_are_weighed_by_the_chosen_kind(paths, kind):
    unlabel(paths, "val", range(90, 100))
    lay_out(paths, weights=kind)
    for split in SPLITS:
        frame = pd.read_parquet(paths.splits / f"{split}_scaled.parquet")
        expected = {
            "none": np.ones(len(frame)),
            "uniqueness": uniqueness(frame),
            "quality": frame["quality_h5"],
            "both": frame["sample_weight_h5"],
        }[kind]
        records = np.load(paths.windows / f"labels/{split}_h5.npy")
        known = frame["label_h5"].notna().to_numpy()
        np.testing.assert_allclose(records["sample_weight"][known], np.asarray(expected)[known], rtol=1e-6)
        assert not records["sample_weight"][~known].any()
    assert np.load(paths.windows / "labels/val_h5.npy")["known"].sum() == 190


def test_both_is_the_product_of_the_two_factors_up_to_their_mean_over_train(paths):
    splits = {split: pd.read_parquet(paths.splits / f"{split}_scaled.parquet") for split in SPLITS}
    add_weights(splits, [5])  # as `prepare` does
    write_splits(splits, paths.splits)
    weights = {}
    for kind in ("uniqueness", "quality", "both"):
        lay_out(paths, weights=kind)
        weights[kind] = {split: np.load(paths.windows / f"labels/{split}_h5.npy")["sample_weight"] for split in SPLITS}
    mean = (weights["uniqueness"]["train"] * weights["quality"]["train"].astype(float)).mean()
    for split in SPLITS:
        product = weights["uniqueness"][split] * weights["quality"][split] / mean
        np.testing.assert_allclose(weights["both"][split], product, rtol=1e-5)


def put(paths, column, row, value, split="val"):
    """Change one value of a split file; returns the row's name in messages."""
    file = paths.splits / f"{split}_scaled.parquet"
    frame = pd.read_parquet(file).astype({column: "Float64"})
    frame.loc[row, column] = value
    frame.to_parquet(file)
    return rf"{split}_scaled\.parquet: {frame['symbol'][row]} {frame['datetime'][row].isoformat()}".replace("+", r"\+")


@pytest.mark.parametrize(
    ("kind", "column", "value", "shown", "expected"),
    [
        ("uniqueness", "bars_to_hit_h5", 0, "0.0", "a whole number from 1 up, or no label"),
        ("quality", "quality_h5", None, "<NA>", "a finite number from 0 up, or no label"),
        ("quality", "quality_h5", -0.5, "-0.5", "a finite number from 0 up, or no label"),
    ],
)
def test_a_label_that_can_not_be_weighed_is_named_before_anything_is_written(
    paths, kind, column, value, shown, expected
):
    lay_out(paths, weights=kind)
    where = put(paths, column, 60, value)
    before = {file: file.stat().st_mtime_ns for file in paths.windows.rglob("*")}
    remedy = f"fix or drop the row, or set label.weights to another value than '{kind}'"
    with pytest.raises(DataError, match=rf"{where}: {column} = {shown}: expected {expected}; {remedy}$"):
        lay_out(paths, weights=kind)
    assert {file: file.stat().st_mtime_ns for file in paths.windows.rglob("*")} == before
    lay_out(paths, weights="none")
    lay_out(paths, weights="both")


def test_a_row_without_a_label_needs_no_weight(paths):
    unlabel(paths, "val", [60])
    lay_out(paths, weights="uniqueness")
    lay_out(paths, weights="quality")


@pytest.mark.parametrize("kind", ["none", "uniqueness", "quality"])
def test_the_kind_of_weights_changes_the_labels_records_and_no_other_file(paths, kind):
    both, other = lay_out(paths), lay_out(paths, weights=kind)
    assert {name for name in both if both[name] != other[name]} == {f"labels/{split}_h5.npy" for split in SPLITS}


def test_an_unknown_kind_of_weights_is_refused(paths):
    with pytest.raises(ConfigError, match=r"weights = 'unique': expected 'none', 'uniqueness', 'quality' or 'both'"):
        lay_out(paths, weights="unique")


def test_another_horizon_adds_files_and_changes_none(paths):
    before = lay_out(paths)
    config = {**CONFIG, "horizons": [5, 20]}
    write_windows(validate(WindowStageConfig, config, "window.yaml"), paths)
    for name, content in before.items():
        assert (paths.windows / name).read_bytes() == content
    assert (paths.windows / "labels/train_h20.npy").is_file()


def test_missing_splits_name_the_stage_to_run(paths):
    (paths.splits / "val_scaled.parquet").unlink()
    with pytest.raises(DataError, match=r"val_scaled\.parquet: no such file; run `dvc repro prepare`"):
        lay_out(paths)
    assert not paths.windows.exists()


def test_a_split_without_a_whole_window_is_named(paths):
    with pytest.raises(DataError, match=r"train: no run of 300 bars without a gap above 2h; lower window.seq_len"):
        lay_out(paths, seq_len=300)
    assert not paths.windows.exists()
