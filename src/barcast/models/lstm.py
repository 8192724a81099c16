"""LSTM (Hochreiter and Schmidhuber 1997)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from barcast.models._network import NetworkModel
from barcast.models._recurrent import RecurrentConfig, build_recurrent

if TYPE_CHECKING:
    from torch import nn


class LSTMModel(NetworkModel):
    """LSTM over the bars of a window.

    `model.lstm` of params.yaml; the architecture is `barcast.networks.recurrent`.
    """

    name, family = "lstm", "recurrent"
    config_class = RecurrentConfig

    def _build(self, seq_len: int, width: int) -> nn.Module:
        return build_recurrent("lstm", self.config, width)
