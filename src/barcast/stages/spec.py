"""`spec`: resolve and check every hyperparameter, and write one small file for each stage and cell."""

from __future__ import annotations

from barcast.cache.specs import write_specs
from barcast.paths import Paths
from barcast.stages._main import run_stage


def main() -> None:
    """Run the stage in the repository's root."""
    write_specs(Paths())


if __name__ == "__main__":
    run_stage(main)
