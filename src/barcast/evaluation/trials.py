"""What was tried, as far as the studies at hand tell: what a good-looking Sharpe ratio has to be measured against."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from barcast.errors import DataError
from barcast.evaluation.sharpe import Moments, deflated_sharpe, expected_maximum

LEDGER = "trials.parquet"


@dataclass(frozen=True)
class Ledger:
    """The tuning trials of all studies: how many, how many of them failed or were pruned, and the Sharpe ratios per
    bar of those that have one."""

    tuning: int
    failed: int
    pruned: int
    sharpes: tuple[float, ...]


@dataclass(frozen=True)
class Trials:
    """The trials at hand: cells, their repeats with other seeds, and the tuning trials of the present studies, failed
    and pruned too. Trials of studies that were since replaced are not counted, so the truth is deflated more.

    A trial without a Sharpe ratio counts in `total`, and not in the spread.
    """

    cells: int
    repeats: int
    ledger: Ledger
    sharpes: tuple[float, ...]  # of all, per bar

    @property
    def total(self) -> int:
        return self.cells + self.repeats + self.ledger.tuning

    @property
    def sd(self) -> float:
        return float(np.std(self.sharpes, ddof=1)) if len(self.sharpes) > 1 else 0.0

    @property
    def expected_max(self) -> float:
        """The Sharpe ratio per bar that the best of as many worthless trials would be expected to show."""
        return expected_maximum(self.total, self.sd)

    def deflate(self, found: Moments | None) -> float | None:
        """The deflated Sharpe ratio; None where there is no ratio."""
        return None if found is None else deflated_sharpe(found, self.total, self.sd)

    def to_json(self) -> dict[str, float]:
        return {
            "cells": self.cells,
            "repeats": self.repeats,
            "tuning": self.ledger.tuning,
            "failed": self.ledger.failed,
            "pruned": self.ledger.pruned,
            "total": self.total,
            "with_sharpe": len(self.sharpes),
            "sharpe_sd": self.sd,
            "expected_max": self.expected_max,
        }


def count_trials(cells: Iterable[Moments | None], repeats: Iterable[Moments | None], ledger: Ledger) -> Trials:
    """Put together what was run: the moments of each cell's and each repeat's test returns, and the ledgers."""
    cells, repeats = list(cells), list(repeats)
    own = [found.sharpe for found in (*cells, *repeats) if found is not None]
    return Trials(len(cells), len(repeats), ledger, (*own, *ledger.sharpes))


def read_ledgers(folder: Path) -> Ledger:
    """Read `*/trials.parquet` under `experiments/tune`; a folder that is not there holds no trial.

    Raises:
        DataError: a ledger lacks the column `state` or `sharpe_per_bar`.
    """
    frames = [_read(path) for path in sorted(folder.glob(f"*/{LEDGER}"))]
    if not frames:
        return Ledger(0, 0, 0, ())
    trials = pd.concat(frames, ignore_index=True)
    sharpes = trials["sharpe_per_bar"].astype("float64")
    return Ledger(
        tuning=len(trials),
        failed=int((trials["state"] == "failed").sum()),
        pruned=int((trials["state"] == "pruned").sum()),
        sharpes=tuple(map(float, sharpes[np.isfinite(sharpes)])),
    )


def _read(path: Path) -> pd.DataFrame:
    frame = pd.read_parquet(path)
    missing = {"state", "sharpe_per_bar"} - set(frame.columns)
    if missing:
        raise DataError(f"{path}: no column '{min(missing)}'; run `dvc repro tune` to write the ledger anew")
    return frame[["state", "sharpe_per_bar"]]
