"""GRU (Cho et al. 2014)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from barcast.models._network import NetworkModel
from barcast.models._recurrent import RecurrentConfig, build_recurrent

if TYPE_CHECKING:
    from torch import nn


class GRUModel(NetworkModel):
    """GRU over the bars of a window.

    `model.gru` of params.yaml; the architecture is `barcast.networks.recurrent`.
    """

    name, family = "gru", "recurrent"
    config_class = RecurrentConfig

    def _build(self, seq_len: int, width: int) -> nn.Module:
        return build_recurrent("gru", self.config, width)
