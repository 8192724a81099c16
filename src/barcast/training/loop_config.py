"""The settings and the state of the torch loop, readable without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from barcast.section import Section

Metrics = dict[str, float]
Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]


class LoopConfig(Section):
    """What every network's block in params.yaml may say of its training."""

    max_epochs: Count
    batch_size: Count
    micro_batch: Annotated[int, Field(ge=0)]  # windows of a batch that go through the network at once; 0: all of them
    run_length: Count  # windows that follow each other in a batch; 1: plain shuffling
    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: NonNegative
    schedule: Literal["cosine", "plateau", "constant"]
    warmup_epochs: NonNegative
    clip_norm: NonNegative  # 0: no clipping
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    class_weights: Literal["none", "balanced"]
    device: Literal["cpu", "auto", "cuda", "mps"]
    precision: Literal["fp32", "bf16", "auto"]
    compile: bool
    deterministic: bool


@dataclass
class TrainingState:
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
        """Add an epoch; returns whether its `val_log_loss` is the best so far."""
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
