"""From a state for each bar to one for the window."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Pooling = Literal["last", "mean", "attention"]


class Pool(nn.Module):
    """`[B, L, H] -> [B, H]`: the last bar's state, their mean, or a learnt weighted mean (Bahdanau et al. 2015)."""

    def __init__(self, how: Pooling, hidden_size: int) -> None:
        super().__init__()
        self.how = how
        self.score = nn.Linear(hidden_size, 1, bias=False) if how == "attention" else None

    def forward(self, states: Tensor) -> Tensor:
        if self.score is not None:
            weights = torch.softmax(self.score(torch.tanh(states)), dim=1)  # [B, L, 1]
            return (weights * states).sum(dim=1)
        return states.mean(dim=1) if self.how == "mean" else states[:, -1]
