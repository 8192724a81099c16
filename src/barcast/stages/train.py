"""`train@{model}-{horizon}`: fit one cell, keep its checkpoint, and report every round."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from barcast import tracking
from barcast.config import load_yaml
from barcast.data.windows import DatasetConfig
from barcast.errors import ConfigError
from barcast.fingerprint import distribution_version
from barcast.models.base import Log, no_log
from barcast.paths import Paths, cell_name
from barcast.stages._main import run_stage
from barcast.training.callbacks import LiveLog, Progress, fan_out, with_speed
from barcast.training.trainer import Trainer


def train(model: str, horizon: int, paths: Paths, log: Log = no_log) -> dict[str, float]:
    """Fit a cell as its spec says and write `checkpoints/model/` and `live/`.

    Args:
        model: a name of the registry.
        horizon: bars ahead.
        paths: the repository.
        log: called with the metrics of every round or epoch, beside the live files.

    Returns:
        `log_loss` and `accuracy` on validation.

    Raises:
        ConfigError: the cell has no spec, or a library differs from the one that the spec names.
    """
    cell = cell_name(model, horizon)
    spec = load_yaml(paths.spec(cell))
    check_libraries(spec["libraries"], cell)
    dataset = DatasetConfig(path=str(paths.windows), horizon=horizon)
    key = tracking.cell_key(paths, model, horizon)
    with LiveLog(paths.live(cell), key) as live:
        unfinished = _only(paths.unfinished(cell), key)
        trainer = Trainer(model, spec["config"], dataset, fan_out(live, log), unfinished)
        return trainer.run_full_pipeline(paths.checkpoint(cell))


def _only(folder: Path, key: str) -> Path:
    """The place of this training among the cell's unfinished ones; those of other inputs are of no more use."""
    for other in folder.glob("*"):
        if other.name != key:
            shutil.rmtree(other)
    return folder / key


def check_libraries(expected: dict[str, str], cell: str) -> None:
    """The libraries at hand must be those that the spec promises, or the cell's cache key would lie.

    Raises:
        ConfigError: naming the first that differs.
    """
    for name, wanted in expected.items():
        version = distribution_version(name)
        if version != wanted:
            raise ConfigError(
                f"{cell}: its spec names {name} {wanted}, but {version} is installed; run "
                "`pip install -r requirements.lock`, or `dvc repro -f spec` to take the installed one"
            )


def main(model: str, horizon: str) -> None:
    """Run the stage in the repository's root."""
    paths, cell = Paths(), cell_name(model, int(horizon))
    started = time.monotonic()
    config = load_yaml(paths.spec(cell))["config"]
    unit = "epoch" if "max_epochs" in config else "round"
    steps = config.get(f"max_{unit}s")
    with tracking.open_run(paths, model, int(horizon)) as tracked, Progress(cell, steps, unit) as progress:
        scores = train(model, int(horizon), paths, with_speed(fan_out(progress, tracked)))
    seconds = time.monotonic() - started
    print(f"{cell}: validation log-loss {scores['log_loss']:.4f} in {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    run_stage(main, sys.argv[1:3])
