"""A pre-norm Transformer encoder (Vaswani et al. 2017; Xiong et al. 2020) over the bars of a window."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from barcast.networks.dropout import with_cheap_dropout
from barcast.networks.pooling import Pool, Pooling

Positions = Literal["learned", "sinusoidal"]


class Transformer(nn.Module):
    """Projection of each bar, positions, encoder layers, pooling, logits. The projection is shared by rows."""

    def __init__(
        self,
        seq_len: int,
        width: int,
        d_model: int,
        layers: int,
        heads: int,
        d_ff: int,
        dropout: float,
        attention_dropout: float,
        positions: Positions,
        causal: bool,
        pooling: Pooling,
    ) -> None:
        super().__init__()
        self.project = nn.Linear(width, d_model)
        table = sinusoids(seq_len, d_model) if positions == "sinusoidal" else 0.02 * torch.randn(seq_len, d_model)
        self.positions = nn.Parameter(table, requires_grad=positions == "learned")
        layer = nn.TransformerEncoderLayer(d_model, heads, d_ff, dropout, "gelu", batch_first=True, norm_first=True)
        layer.self_attn.dropout = attention_dropout  # torch makes one of the two
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(d_model)
        mask = nn.Transformer.generate_square_subsequent_mask(seq_len) if causal else None
        self.register_buffer("mask", mask, persistent=False)
        self.causal = causal
        self.pool = Pool(pooling, d_model)
        self.head = nn.Linear(d_model, 3)
        with_cheap_dropout(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_encoded(self.encode_rows(x))  # [B, L, F] -> [B, 3]

    def encode_rows(self, rows: Tensor) -> Tensor:
        """`[…, F] -> […, D]`, bar by bar."""
        encoded: Tensor = self.project(rows)
        return encoded

    def forward_encoded(self, encoded: Tensor) -> Tensor:
        """`[B, L, D] -> [B, 3]`."""
        states = encoded + self.positions
        *others, last = self.encoder.layers
        for layer in others:
            states = layer(states, src_mask=self.mask, is_causal=self.causal)
        if self.pool.how == "last":
            states = last_bar(last, states)  # [B, 1, D]
        else:
            states = last(states, src_mask=self.mask, is_causal=self.causal)  # [B, L, D]
        logits: Tensor = self.head(self.pool(self.norm(states)))
        return logits


def last_bar(layer: nn.TransformerEncoderLayer, x: Tensor) -> Tensor:
    """What a pre-norm layer answers at the last bar, which sees all: `[B, L, D] -> [B, 1, D]`, for a fraction of the
    work that all bars are."""
    bars = layer.norm1(x)
    seen, _ = layer.self_attn(bars[:, -1:], bars, bars, need_weights=False)
    x = x[:, -1:] + layer.dropout1(seen)
    wide = layer.dropout(layer.activation(layer.linear1(layer.norm2(x))))
    answer: Tensor = x + layer.dropout2(layer.linear2(wide))
    return answer


def sinusoids(length: int, size: int) -> Tensor:
    """Sines and cosines of each position `[L, D]`, interleaved (Vaswani et al. 2017, section 3.5)."""
    rates = torch.exp(-math.log(10_000) * torch.arange(0, size, 2) / size)  # [D/2]
    angles = torch.arange(length)[:, None] * rates  # [L, D/2]
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :size]
