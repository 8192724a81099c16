"""The one torch loop: it fits every network and predicts with it, whatever its architecture.

A network maps `[B, L, F]` to logits `[B, 3]`. One whose first layers look at single bars may offer
`encode_rows` (`[R, F] -> [R, D]`) and `forward_encoded` (`[B, L, D] -> [B, 3]`), with
`forward(x) == forward_encoded(encode_rows(rows of x))`. Windows that overlap share most of their rows, so the
loop then encodes each distinct row of a batch once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from barcast.data.windows import FloatArray, IntArray, Windows
from barcast.errors import ModelError
from barcast.training.batches import WindowSource, cut, epoch_batches, in_order
from barcast.training.loop_config import LoopConfig, TrainingState

Log = Callable[[Mapping[str, float], int], None]
Weights = dict[str, Tensor]

PREDICT_BATCH = 512
PLATEAU = 3  # epochs
WARM_START = 0.01  # epochs: the first step is a small one, not none
CHECK_EVERY = 50  # steps between checks of losses on a device: each check waits for it


@runtime_checkable
class RowEncoder(Protocol):
    """A network whose first layers look at single bars."""

    def encode_rows(self, rows: Tensor) -> Tensor:
        """`[R, F] -> [R, D]`."""

    def forward_encoded(self, encoded: Tensor) -> Tensor:
        """`[B, L, D] -> [B, 3]`."""


@dataclass(frozen=True)
class TrainingSet:
    """What a network learns from: `X [N, L, F]`, `y [N]` in 0 … `classes` − 1 and `weight [N]`, of mean 1."""

    X: Windows
    y: IntArray
    weight: FloatArray
    classes: int = 3


class ResumePoint(Protocol):
    """Keeps a training between two epochs. An interrupted one that is restored ends in the same weights as an
    unbroken one."""

    def save(self, state: TrainingState, network: nn.Module, best: Weights, optimizer: torch.optim.Optimizer) -> None:
        """Replace what was saved before."""

    def load(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[TrainingState, Weights] | None:
        """Restore network and optimizer; returns the state and the best weights, None where nothing was saved."""


@dataclass(frozen=True)
class Monitor:
    """Who watches a training.

    `score` returns the validation log-loss of the network as it is. With `patience` None all epochs are trained.
    """

    name: str
    score: Callable[[], float]
    patience: int | None
    log: Log
    resume: ResumePoint | None = None


def seeded(seed: int, epoch: int = 0) -> np.random.Generator:
    """Seed torch for an epoch, and return a generator for its order: any epoch can be repeated by itself."""
    torch.manual_seed(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0].item() >> 1)
    return np.random.default_rng([seed, epoch])


def fit_network(
    network: nn.Module, data: TrainingSet, config: LoopConfig, device: torch.device, seed: int, monitor: Monitor
) -> None:
    """Train in place and leave the network ready to predict; with `patience` it ends as it was after its best epoch.

    AdamW (Loshchilov and Hutter 2019) on cross-entropy with label smoothing (Szegedy et al. 2016), weighted by
    window and by class. `train_log_loss` is the mean loss of the windows as they were met, smoothing left out.

    Raises:
        ModelError: the loss is not finite; names epoch, step and learning rate.
    """
    stepper = _Stepper(network.to(device), data, config, device, monitor)
    found = monitor.resume.load(network, stepper.optimizer) if monitor.resume else None
    state, best = found or (TrainingState(), _copy(network))
    for epoch, metrics in enumerate(state.history):
        monitor.log(metrics, epoch)
    check_every = 1 if device.type == "cpu" else CHECK_EVERY
    while state.epoch < config.max_epochs and (monitor.patience is None or state.stale < monitor.patience):
        epoch = state.epoch
        batches = epoch_batches(len(data.X), config.batch_size, config.run_length, seeded(seed, epoch))
        losses = torch.zeros(len(batches), device=device)
        network.train()
        for number, positions in enumerate(batches):
            stepper.set_rate(epoch + number / len(batches), state)
            losses[number] = stepper.step(positions)
            if number % check_every == check_every - 1 or number + 1 == len(batches):
                stepper.check_finite(losses, number + 1 - check_every, number + 1, epoch)
        val_loss = monitor.score()
        if not math.isfinite(val_loss):
            raise ModelError(f"{monitor.name}: epoch {epoch + 1}: validation log-loss is {val_loss}; {_HINT}")
        metrics = {  # by name, the order in which they come back from a resume checkpoint's JSON
            "learning_rate": stepper.rate,
            "train_log_loss": float(losses.sum()) / len(data.X),
            "val_log_loss": val_loss,
            "windows": float(len(data.X)),
        }
        if state.add(metrics):
            best = _copy(network)
        if monitor.resume:
            monitor.resume.save(state, network, best, stepper.optimizer)
        monitor.log(metrics, epoch)
    if monitor.patience is not None:
        network.load_state_dict(best)
    network.eval()


def predict_logits(network: nn.Module, X: Windows, config: LoopConfig, device: torch.device) -> FloatArray:
    """`[N, L, F] -> [N, 3]`, in blocks, dropout off."""
    source, was_training = WindowSource(X, device), network.training
    network.to(device).eval()
    blocks = []
    with torch.inference_mode(), _autocast(config, device):
        for positions in in_order(len(X), PREDICT_BATCH):
            if isinstance(network, RowEncoder):
                batch = source.shared_rows(positions)
                block = network.forward_encoded(batch.gather(network.encode_rows(batch.rows)))
            else:
                block = network(source.windows(positions))
            blocks.append(block.float().cpu())
    network.train(was_training)
    logits: FloatArray = torch.cat(blocks).numpy()
    return logits


class _Stepper:
    """One step of the optimiser on a batch, and its learning rate."""

    def __init__(
        self, network: nn.Module, data: TrainingSet, config: LoopConfig, device: torch.device, monitor: Monitor
    ) -> None:
        self.network, self.config, self.device, self.name = network, config, device, monitor.name
        self.source = WindowSource(data.X, device)
        self.y = torch.from_numpy(data.y).to(device)
        self.weight = torch.from_numpy(data.weight * _class_weights(data, config)).to(device)
        self.classes = data.classes
        self.encoder = network if config.run_length > 1 and isinstance(network, RowEncoder) else None
        self.optimizer = _optimizer(network, config)
        self.plateau = PLATEAU if monitor.patience is None else max(1, monitor.patience // 2)
        if config.compile:
            _compile(network)

    @property
    def rate(self) -> float:
        rate: float = self.optimizer.param_groups[0]["lr"]
        return rate

    def step(self, positions: IntArray) -> Tensor:
        """One step; returns the sum of the batch's losses. Gradients are added up over micro-batches."""
        config, smoothing = self.config, self.config.label_smoothing
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for piece in cut(positions, config.micro_batch or len(positions)):
            index = torch.from_numpy(piece).to(self.device)
            y, weight = self.y[index], self.weight[index]
            with _autocast(config, self.device):
                if self.encoder:
                    batch = self.source.shared_rows(piece)
                    logits = self.encoder.forward_encoded(batch.gather(self.encoder.encode_rows(batch.rows)))
                else:
                    logits = self.network(self.source.windows(piece))
            logits = logits.float()[:, : self.classes]  # [B, m]
            each = functional.cross_entropy(logits, y, reduction="none", label_smoothing=smoothing)
            loss = (each * weight).sum()
            (loss / len(positions)).backward()  # type: ignore[no-untyped-call]
            if smoothing:
                loss = (functional.cross_entropy(logits.detach(), y, reduction="none") * weight).sum()
            losses.append(loss.detach())
        if config.clip_norm:
            _clip(list(self.network.parameters()), config.clip_norm, self.device)
        self.optimizer.step()
        return torch.stack(losses).sum()

    def set_rate(self, epochs: float, state: TrainingState) -> None:
        """Linear warm-up, and by `schedule` a half cosine down to 0 at `max_epochs` (Loshchilov and Hutter 2017,
        eq. 5), a halving after each half of `patience` (without it, `PLATEAU`) epochs that brought no better
        validation, or no change."""
        config, factor = self.config, 1.0
        if config.schedule == "cosine":
            left, done = config.max_epochs - config.warmup_epochs, epochs - config.warmup_epochs
            factor = 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, done) / left))) if left > 0 else 1.0
        elif config.schedule == "plateau":
            factor = 0.5 ** state.plateaus(self.plateau)
        if epochs < config.warmup_epochs:
            factor *= min(1.0, max(epochs, WARM_START) / config.warmup_epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * factor

    def check_finite(self, losses: Tensor, start: int, stop: int, epoch: int) -> None:
        """Raise for the first of the steps `start` … `stop` − 1 whose loss is not finite."""
        start = max(0, start)
        bad = [start + n for n, loss in enumerate(losses[start:stop].tolist()) if not math.isfinite(loss)]
        if bad:
            raise ModelError(
                f"{self.name}: epoch {epoch + 1}, step {bad[0] + 1}: the loss is not finite at learning rate "
                f"{self.rate:.2g}; {_HINT}"
            )


_HINT = "lower learning_rate or clip_norm"


def _autocast(config: LoopConfig, device: torch.device) -> torch.autocast:
    """bf16 is slower than float32 on the CPUs that were tried, so `auto` means it only on CUDA."""
    half = config.precision == "bf16" or (config.precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=half)


def _optimizer(network: nn.Module, config: LoopConfig) -> torch.optim.Optimizer:
    """AdamW without decay of biases, norms and other vectors."""
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


def _class_weights(data: TrainingSet, config: LoopConfig) -> npt.NDArray[np.float32]:
    """`[N]`: all 1, or so that each class weighs the same in sum."""
    if config.class_weights == "none":
        return np.ones(len(data.y), np.float32)
    totals = np.bincount(data.y, data.weight)
    seen = totals > 0  # one of several networks may not meet every class
    factors = np.divide(data.weight.sum(), seen.sum() * totals, out=np.zeros(len(totals)), where=seen)
    weights: npt.NDArray[np.float32] = factors[data.y].astype(np.float32)
    return weights


def _compile(network: nn.Module) -> None:
    """Compile in place what the loop calls; names in the state dict stay."""
    network.compile()
    if isinstance(network, RowEncoder):
        for name in ("encode_rows", "forward_encoded"):
            setattr(network, name, torch.compile(getattr(network, name)))


def _copy(network: nn.Module) -> Weights:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
