"""The window stage: what it lays out, and what changes which file."""

import json

import numpy as np
import pandas as pd
import pytest

from barcast.config import validate
from barcast.data.splits import feature_columns
from barcast.data.synthetic import synthetic_splits, write_splits
from barcast.data.windows import DatasetConfig, TimeSeriesDataset
from barcast.errors import DataError
from barcast.paths import SPLITS, Paths
from barcast.stages.window import WindowStageConfig, write_windows

CONFIG = {"horizons": [5], "window": {"seq_len": 10, "max_gap": "2h", "train_stride": 1}}


@pytest.fixture
def paths(tmp_path):
    paths = Paths(tmp_path)
    write_splits(synthetic_splits(seed=1, n_rows=(400, 200, 201), n_features=6), paths.splits)
    return paths


def lay_out(paths, **window):
    config = {**CONFIG, "window": {**CONFIG["window"], **window}}
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


def test_a_stride_thins_the_training_windows_alone_and_keeps_one_grid(paths):
    full = lay_out(paths)
    ends = np.load(paths.windows / "train/ends.npy")
    thinned = lay_out(paths, train_stride=4)
    assert {name for name in full if full[name] != thinned[name]} == {"train/ends.npy"}
    kept = np.load(paths.windows / "train/ends.npy")
    assert kept.tolist() == [end for end in ends if end % 4 == 0]


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
