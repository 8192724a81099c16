"""The settings of the torch loop, readable without torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from barcast.config import Section

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
