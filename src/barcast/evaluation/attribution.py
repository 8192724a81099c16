"""What a network looks at, by feature and bar: integrated gradients (Sundararajan, Taly and Yan 2017)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from barcast.data.windows import Windows
from barcast.models._network import NetworkModel
from barcast.models.base import BaseModel

WINDOWS = 96  # evenly chosen ones: enough for a mean, and few seconds with any architecture
STEPS = 16
BATCH = 128  # windows that the gradients are computed for at a time

Array = npt.NDArray[np.float64]


def importance_of(model: BaseModel, X: Windows) -> pd.DataFrame:
    """A model's own notion of importance, or a network's integrated gradients on some of the windows `X`.

    Returns:
        `feature`, `lag` (bars before the window's last one; null: the window as a whole) and `importance`, summing to
        1, most important first; empty where the model has no notion of it.
    """
    if not isinstance(model, NetworkModel):
        return model.get_feature_importance()
    chosen = np.unique(np.linspace(0, len(X) - 1, min(WINDOWS, len(X))).round().astype(np.int64))
    shares = np.abs(integrated_gradients(model, X.select(chosen), STEPS)).mean(axis=0)  # [L, F]
    length, width = shares.shape
    table = pd.DataFrame(
        {
            "feature": np.tile(model.feature_columns, length),
            "lag": np.repeat(np.arange(length)[::-1], width),
            "importance": (shares / max(shares.sum(), np.finfo(np.float64).tiny)).ravel(),
        }
    )
    return table.sort_values("importance", ascending=False, kind="stable", ignore_index=True)


def integrated_gradients(model: NetworkModel, X: Windows, steps: int) -> Array:
    """How much each value of a window moves the log-probability of the class that the network favours there.

    The path leads from the window whose every scaled feature is 0, which for a robust scaler is the median bar, in a
    straight line to the window itself; the integral over it is a midpoint sum (equations 1 and 3). Over a window the
    attributions sum to the change of the log-probability along the path, up to that sum's error ("completeness").

    Args:
        model: fitted.
        X: `[N, L, F]`.
        steps: points of the path.

    Returns:
        `[N, L, F]`, of the L bars that the network sees.
    """
    from barcast.training.session import torch_session

    with torch_session(model.config, model.config.threads, answering=True) as device:
        seen = X.last(model.config.lookback)
        parts = [seen.select(slice(start, start + BATCH)) for start in range(0, len(X), BATCH)]
        found = [_of_batch(model, np.asarray(part), steps, device) for part in parts]
    return np.concatenate(found)


def _of_batch(model: NetworkModel, x: npt.NDArray[np.float32], steps: int, device: object) -> Array:
    import torch

    networks = [network.to(device).eval() for network in model._networks]  # type: ignore[call-overload]

    def log_p(point: torch.Tensor) -> torch.Tensor:
        """Of the present classes, up to a constant: the networks' mean probabilities, `[N, L, F] -> [N, m]`."""
        logits = torch.stack([network(point)[:, : len(model._classes.present)] for network in networks])
        return torch.log_softmax(logits, dim=2).logsumexp(dim=0)

    values = torch.as_tensor(x, device=device)  # type: ignore[arg-type]
    total = torch.zeros(values.shape, dtype=torch.float64)  # on the CPU: Apple's device has no such numbers
    with torch.backends.cudnn.flags(enabled=False):  # its recurrent layers have gradients in training alone
        with torch.no_grad():
            favoured = log_p(values).argmax(dim=1, keepdim=True)  # [N, 1]
        for step in range(steps):
            point = (values * ((step + 0.5) / steps)).requires_grad_(True)
            total += torch.autograd.grad(log_p(point).gather(1, favoured).sum(), point)[0].cpu()
    gradients: Array = (total * values.cpu() / steps).numpy()
    return gradients
