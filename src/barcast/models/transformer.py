"""Transformer encoder (Vaswani et al. 2017), pre-norm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from barcast.models._network import NetworkConfig, NetworkModel, plain

if TYPE_CHECKING:
    from torch import nn

_ARCHITECTURE = ("d_model", "layers", "heads", "d_ff", "dropout", "attention_dropout", "positions", "causal", "pooling")


class TransformerConfig(NetworkConfig):
    """`model.transformer` of params.yaml."""

    d_model: Annotated[int, Field(ge=1)]
    layers: Annotated[int, Field(ge=1)]
    heads: Annotated[int, Field(ge=1)]
    d_ff: Annotated[int, Field(ge=1)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    attention_dropout: Annotated[float, Field(ge=0, lt=1)]
    positions: Literal["learned", "sinusoidal"]
    causal: bool
    pooling: Literal["last", "mean", "attention"]

    @model_validator(mode="after")
    def _heads_share(self) -> TransformerConfig:
        if self.d_model % self.heads:
            raise ValueError(f"d_model a multiple of heads, got {self.d_model} and {self.heads}")
        return self


class TransformerModel(NetworkModel):
    """Pre-norm Transformer encoder.

    The architecture is `barcast.networks.transformer`.
    """

    name, family = "transformer", "attention"
    config_class = TransformerConfig

    def _build(self, seq_len: int, width: int) -> nn.Module:
        from barcast.networks.transformer import Transformer

        return Transformer(seq_len, width, **plain(self.config, *_ARCHITECTURE))
