"""A training between two epochs as files, so that a killed one goes on where it was."""

from __future__ import annotations

import math
import shutil
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from barcast.errors import DataError
from barcast.files import atomic_dir, read_json, recover, write_json

Metrics = dict[str, float]


@dataclass
class Progress:
    """How far a training has come: the metrics of each epoch, and where validation was best."""

    history: list[Metrics] = field(default_factory=list)
    best_loss: float = math.inf
    best_epoch: int = -1

    @property
    def epoch(self) -> int:
        return len(self.history)

    @property
    def stale(self) -> int:
        """Epochs since the best one."""
        return self.epoch - 1 - self.best_epoch

    def add(self, metrics: Metrics) -> bool:
        """Take in an epoch; true: its `val_log_loss` is the best so far."""
        self.history.append(metrics)
        better = metrics["val_log_loss"] < self.best_loss
        if better:
            self.best_loss, self.best_epoch = metrics["val_log_loss"], self.epoch - 1
        return better

    def plateaus(self, length: int) -> int:
        """How many stretches of `length` epochs brought no better validation."""
        found, since, best = 0, 0, math.inf
        for metrics in self.history:
            since = 0 if metrics["val_log_loss"] < best else since + 1
            best = min(best, metrics["val_log_loss"])
            if since == length:
                found, since = found + 1, 0
        return found


class Unfinished:
    """The folder of one unfinished training; None keeps nothing.

    It holds tensors as safetensors and the progress as JSON. Who names the folder sees to it that another
    training never meets it: its name must depend on all that the result depends on.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def save(
        self, progress: Progress, network: nn.Module, best: dict[str, Tensor], optimizer: torch.optim.Optimizer
    ) -> None:
        """Replace what was saved before, or leave it whole."""
        if self._folder is None:
            return
        from safetensors.torch import save_file

        tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in best.items()}
        for number, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
        with atomic_dir(self._folder) as folder:
            save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, folder / STATE)
            write_json(folder / PROGRESS, asdict(progress))

    def load(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Progress, dict[str, Tensor]] | None:
        """Put network and optimiser back; answers the progress and the best weights, None where nothing lies.

        What can't be read, as after a power cut, is put away: the training begins anew, and says so.
        """
        found = self._read()
        if found is None:
            return None
        progress, tensors = found
        network.load_state_dict(_below(tensors, "network"))
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in _below(tensors, "optimizer").items():
            number, _, key = name.partition(".")
            states.setdefault(int(number), {})[key] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
        return progress, _below(tensors, "best")

    def _read(self) -> tuple[Progress, dict[str, Tensor]] | None:
        if self._folder is None:
            return None
        recover(self._folder)
        if not (self._folder / PROGRESS).is_file():
            return None
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return Progress(**read_json(self._folder / PROGRESS)), load_file(self._folder / STATE)
        except (SafetensorError, DataError, OSError):
            print(f"{self._folder}: the unfinished training is damaged; it begins anew", file=sys.stderr)
            shutil.rmtree(self._folder)
            return None


STATE = "state.safetensors"
PROGRESS = "progress.json"


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix.`, under the rest of their names."""
    return {name.partition(".")[2]: value for name, value in tensors.items() if name.startswith(f"{prefix}.")}
