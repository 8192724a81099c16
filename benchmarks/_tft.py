"""One TFT in a process of its own: `python -m benchmarks._tft neuralforecast|barcast`, then a request a line.

Both are networks of the same sizes, trained and asked by `barcast.training.loop` on the same windows, so that what
differs is the network alone. (neuralforecast's own trainer would rebuild every window at every step besides.)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from barcast.data.windows import Windows
from barcast.training.loop import Monitor, TrainingSet, fit_network, predict_logits
from barcast.training.loop_config import LoopConfig
from barcast.training.session import torch_session
from benchmarks._measure import peak, serve

DROPOUT = 0.1


class Theirs(nn.Module):
    """neuralforecast's TFT as it is shipped, behind `[B, L, F] -> [B, 3]`."""

    def __init__(self, seq_len: int, width: int, hidden_size: int, heads: int) -> None:
        from neuralforecast.losses.pytorch import BasePointLoss
        from neuralforecast.models import TFT

        super().__init__()
        names = [f"f{number}" for number in range(width)]
        loss = BasePointLoss(outputsize_multiplier=3, output_names=["-0", "-1", "-2"])
        sizes = {"hidden_size": hidden_size, "n_head": heads, "dropout": DROPOUT}
        self.network = TFT(h=1, input_size=seq_len, hist_exog_list=names, loss=loss, **sizes)

    def forward(self, x: Tensor) -> Tensor:
        series = x.new_zeros(*x.shape[:2], 1)
        known = {"insample_y": series, "insample_mask": torch.ones_like(series), "hist_exog": x}
        logits: Tensor = self.network({**known, "futr_exog": None, "stat_exog": None}).squeeze(1)
        return logits


def ours(seq_len: int, width: int, hidden_size: int, heads: int) -> nn.Module:
    from barcast.networks.tft import TFT, Parts

    return TFT(Parts.new(seq_len, width, hidden_size, heads, DROPOUT, 0.0))


WAYS: dict[str, Callable[..., nn.Module]] = {"neuralforecast": Theirs, "barcast": ours}


class Server:
    """Answers `build` once, then `train`, `predict` and `memory` as often as asked."""

    def __init__(self, way: str) -> None:
        self.way = way

    def answer(self, do: str, **request: Any) -> Mapping[str, Any]:
        answers = {"build": self.build, "train": self.train, "predict": self.predict, "memory": self.memory}
        return answers[do](**request)

    def build(self, rows: int, seq_len: int, width: int, threads: int, **sizes: int) -> Mapping[str, Any]:
        rng = np.random.default_rng(0)
        base = rng.standard_normal((rows + seq_len - 1, width), dtype=np.float32)
        self.X = Windows(base, np.arange(seq_len - 1, len(base)), seq_len)
        self.y, self.weight = rng.integers(0, 3, rows), np.ones(rows, np.float32)
        self.threads = threads
        torch.manual_seed(0)
        self.network = WAYS[self.way](seq_len, width, **sizes)
        return {"parameters": sum(p.numel() for p in self.network.parameters())}

    def train(self, steps: int, batch_size: int, run_length: int) -> Mapping[str, Any]:
        """Seconds a step: an epoch of neighbouring windows, as many as those steps take."""
        count = min(steps * batch_size, len(self.X))
        part = slice(0, count)
        examples = TrainingSet(self.X.select(part), self.y[part], self.weight[part])
        watch = Monitor(name="tft", score=lambda: 0.0, patience=None, log=lambda *_: None, resume=None)
        config = settings(batch_size=batch_size, run_length=run_length)
        with torch_session(config, self.threads) as device:
            start = time.perf_counter()
            fit_network(self.network, examples, config, device, 0, watch)
            return {"seconds": (time.perf_counter() - start) * batch_size / count}

    def predict(self, windows: int) -> Mapping[str, Any]:
        """Seconds a window."""
        config, some = settings(batch_size=1, run_length=1), self.X.select(slice(0, windows))
        with torch_session(config, self.threads) as device:
            start = time.perf_counter()
            predict_logits(self.network, some, config, device)
            return {"seconds": (time.perf_counter() - start) / len(some)}

    def memory(self) -> Mapping[str, Any]:
        return {"peak_rss": peak()}


def settings(batch_size: int, run_length: int) -> LoopConfig:
    return LoopConfig(
        max_epochs=1,
        batch_size=batch_size,
        micro_batch=0,
        run_length=run_length,
        learning_rate=0.001,
        weight_decay=0.01,
        schedule="constant",
        warmup_epochs=0.0,
        clip_norm=1.0,
        label_smoothing=0.0,
        class_weights="none",
        device="cpu",
        precision="fp32",
        compile=False,
        deterministic=True,
    )


if __name__ == "__main__":
    serve(Server(sys.argv[1]).answer)
