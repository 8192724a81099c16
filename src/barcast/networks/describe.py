"""What a network is, in numbers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

WINDOWS = 16  # with only one, a bar that the maximum of a pool passes over would seem not to count


def describe(network: nn.Module, seq_len: int, width: int) -> dict[str, float]:
    """`parameters`, `flops_per_window` and `receptive_field` of a network for windows `[L, F]`.

    FLOPs are those of the matrix products of one window's forward pass, a multiplication and an addition
    each. The receptive field is how many bars back the oldest one is that can change a logit, found by the
    gradient of the logits at some random windows; torch's generator is left as it was.
    """
    state, was_training = torch.get_rng_state(), network.training
    network.eval()
    windows = torch.randn(WINDOWS, seq_len, width, requires_grad=True)
    with _without_onednn(), FlopCounterMode(display=False) as counter:
        network(windows[:1])
    (gradient,) = torch.autograd.grad(network(windows).square().sum(), windows)
    reached = torch.nonzero(gradient.abs().sum(dim=(0, 2)))  # [N, L, F] -> the bars that count
    network.train(was_training)
    torch.set_rng_state(state)
    return {
        "parameters": float(sum(p.numel() for p in network.parameters())),
        "flops_per_window": float(counter.get_total_flops()),
        "receptive_field": float(seq_len - int(reached.min())) if len(reached) else 0.0,
    }


@contextmanager
def _without_onednn() -> Iterator[None]:
    """oneDNN's LSTM is one operation that the counter does not know."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TF32 acceleration on top of oneDNN")  # about GPUs, at every switch
        with torch.backends.mkldnn.flags(enabled=False):
            yield
