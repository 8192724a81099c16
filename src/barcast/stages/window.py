"""`window`: base rows, window ends and labels, laid out to be memory-mapped.

data/windows/{train,val,test}/rows.npy      [R, F] float32, sorted by symbol and time
                              ends.npy      [N] int64, the row of each window's last bar
                              index.parquet [R] datetime, symbol, close
                              columns.json  names of the F features, seq_len
data/windows/train/clipped.npy              records: row, column, value: what the scaler's clip cut off
data/windows/labels/{split}_h{n}.npy        [R] records: known, label, sample_weight, reach
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from barcast.config import Section, load_yaml, validate
from barcast.data.labels import Weights, sample_weights
from barcast.data.splits import feature_columns
from barcast.data.tables import clipped_file, split_file, symbol_slices
from barcast.data.windows import CLIPPED, WindowConfig, pack_labels, window_ends
from barcast.errors import DataError
from barcast.files import atomic_dir, write_json
from barcast.paths import SPLITS, Paths
from barcast.stages._main import run_stage


class WindowStageConfig(Section):
    """What `experiments/specs/window.yaml` holds."""

    horizons: list[Annotated[int, Field(ge=1)]]
    weights: Weights
    window: WindowConfig


def write_windows(config: WindowStageConfig, paths: Paths) -> None:
    """Lay out every split.

    Raises:
        DataError: a split is missing or holds no whole window.
    """
    with atomic_dir(paths.windows) as folder:
        for split in SPLITS:
            frame = _read_split(split_file(paths.splits, split))
            count = _write_split(frame, split, config.window, folder)
            _write_labels(frame, split, config, folder)
            if split == "train":
                _write_clipped(feature_columns(frame.columns), paths, folder)
            print(f"{split}: {count:,} windows of {config.window.seq_len} bars over {len(frame):,} rows")


def _read_split(file: Path) -> pd.DataFrame:
    if not file.is_file():
        raise DataError(f"{file}: no such file; run `dvc repro prepare`")
    return pd.read_parquet(file)


def _write_split(frame: pd.DataFrame, split: str, config: WindowConfig, folder: Path) -> int:
    target = folder / split
    target.mkdir()
    features = feature_columns(frame.columns)
    codes, _ = pd.factorize(frame["symbol"])
    times = frame["datetime"].dt.as_unit("ns").astype("int64").to_numpy()
    ends = window_ends(codes, times, config.seq_len, config.max_gap_ns)
    if len(ends) == 0:
        raise DataError(
            f"{split}: no run of {config.seq_len} bars without a gap above {config.max_gap}; "
            "lower window.seq_len or raise window.max_gap"
        )
    rows = np.ascontiguousarray(frame[features].to_numpy(np.float32))  # [R, F]
    np.save(target / "rows.npy", rows)
    np.save(target / "ends.npy", ends)
    frame[["datetime", "symbol", "close"]].to_parquet(target / "index.parquet", index=False, compression="zstd")
    write_json(target / "columns.json", {"features": features, "seq_len": config.seq_len})
    return len(ends)


def _write_labels(frame: pd.DataFrame, split: str, config: WindowStageConfig, folder: Path) -> None:
    target = folder / "labels"
    target.mkdir(exist_ok=True)
    for horizon in config.horizons:
        weight = _weights(frame, horizon, config.weights)
        packed = pack_labels(frame[f"label_h{horizon}"], weight, frame[f"bars_to_hit_h{horizon}"])
        np.save(target / f"{split}_h{horizon}.npy", packed)


def _weights(frame: pd.DataFrame, horizon: int, kind: Weights) -> pd.Series:
    """What each row's label weighs in training, `[R]`; any value where there is no label."""
    if kind == "both":
        return frame[f"sample_weight_h{horizon}"]
    if kind == "quality":
        return frame[f"quality_h{horizon}"]
    weight = np.ones(len(frame))
    if kind == "uniqueness":
        reach = frame[f"bars_to_hit_h{horizon}"].to_numpy(np.float64, na_value=np.nan)
        for rows in symbol_slices(frame["symbol"]).values():
            weight[rows] = sample_weights(reach[rows], np.ones(rows.stop - rows.start))
    return pd.Series(weight, frame.index)


def _write_clipped(features: list[str], paths: Paths, folder: Path) -> None:
    """The rows of the parquet file are the base rows. Splits made elsewhere have no such file, so no records."""
    file = clipped_file(paths.splits)
    cut = pd.read_parquet(file) if file.is_file() else pd.DataFrame({"row": [], "column": [], "value": []})
    records = np.zeros(len(cut), CLIPPED)
    records["row"], records["value"] = cut["row"], cut["value"]
    records["column"] = pd.Index(features).get_indexer(pd.Index(cut["column"]))
    np.save(folder / "train/clipped.npy", records)


def main() -> None:
    """Run the stage in the repository's root."""
    paths = Paths()
    spec = load_yaml(paths.spec("window"))
    write_windows(validate(WindowStageConfig, spec["config"], paths.spec("window"), "config"), paths)


if __name__ == "__main__":
    run_stage(main)
