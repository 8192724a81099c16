"""What the networks share: training by the one loop, probabilities from logits, weights as safetensors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from barcast.data.windows import FloatArray, Windows
from barcast.errors import ModelError
from barcast.models._classes import SeenClasses
from barcast.models.base import BaseModel, EarlyStoppingConfig, Log, read_json, write_json
from barcast.probabilities import Labels, Probabilities, log_loss, softmax
from barcast.training.loop_config import LoopConfig

if TYPE_CHECKING:
    import torch
    from torch import nn

_SEED_STEP = 10_007  # between the seeds of networks that are averaged, far beyond those of `evaluate.seeds`


class NetworkConfig(LoopConfig, EarlyStoppingConfig):
    """What every network is given: what it sees and how it is trained. Its architecture is in a subclass.

    Early stopping uses every `watch_stride`-th validation window: neighbours share all bars but one, so the others
    would cost more time than they are worth.
    """

    watch_stride: Annotated[int, Field(ge=1)]
    lookback: Annotated[int, Field(ge=1)] | None  # bars of a window that the network sees, the last ones; null: all
    average_seeds: Annotated[int, Field(ge=1)]  # networks whose probabilities are averaged


class NetworkModel(BaseModel):
    """Torch networks of `[B, L, F] -> [B, 3]`, trained by `barcast.training.loop`; their mean probabilities.

    The networks differ by the seed of their weights and batches, and by the training windows: each begins its
    `train_stride` at another window, so together they learn from more of them. Each is stopped early by itself.

    Windows that weigh 0 are left out, and a class that the train windows lack is predicted as `SeenClasses`
    describes. `train_log_loss` is the weighted mean over an epoch while it trains, dropout on; `val_log_loss` is
    unweighted, of the windows that early stopping uses; both are of one network, whose epochs are logged from step
    `network · max_epochs` on. The first epoch also logs the network's size: see `barcast.networks.describe`.
    """

    _classes: SeenClasses
    _networks: list[nn.Module]

    @abstractmethod
    def _build(self, seq_len: int, width: int) -> nn.Module:
        """An untrained network for windows of `seq_len` bars and `width` features; torch is seeded already.

        Raises:
            ModelError: a window too short for the architecture; names the shortest that it takes.
        """

    def _fit(
        self, X_train: Windows, y_train: Labels, X_val: Windows, y_val: Labels, weight: FloatArray, log: Log
    ) -> None:
        from barcast.networks.describe import describe
        from barcast.training.loop import Monitor, TrainingSet, fit_network, seeded
        from barcast.training.session import torch_session

        config = self.config
        self._classes, self._networks = SeenClasses.of(y_train[weight > 0]), []
        X, monitored = X_train.last(config.lookback), self._monitored(X_val)
        with torch_session(config, config.threads) as device:
            for number in range(config.average_seeds):
                seed = config.random_seed + number * _SEED_STEP
                seeded(seed)
                network = self._build(X.seq_len, len(self.feature_columns))
                facts = {} if number else describe(network, X.seq_len, len(self.feature_columns))
                thinned = X.thinned(config.train_stride, number * config.train_stride // config.average_seeds)
                used = thinned[weight[thinned] > 0]
                if not len(used):
                    raise ModelError(f"{config.model_name}: every window that train_stride keeps weighs 0; lower it")
                data = TrainingSet(
                    X.select(used),
                    self._classes.encode(y_train[used]),
                    weight[used] / weight[used].mean(),
                    len(self._classes.present),
                )
                monitor = Monitor(
                    name=config.model_name,
                    score=partial(self._loss, network, monitored, y_val[:: config.watch_stride], device),
                    patience=config.patience if config.early_stopping else None,
                    log=_numbered(log, number * config.max_epochs, facts),
                    resume=self.resume(number) if self.resume else None,
                )
                fit_network(network, data, config, device, seed + 1, monitor)
                self._networks.append(network)

    def _monitored(self, X_val: Windows) -> Windows:
        """The validation windows that early stopping uses."""
        return X_val.last(self.config.lookback).select(slice(None, None, self.config.watch_stride))

    def _loss(self, network: nn.Module, X: Windows, y: Labels, device: torch.device) -> float:
        return log_loss(self._classes.expand(self._softmax(network, X, device)), y)

    def _predict_proba(self, X: Windows) -> Probabilities:
        from barcast.training.session import torch_session

        windows = X.last(self.config.lookback)
        with torch_session(self.config, self.config.threads, predicting=True) as device:
            each = [self._softmax(network, windows, device) for network in self._networks]
        return self._classes.expand(np.mean(each, axis=0))

    def _softmax(self, network: nn.Module, X: Windows, device: torch.device) -> Probabilities:
        """One network's probabilities of the present classes, `[N, m]`."""
        from barcast.training.loop import predict_logits

        logits = predict_logits(network, X, self.config, device).astype(np.float64)
        return softmax(logits[:, : len(self._classes.present)])  # [N, 3] -> [N, m]

    def _save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        write_json(folder / "classes.json", self._classes.to_json())
        for number, network in enumerate(self._networks):
            state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
            save_file(state, folder / f"network_{number}.safetensors")

    def _load(self, folder: Path) -> None:
        from safetensors.torch import load_file

        if self.seq_len is None:
            raise ModelError(f"{folder / 'model.json'}: no seq_len; train the model again")
        self._classes, self._networks = SeenClasses.from_json(read_json(folder / "classes.json")), []
        for number in range(self.config.average_seeds):
            network = self._build(self.config.lookback or self.seq_len, len(self.feature_columns))
            network.load_state_dict(load_file(folder / f"network_{number}.safetensors"))
            self._networks.append(network.eval())


def _numbered(log: Log, first: int, facts: Mapping[str, float]) -> Log:
    """A log of one network among several, whose epochs count from `first`; its first one also logs `facts`."""
    return lambda metrics, step: log({**metrics, **(facts if step == 0 else {})}, first + step)


def too_short(name: str, seq_len: int, least: int, why: str) -> ModelError:
    """The one wording for a window that an architecture can't take."""
    return ModelError(
        f"{name}: windows of {seq_len} bars are too short: {why}; "
        f"set model.lookback (and window.seq_len) to {least} or more"
    )


def plain(config: Any, *fields: str) -> dict[str, Any]:
    """Some fields of a config, to hand to a network's constructor."""
    return {field: getattr(config, field) for field in fields}
