"""The contestants of `forecasts` that torch trains; in the peers' environment, without barcast."""

from __future__ import annotations

import time
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks._forecast_peers import CLASSES, Floats, Forecast, Windows

BATCH = 256
CHECKS_AN_EPOCH = 4  # how often early stopping looks at val
PATIENCE = 12  # checks without a better log-loss
KERNELS = 10_000  # MiniRocket's default; 9,996 features come of them
WINDOWS_A_SECOND = 200  # training windows of MiniRocket for each second of the budget: 30,000 and 1.2 GB at 150 s
MOST_WATCHED = 5_000  # windows of val that stop MiniRocket's regression, 0.2 GB


def fit(network: nn.Module, train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], rate: float, end: float) -> None:
    """Train with AdamW until the time `end` or until val stops it, and keep the best state.

    Args:
        network: `[B, F] -> [B, K, 3]`, K members that learn beside each other and are averaged.
        train: features `[N, F]` and labels `[N]` in 0 … 2.
        val: the same; watched for early stopping.
        rate: the learning rate.
        end: on the clock of `time.monotonic`.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=3e-4)
    every = max(1, len(train[1]) // BATCH // CHECKS_AN_EPOCH)
    best, state, waited, step = log_loss(network, *val), deepcopy(network.state_dict()), 0, 0
    while waited < PATIENCE and time.monotonic() < end:
        for batch in torch.randperm(len(train[1])).split(BATCH):
            network.train()
            said = network(train[0][batch])  # [B, K, 3]
            loss = cross_entropy(said.flatten(0, 1), train[1][batch].repeat_interleave(said.shape[1]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            late = time.monotonic() >= end
            if step % every == 0 or late:
                now = log_loss(network, *val)
                print(f"step {step}: {now:.5f}", flush=True)
                waited = 0 if now < best else waited + 1
                if now < best:
                    best, state = now, deepcopy(network.state_dict())
            if late or waited >= PATIENCE:
                break
    network.load_state_dict(state)


@torch.inference_mode()
def predict(network: nn.Module, X: Tensor) -> Tensor:
    """The mean of the members' probabilities, `[N, F] -> [N, 3]`."""
    network.eval()
    return torch.cat([network(part).softmax(-1).mean(1) for part in X.split(4 * BATCH)])


def log_loss(network: nn.Module, X: Tensor, y: Tensor) -> float:
    true = predict(network, X)[torch.arange(len(y)), y]
    return float(-true.clamp_min(1e-15).log().mean())


def labels(windows: Windows) -> Tensor:
    return torch.from_numpy(np.asarray(windows.y) + 1)


def tabm(train: Windows, val: Windows, test: Windows, seconds: float) -> Forecast:
    """TabM's defaults on the last bar's features, but 128 wide instead of 512.

    At the default width a CPU sees each training window about once in the budget of 150 s, and is worse on val.
    """
    from tabm import TabM

    torch.manual_seed(0)
    end = time.monotonic() + seconds
    X = {name: torch.from_numpy(w.last) for name, w in (("train", train), ("val", val), ("test", test))}
    network = TabM.make(n_num_features=X["train"].shape[1], d_out=len(CLASSES), d_block=128)
    fit(network, (X["train"], labels(train)), (X["val"], labels(val)), 2e-3, end)
    return predict(network, X["val"]).numpy(), predict(network, X["test"]).numpy()


def minirocket(train: Windows, val: Windows, test: Windows, seconds: float) -> Forecast:
    """MiniRocket's features of whole windows, standardised, and multinomial logistic regression on them.

    As in the paper for larger data (Dempster et al. 2021), the regression is trained by mini-batches and stopped by
    validation; its rate is lower than the paper's 1e-4, which was worse on val. A window has 40 kB of features, so
    training windows are thinned evenly, to as many as the budget allows (`WINDOWS_A_SECOND`), and those that stop it to
    `MOST_WATCHED`; val and test are predicted in full.
    """
    from aeon.transformations.collection.convolution_based import MiniRocket

    torch.manual_seed(0)
    end = time.monotonic() + seconds
    few, watched = train.thinned(int(WINDOWS_A_SECOND * seconds)), val.thinned(MOST_WATCHED)
    rocket = MiniRocket(KERNELS, n_jobs=torch.get_num_threads(), random_state=0).fit(few.thinned(1_000).whole())

    def features(windows: Windows, part: slice = slice(None)) -> Tensor:
        return torch.from_numpy(np.asarray(rocket.transform(windows.whole(part)), np.float32))

    def parts(windows: Windows) -> list[Tensor]:
        return [features(windows, slice(start, start + 1_000)) for start in range(0, len(windows.ends), 1_000)]

    X, y = torch.cat(parts(few)), labels(few)
    mean, scale = X.mean(0), X.std(0) + 1e-8
    network = regression(X.shape[1], torch.bincount(y, minlength=len(CLASSES)) / len(y))
    fit(
        network, (X.sub_(mean).div_(scale), y), ((torch.cat(parts(watched)) - mean) / scale, labels(watched)), 3e-5, end
    )

    def said(windows: Windows) -> Floats:
        return torch.cat([predict(network, (part - mean) / scale) for part in parts(windows)]).numpy()

    return said(val), said(test)


def regression(features: int, shares: Tensor) -> nn.Module:
    """Multinomial logistic regression that begins at the classes' shares, as one member: `[B, F] -> [B, 1, 3]`."""
    linear = nn.Linear(features, len(CLASSES))
    nn.init.zeros_(linear.weight)
    with torch.no_grad():
        linear.bias.copy_(shares.clamp_min(1e-6).log())
    return nn.Sequential(linear, nn.Unflatten(1, (1, len(CLASSES))))
