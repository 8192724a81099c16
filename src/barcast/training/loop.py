"""The one torch loop: every network is fitted and asked here, whatever its architecture.

A network maps `[B, L, F]` to logits `[B, 3]`. One whose first layers look at single bars may offer
`encode_rows` (`[R, F] -> [R, D]`) and `forward_encoded` (`[B, L, D] -> [B, 3]`), with
`forward(x) == forward_encoded(encode_rows(rows of x))`. Windows that overlap share most of their rows, so the
loop then encodes each distinct row of a batch once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from barcast.data.windows import FloatArray, IntArray, Windows
from barcast.errors import ModelError
from barcast.training._batches import WindowSource, cut, epoch_batches, in_order
from barcast.training._unfinished import Progress, Unfinished
from barcast.training.loop_config import LoopConfig

Log = Callable[[Mapping[str, float], int], None]

PREDICT_BATCH = 512
PLATEAU = 3  # epochs
WARM_START = 0.01  # epochs: the first step is a small one, not none
CHECK_EVERY = 50  # steps between looks at a loss that lies on a device: each look waits for it


@runtime_checkable
class RowEncoder(Protocol):
    """A network whose first layers look at single bars."""

    def encode_rows(self, rows: Tensor) -> Tensor:
        """`[R, F] -> [R, D]`."""

    def forward_encoded(self, encoded: Tensor) -> Tensor:
        """`[B, L, D] -> [B, 3]`."""


@dataclass(frozen=True)
class Examples:
    """What is learnt from: `X [N, L, F]`, `y [N]` in 0 … `classes` − 1 and `weight [N]`, of mean 1."""

    X: Windows
    y: IntArray
    weight: FloatArray
    classes: int = 3


@dataclass(frozen=True)
class Watch:
    """How a training is watched.

    `score` answers the validation log-loss of the network as it is; None for `patience` trains all epochs.
    `folder` is where the training is kept between two epochs, None: nowhere. Who named it removes it, once what the
    training has made is safe.
    """

    name: str
    score: Callable[[], float]
    patience: int | None
    log: Log
    folder: Path | None


def seeded(seed: int, epoch: int = 0) -> np.random.Generator:
    """Seed torch for an epoch, and answer a generator for its order: any epoch can be repeated by itself."""
    torch.manual_seed(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0].item() >> 1)
    return np.random.default_rng([seed, epoch])


def fit_network(
    network: nn.Module, examples: Examples, config: LoopConfig, device: torch.device, seed: int, watch: Watch
) -> None:
    """Train in place, and leave the network ready to answer; with `patience` it ends as it was after its best epoch.

    AdamW (Loshchilov and Hutter 2019) on cross-entropy with label smoothing (Szegedy et al. 2016), weighted by
    window and by class. A training that was killed goes on after its last whole epoch, and ends in the same
    weights as an unbroken one.

    Raises:
        ModelError: the loss is not finite; names epoch, step and learning rate.
    """
    loop = _Loop(network.to(device), examples, config, device, seed, watch)
    while not loop.done():
        loop.run_epoch()
    if watch.patience is not None:
        network.load_state_dict(loop.best)
    network.eval()


def predict_logits(network: nn.Module, X: Windows, config: LoopConfig, device: torch.device) -> FloatArray:
    """`[N, L, F] -> [N, 3]`, in blocks, dropout off."""
    source, was_training = WindowSource(X, device), network.training
    network.to(device).eval()
    answers = []
    with torch.inference_mode(), _autocast(config, device):
        for positions in in_order(len(X), PREDICT_BATCH):
            answers.append(_forward(network, source, positions, shared=True).float().cpu())
    network.train(was_training)
    logits: FloatArray = torch.cat(answers).numpy()
    return logits


def _forward(network: nn.Module, source: WindowSource, positions: IntArray, shared: bool) -> Tensor:
    """Logits `[B, 3]` of the windows at `positions`, their distinct rows encoded once where the network can."""
    if not (shared and isinstance(network, RowEncoder)):
        logits: Tensor = network(source.windows(positions))
        return logits
    batch = source.shared_rows(positions)
    encoded = network.encode_rows(batch.rows)  # [R, F] -> [R, D]
    gathered = encoded.index_select(0, batch.place.flatten()).view(*batch.place.shape, -1)  # [B, L, D]
    return network.forward_encoded(gathered)


def _autocast(config: LoopConfig, device: torch.device) -> torch.autocast:
    """bf16 is slower than float32 on the CPUs that were tried, so `auto` means it on CUDA alone."""
    half = config.precision == "bf16" or (config.precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=half)


class _Loop:
    """One training between two epochs: network, optimiser, and how far it has come."""

    def __init__(
        self, network: nn.Module, examples: Examples, config: LoopConfig, device: torch.device, seed: int, watch: Watch
    ) -> None:
        self.network, self.config, self.device, self.seed, self.watch = network, config, device, seed, watch
        self.count = len(examples.X)
        self.source = WindowSource(examples.X, device)
        self.y = torch.from_numpy(examples.y).to(device)
        self.weight = torch.from_numpy(examples.weight * _class_weights(examples, config)).to(device)
        self.classes = examples.classes
        self.optimizer = _optimizer(network, config)
        if config.compile:
            _compile(network)
        self.best = _copy(network)
        self.progress = Progress()
        self.plateau = PLATEAU if watch.patience is None else max(1, watch.patience // 2)
        self.unfinished = Unfinished(watch.folder)
        self._resume()

    def done(self) -> bool:
        progress, patience = self.progress, self.watch.patience
        return progress.epoch == self.config.max_epochs or (patience is not None and progress.stale >= patience)

    def run_epoch(self) -> None:
        epoch = self.progress.epoch
        batches = epoch_batches(self.count, self.config.batch_size, self.config.run_length, seeded(self.seed, epoch))
        train_loss = self._train(batches, epoch)
        val_loss = self.watch.score()
        if not math.isfinite(val_loss):
            raise ModelError(f"{self.watch.name}: epoch {epoch + 1}: validation log-loss is {val_loss}; {_HINT}")
        rate = self.optimizer.param_groups[0]["lr"]
        metrics = {  # by name, as they come back from an unfinished training's JSON
            "learning_rate": rate,
            "train_log_loss": train_loss,
            "val_log_loss": val_loss,
            "windows": float(self.count),
        }
        if self.progress.add(metrics):
            self.best = _copy(self.network)
        self.unfinished.save(self.progress, self.network, self.best, self.optimizer)
        self.watch.log(metrics, epoch)

    def _train(self, batches: list[IntArray], epoch: int) -> float:
        """One pass over `batches`; the mean loss of its windows as they were met, smoothing left out."""
        self.network.train()
        losses = torch.zeros(len(batches), device=self.device)
        every = 1 if self.device.type == "cpu" else CHECK_EVERY
        for first in range(0, len(batches), every):
            for number, positions in enumerate(batches[first : first + every], start=first):
                self._set_rate(epoch + number / len(batches))
                losses[number] = self._step(positions)
            self._check(losses[first : first + every], first, epoch)
        return float(losses.sum()) / self.count

    def _step(self, positions: IntArray) -> Tensor:
        """One step of the optimiser; the losses of the batch in sum. Its gradient is added up over micro-batches."""
        self.optimizer.zero_grad(set_to_none=True)
        pieces = cut(positions, self.config.micro_batch or len(positions))
        loss = torch.stack([self._add_gradient(piece, len(positions)) for piece in pieces]).sum()
        if self.config.clip_norm:
            _clip(list(self.network.parameters()), self.config.clip_norm, self.device)
        self.optimizer.step()
        return loss

    def _add_gradient(self, positions: IntArray, count: int) -> Tensor:
        """Forward and backward of some windows of a batch of `count`; the sum of their losses."""
        index = torch.from_numpy(positions).to(self.device)
        y, weight = self.y[index], self.weight[index]
        with _autocast(self.config, self.device):
            logits = _forward(self.network, self.source, positions, shared=self.config.run_length > 1)
        logits = logits.float()[:, : self.classes]  # [B, m]
        smoothing = self.config.label_smoothing
        each = functional.cross_entropy(logits, y, reduction="none", label_smoothing=smoothing)
        loss = (each * weight).sum()
        (loss / count).backward()  # type: ignore[no-untyped-call]
        if smoothing:
            return (functional.cross_entropy(logits.detach(), y, reduction="none") * weight).sum()
        return loss.detach()

    def _set_rate(self, epochs: float) -> None:
        """Linear warm-up, and by `schedule` a half cosine down to 0 at `max_epochs` (Loshchilov and Hutter 2017,
        eq. 5), a halving after each half of `patience` (without it, `PLATEAU`) epochs that brought no better
        validation, or no change."""
        config, factor = self.config, 1.0
        if config.schedule == "cosine":
            left, done = config.max_epochs - config.warmup_epochs, epochs - config.warmup_epochs
            factor = 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, done) / left))) if left > 0 else 1.0
        elif config.schedule == "plateau":
            factor = 0.5 ** self.progress.plateaus(self.plateau)
        if epochs < config.warmup_epochs:
            factor *= min(1.0, max(epochs, WARM_START) / config.warmup_epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * factor

    def _check(self, losses: Tensor, after: int, epoch: int) -> None:
        """Raise for the first of some steps' losses that is not finite; `after` steps of the epoch came before."""
        bad = [number for number, loss in enumerate(losses.tolist(), start=1) if not math.isfinite(loss)]
        if bad:
            step, rate = after + bad[0], self.optimizer.param_groups[0]["lr"]
            raise ModelError(
                f"{self.watch.name}: epoch {epoch + 1}, step {step}: the loss is not finite at learning rate "
                f"{rate:.2g}; {_HINT}"
            )

    def _resume(self) -> None:
        found = self.unfinished.load(self.network, self.optimizer)
        if found is not None:
            self.progress, self.best = found
            for epoch, metrics in enumerate(self.progress.history):
                self.watch.log(metrics, epoch)


