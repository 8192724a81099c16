"""Where and how torch computes for a while: device, threads, determinism."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch
from torch.utils import deterministic

from barcast.errors import ModelError
from barcast.training.loop_config import LoopConfig

_ONE_AT_A_TIME = RLock()  # what a session sets is the whole process's


def pick_device(name: str, predicting: bool = False) -> torch.device:
    """`auto` is a CUDA device, else Apple's, else the CPU.

    Args:
        name: of `LoopConfig.device`.
        predicting: a fitted network predicts. It does so anywhere, up to rounding: on another device than the one
            that is named, where that isn't there, with a warning.

    Raises:
        ModelError: the device that is named is not there, and the network is to be fitted.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name != "auto" and there[name]:
        return torch.device(name)
    best = next(kind for kind, found in there.items() if found)
    if name != "auto":
        lacking = f"device = '{name}': this machine has none that torch can use"
        if not predicting:
            raise ModelError(f"{lacking}; set device to 'auto' or 'cpu'")
        warnings.warn(f"{lacking}; the network predicts on its {best}", stacklevel=2)
    return torch.device(best)


@contextmanager
def torch_session(config: LoopConfig, threads: int, predicting: bool = False) -> Iterator[torch.device]:
    """Threads and determinism as configured, put back afterwards; yields the device, see `pick_device`.

    Sessions of several threads wait for each other. Deterministic torch also fills all memory that it asks for, in
    case an operation reads what none has written. None does here, and filling took a sixth of an LSTM's step: it is
    left off.
    """
    with _ONE_AT_A_TIME:
        before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
        filled = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # with a fixed workspace cuBLAS is deterministic
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(config.deterministic)
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        try:
            yield pick_device(config.device, predicting)
        finally:
            torch.set_num_threads(before[0])
            torch.use_deterministic_algorithms(before[1])
            deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
