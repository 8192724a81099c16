"""A training between two epochs as files, so that an interrupted one resumes."""

from __future__ import annotations

import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from barcast.errors import DataError
from barcast.files import atomic_dir, read_json, recover, write_json
from barcast.training.loop_config import TrainingState

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from barcast.training.loop import Weights

STATE = "state.safetensors"
PROGRESS = "progress.json"


class ResumeCheckpoint:
    """The folder of one unfinished training: tensors as safetensors, the state as JSON.

    Whoever names the folder makes sure that no other training uses it: its name must depend on all that the result
    depends on.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, state: TrainingState, network: nn.Module, best: Weights, optimizer: torch.optim.Optimizer) -> None:
        """Replace what was saved before, or leave it whole."""
        from safetensors.torch import save_file

        tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in best.items()}
        for number, each in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in each.items()}
        with atomic_dir(self._folder) as folder:
            save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, folder / STATE)
            write_json(folder / PROGRESS, asdict(state))

    def load(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[TrainingState, Weights] | None:
        """Restore network and optimizer; returns the state and the best weights, None where nothing was saved.

        What can't be read, as after a power cut, is removed with a warning, and the training starts again.
        """
        recover(self._folder)
        if not (self._folder / PROGRESS).is_file():
            return None
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            state, tensors = TrainingState(**read_json(self._folder / PROGRESS)), load_file(self._folder / STATE)
        except (SafetensorError, DataError, OSError):
            print(f"{self._folder}: the resume checkpoint is damaged; the training starts again", file=sys.stderr)
            shutil.rmtree(self._folder)
            return None
        network.load_state_dict(_below(tensors, "network"))
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in _below(tensors, "optimizer").items():
            number, _, key = name.partition(".")
            states.setdefault(int(number), {})[key] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
        return state, _below(tensors, "best")


def epochs_kept(folder: Path, networks: int, max_epochs: int) -> int:
    """How many epochs of an unfinished training in `folder` are kept; it resumes after them and reports them again.

    A checkpoint that can't be read counts as none.
    """
    kept = 0
    for number in range(networks):
        recover(folder / str(number))
        file = folder / str(number) / PROGRESS
        if not file.is_file():
            break
        try:
            kept = number * max_epochs + len(read_json(file)["history"])
        except DataError:
            break
    return kept


def _below(tensors: Weights, prefix: str) -> Weights:
    """The tensors whose names begin with `prefix.`, under the rest of their names."""
    return {name.partition(".")[2]: value for name, value in tensors.items() if name.startswith(f"{prefix}.")}
