"""PatchTST (Nie, Nguyen, Sinthong and Kalagnanam 2023) as a classifier, on neuralforecast's encoder."""

from __future__ import annotations

from typing import Literal

import torch
from neuralforecast.models.patchtst import TSTEncoder, positional_encoding
from torch import Tensor, nn

from barcast.networks.dropout import Dropout, with_cheap_dropout


class PatchTST(nn.Module):
    """Patches of bars as tokens, positions, encoder layers, one linear layer over all tokens.

    `channels="independent"` is the paper: each feature is a series of its own, all with the same weights, and
    the logits are the mean of theirs. `channels="mixed"` is not: a token holds all features of a patch.
    The window is prolonged by `patch_stride` copies of its last bar, as in the paper, so that its last bars
    lie in two patches.

    Args:
        patch_len: bars of a patch, `seq_len` at most.
        patch_stride: bars from a patch to the next.
        norm: `batch` as in the paper, or `layer`, which looks at one window.
    """

    def __init__(
        self,
        seq_len: int,
        width: int,
        channels: Literal["independent", "mixed"],
        patch_len: int,
        patch_stride: int,
        d_model: int,
        layers: int,
        heads: int,
        d_ff: int,
        dropout: float,
        norm: Literal["batch", "layer"],
    ) -> None:
        super().__init__()
        self.mixed, self.patch_len, self.patch_stride = channels == "mixed", patch_len, patch_stride
        patches = (seq_len - patch_len) // patch_stride + 2
        self.embed = nn.Linear(patch_len * width if self.mixed else patch_len, d_model)
        self.positions = positional_encoding("zeros", True, patches, d_model)
        self.drop = Dropout(dropout)
        self.encoder = TSTEncoder(
            patches,
            d_model,
            heads,
            linear_hidden_size=d_ff,
            norm=norm,
            dropout=dropout,
            res_attention=True,  # without it, neuralforecast's attention drops values in prediction too
            n_layers=layers,
        )
        self.head = nn.Linear(patches * d_model, 3)
        with_cheap_dropout(self)

    def forward(self, x: Tensor) -> Tensor:
        states = self.encoder(self.drop(self._tokens(x) + self.positions))
        logits: Tensor = self.head(states.transpose(1, 2).flatten(1))  # neuralforecast's order
        return logits if self.mixed else logits.view(*x.shape[::2], 3).mean(dim=1)

    def _tokens(self, x: Tensor) -> Tensor:
        """Embedded patches `[B, L, F] -> [B, P, D]`, of independent channels `[B*F, P, D]`.

        Only the last patch reaches into the copies of the last bar, so only that patch is prolonged, not the window.
        """
        start = (x.shape[1] - self.patch_len) // self.patch_stride * self.patch_stride + self.patch_stride
        copies = x[:, -1:].expand(-1, start + self.patch_len - x.shape[1], -1)
        parts = x, torch.cat([x[:, start:], copies], dim=1)
        return torch.cat([self.embed(self._patches(part)) for part in parts], dim=1)

    def _patches(self, x: Tensor) -> Tensor:
        """P patches of K bars: `[B, L, F] -> [B, P, K*F]` of mixed channels, `[B*F, P, K]` of independent ones."""
        patches = x.unfold(1, self.patch_len, self.patch_stride)  # [B, P, F, K]
        if self.mixed:
            return patches.transpose(2, 3).flatten(2)
        return patches.transpose(1, 2).flatten(0, 1)
