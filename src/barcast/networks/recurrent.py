"""LSTM (Hochreiter and Schmidhuber 1997) and GRU (Cho et al. 2014) over the bars of a window."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from barcast.networks.pooling import Pool, Pooling

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}


class Recurrent(nn.Module):
    """Recurrent layers, pooling, logits."""

    def __init__(
        self,
        cell: Literal["lstm", "gru"],
        width: int,
        hidden_size: int,
        layers: int,
        dropout: float,
        bidirectional: bool,
        pooling: Pooling,
    ) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0  # torch drops between layers alone
        self.cell = CELLS[cell](
            width, hidden_size, layers, batch_first=True, dropout=between, bidirectional=bidirectional
        )
        self.bidirectional, self.pooling = bidirectional, pooling
        states = hidden_size * (1 + bidirectional)
        self.pool = Pool(pooling, states)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(states, 3)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.cell(x)  # [B, L, F] -> [B, L, H]
        if self.bidirectional and self.pooling == "last":  # backwards, the last state is the first bar's
            forth, back = states.chunk(2, dim=2)
            pooled = torch.cat([forth[:, -1], back[:, 0]], dim=1)  # [B, H]
        else:
            pooled = self.pool(states)
        logits: Tensor = self.head(self.drop(pooled))  # [B, H] -> [B, 3]
        return logits
