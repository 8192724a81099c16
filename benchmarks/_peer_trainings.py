"""The peers' own trainers on the same windows: `python -m benchmarks._peer_trainings qlib FOLDER SETTINGS`.

qlib and pytorch-forecasting live in the peers' environment, neuralforecast in barcast's own. Networks have the sizes
of barcast's config as far as the peers offer them; each learns what its trainer can learn, a number or a class.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._contestants import PytorchForecasting, Qlib
from benchmarks._measure import Stopwatch, serve
from benchmarks._trainings import Positions, Server, Training, Way


class Part:
    """Some positions of a `TSDataSampler`, in place of a whole one."""

    empty = False

    def __init__(self, sampler: Any, positions: Positions) -> None:
        self.sampler, self.positions = sampler, positions

    def config(self, **options: Any) -> None:
        self.sampler.config(**options)

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, item: int) -> Any:
        return self.sampler[self.positions[item]]


class QlibFit(Training):
    """`fit` of qlib's trainer for one epoch: it looks at the training and the validation windows after it."""

    def build(self) -> None:
        self.samplers = {self.split: self.sampler(self.split)}
        if self.split == "train":
            self.samplers["val"] = self.sampler("val")
        self.trainer = self.make()

    def sampler(self, split: str) -> tuple[Any, Positions]:
        """A label as the last column, as qlib's handlers lay it, and the windows' positions."""
        import pandas as pd
        from qlib.data.dataset import TSDataSampler

        base = Qlib(self.folder, split)
        symbols, times = base.keys()
        index = pd.MultiIndex.from_arrays([pd.to_datetime(times), symbols], names=["datetime", "instrument"])
        frame = pd.DataFrame(base.rows(), index=index)
        frame["label"] = np.random.default_rng(1).standard_normal(len(frame)).astype(np.float32)
        frame = frame.sort_index()
        start, end = index.levels[0].min(), index.levels[0].max()
        return TSDataSampler(frame, start, end, self.seq_len, dtype=np.float32), base.ends()

    def make(self) -> Any:
        from qlib.contrib.model import pytorch_gru_ts, pytorch_lstm_ts, pytorch_transformer_ts

        own = self.config
        common = {"d_feat": self.rows().shape[1], "batch_size": self.batch, "lr": own["learning_rate"]}
        common |= {"n_epochs": 1, "n_jobs": self.workers, "GPU": -1, "seed": 0, "num_layers": own["layers"]}
        if self.model == "transformer":  # the width of its feed-forward layers is fixed: 2048
            sizes = {"d_model": own["d_model"], "nhead": own["heads"], "dropout": own["dropout"]}
            return pytorch_transformer_ts.TransformerModel(**common, **sizes)
        trainer = {"lstm": pytorch_lstm_ts.LSTM, "gru": pytorch_gru_ts.GRU}[self.model]
        between = own["dropout"] if own["layers"] > 1 else 0.0
        return trainer(**common, hidden_size=own["hidden_size"], dropout=between)

    def part(self, split: str, count: int) -> Part:
        sampler, ends = self.samplers[split]  # rows lie by symbol and time, so a row is a position
        part = Part(sampler, ends[self.draw(count, len(ends))])
        part.config(fillna_type="ffill+bfill")
        return part

    def train(self, count: int) -> int:
        val = "warm" if self.split == "warm" else "val"
        parts = {"train": self.part(self.split, count), "valid": self.part(val, self.watched(count))}

        class Dataset:
            def prepare(self, segment: str, **_: Any) -> Part:
                return parts[segment]

        with self.watch:
            self.trainer.fit(Dataset())
        return len(parts["train"])

    def facts(self) -> Mapping[str, Any]:
        network = next(value for value in vars(self.trainer).values() if hasattr(value, "parameters"))
        return {"parameters": sum(p.numel() for p in network.parameters())}


class QlibEpoch(QlibFit):
    """The training alone, by its `train_epoch` over the loader that its `fit` makes."""

    def train(self, count: int) -> int:
        from qlib.model.utils import ConcatDataset
        from torch.utils.data import DataLoader

        part: Any = self.part(self.split, count)
        data = part if self.model == "transformer" else ConcatDataset(part, np.ones(len(part)))
        loader = DataLoader(data, batch_size=self.batch, shuffle=True, num_workers=self.workers, drop_last=True)
        with self.watch:
            self.trainer.train_epoch(loader)
        return len(part) // self.batch * self.batch


