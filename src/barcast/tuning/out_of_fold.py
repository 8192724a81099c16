"""Out-of-fold predictions: those of a model on the validation parts of the folds.

Each part stops its fold's training early and is then predicted, as validation is in the pipeline.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from barcast.data.dataset import TimeSeriesDataset
from barcast.models.base import BaseModel, Log, no_log
from barcast.tuning.fold_scaler import FoldScaler, write_fold
from barcast.tuning.folds import FoldConfig, cut_folds, open_fold, read_index


def out_of_fold(
    model_name: str,
    config: Mapping[str, Any],
    dataset: TimeSeriesDataset,
    folds: FoldConfig,
    scaler: FoldScaler,
    log: Log = no_log,
) -> pd.DataFrame:
    """Fit a model, by its name and plain config, on each purged fold inside train, and predict its validation part.

    Args:
        dataset: windows; only the train split is opened.
        scaler: how the windows were scaled, for the refit on each fold.
        log: called with `fold` after each fold.

    Returns:
        One row per window of the validation parts: `fold, datetime, symbol, p_down, p_flat, p_up, label`.
    """
    dataset = dataset.only("train")
    split = dataset.split("train")
    index, times, symbols = read_index(split)
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        for fold in cut_folds(split.X.ends, split.label_end_offset, times, symbols, folds):
            train, val = open_fold(split, index, fold, write_fold(Path(folder), dataset, fold, scaler))
            model = BaseModel.named(model_name)(config, dataset.config.horizon, dataset.feature_columns("train"))
            model.fit(train.X, train.y, val.X, val.y, sample_weight=train.weight)
            predicted = model.predict(val.X, val.meta).to_dataframe()
            columns = predicted[["datetime", "symbol", "p_down", "p_flat", "p_up"]]
            parts.append(columns.assign(fold=fold.number, label=val.y))
            log({"fold": fold.number}, fold.number - 1)
    whole = pd.concat(parts, ignore_index=True)
    return whole[["fold", *whole.columns.drop("fold")]]
