"""Batches of a split's windows, for a training of one's own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from barcast.data.dataset import Split
from barcast.data.windows import FloatArray
from barcast.probabilities import Labels


def batches(
    split: Split, size: int, shuffle: bool = False, seed: int = 0
) -> Iterator[tuple[FloatArray, Labels, FloatArray]]:
    """Yield `(X [B, L, F], y [B], weight [B])`; every window once, the last batch may be short.

    X is one buffer that the next batch overwrites: copy what is kept.
    """
    order = np.random.default_rng(seed).permutation(len(split.X)) if shuffle else np.arange(len(split.X))
    buffer = np.empty((min(size, len(order)), *split.X.shape[1:]), np.float32)
    for start in range(0, len(order), size):
        index = order[start : start + size]
        yield split.X.gather(split.X.ends[index], buffer), split.y[index], split.weight[index]
