"""Batches of windows as tensors, gathered from the base rows into one reused buffer; the order they come in."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from barcast.data.windows import IntArray, Windows

DEVICE_SHARE = 0.5  # of a device's free memory that base rows may take


def epoch_batches(count: int, batch_size: int, run_length: int, rng: np.random.Generator) -> list[IntArray]:
    """The positions 0 … count−1, each once, in random order, cut into batches of nearly equal size.

    Windows are shuffled by runs of `run_length` neighbours, whose borders differ from call to call. No batch
    is a short remainder: a single window would weigh as much in its step as a full batch.
    """
    first = int(rng.integers(1, run_length + 1))
    run = (np.arange(count) + run_length - first) // run_length  # [N]: 0, 0, 1, 1, 1, 2, …
    place = np.empty(run[-1] + 1, np.int64)
    place[rng.permutation(len(place))] = np.arange(len(place))
    order = np.argsort(place[run], kind="stable")
    return cut(order, batch_size)


def cut(positions: IntArray, size: int) -> list[IntArray]:
    """Parts of nearly equal size, at most `size`, in order."""
    return np.array_split(positions, math.ceil(len(positions) / size))


@dataclass(frozen=True)
class SharedRows:
    """The distinct base rows of a batch `[R, F]`, and where each bar of its windows is among them `[B, L]`."""

    rows: Tensor
    place: Tensor

    def gather(self, encoded: Tensor) -> Tensor:
        """What each row was encoded to `[R, D]`, for each bar of each window `[B, L, D]`."""
        return encoded.index_select(0, self.place.flatten()).view(*self.place.shape, -1)


class WindowSource:
    """Windows `[N, L, F]` as batches on a device.

    On a CPU they are copied from the memory map into one buffer, which the next batch overwrites. On another
    device the base rows lie whole where they fit, and windows are gathered there; where they don't fit,
    batches are gathered into two pinned buffers and copied while the step before is still computing.
    """

    def __init__(self, windows: Windows, device: torch.device) -> None:
        self._length, width = windows.seq_len, windows.rows.shape[1]
        self._device = device
        rows = _as_tensor(windows)
        self._resident = device.type == "cpu" or _fits(rows, device)
        self._rows = rows.to(device) if self._resident else rows
        self._starts: IntArray = windows.ends - (self._length - 1)
        count = max(0, len(rows) - self._length + 1)
        # a window is one long row of this view, which overlaps the next row: nothing may write to it
        self._view = self._rows.as_strided((count, self._length * width), (width, 1))
        self._buffers: list[Tensor] = []
        self._copied: list[torch.cuda.Event] = []
        self._turn = 0

    def windows(self, positions: IntArray) -> Tensor:
        """The windows at `positions [B]` as `[B, L, F]`, valid until the next call but one."""
        long_rows = self._gather(self._view, self._starts[positions])
        return long_rows.view(len(positions), self._length, -1)  # [B, L*F] -> [B, L, F]

    def shared_rows(self, positions: IntArray) -> SharedRows:
        """The distinct base rows of the windows at `positions [B]`, in their order; valid as `windows` are.

        Of windows in order, each adds those of its rows that lie beyond the one before: at most L, its last ones.
        """
        ordered, which = np.unique(self._starts[positions], return_inverse=True)  # [U], [B]
        added = np.minimum(np.diff(ordered, prepend=ordered[0] - self._length), self._length)  # [U]
        ends = added.cumsum()  # how many rows there are after each
        distinct = np.arange(ends[-1]) + np.repeat(ordered + self._length - ends, added)  # [R]
        place = (ends - self._length)[which][:, None] + np.arange(self._length)  # [B, L]
        return SharedRows(self._gather(self._rows, distinct), torch.from_numpy(place).to(self._device))

    def _gather(self, table: Tensor, index: IntArray) -> Tensor:
        """The rows of a table at `index`, on the device."""
        buffer = self._buffer(len(index) * table.shape[1]).view(len(index), -1)
        torch.index_select(table, 0, torch.from_numpy(index).to(table.device), out=buffer)
        return buffer if self._resident else self._send(buffer)

    def _buffer(self, size: int) -> Tensor:
        """So many values of one buffer, or of two in turn where copies may still be reading from the other."""
        if not self._buffers or len(self._buffers[0]) < size:
            pinned = not self._resident and self._device.type == "cuda"
            where = self._rows.device
            self._buffers = [torch.empty(size, device=where, pin_memory=pinned) for _ in range(1 + pinned)]
            if pinned:
                self._copied = [torch.cuda.Event() for _ in self._buffers]  # type: ignore[no-untyped-call]
        self._turn = (self._turn + 1) % len(self._buffers)
        if self._copied:
            self._copied[self._turn].synchronize()
        return self._buffers[self._turn][:size]

    def _send(self, gathered: Tensor) -> Tensor:
        sent = gathered.to(self._device, non_blocking=bool(self._copied))
        if self._copied:
            self._copied[self._turn].record()
        return sent


def in_order(count: int, batch_size: int) -> Iterator[IntArray]:
    """The positions 0 … count−1 in blocks of at most `batch_size`."""
    for start in range(0, count, batch_size):
        yield np.arange(start, min(start + batch_size, count))


def _as_tensor(windows: Windows) -> Tensor:
    with warnings.catch_warnings():  # the memory map is read-only, and nothing here writes to it
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(windows.rows)


def _fits(rows: Tensor, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return rows.nbytes <= DEVICE_SHARE * free
