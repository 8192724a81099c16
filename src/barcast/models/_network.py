"""What the networks share: training by the one loop, probabilities from logits, weights as safetensors."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from barcast.data.windows import Windows
from barcast.errors import ModelError
from barcast.files import read_json, write_json
from barcast.models._classes import SeenClasses
from barcast.models.base import BaseModel, EarlyStoppingConfig, Labels, Log, Probabilities, log_loss
from barcast.training.loop_config import LoopConfig

if TYPE_CHECKING:
    from torch import nn


class NetworkConfig(LoopConfig, EarlyStoppingConfig):
    """What every network is told: how it is trained. Its architecture stands in a subclass.

    Early stopping looks at every `watch_stride`-th validation window: neighbours share all bars but one, so
    the others would cost more time than they tell.
    """

    watch_stride: Annotated[int, Field(ge=1)]


class NetworkModel(BaseModel):
    """A torch network of `[B, L, F] -> [B, 3]`, trained by `barcast.training.loop`.

    Windows that weigh 0 are left out, and a class that the train windows lack is answered as `SeenClasses`
    says. `train_log_loss` is the weighted mean over an epoch while it trains, dropout on; `val_log_loss` is
    unweighted, of the windows that early stopping looks at. The first epoch also logs what the network is: see
    `barcast.networks.describe`.
    """

    _classes: SeenClasses
    _network: nn.Module

    @abstractmethod
    def _build(self, seq_len: int, width: int) -> nn.Module:
        """The untrained network for windows of `seq_len` bars and `width` features; torch is seeded already.

        Raises:
            ModelError: a window too short for the architecture; names the shortest that it takes.
        """

    def _fit(
        self,
        X_train: Windows,
        y_train: Labels,
        X_val: Windows,
        y_val: Labels,
        weight: npt.NDArray[np.float32],
        log: Log,
    ) -> None:
        from barcast.networks.describe import describe
        from barcast.training.loop import Examples, Watch, fit_network, seeded
        from barcast.training.session import torch_session

        config, used = self.config, weight > 0
        self._classes = SeenClasses.of(y_train[used])
        examples = Examples(
            X_train.select(used), self._classes.encode(y_train[used]), weight[used] / weight[used].mean()
        )
        with torch_session(config, config.threads) as device:
            seeded(config.random_seed)
            self._network = self._build(X_train.seq_len, len(self.feature_columns))
            facts = describe(self._network, X_train.seq_len, len(self.feature_columns))
            watched, truth = X_val.select(slice(None, None, config.watch_stride)), y_val[:: config.watch_stride]
            watch = Watch(
                name=config.model_name,
                score=lambda: log_loss(self._predict_proba(watched), truth),
                patience=config.patience if config.early_stopping else None,
                log=lambda metrics, step: log({**metrics, **(facts if step == 0 else {})}, step),
                folder=self.unfinished_folder,
            )
            fit_network(self._network, examples, config, device, config.random_seed + 1, watch)

    def _predict_proba(self, X: Windows) -> Probabilities:
        from barcast.training.loop import predict_logits
        from barcast.training.session import torch_session

        with torch_session(self.config, self.config.threads, answering=True) as device:
            logits = predict_logits(self._network, X, self.config, device).astype(np.float64)
        logits = logits[:, : len(self._classes.present)]  # [N, 3] -> [N, m]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return self._classes.expand(powers / powers.sum(axis=1, keepdims=True))

    def _save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        write_json(folder / "classes.json", self._classes.to_json())
        state = {name: value.detach().cpu().contiguous() for name, value in self._network.state_dict().items()}
        save_file(state, folder / "network.safetensors")

    def _load(self, folder: Path) -> None:
        from safetensors.torch import load_file

        if self.seq_len is None:
            raise ModelError(f"{folder / 'model.json'}: no seq_len; train the model again")
        self._classes = SeenClasses.from_json(read_json(folder / "classes.json"))
        self._network = self._build(self.seq_len, len(self.feature_columns))
        self._network.load_state_dict(load_file(folder / "network.safetensors"))
        self._network.eval()


def too_short(name: str, seq_len: int, least: int, why: str) -> ModelError:
    """The one wording for a window that an architecture can't take."""
    return ModelError(f"{name}: windows of {seq_len} bars are too short: {why}; set window.seq_len to {least} or more")


def plain(config: Any, *fields: str) -> dict[str, Any]:
    """Some fields of a config, to hand to a network's constructor."""
    return {field: getattr(config, field) for field in fields}
