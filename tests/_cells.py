"""Tiny window folders and trained cells, written by hand as the pipeline's earlier stages would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from barcast.config import validate
from barcast.data.frames import SPLITS
from barcast.data.window_files import CLIPPED, pack_labels
from barcast.evaluation.evaluator import EvaluateConfig
from barcast.files import read_json, write_json
from barcast.models.base import BaseModel, ModelConfig
from barcast.models.registry import ModelRegistry
from barcast.paths import Paths, cell_name
from barcast.stages.baseline import baseline

EVALUATE = {
    "cost_bps": 5.0,
    "calibration_bins": 10,
    "alpha": 0.2,
    "sets": "lac",
    "calibration": {"share": 0.5, "methods": ["temperature", "vector"]},
    "purge_bars": 5,
}
COMPARE = {
    "reference": "prior",
    "level": 0.95,
    "resamples": 200,
    "block_factor": 2.0,
    "mcs_size": 0.1,
    "pbo_blocks": 4,
    "seeds": [],
    "label_end_offset": {"h5": 5, "h20": 20},
    "seed": 42,
    "cost_bps": 5.0,
    "calibration_bins": 10,
}
FEATURES = ["momentum", "noise", "range"]
SEQ_LEN = 4


class StubConfig(ModelConfig):
    sharpness: float


class Stub(BaseModel):
    """Leans on the window's last `momentum`; the train split teaches it the class frequencies alone."""

    config_class = StubConfig

    def _fit(self, X_train, y_train, X_val, y_val, weight, log):
        self.frequencies = np.bincount(y_train + 1, minlength=3) / len(y_train)
        for step in range(12):
            decay = 0.1 * np.exp(-step / 3)
            log({"train_log_loss": 1.0 + decay - 0.004 * step, "val_log_loss": 1.04 + decay + 0.002 * step}, step)

    def _predict_proba(self, X):
        signal = self.config.sharpness * X.lag(0)[:, 0].astype(np.float64)
        scores = np.log(self.frequencies + 0.01) + np.outer(signal, (-1, 0, 1))
        return np.exp(scores - scores.max(axis=1, keepdims=True))

    def _save(self, folder: Path) -> None:
        write_json(folder / "stub.json", {"frequencies": self.frequencies.tolist()})

    def _load(self, folder: Path) -> None:
        self.frequencies = np.asarray(read_json(folder / "stub.json")["frequencies"])

    def get_feature_importance(self) -> pd.DataFrame:
        return pd.DataFrame({"feature": FEATURES, "lag": [0, 1, 0], "importance": [0.7, 0.2, 0.1]})


def register_stubs(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make `names` known as models for the length of a test."""
    ModelRegistry.list_models()
    monkeypatch.setattr(BaseModel, "registered", dict(BaseModel.registered))
    for name in names:
        ModelRegistry.register(name, "test", "a stub")(Stub)


def write_windows(
    paths: Paths, bars: int = 80, horizons: tuple[int, ...] = (5,), seed: int = 0, hint: float = 400
) -> None:
    """Two symbols in three splits; `momentum` hints at the label, and the last bars have none."""
    rng = np.random.default_rng(seed)
    for number, split in enumerate(SPLITS):
        start = pd.Timestamp("2020-01-01", tz="UTC") + number * pd.Timedelta("365D")
        parts = [_symbol(rng, name, start, bars, hint) for name in ("AAA", "BBB")]
        folder = paths.windows / split
        folder.mkdir(parents=True)
        (paths.windows / "labels").mkdir(exist_ok=True)
        np.save(folder / "rows.npy", np.concatenate([rows for rows, _, _ in parts]))
        ends = [np.arange(SEQ_LEN - 1, bars) + bars * i for i in range(len(parts))]
        np.save(folder / "ends.npy", np.concatenate(ends))
        pd.concat([index for _, index, _ in parts]).to_parquet(folder / "index.parquet", index=False)
        (folder / "columns.json").write_text(json.dumps({"features": FEATURES, "seq_len": SEQ_LEN}))
        if split == "train":
            np.save(folder / "clipped.npy", np.zeros(0, CLIPPED))
        for horizon in horizons:
            labels = pd.concat([_labels(up, horizon) for _, _, up in parts])
            packed = pack_labels(labels["label"], labels["sample_weight"], labels["bars_to_hit"])
            np.save(paths.windows / f"labels/{split}_h{horizon}.npy", packed)


def _symbol(
    rng: np.random.Generator, name: str, start: pd.Timestamp, bars: int, hint: float
) -> tuple[Any, pd.DataFrame, Any]:
    moves = rng.normal(0, 0.004, bars + 1)
    close = 100 * np.exp(np.cumsum(moves[:-1]))
    rows = rng.normal(size=(bars, len(FEATURES))).astype(np.float32)
    rows[:, 0] += hint * moves[1:]
    times = pd.date_range(start, periods=bars, freq="30min")
    return rows, pd.DataFrame({"datetime": times, "symbol": name, "close": close}), moves[1:]


def _labels(next_moves: np.ndarray, horizon: int) -> pd.DataFrame:
    label = pd.array(np.select([next_moves > 0.0015, next_moves < -0.0015], [1, -1], 0), dtype="Int8")
    label[-horizon:] = pd.NA
    weight = np.linspace(0.5, 1.5, len(label), dtype=np.float32)
    return pd.DataFrame({"label": label, "sample_weight": weight, "bars_to_hit": 1})


def train_stub(paths: Paths, name: str, horizon: int, sharpness: float) -> None:
    """What `train@{name}-{horizon}` leaves behind."""
    _fit(paths, Stub(_config(name, "test", horizon) | {"sharpness": sharpness}, horizon, FEATURES), name, horizon)


def train_prior(paths: Paths, horizon: int) -> None:
    """What `train@prior-{horizon}` leaves behind."""
    metadata = ModelRegistry.get_metadata("prior")
    _fit(paths, metadata.model_class(_config("prior", metadata.family, horizon), horizon, FEATURES), "prior", horizon)


def score_prior(paths: Paths, horizon: int, **changes: Any) -> None:
    """What `baseline@{horizon}` leaves behind."""
    baseline(horizon, validate(EvaluateConfig, EVALUATE | changes, "baseline.yaml"), paths)


def _config(name: str, family: str, horizon: int) -> dict[str, Any]:
    return {"model_name": name, "model_family": family, "horizon": horizon, "random_seed": 42, "threads": 1}


def _fit(paths: Paths, model: BaseModel, name: str, horizon: int) -> None:
    from barcast.data.dataset import DatasetConfig, TimeSeriesDataset

    dataset = TimeSeriesDataset(DatasetConfig(path=str(paths.windows), horizon=horizon))
    train, val = dataset.split("train"), dataset.split("val")
    model.fit(train.X, train.y, val.X, val.y, sample_weight=train.weight)
    model.save(paths.checkpoint(cell_name(name, horizon)))