_HINT = "lower learning_rate or clip_norm"


def _optimizer(network: nn.Module, config: LoopConfig) -> torch.optim.Optimizer:
    """AdamW whose decay leaves biases, norms and other vectors alone."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.learning_rate, fused=True)


def _clip(parameters: list[nn.Parameter], clip_norm: float, device: torch.device) -> None:
    """Scale all gradients down to a norm of at most `clip_norm` in all (Pascanu, Mikolov and Bengio 2013)."""
    cpu = device.type == "cpu"
    at_once = cpu or None  # there, torch's own choice is one parameter after the other
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], foreach=at_once)
    if not (cpu and norm <= clip_norm):  # elsewhere, to look would be to wait
        nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm, foreach=at_once)


def _class_weights(examples: Examples, config: LoopConfig) -> npt.NDArray[np.float32]:
    """`[N]`: all 1, or so that each class weighs the same in sum."""
    if config.class_weights == "none":
        return np.ones(len(examples.y), np.float32)
    totals = np.bincount(examples.y, examples.weight)
    seen = totals > 0  # one of several networks may not meet every class
    factors = np.divide(examples.weight.sum(), seen.sum() * totals, out=np.zeros(len(totals)), where=seen)
    weights: npt.NDArray[np.float32] = factors[examples.y].astype(np.float32)
    return weights


def _compile(network: nn.Module) -> None:
    """Compile in place what `_forward` calls; names in the state dict stay."""
    network.compile()
    if isinstance(network, RowEncoder):
        for name in ("encode_rows", "forward_encoded"):
            setattr(network, name, torch.compile(getattr(network, name)))


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
