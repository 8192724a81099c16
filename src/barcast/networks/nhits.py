"""N-HiTS (Challu, Olivares, Oreshkin et al. 2023) as a classifier, on neuralforecast's blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from neuralforecast.models.nhits import NHITSBlock, _IdentityBasis
from torch import Tensor, nn
from torch.nn import functional

from barcast.networks.dropout import with_cheap_dropout

Pooling = Literal["max", "mean"]


class NHITS(nn.Module):
    """Blocks that each see the window pooled at a rate of their own, and add up their logits.

    N-HiTS forecasts a series: each block takes off what it explains of the series' past before the next one
    looks. A classifier of windows has no such series, so it is learnt: one weighted sum of a bar's features.
    Every block also sees all features, as neuralforecast's covariates.

    Args:
        pool_sizes: bars that each block pools into one; a block each.
        layers: hidden layers of a block, `hidden_size` units each.
    """

    def __init__(
        self,
        seq_len: int,
        width: int,
        hidden_size: int,
        layers: int,
        pool_sizes: Sequence[int],
        pooling: Pooling,
        dropout: float,
    ) -> None:
        super().__init__()
        self.series = nn.Linear(width, 1)
        self.blocks = nn.ModuleList()
        for position, size in enumerate(pool_sizes, start=1):
            explained = seq_len if position < len(pool_sizes) else 0  # nothing looks after the last block
            block = NHITSBlock(
                input_size=seq_len,
                h=1,
                n_theta=explained + 3,
                mlp_units=layers * [[hidden_size, hidden_size]],
                basis=_IdentityBasis(explained, 1, "linear", out_features=3),
                futr_input_size=0,
                hist_input_size=width,
                stat_input_size=0,
                n_pool_kernel_size=size,
                pooling_mode="MaxPool1d",
                dropout_prob=dropout,
                activation="ReLU",
            )
            block.pooling_layer = BarPool(size, pooling)
            self.blocks.append(block)
        with_cheap_dropout(self)

    def forward(self, x: Tensor) -> Tensor:
        left = self.series(x).squeeze(-1).flip(1)  # [B, L, F] -> [B, L], the last bar first, as they train it
        *others, last = self.blocks
        logits = []
        for block in others:
            explained, answer = _ask(block, left, x)
            left = left - explained
            logits.append(answer)
        total: Tensor = sum(logits, start=_ask(last, left, x)[1])  # [B, 3]
        return total


def _ask(block: NHITSBlock, series: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The output of a block, `[B, L]` and `[B, L, F]` to `[B, L]` (none of the last block's) and `[B, 3]`.

    The block itself would lay the pooled series and features side by side for its first layer. Nobody asks for a
    gradient of the features, which is most of that layer's: apart, it is not computed, and nothing is copied.
    """
    series = block.pooling_layer(series.unsqueeze(1)).squeeze(1)  # [B, L/size]
    features = block.pooling_layer(x.transpose(1, 2)).transpose(1, 2).flatten(1)  # [B, L/size * F]
    first, *others = block.layers
    of_series, of_features = first.weight.split((series.shape[1], features.shape[1]), dim=1)
    state = functional.linear(series, of_series, first.bias) + functional.linear(features, of_features)
    for layer in others:
        state = layer(state)
    explained, answer = block.basis(state)
    return explained, answer.squeeze(1)


class BarPool(nn.Module):
    """`[B, C, L] -> [B, C, ⌈L/size⌉]` as torch's `MaxPool1d` or `AvgPool1d` with `ceil_mode`.

    A block hands over windows with bars and features transposed; this reads and writes them as they lie in
    memory, where torch's pooling copies them to and fro.
    """

    def __init__(self, size: int, how: Pooling) -> None:
        super().__init__()
        self.size, self.reduce = size, torch.amax if how == "max" else torch.mean

    def forward(self, x: Tensor) -> Tensor:
        bars = x.transpose(1, 2)  # [B, L, C]
        if self.size == 1:
            return x
        whole = bars.shape[1] // self.size * self.size
        pooled = [self.reduce(bars[:, :whole].reshape(len(x), -1, self.size, x.shape[1]), dim=2)]
        if whole < bars.shape[1]:
            pooled.append(self.reduce(bars[:, whole:], dim=1, keepdim=True))
        return torch.cat(pooled, dim=1).transpose(1, 2)
