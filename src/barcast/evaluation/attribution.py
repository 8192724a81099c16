"""What a network looks at, by feature and bar: integrated gradients (Sundararajan, Taly and Yan 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from barcast.evaluation.metrics import Array

if TYPE_CHECKING:  # torch and what trains networks are loaded only for a network
    from barcast.data.windows import Windows
    from barcast.models._network import NetworkModel
    from barcast.models.base import BaseModel

WINDOWS = 96  # evenly chosen: enough for a mean, and a few seconds with any architecture
STEPS = 16
BATCH = 128  # windows per gradient computation


def importance_of(model: BaseModel, X: Windows) -> pd.DataFrame:
    """A network's integrated gradients on some of the windows `X`, or another model's own importance.

    Returns:
        `feature`, `lag` (bars before the window's last one; null: the window as a whole) and `importance`, summing to
        1, most important first; empty for a model without any.
    """
    if not hasattr(model, "_networks"):
        return model.get_feature_importance()
    network = cast("NetworkModel", model)
    chosen = np.unique(np.linspace(0, len(X) - 1, min(WINDOWS, len(X))).round().astype(np.int64))
    shares = np.abs(integrated_gradients(network, X.select(chosen), STEPS)).mean(axis=0)  # [N, L, F] -> [L, F]
    length, width = shares.shape
    table = pd.DataFrame({"feature": np.tile(model.feature_columns, length)})
    table["lag"] = np.repeat(np.arange(length)[::-1], width)
    table["importance"] = (shares / max(shares.sum(), np.finfo(np.float64).tiny)).ravel()
    return table.sort_values("importance", ascending=False, kind="stable", ignore_index=True)


def integrated_gradients(model: NetworkModel, X: Windows, steps: int) -> Array:
    """How much each value of a window moves the log-probability of the class that the network favours there.

    The path is the straight line to the window from the one whose scaled features are all 0, which for a robust scaler
    is the median bar; the integral over it is a midpoint sum of `steps` points (equations 1 and 3). Over a window the
    attributions sum to the change of the log-probability along the path, up to that sum's error ("completeness").
    Returns `[N, L, F]`, of the L bars that the network sees.
    """
    from barcast.training.session import torch_session

    seen = X.last(model.config.lookback)
    batches = [seen.select(slice(start, start + BATCH)) for start in range(0, len(X), BATCH)]
    with torch_session(model.config, model.config.threads, predicting=True) as device:
        return np.concatenate([_of_batch(model, np.asarray(batch), steps, device) for batch in batches])


def _of_batch(model: NetworkModel, x: npt.NDArray[np.float32], steps: int, device: object) -> Array:
    import torch

    networks = [network.to(device).eval() for network in model._networks]  # type: ignore[call-overload]

    def log_p(point: torch.Tensor) -> torch.Tensor:
        """Of the present classes, up to a constant: the networks' mean probabilities, `[N, L, F] -> [N, m]`."""
        logits = torch.stack([network(point)[:, : len(model._classes.present)] for network in networks])
        return torch.log_softmax(logits, dim=2).logsumexp(dim=0)

    values = torch.as_tensor(x, device=device)  # type: ignore[arg-type]
    total = torch.zeros(values.shape, dtype=torch.float64)  # on the CPU: Apple's device has no such numbers
    with torch.backends.cudnn.flags(enabled=False):  # its recurrent layers have gradients only in training
        with torch.no_grad():
            favoured = log_p(values).argmax(dim=1, keepdim=True)  # [N, 1]
        for step in range(steps):
            point = (values * ((step + 0.5) / steps)).requires_grad_(True)
            total += torch.autograd.grad(log_p(point).gather(1, favoured).sum(), point)[0].cpu()
    gradients: Array = (total * values.cpu() / steps).numpy()
    return gradients
