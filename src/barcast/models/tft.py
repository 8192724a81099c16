"""Temporal Fusion Transformer (Lim et al. 2021), and what it attends to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field, model_validator

from barcast.data.windows import FloatArray, Windows
from barcast.errors import ModelError
from barcast.models._network import NetworkConfig, NetworkModel, plain
from barcast.models.base import Log, read_json, write_json
from barcast.probabilities import Labels

if TYPE_CHECKING:
    from torch import nn

_ARCHITECTURE = ("hidden_size", "heads", "dropout", "attention_dropout")


class TFTConfig(NetworkConfig):
    """`model.tft` of params.yaml. Batches of runs (`run_length`) share the rows that variable selection looks at."""

    hidden_size: Annotated[int, Field(ge=2)]
    heads: Annotated[int, Field(ge=1)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    attention_dropout: Annotated[float, Field(ge=0, lt=1)]

    @model_validator(mode="after")
    def _heads_share(self) -> TFTConfig:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size a multiple of heads, got {self.hidden_size} and {self.heads}")
        return self


class TFTModel(NetworkModel):
    """Temporal Fusion Transformer, on neuralforecast's modules.

    The architecture is `barcast.networks.tft`.

    After training it keeps the mean variable selection and attention over the validation windows of early stopping.
    """

    name, family = "tft", "attention"
    config_class = TFTConfig
    _looks: dict[str, list[float]]

    def _build(self, seq_len: int, width: int) -> nn.Module:
        from barcast.networks.tft import TFT, Parts

        return TFT(Parts.new(seq_len, width, **plain(self.config, *_ARCHITECTURE)))

    def _fit(
        self, X_train: Windows, y_train: Labels, X_val: Windows, y_val: Labels, weight: FloatArray, log: Log
    ) -> None:
        super()._fit(X_train, y_train, X_val, y_val, weight, log)
        monitored = self._monitored(X_val)
        each = [self._look(network, monitored) for network in self._networks]
        self._looks = {name: np.mean([look[name] for look in each], axis=0).tolist() for name in each[0]}

    def get_feature_importance(self) -> pd.DataFrame:
        """The mean selection weight of each feature over the bars of validation windows, as shares of 1.

        A weight is how much of a feature passes on, not how much a prediction would change without it: that is
        `barcast.evaluation.importance`.
        """
        weights = self._kept("selection")
        order = np.argsort(-weights, kind="stable")
        features = np.asarray(self.feature_columns, object)[order]
        lag = pd.array([pd.NA] * len(order), dtype="Int64")
        return pd.DataFrame({"feature": features, "lag": lag, "importance": weights[order] / weights.sum()})

    def get_attention(self) -> pd.DataFrame:
        """`lag` (bars before the last one) and `attention`, its mean over validation windows, summing to 1.

        The last row, of lag null, is the attention that the step behind the window pays to itself: to the
        LSTM's state, which has seen all bars.
        """
        attention = self._kept("attention")  # [L+1], oldest bar first, then the step itself
        lags = pd.array([*range(len(attention) - 1), pd.NA], dtype="Int64")
        return pd.DataFrame({"lag": lags, "attention": np.append(attention[-2::-1], attention[-1])})

    def _look(self, network: Any, X: Windows) -> dict[str, npt.NDArray[np.float64]]:
        """Mean selection weights `[F]` over all bars of all windows, and mean attention `[L+1]`, of one network."""
        import torch

        from barcast.training.batches import WindowSource, in_order
        from barcast.training.loop import PREDICT_BATCH
        from barcast.training.session import torch_session

        selection, attention = np.zeros(X.shape[2]), np.zeros(X.seq_len + 1)
        with torch_session(self.config, self.config.threads) as device, torch.inference_mode():
            source = WindowSource(X, device)
            for positions in in_order(len(X), PREDICT_BATCH):
                batch = source.shared_rows(positions)
                times = torch.bincount(batch.place.flatten(), minlength=len(batch.rows))  # that a row is in a window
                selection += times.cpu().double().numpy() @ network.selection_weights(batch.rows).cpu().double().numpy()
                encoded = network.encode_rows(batch.rows)[batch.place]  # [B, L, H]
                attention += network.attention(encoded).cpu().double().numpy().sum(axis=0)
        bars = len(X) * X.seq_len
        return {"selection": selection / bars, "attention": attention / len(X)}

    def _kept(self, name: str) -> npt.NDArray[np.float64]:
        if not self.is_fitted:
            raise ModelError(f"{self.config.model_name}: its {name} was asked for before fit; fit or load it first")
        return np.asarray(self._looks[name], np.float64)

    def _save(self, folder: Path) -> None:
        super()._save(folder)
        write_json(folder / "looks.json", self._looks)

    def _load(self, folder: Path) -> None:
        super()._load(folder)
        self._looks = read_json(folder / "looks.json")
