"""A pre-norm Transformer encoder (Vaswani et al. 2017; Xiong et al. 2020) over the bars of a window."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

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
            states = apply_layer(layer, states, self.causal)
        states = apply_layer(last, states, self.causal, last_alone=self.pool.how == "last")  # [B, L, D] or [B, 1, D]
        logits: Tensor = self.head(self.pool(self.norm(states)))
        return logits


def apply_layer(layer: nn.TransformerEncoderLayer, x: Tensor, causal: bool, last_alone: bool = False) -> Tensor:
    """The output of a pre-norm layer, `[B, L, D] -> [B, L, D]`, or only at the last bar, `[B, 1, D]`, for a fraction of
    the work.

    torch's own layer parts queries, keys and values so that each gradient fills zeros for the two others, which takes
    an eighth of a step on a CPU.
    """
    bars, attention = layer.norm1(x), layer.self_attn
    if last_alone:  # which sees all others
        x, causal = x[:, -1:], False
    size, heads = attention.embed_dim, attention.num_heads
    to_query, to_rest = torch.split(attention.in_proj_weight, [size, 2 * size])
    bias_of_query, bias_of_rest = torch.split(attention.in_proj_bias, [size, 2 * size])
    query = functional.linear(bars[:, -x.shape[1] :], to_query, bias_of_query).view(len(x), -1, heads, size // heads)
    key, value = functional.linear(bars, to_rest, bias_of_rest).view(len(x), -1, 2, heads, size // heads).unbind(2)
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))  # [B, L, M, D/M] -> [B, M, L, D/M]
    dropped = attention.dropout * layer.training
    seen = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropped, is_causal=causal)
    x = x + layer.dropout1(attention.out_proj(seen.transpose(1, 2).flatten(2)))
    wide = layer.dropout(layer.activation(layer.linear1(layer.norm2(x))))
    answer: Tensor = x + layer.dropout2(layer.linear2(wide))
    return answer


def sinusoids(length: int, size: int) -> Tensor:
    """Sines and cosines of each position `[L, D]`, interleaved (Vaswani et al. 2017, section 3.5)."""
    rates = torch.exp(-math.log(10_000) * torch.arange(0, size, 2) / size)  # [D/2]
    angles = torch.arange(length)[:, None] * rates  # [L, D/2]
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :size]
