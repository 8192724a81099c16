"""`train@{model}-{horizon}`: fit one cell, keep its checkpoint, and report every round."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from barcast import tracking
from barcast.config import load_yaml
from barcast.data.windows import DatasetConfig
from barcast.errors import ConfigError, DataError
from barcast.files import read_json, recover
from barcast.fingerprint import distribution_version
from barcast.models.base import Log, no_log
from barcast.paths import Paths, cell_name
from barcast.stages._main import parse_horizon, run_stage
from barcast.training.callbacks import LiveLog, fan_out
from barcast.training.progress import Progress, with_speed
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
    unfinished = _only(paths.unfinished(cell), key)
    with LiveLog(paths.live(cell), key) as live:
        trainer = Trainer(model, spec["config"], dataset, fan_out(live, log), unfinished)
        scores = trainer.run_full_pipeline(paths.checkpoint(cell), live.replacing_model)
    shutil.rmtree(unfinished, ignore_errors=True)  # last: until here, a process that is killed has lost nothing
    return scores


def _only(folder: Path, key: str) -> Path:
    """The place of this training among the cell's unfinished ones; those of other inputs are of no more use."""
    recover(folder / key)
    for other in folder.glob("*"):
        if other.name != key:
            shutil.rmtree(other)
    return folder / key


def _epochs_kept(folder: Path, networks: int, max_epochs: int) -> int:
    """How far an unfinished training in `folder` is, in the numbers of its epochs: it resumes after them, and reports
    them again.

    What can't be read counts as none, as the training begins again then.
    """
    kept = 0
    for number in range(networks):
        recover(folder / str(number))
        file = folder / str(number) / "progress.json"
        if not file.is_file():
            break
        try:
            kept = number * max_epochs + len(read_json(file)["history"])
        except DataError:
            break
    return kept


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
                "`pip install --no-deps -r requirements.lock`"
            )


def main(model: str, horizon: str) -> None:
    """Run the stage in the repository's root.

    Raises:
        ConfigError: the horizon is no number, or as `train` says.
    """
    paths, bars = Paths(), parse_horizon(horizon)
    cell, started = cell_name(model, bars), time.monotonic()
    config = load_yaml(paths.spec(cell))["config"]
    unit = "epoch" if "max_epochs" in config else "round"
    steps = config.get(f"max_{unit}s")
    networks = config.get("average_seeds", 1)
    kept = _epochs_kept(paths.unfinished(cell) / tracking.cell_key(paths, model, bars), networks, steps or 0)
    steps = steps and steps * networks
    with tracking.open_run(paths, model, bars) as tracked, Progress(cell, steps, unit, replayed=kept) as progress:
        scores = train(model, bars, paths, with_speed(fan_out(progress, tracked), replayed=kept))
    seconds = time.monotonic() - started
    print(f"{cell}: validation log-loss {scores['log_loss']:.4f} in {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    run_stage(main)
