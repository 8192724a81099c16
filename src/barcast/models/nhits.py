"""N-HiTS (Challu et al. 2023), hierarchical interpolation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from barcast.models._network import NetworkConfig, NetworkModel, plain, too_short

if TYPE_CHECKING:
    from torch import nn

_ARCHITECTURE = ("hidden_size", "layers", "pool_sizes", "pooling", "dropout")


class NHITSConfig(NetworkConfig):
    """`model.nhits` of params.yaml. Each of `pool_sizes` is a block, and how many bars it sees as one."""

    hidden_size: Annotated[int, Field(ge=1)]
    layers: Annotated[int, Field(ge=1)]
    pool_sizes: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]
    pooling: Literal["max", "mean"]
    dropout: Annotated[float, Field(ge=0, lt=1)]


class NHITSModel(NetworkModel):
    """N-HiTS, blocks at several rates, on neuralforecast's.

    The architecture is `barcast.networks.nhits`.
    """

    name, family = "nhits", "mlp"
    config_class = NHITSConfig

    def _build(self, seq_len: int, width: int) -> nn.Module:
        longest = max(self.config.pool_sizes)
        if longest > seq_len:
            raise too_short("nhits", seq_len, longest, f"pool_sizes has {longest}")
        from barcast.networks.nhits import NHITS

        return NHITS(seq_len, width, **plain(self.config, *_ARCHITECTURE))
