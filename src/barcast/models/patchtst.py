"""PatchTST (Nie et al. 2023), a Transformer encoder over patches of bars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from barcast.models._network import NetworkConfig, NetworkModel, plain, too_short

if TYPE_CHECKING:
    from torch import nn

_ARCHITECTURE = ("channels", "patch_len", "patch_stride", "d_model", "layers", "heads", "d_ff", "dropout", "norm")


class PatchTSTConfig(NetworkConfig):
    """`model.patchtst` of params.yaml."""

    channels: Literal["independent", "mixed"]
    patch_len: Annotated[int, Field(ge=1)]
    patch_stride: Annotated[int, Field(ge=1)]
    d_model: Annotated[int, Field(ge=1)]
    layers: Annotated[int, Field(ge=1)]
    heads: Annotated[int, Field(ge=1)]
    d_ff: Annotated[int, Field(ge=1)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    norm: Literal["batch", "layer"]

    @model_validator(mode="after")
    def _heads_share(self) -> PatchTSTConfig:
        if self.d_model % self.heads:
            raise ValueError(f"d_model a multiple of heads, got {self.d_model} and {self.heads}")
        return self


class PatchTSTModel(NetworkModel):
    """PatchTST, on neuralforecast's encoder.

    The architecture is `barcast.networks.patchtst`.
    """

    name, family = "patchtst", "attention"
    config_class = PatchTSTConfig

    def _build(self, seq_len: int, width: int) -> nn.Module:
        if self.config.patch_len > seq_len:
            raise too_short("patchtst", seq_len, self.config.patch_len, f"patch_len is {self.config.patch_len}")
        from barcast.networks.patchtst import PatchTST

        return PatchTST(seq_len, width, **plain(self.config, *_ARCHITECTURE))
