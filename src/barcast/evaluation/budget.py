"""Was a training given the rounds or epochs that it needed?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

GAIN = 0.0005  # nats; less is noise


def ended_by_limit(config: Mapping[str, Any], history: Sequence[Mapping[str, float]]) -> str | None:
    """The limit that ended a training which was still improving, such as `max_rounds = 60`; None where none did.

    A booster was still improving when its best round is so near the end that early stopping could not act, a network
    when its last epoch is its best; either by more than `GAIN` over what came before, since a schedule that ends at
    a learning rate of 0 creeps down to its last step. Of several networks one is enough.

    Args:
        config: the model's hyperparameters.
        history: of the fitted model, see `BaseModel.training_history`.
    """
    key = next((name for name in ("max_rounds", "max_epochs") if name in config), None)
    if key is None or not config["early_stopping"]:
        return None
    limit, near = config[key], config["patience"] if key == "max_rounds" else 1
    losses: dict[int, list[float]] = {}  # of each network
    for step in history:
        losses.setdefault(int(step["step"]) // limit, []).append(step["val_log_loss"])
    improving = [
        each for each in losses.values() if len(each) == limit and min(each[:-near] or each[:1]) - min(each) > GAIN
    ]
    return f"{key} = {limit}" if improving else None
