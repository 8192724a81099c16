"""Ways to make random batches of windows, each run as a worker: `python -m benchmarks._contestants qlib FOLDER`.

FOLDER has the window files of `barcast.stages.window`, `train` at full size and a tiny `warm`. Each way serves the
same windows and checks that it does. qlib and pytorch-forecasting live in the peers' environment.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks._measure import Contestant, peak, resident, serve, windows_a_second

Batch = npt.NDArray[np.float32]
SOURCE_TIMES, SOURCE_LEAST = 16, 2**24  # of the base rows' floats, and floats: far beyond any cache


class Base:
    """The files that all of them read."""

    def __init__(self, folder: Path, split: str) -> None:
        self.folder, self.split = folder, split
        self.seq_len = int(json.loads((folder / split / "columns.json").read_text())["seq_len"])

    def rows(self) -> Batch:
        rows: Batch = np.load(self.folder / self.split / "rows.npy")
        return rows

    def ends(self) -> npt.NDArray[np.int64]:
        ends: npt.NDArray[np.int64] = np.load(self.folder / self.split / "ends.npy")
        return ends

    def keys(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Symbol code and nanosecond of each row; no Parquet, whose reader would count as a peer's memory."""
        symbols, times = np.load(self.folder / self.split / "keys.npy")
        return symbols, times

    def orders(self, size: int) -> Iterator[npt.NDArray[np.int64]]:
        """Window ends in shuffled batches, epoch after epoch."""
        ends = self.ends()
        for seed in count():
            order = np.random.default_rng(seed).permutation(ends)
            for start in range(0, len(order), size):
                yield order[start : start + size]

    def check(self, batch: Batch, ends: npt.NDArray[np.int64]) -> None:
        rows = self.rows()
        expected = np.stack([rows[end - self.seq_len + 1 : end + 1] for end in ends])
        if not np.array_equal(batch, expected):
            raise RuntimeError(f"{type(self).__name__} serves other windows than the files hold")


class Barcast(Base):
    """`barcast.data.batching.batches`, with labels and weights."""

    def build(self) -> None:
        from barcast.data.dataset import DatasetConfig, TimeSeriesDataset

        data = TimeSeriesDataset(DatasetConfig(path=str(self.folder), horizon=1), [self.split]).split(self.split)
        data.X.rows.sum()  # a page of the file counts once it is touched
        self.data = data

    def batches(self, size: int) -> Iterator[Batch]:
        from barcast.data.batching import batches

        for seed in count():
            for X, _, _ in batches(self.data, size, shuffle=True, seed=seed):
                yield X

    def verify(self) -> None:
        self.check(self.data.X[np.arange(20)], self.data.X.ends[:20])


