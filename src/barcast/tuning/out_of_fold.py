"""What a model says of windows that it was not fitted on: its predictions on the validation parts of the folds.

Each part stops its fold's training early before it is predicted, as validation does in the pipeline.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from barcast.data.windows import TimeSeriesDataset
from barcast.models.base import Log, no_log
from barcast.models.registry import ModelRegistry
from barcast.tuning.folds import FoldConfig, cut_folds, open_fold, read_index
from barcast.tuning.scaling import FoldScaler, write_fold


def out_of_fold(
    model_name: str,
    config: Mapping[str, Any],
    dataset: TimeSeriesDataset,
    folds: FoldConfig,
    scaler: FoldScaler,
    log: Log = no_log,
) -> pd.DataFrame:
    """Fit a model anew on each purged fold inside train, and predict what comes after.

    Args:
        model_name: a name of `ModelRegistry`.
        config: the cell's config as plain values.
        dataset: windows; nothing but the train split is opened.
        folds: see `FoldConfig`.
        scaler: how the windows were scaled, for the refit on each fold.
        log: called with `fold` after each fold.

    Returns:
        One row a window of the validation parts: `fold, datetime, symbol, p_down, p_flat, p_up, label`.
    """
    dataset = dataset.only("train")
    split = dataset.split("train")
    index, times, symbols = read_index(split)
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        for fold in cut_folds(split.X.ends, split.reach, times, symbols, folds):
            data = open_fold(split, index, fold, write_fold(Path(folder), dataset, fold, scaler))
            model = ModelRegistry.create(model_name, config, dataset.config.horizon, dataset.feature_columns("train"))
            model.fit(data.train.X, data.train.y, data.val.X, data.val.y, sample_weight=data.train.weight)
            output = model.predict(data.val.X, data.val.meta).to_dataframe()
            said = output[["datetime", "symbol", "p_down", "p_flat", "p_up"]]
            parts.append(said.assign(fold=fold.number, label=data.val.y))
            log({"fold": fold.number}, fold.number - 1)
    whole = pd.concat(parts, ignore_index=True)
    return whole[["fold", *whole.columns.drop("fold")]]