def pace(base: type[Any], watch: Stopwatch) -> Any:
    """A Lightning callback that times steps; the first, which pays for the start, is not timed."""

    class Pace(base):  # type: ignore[misc]
        steps = 0

        def on_train_start(self, *_: Any) -> None:
            self.steps = 0

        def on_train_batch_end(self, *_: Any) -> None:
            self.steps += 1
            now = time.perf_counter(), time.process_time()
            if self.steps == 1:
                self.first = now
            watch.wall, watch.cpu = now[0] - self.first[0], now[1] - self.first[1]

    return Pace()


QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}


class NeuralForecast(Training):
    """`fit` of its model with all features as `hist_exog_list`, one step's windows being one batch."""

    def build(self) -> None:
        import pandas as pd
        from neuralforecast.tsdataset import TimeSeriesDataset

        rows = self.rows()
        symbols, times = self.keys()
        self.names = [f"f{number:03d}" for number in range(rows.shape[1])]
        frame = pd.DataFrame(rows, columns=self.names)
        y = np.random.default_rng(1).standard_normal(len(rows)).astype(np.float32)
        frame = frame.assign(unique_id=symbols.astype(str), ds=pd.to_datetime(times), y=y)
        self.data, *_ = TimeSeriesDataset.from_df(frame)
        self.one = self.make()

    def make(self) -> Any:
        from neuralforecast import models
        from pytorch_lightning import Callback

        own = self.config
        common = {"h": 1, "input_size": self.seq_len, "hist_exog_list": self.names, "scaler_type": "identity"}
        common |= {"windows_batch_size": self.batch, "random_seed": 1, "callbacks": [pace(Callback, self.watch)]}
        if self.model in ("lstm", "gru"):
            sizes = {"encoder_hidden_size": own["hidden_size"], "encoder_n_layers": own["layers"]}
            return {"lstm": models.LSTM, "gru": models.GRU}[self.model](**common, **sizes, **QUIET)
        units, pools = own["layers"] * [2 * [own["hidden_size"]]], own["pool_sizes"]
        blocks = {"stack_types": len(pools) * ["identity"], "n_blocks": len(pools) * [1], "n_pool_kernel_size": pools}
        return models.NHITS(**common, **blocks, mlp_units=units, n_freq_downsample=len(pools) * [1], **QUIET)

    def train(self, count: int) -> int:
        steps = max(1, count // self.batch)
        self.one.trainer_kwargs["max_steps"] = self.one.max_steps = steps + 1
        self.one.fit(self.data)
        return steps * self.batch

    def facts(self) -> Mapping[str, Any]:
        return {"parameters": sum(p.numel() for p in self.one.parameters())}


class ForecastingTFT(Training):
    """pytorch-forecasting's TemporalFusionTransformer, fitted by Lightning as its manual shows."""

    def build(self) -> None:
        from pytorch_forecasting import TemporalFusionTransformer
        from pytorch_forecasting.metrics import CrossEntropy

        source = PytorchForecasting(self.folder, self.split)
        source.build()
        own = self.config
        sizes = {"hidden_size": own["hidden_size"], "hidden_continuous_size": own["hidden_size"]}
        sizes |= {"attention_head_size": own["heads"], "dropout": own["dropout"], "learning_rate": own["learning_rate"]}
        self.one = TemporalFusionTransformer.from_dataset(source.data, **sizes, loss=CrossEntropy(), output_size=3)
        self.loader = source.data.to_dataloader(train=True, batch_size=self.batch, num_workers=self.workers)

    def train(self, count: int) -> int:
        from lightning.pytorch import Callback, Trainer

        steps = max(1, count // self.batch)
        options = {**QUIET, "enable_checkpointing": False, "gradient_clip_val": self.config["clip_norm"]}
        trainer = Trainer(max_steps=steps + 1, callbacks=[pace(Callback, self.watch)], **options)
        trainer.fit(self.one, self.loader)
        return steps * self.batch

    def facts(self) -> Mapping[str, Any]:
        return {"parameters": sum(p.numel() for p in self.one.parameters())}


WAYS: dict[str, type[Way]] = {
    "qlib": QlibEpoch,
    "qlib_fit": QlibFit,
    "neuralforecast": NeuralForecast,
    "pytorch_forecasting": ForecastingTFT,
}


if __name__ == "__main__":
    serve(Server(WAYS[sys.argv[1]], Path(sys.argv[2]), json.loads(sys.argv[3])).answer)
