"""The gates that a cell must pass before it is served; each reports its value, its limit and the distance between them.

All gates use validation, the subset that ranks the cells: the candidate was selected there, and a refusal costs the
test split nothing. A gate on test would be evaluated again for every new candidate until one passes by chance. The
same figures on test are reported, and decide nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from barcast.comparison.intervals import Values, deltas
from barcast.comparison.resampling import BootstrapConfig, BootstrapSample, block_length, draw
from barcast.errors import DataError
from barcast.evaluation.validation_split import SCORED
from barcast.files import read_json
from barcast.paths import Paths, cell_name
from barcast.probabilities import EPSILON

FloatArray = npt.NDArray[np.float64]
WINDOW = ["datetime", "symbol"]


@dataclass(frozen=True)
class Gate:
    """The outcome of one condition; `text` explains it, with the remedy if it failed."""

    name: str
    passed: bool
    value: float | None
    limit: float | None
    text: str


@dataclass(frozen=True)
class Interval:
    """A mean difference of log-losses with its confidence bounds."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]".replace("-", "−")


def paired_interval(
    loss_a: FloatArray, loss_b: FloatArray, times: pd.Series, config: BootstrapConfig, seed: int
) -> Interval:
    """The mean of `loss_a` minus `loss_b` over windows.

    Losses are averaged over the symbols of one time, and times are resampled in blocks (see `comparison.resampling`),
    since neighbouring windows share bars and symbols move together.

    Args:
        loss_a: `[N]`.
        loss_b: `[N]`, of the same windows.
        times: `[N]`.
        config: confidence level, resamples, block length.
        seed: of the resampling.
    """
    both = pd.DataFrame({"a": loss_a, "b": loss_b}).groupby(np.asarray(times)).mean()
    a, b = both["a"].to_numpy(np.float64), both["b"].to_numpy(np.float64)  # [T]
    sample = draw(len(both), config.block_factor * block_length([a - b]), config, seed)
    first, second = (_log_loss(series, sample) for series in (a, b))
    delta = deltas(first, second, sample)["log_loss"]
    mean = float((a - b).mean())
    return Interval(mean, mean if delta.low is None else delta.low, mean if delta.high is None else delta.high)


def _log_loss(series: FloatArray, sample: BootstrapSample) -> Values:
    """The mean of `[T]` losses on the data and on each resample."""
    return {"log_loss": float(series.mean())}, {"log_loss": series[sample.indices.drawn].mean(axis=1)}


def losses(predictions: pd.DataFrame) -> FloatArray:
    """The log-loss of each row of a predictions file, `[N]`."""
    table = predictions[["p_down", "p_flat", "p_up"]].to_numpy(np.float64)
    true = table[np.arange(len(table)), predictions["label"].to_numpy() + 1]
    values: FloatArray = -np.log(np.clip(true, EPSILON, 1.0))
    return values


def audit_gate(paths: Paths) -> Gate:
    """The audit found no leak."""
    if not paths.audit.is_file():
        return Gate("audit", False, None, None, f"{paths.audit} is missing; run `dvc repro audit`")
    passed = read_json(paths.audit).get("passed") is True
    text = "passed" if passed else f"{paths.audit} reports a leak; fix it and run `dvc repro`"
    return Gate("audit", passed, float(passed), 1.0, text)


def status_gate(changed: Iterable[str]) -> Gate:
    """No stage is out of date, so `dvc.lock` names what the model was made of."""
    stages = sorted(changed)
    text = "every stage is up to date"
    if stages:
        more = f" and {len(stages) - 3} more" if len(stages) > 3 else ""
        text = f"{len(stages)} out of date, 0 allowed ({', '.join(stages[:3])}{more}); run `dvc repro`"
    return Gate("status", not stages, float(len(stages)), 0.0, text)


def prior_gate(interval: Interval, confidence: float) -> Gate:
    """The candidate's log-loss is below the prior's beyond noise."""
    passed = interval.high < 0
    text = f"log-loss minus the class frequencies' {interval} on validation at {confidence:.0%}"
    if not passed:
        text += f"; the upper bound must be below 0, it is {interval.high:.4f} above"
    return Gate("prior", passed, interval.high, 0.0, text)


def calibration_gate(ece: float, limit: float) -> Gate:
    """The expected calibration error is small."""
    passed = ece <= limit
    text = f"calibration error {ece:.4f} on validation, allowed: {limit:g} (promote.max_ece)"
    return Gate("calibration", passed, ece, limit, text if passed else f"{text}; it is {ece - limit:.4f} too high")


def champion_gate(interval: Interval | None, rows: int, confidence: float) -> Gate:
    """The candidate is not worse than the present champion beyond noise.

    Args:
        interval: candidate minus champion; None without a champion or without windows to compare on.
        rows: windows that both predicted and the champion was not trained on; -1: no champion.
        confidence: of the interval.
    """
    if rows < 0:
        return Gate("champion", True, None, 0.0, "there is no champion yet")
    if interval is None:
        text = "no validation window is later than the champion's training, so the two can't be compared"
        return Gate("champion", False, None, 0.0, f"{text}; add newer bars or use --force")
    passed = interval.low <= 0
    text = f"log-loss minus the champion's {interval} on {rows:,} validation windows at {confidence:.0%}"
    if not passed:
        text += f"; the lower bound must not be above 0, it is {interval.low:.4f} above"
    return Gate("champion", passed, interval.low, 0.0, text)


def read_predictions(paths: Paths, model: str, horizon: int, split: str) -> pd.DataFrame:
    """A cell's stored predictions on test, or on the subset of validation that nothing was fitted on.

    Raises:
        DataError: the cell was not evaluated.
    """
    file = paths.predictions(cell_name(model, horizon), split)
    if not file.is_file():
        raise DataError(f"{file}: no such file; run `dvc repro evaluate@{model}-{horizon}` first")
    predictions = pd.read_parquet(file)
    return predictions[predictions["part"].isin(SCORED)].reset_index(drop=True)


def against_prior(predictions: pd.DataFrame, prior: Sequence[float], config: BootstrapConfig, seed: int) -> Interval:
    """Predictions minus the class frequencies of the train split, which are in the order (−1, 0, +1)."""
    constant = -np.log(np.clip(np.asarray(prior), EPSILON, 1.0))[predictions["label"].to_numpy() + 1]
    return paired_interval(losses(predictions), constant, predictions["datetime"], config, seed)


def against_champion(
    candidate: pd.DataFrame, champion: pd.DataFrame, trained_until: pd.Timestamp, config: BootstrapConfig, seed: int
) -> tuple[Interval | None, int]:
    """Predictions of the candidate minus those of the champion for the same windows.

    Args:
        candidate: with labels.
        champion: for any bars.
        trained_until: the last bar of the champion's training; it would do too well on windows up to it.
        config: confidence level, resamples, block length.
        seed: of the resampling.

    Returns:
        The interval (None without a common window), and the number of windows.
    """
    probabilities = ["p_down", "p_flat", "p_up"]
    theirs = candidate.drop(columns=probabilities).merge(champion[[*WINDOW, *probabilities]], on=WINDOW)
    theirs = theirs[theirs["datetime"] > trained_until]
    ours = candidate.merge(theirs[WINDOW], on=WINDOW)
    if ours.empty:
        return None, 0
    return paired_interval(losses(ours), losses(theirs), ours["datetime"], config, seed), len(ours)
