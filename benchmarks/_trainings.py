"""Ways to train one network on random windows, each run as a worker: `python -m benchmarks._trainings loop FOLDER {…}`.

FOLDER has the window files of `barcast.stages.window`: `train` and `val` at full size, and a tiny `warm`. Then
comes JSON: the `model`, its whole `config`, and how many `workers` load. Those of the peers stand in `_peer_trainings`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks._contestants import Base
from benchmarks._measure import Stopwatch, forget_peak, peak, resident, serve

VAL_SHARE = 18_591 / 87_094
HORIZON = 1
Positions = npt.NDArray[np.int64]


class Training(Base):
    """What all of them know: the files, the settings, and a draw of windows."""

    def __init__(self, folder: Path, split: str, settings: Mapping[str, Any]) -> None:
        super().__init__(folder, split)
        self.model, self.config, self.workers = settings["model"], settings["config"], settings["workers"]
        self.batch = self.config["batch_size"]
        self.at_once = self.config["micro_batch"] or self.batch
        self.watch = Stopwatch()
        self.rng = np.random.default_rng(0)

    def draw(self, count: int, of: int) -> Positions:
        """About `count` different ones of `of` positions, in runs as long as those of a batch."""
        length = min(self.config["run_length"], of)
        runs = self.rng.choice(of // length, max(1, min(count, of) // length), replace=False)
        chosen: Positions = (runs[:, None] * length + np.arange(length)).ravel()  # [runs, length] -> [count]
        return chosen

    def watched(self, count: int) -> int:
        """How many validation windows go with `count` training windows."""
        return max(self.batch, round(count * VAL_SHARE))


class Own(Training):
    """The windows as barcast opens them, and an unfitted model."""

    def build(self) -> None:
        from barcast.data.dataset import DatasetConfig, TimeSeriesDataset
        from barcast.models.registry import ModelRegistry

        config = DatasetConfig(path=str(self.folder), horizon=HORIZON)
        self.files = TimeSeriesDataset(config, [self.split, "val"])
        self.data = self.files.split(self.split)
        self.data.X.rows.sum()  # a page of the file counts once it is touched
        self.features = self.files.feature_columns(self.split)
        self.owner: Any = ModelRegistry.create(self.model, self.config, HORIZON, self.features)

    def network(self) -> Any:
        import torch

        torch.manual_seed(0)
        return self.owner._build(self.seq_len, len(self.features))

    def facts(self) -> Mapping[str, Any]:
        return {"parameters": sum(p.numel() for p in self.network().parameters())}


class Fit(Own):
    """`fit` of the model for one epoch, its validation too."""

    def train(self, count: int) -> int:
        val = self.data if self.split == "warm" else self.files.split("val")
        chosen, seen = self.draw(count, len(self.data.X)), np.sort(self.draw(self.watched(count), len(val.X)))
        with self.watch:
            self.owner.fit(self.data.X.select(chosen), self.data.y[chosen], val.X.select(seen), val.y[seen])
        return len(chosen)


class Loop(Own):
    """`fit_network` for one epoch, without validation."""

    def build(self) -> None:
        super().build()
        self.net = self.network()

    def train(self, count: int) -> int:
        from barcast.training.loop import Monitor, TrainingSet, fit_network, seeded
        from barcast.training.session import torch_session

        chosen = self.draw(count, len(self.data.X))
        length = self.config["run_length"]  # the drawn runs lie apart: the loop's first border must be one of theirs
        chosen = chosen[length - int(seeded(0, 0).integers(1, length + 1)) :]
        weight = np.ones(len(chosen), np.float32)
        examples = TrainingSet(self.data.X.select(chosen), self.data.y[chosen] + 1, weight)
        watch = Monitor(name=self.model, score=lambda: 0.0, patience=None, log=lambda *_: None, resume=None)
        config = self.owner.config
        with torch_session(config, config.threads) as device, self.watch:
            fit_network(self.net, examples, config, device, 0, watch)
        return len(chosen)


class Bare(Own):
    """The limit: forward, loss, backward and optimiser on one batch that never changes, in its micro-batches."""

    def build(self) -> None:
        import torch

        from barcast.training.batches import WindowSource
        from barcast.training.loop import RowEncoder

        super().build()
        self.net = self.network()
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=self.config["learning_rate"], fused=True)
        chosen = self.draw(self.batch, len(self.data.X))
        self.size = len(chosen)
        pieces = np.array_split(chosen, -(-len(chosen) // self.at_once))
        self.y = [torch.from_numpy(self.data.y[piece] + 1) for piece in pieces]
        self.shared = self.config["run_length"] > 1 and isinstance(self.net, RowEncoder)
        if self.shared:
            source = WindowSource(self.data.X, torch.device("cpu"))
            self.x = [source.shared_rows(piece) for piece in pieces]
        else:
            self.x = [torch.from_numpy(self.data.X[piece]) for piece in pieces]

    def train(self, count: int) -> int:
        from barcast.training.session import torch_session

        steps = -(-count // self.size)
        with torch_session(self.owner.config, self.owner.config.threads), self.watch:
            for _ in range(steps):
                self.step()
        return steps * self.size

    def step(self) -> None:
        from torch.nn import functional

        self.optimizer.zero_grad(set_to_none=True)
        for x, y in zip(self.x, self.y, strict=True):
            logits = self.net.forward_encoded(self.net.encode_rows(x.rows)[x.place]) if self.shared else self.net(x)
            (functional.cross_entropy(logits, y, reduction="sum") / self.size).backward()
        self.optimizer.step()


class PerItem(Own):
    """The usual way: a Dataset that answers one window, torch's DataLoader, and the step as the loop makes it."""

    def build(self) -> None:
        import torch
        from torch.utils.data import DataLoader

        super().build()
        self.net, self.order = self.network(), Order()
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=self.config["learning_rate"], fused=True)
        several: dict[str, Any] = {"num_workers": self.workers, "persistent_workers": self.workers > 0}
        self.loader = DataLoader(Items(self.data), batch_size=self.batch, sampler=self.order, **several)
        self.order.positions = self.draw(self.batch, len(self.data.X))
        for _ in self.loader:  # starts the workers
            pass

    def train(self, count: int) -> int:
        from barcast.training.session import torch_session

        self.order.positions = self.draw(count, len(self.data.X))
        with torch_session(self.owner.config, self.owner.config.threads), self.watch:
            for batch in self.loader:
                self.step(*batch)
        return len(self.order)

    def step(self, *batch: Any) -> None:
        """`batch` is X, y and weight."""
        from torch import nn

        self.optimizer.zero_grad(set_to_none=True)
        for x, y, weight in zip(*(part.split(self.at_once) for part in batch), strict=True):
            loss = nn.functional.cross_entropy(self.net(x), y, reduction="none") * weight
            (loss.sum() / len(batch[0])).backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), self.config["clip_norm"])
        self.optimizer.step()


