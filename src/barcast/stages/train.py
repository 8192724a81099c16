"""`train@{model}-{horizon}`: fit one cell, keep its checkpoint, and report every round."""

from __future__ import annotations

import shutil
import time

from barcast import tracking
from barcast.cache.fingerprint import check_libraries
from barcast.cache.keys import cell_key
from barcast.data.dataset import DatasetConfig
from barcast.files import recover
from barcast.models.base import Log, no_log
from barcast.paths import Paths, cell_name
from barcast.stages._main import parse_horizon, read_cell_spec, run_stage
from barcast.training.callbacks import LiveLog, combine_logs
from barcast.training.progress import Progress, with_speed
from barcast.training.resume_checkpoint import ResumeCheckpoint, epochs_kept
from barcast.training.trainer import Trainer


def train(model: str, horizon: int, paths: Paths, log: Log = no_log) -> dict[str, float]:
    """Fit a cell as in its spec and write `checkpoints/model/` and `live/`.

    Returns:
        `log_loss` and `accuracy` on validation; `log` also gets the metrics of every round or epoch.

    Raises:
        ConfigError: the cell has no spec, or a library differs from the one that the spec lists.
    """
    cell, key = cell_name(model, horizon), cell_key(paths, model, horizon)
    spec = read_cell_spec(paths, cell)
    check_libraries(spec["libraries"], cell)
    unfinished = paths.unfinished(cell) / key
    recover(unfinished)
    for other in unfinished.parent.glob("*"):
        if other != unfinished:  # of other inputs, so of no more use
            shutil.rmtree(other)
    recover(paths.checkpoint(cell))
    with LiveLog(paths.live(cell), key) as live:
        trainer = Trainer(
            model,
            spec["config"],
            DatasetConfig(path=str(paths.windows), horizon=horizon),
            combine_logs(live, log),
            lambda network: ResumeCheckpoint(unfinished / str(network)),
        )
        fitted = trainer.train()
        with live.replacing_model():
            fitted.save(paths.checkpoint(cell))
        scores = trainer.evaluate("val")
    shutil.rmtree(unfinished, ignore_errors=True)  # last: until here, a process that is killed has lost nothing
    return scores


def main(model: str, horizon: str) -> None:
    """Run the stage in the repository's root, with progress and the tracker.

    Raises:
        ConfigError: the horizon is not a number, or as `train`.
    """
    paths, bars, started = Paths(), parse_horizon(horizon), time.monotonic()
    cell, config = cell_name(model, bars), read_cell_spec(paths, cell_name(model, bars))["config"]
    unit = "epoch" if "max_epochs" in config else "round"
    networks, most = config.get("average_seeds", 1), config.get(f"max_{unit}s") or 0
    kept = epochs_kept(paths.unfinished(cell) / cell_key(paths, model, bars), networks, most)
    with (
        tracking.open_run(paths, model, bars) as tracked,
        Progress(cell, most * networks or None, unit, replayed=kept) as progress,
    ):
        scores = train(model, bars, paths, with_speed(combine_logs(progress, tracked), replayed=kept))
    seconds = time.monotonic() - started
    print(f"{cell}: validation log-loss {scores['log_loss']:.4f} in {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    run_stage(main)
