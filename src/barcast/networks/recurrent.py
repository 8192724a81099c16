"""LSTM (Hochreiter and Schmidhuber 1997) and GRU (Cho et al. 2014) over the bars of a window."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from barcast.networks.pooling import Pool, Pooling

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}


class Recurrent(nn.Module):
    """Features of each bar mapped to `embed_size` (0: left as they are), recurrent layers, pooling, logits.

    The map is shared by rows. It takes most of the work off the recurrent layers, which otherwise multiply every
    feature of every bar of every window with the weights of all gates.
    """

    def __init__(
        self,
        cell: Literal["lstm", "gru"],
        width: int,
        embed_size: int,
        hidden_size: int,
        layers: int,
        dropout: float,
        bidirectional: bool,
        pooling: Pooling,
    ) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(width, embed_size), nn.GELU()) if embed_size else nn.Identity()
        between = dropout if layers > 1 else 0.0  # torch drops only between layers
        self.cell = CELLS[cell](
            embed_size or width, hidden_size, layers, batch_first=True, dropout=between, bidirectional=bidirectional
        )
        self.bidirectional, self.pooling = bidirectional, pooling
        states = hidden_size * (1 + bidirectional)
        self.pool = Pool(pooling, states)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(states, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_encoded(self.encode_rows(x))  # [B, L, F] -> [B, 3]

    def encode_rows(self, rows: Tensor) -> Tensor:
        """`[…, F] -> […, D]`, bar by bar."""
        encoded: Tensor = self.embed(rows)
        return encoded

    def forward_encoded(self, encoded: Tensor) -> Tensor:
        """`[B, L, D] -> [B, 3]`."""
        states, _ = self.cell(encoded)  # [B, L, D] -> [B, L, H]
        if self.bidirectional and self.pooling == "last":  # backwards, the last state is the first bar's
            forth, back = states.chunk(2, dim=2)
            pooled = torch.cat([forth[:, -1], back[:, 0]], dim=1)  # [B, H]
        else:
            pooled = self.pool(states)
        logits: Tensor = self.head(self.drop(pooled))  # [B, H] -> [B, 3]
        return logits
