"""What LSTM and GRU share: their hyperparameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from barcast.models._network import NetworkConfig, plain

if TYPE_CHECKING:
    from torch import nn


class RecurrentConfig(NetworkConfig):
    """A recurrent network's block in params.yaml. `dropout` is between layers, and before the logits."""

    embed_size: Annotated[int, Field(ge=0)]
    hidden_size: Annotated[int, Field(ge=1)]
    layers: Annotated[int, Field(ge=1)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    bidirectional: bool
    pooling: Literal["last", "mean", "attention"]


def build_recurrent(cell: Literal["lstm", "gru"], config: RecurrentConfig, width: int) -> nn.Module:
    """An untrained network for `width` features."""
    from barcast.networks.recurrent import Recurrent

    fields = ("embed_size", "hidden_size", "layers", "dropout", "bidirectional", "pooling")
    return Recurrent(cell, width, **plain(config, *fields))
