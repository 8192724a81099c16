"""Dropout (Srivastava et al. 2014) that a CPU can afford."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 256  # of a byte


class Dropout(nn.Dropout):
    """`nn.Dropout` with one random byte a value on a CPU.

    torch draws 64 random bits for each value there, in one thread: of a network of cheap layers that is
    most of a step. Here each draw serves eight values, so that `p` is rounded to a multiple of 1/256.
    """

    def forward(self, x: Tensor) -> Tensor:
        dropped = min(round(self.p * LEVELS), LEVELS - 1)
        if x.device.type != "cpu" or not self.training:
            return super().forward(x)
        if not dropped:
            return x
        kept = (random_bytes(x.numel()).view(x.shape) >= dropped).to(x.dtype)
        return x * kept.mul_(LEVELS / (LEVELS - dropped))


def random_bytes(count: int) -> Tensor:
    """`[count]` uint8 from torch's generator."""
    words = torch.empty(-(-count // 8), dtype=torch.int64).random_(-(2**63), None)
    return words.view(torch.uint8)[:count]


def with_cheap_dropout(network: nn.Module) -> nn.Module:
    """Put `Dropout` in the place of every `nn.Dropout` inside a network; returns it."""
    for module in network.modules():
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p))
    return network
