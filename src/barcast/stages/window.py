"""`window`: the split files to the window files that models read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from barcast.data.frames import SPLITS
from barcast.data.label_weights import check_weights
from barcast.data.split_files import split_file
from barcast.data.window_files import WindowStageConfig, pack_clipped_values, split_labels, split_windows
from barcast.errors import DataError
from barcast.files import atomic_dir, write_json
from barcast.paths import Paths
from barcast.stages._main import read_settings, run_stage


def write_windows(config: WindowStageConfig, paths: Paths) -> None:
    """Write the window files of every split; all of them or none.

    Raises:
        DataError: a split is missing or has no whole window, or `label.weights` can't weigh a label.
    """
    _check_splits(config, paths)
    clipped = pd.read_parquet(paths.clipped_values) if paths.clipped_values.is_file() else None
    with atomic_dir(paths.windows) as folder:
        for split in SPLITS:
            frame = pd.read_parquet(split_file(paths.splits, split))
            windows = split_windows(frame, split, config.window)
            if split == "train":
                windows["clipped.npy"] = pack_clipped_values(clipped, windows["columns.json"]["features"])
            for name, content in windows.items():
                _write(folder / split / name, content)
            for horizon in config.horizons:
                _write(folder / f"labels/{split}_h{horizon}.npy", split_labels(frame, horizon, config.weights))
            count, length = len(windows["ends.npy"]), config.window.seq_len
            print(f"{split}: {count:,} windows of {length} bars over {len(frame):,} rows")


def _check_splits(config: WindowStageConfig, paths: Paths) -> None:
    """Before anything is written: every split is there, and every label can be weighed."""
    for split in SPLITS:
        file = split_file(paths.splits, split)
        if not file.is_file():
            raise DataError(f"{file}: no such file; run `dvc repro prepare`")
        for horizon in config.horizons:
            names = ["datetime", "symbol", *(f"{kind}_h{horizon}" for kind in ("label", "bars_to_hit", "quality"))]
            check_weights(pd.read_parquet(file, columns=names), file, horizon, config.weights)


def _write(file: Path, content: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    if isinstance(content, np.ndarray):
        np.save(file, content)
    elif isinstance(content, pd.DataFrame):
        content.to_parquet(file, index=False, compression="zstd")
    else:
        write_json(file, content)


def main() -> None:
    """Run the stage at the repository root."""
    write_windows(read_settings(WindowStageConfig, "window", Paths()), Paths())


if __name__ == "__main__":
    run_stage(main)