class Items:
    """One window at a time, as any Dataset for torch answers it."""

    def __init__(self, data: Any) -> None:
        self.rows, self.ends, self.length = np.array(data.X.rows), data.X.ends, data.X.seq_len
        self.y, self.weight = data.y + 1, np.ones(len(data.y), np.float32)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, position: int) -> tuple[Any, Any, Any]:
        import torch

        end = self.ends[position]
        window = torch.from_numpy(self.rows[end - self.length + 1 : end + 1])
        return window, self.y[position], self.weight[position]


class Order:
    """A sampler of DataLoader whose positions can be exchanged between two turns."""

    positions: Positions = np.arange(0)

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[int]:
        yield from self.positions.tolist()


class Way(Protocol):
    """A way to train: `train` answers how many windows the watch ran for."""

    watch: Stopwatch

    def __init__(self, folder: Path, split: str, settings: Mapping[str, Any]) -> None: ...
    def build(self) -> None: ...
    def train(self, count: int) -> int: ...
    def facts(self) -> Mapping[str, Any]: ...


WAYS: dict[str, type[Way]] = {"fit": Fit, "loop": Loop, "bare": Bare, "per_item": PerItem}


class Server:
    """Answers `build` once, `turn` as often as asked, and `memory` at the end."""

    def __init__(self, way: type[Way], folder: Path, settings: Mapping[str, Any]) -> None:
        self.way, self.folder, self.settings = way, folder, settings
        self.before = 0

    def answer(self, do: str, **request: Any) -> Mapping[str, Any]:
        return {"build": self.build, "turn": self.turn, "memory": self.memory}[do](**request)

    def build(self) -> Mapping[str, Any]:
        """A few steps on a tiny data set first, so that no library's loading is counted as memory."""
        import torch

        torch.set_num_threads(self.settings["config"]["threads"])
        small = {**self.settings, "config": {**self.settings["config"], "batch_size": 4}}
        tiny = self.way(self.folder, "warm", small)
        tiny.build()
        tiny.train(8)
        del tiny
        self.before = resident()
        forget_peak()
        self.one = self.way(self.folder, "train", self.settings)
        self.one.build()
        return self.one.facts()

    def turn(self, count: int) -> Mapping[str, Any]:
        self.one.watch.reset()
        done, watch = self.one.train(count), self.one.watch
        return {"windows_a_second": done / watch.wall, "windows_a_cpu_second": done / watch.cpu}

    def memory(self) -> Mapping[str, Any]:
        return {"rss_added": peak() - self.before, "rss_before": self.before}


if __name__ == "__main__":
    serve(Server(WAYS[sys.argv[1]], Path(sys.argv[2]), json.loads(sys.argv[3])).answer)