class Memcpy(Base):
    """The limit: one contiguous copy of a batch's bytes from memory that no cache holds into a buffer used again."""

    def build(self) -> None:
        self.source = np.ones(max(SOURCE_TIMES * self.rows().size, SOURCE_LEAST), np.float32)

    def batches(self, size: int) -> Iterator[Batch]:
        shape = (size, self.seq_len, self.rows().shape[1])
        buffer = np.zeros(shape, np.float32)
        flat = buffer.reshape(-1)
        for turn in count():
            first = turn % (len(self.source) // flat.size) * flat.size
            flat[:] = self.source[first : first + flat.size]
            yield buffer

    def verify(self) -> None:
        if not next(self.batches(2)).all():
            raise RuntimeError("memcpy copied nothing")


class MemcpyBlocks(Memcpy):
    """As many blocks of one window's bytes each from random places of that memory, in numpy's own loop."""

    def batches(self, size: int) -> Iterator[Batch]:
        block = self.seq_len * self.rows().shape[1]
        blocks = self.source[: len(self.source) // block * block].reshape(-1, block)
        buffer = np.zeros((size, block), np.float32)
        for seed in count():
            order = np.random.default_rng(seed).permutation(len(blocks))
            for start in range(0, len(order) - size + 1, size):
                blocks.take(order[start : start + size], axis=0, out=buffer, mode="clip")
                yield buffer


class Qlib(Base):
    """`TSDataSampler` at its quickest: a whole batch of positions at a time, holes left as they are."""

    def build(self) -> None:
        import pandas as pd
        from qlib.data.dataset import TSDataSampler

        symbols, times = self.keys()
        datetime = pd.to_datetime(times)
        keys = pd.MultiIndex.from_arrays([datetime, symbols], names=["datetime", "instrument"])
        frame = pd.DataFrame(self.rows(), index=keys).sort_index()
        first, last = datetime.min(), datetime.max()
        start = time.perf_counter()
        self.sampler = TSDataSampler(frame, first, last, self.seq_len, dtype=np.float32)
        self.build_seconds = time.perf_counter() - start

    def batches(self, size: int) -> Iterator[Batch]:
        for ends in self.orders(size):  # rows lie by symbol and time, so a row is a position
            yield self.sampler[ends]

    def verify(self) -> None:
        self.check(self.sampler[self.ends()[:20]], self.ends()[:20])


class QlibLoader(Qlib):
    """torch's DataLoader over single positions and holes filled both ways, as each of qlib's own models sets it up."""

    def build(self) -> None:
        super().build()
        self.sampler.config(fillna_type="ffill+bfill")

    def batches(self, size: int) -> Iterator[Batch]:
        from torch.utils.data import DataLoader, SubsetRandomSampler

        loader = DataLoader(self.sampler, batch_size=size, sampler=SubsetRandomSampler(self.ends().tolist()))
        while True:
            yield from loader


class PytorchForecasting(Base):
    """`TimeSeriesDataSet` with class labels, weights and no scalers, and its `to_dataloader`.

    The bar after a window is its decoder, which holds the label.
    """

    def build(self) -> None:
        from pytorch_forecasting import TimeSeriesDataSet

        frame, names = self._frame()
        start = time.perf_counter()
        self.data = TimeSeriesDataSet(
            frame,
            time_idx="time_idx",
            target="label",
            weight="weight",
            group_ids=["symbol"],
            min_encoder_length=self.seq_len,
            max_encoder_length=self.seq_len,
            min_prediction_length=1,
            max_prediction_length=1,
            time_varying_unknown_reals=names,
            scalers=dict.fromkeys(names),
        )
        self.build_seconds = time.perf_counter() - start

    def _frame(self) -> tuple[Any, list[str]]:
        import pandas as pd

        rows = self.rows()
        names = [f"f{number:03d}" for number in range(rows.shape[1])]
        symbols, row = self.keys()[0].astype(str), np.arange(len(rows))  # row numbers as time serve the check as well
        label = np.random.default_rng(0).choice(["down", "flat", "up"], len(rows))
        frame = pd.DataFrame(rows, columns=names).assign(symbol=symbols, time_idx=row, label=label)
        return frame.assign(weight=np.float32(1)), names

    def batches(self, size: int) -> Iterator[Batch]:
        loader = self.data.to_dataloader(train=True, batch_size=size, num_workers=0)
        while True:
            for x, _ in loader:
                yield x["encoder_cont"]

    def verify(self) -> None:
        x, _ = next(iter(self.data.to_dataloader(train=False, batch_size=20, num_workers=0)))
        self.check(x["encoder_cont"].numpy(), x["decoder_time_idx"].numpy()[:, 0] - 1)


WAYS: dict[str, type[Any]] = {
    "barcast": Barcast,
    "memcpy": Memcpy,
    "memcpy_blocks": MemcpyBlocks,
    "qlib": Qlib,
    "qlib_loader": QlibLoader,
    "pytorch_forecasting": PytorchForecasting,
}


class Server:
    """Answers `build` once and `rate` as often as asked."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.way: Any = None
        self.open: dict[int, Iterator[Batch]] = {}

    def answer(self, do: str, **request: Any) -> Mapping[str, Any]:
        return {"build": self.build, "rate": self.rate, "memory": self.memory}[do](**request)

    def build(self) -> Mapping[str, Any]:
        """A tiny data set first, so that no library's loading is counted."""
        tiny = WAYS[self.name](self.folder, "warm")
        tiny.build()
        next(tiny.batches(2))
        del tiny
        before, start = resident(), time.perf_counter()
        self.way = WAYS[self.name](self.folder, "train")
        self.way.build()
        seconds = getattr(self.way, "build_seconds", time.perf_counter() - start)  # a peer's frame is made untimed
        added = resident() - before
        self.way.verify()
        return {"build_seconds": seconds, "rss_added": added}

    def rate(self, size: int, seconds: float) -> Mapping[str, Any]:
        contestant: Contestant = self.way
        batches = self.open.setdefault(size, contestant.batches(size))
        return {"windows_a_second": windows_a_second(batches, seconds)}

    def memory(self) -> Mapping[str, Any]:
        return {"peak_rss": peak()}


if __name__ == "__main__":
    serve(Server(sys.argv[1], Path(sys.argv[2])).answer)
