"""The small parts of a Temporal Fusion Transformer: gates, residual networks, stacks of layers, attention.

Each copies the weights of the module of neuralforecast that it replaces, and computes what that
computes. Equation numbers are those of Lim, Arik, Loeff and Pfister (2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from neuralforecast.models.tft import GLU, GRN, InterpretableMultiHeadAttention
from torch import Tensor, nn
from torch.nn import functional

from barcast.networks.dropout import Dropout


def gated(layer: nn.Linear, x: Tensor) -> Tensor:
    """A gated linear unit (eq. 5). torch's own `glu` is several times slower on a CPU."""
    both: Tensor = layer(x)
    value, gate = both.chunk(2, dim=-1)
    return value * torch.sigmoid(gate)


class GatedSkip(nn.Module):
    """The norm of a gated input and what skips the gate, `2 × […, H] -> […, H]`."""

    def __init__(self, glu: GLU, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.gate, self.norm = deepcopy(glu.lin), deepcopy(norm)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        normed: Tensor = self.norm(gated(self.gate, x) + skip)
        return normed


class GatedResidual(nn.Module):
    """A gated residual network (eq. 2 to 4) without a context, `[…, H] -> […, H]`."""

    def __init__(self, grn: GRN) -> None:
        super().__init__()
        self.first, self.second = deepcopy(grn.lin_a), deepcopy(grn.lin_i)
        self.drop = Dropout(grn.dropout.p)
        self.skip = GatedSkip(grn.glu, grn.layer_norm.ln)

    def forward(self, x: Tensor) -> Tensor:
        state = self.drop(self.second(functional.elu(self.first(x))))
        normed: Tensor = self.skip(state, x)
        return normed


class StackedLinear(nn.Module):
    """A linear layer for each of F features as one batched product, `[F, R, in] -> [F, R, out]`.

    Args:
        weights: `[in, out]`, F times.
        biases: `[out]`, F times. They lie flat, so that an optimiser which spares vectors from weight decay
            spares them.
    """

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack(list(weights)).detach())  # [F, in, out]
        self.bias = nn.Parameter(torch.cat(list(biases)).detach())  # [F*out]

    @classmethod
    def of(cls, layers: Sequence[nn.Linear]) -> StackedLinear:
        return cls([layer.weight.T for layer in layers], [layer.bias for layer in layers])

    @property
    def offset(self) -> Tensor:
        """The biases as `[F, 1, out]`."""
        return self.bias.view(len(self.weight), 1, -1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.offset, x, self.weight)


class LastStepAttention(nn.Module):
    """Interpretable attention (eq. 13 to 16) of the last of T steps, `[B, T, H] -> [B, H]` and its weights `[B, T]`.

    One query a window is less than its keys, so the key's weights are applied to the query, and those of the
    values, which the heads share, to the mean of what is attended.
    """

    def __init__(self, attention: InterpretableMultiHeadAttention) -> None:
        super().__init__()
        self.heads, self.head_size = attention.n_head, attention.d_head
        self.project, self.out = deepcopy(attention.qkv_linears), deepcopy(attention.out_proj)
        self.drop_weights, self.drop = Dropout(attention.attn_dropout.p), Dropout(attention.out_dropout.p)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        queries = self.heads * self.head_size
        to_query, to_key, to_value = self.project.weight.split((queries, queries, self.head_size))
        query = functional.linear(x[:, -1], to_query).view(-1, self.heads, self.head_size)
        query = torch.einsum("bmd,mdh->bmh", query, to_key.view(self.heads, self.head_size, -1))
        scores = torch.bmm(query, x.transpose(1, 2)) * self.head_size**-0.5  # [B, M, T]
        weights = self.drop_weights(torch.softmax(scores, dim=-1)).mean(dim=1)  # [B, T]
        attended = torch.bmm(weights.unsqueeze(1), x).squeeze(1)  # [B, H]
        return self.drop(self.out(functional.linear(attended, to_value))), weights
