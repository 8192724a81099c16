"""What a cell must show before it may serve; each gate says its value, its limit and by how much it failed.

Every gate is decided on validation, on the part that ranks the cells: that is where the candidate was chosen, and
what a gate turns away there costs the test split nothing. A gate on test would be asked again for every candidate that
another try brings, until one passes by chance. The same figures on test are reported beside, and decide nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from barcast.config import Section
from barcast.errors import DataError
from barcast.evaluation.bootstrap import BootstrapConfig, Sample, Values, block_length, deltas, draw
from barcast.evaluation.slices import RANKED, TEST
from barcast.files import read_json
from barcast.models.base import EPSILON
from barcast.paths import Paths, cell_name

FloatArray = npt.NDArray[np.float64]
WINDOW = ["datetime", "symbol"]


class PromoteConfig(Section):
    """`promote:` of params.yaml."""

    max_ece: Annotated[float, Field(gt=0, le=1)]
    max_request_rows: Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Gate:
    """One condition: `passed` where `value` keeps to `limit`; `text` says it in words, with the remedy."""

    name: str
    passed: bool
    value: float | None
    limit: float | None
    text: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Interval:
    """A mean difference of log-losses per bar, and between which bounds it lies at the given confidence."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]".replace("-", "−")


def paired_interval(
    loss_a: FloatArray, loss_b: FloatArray, times: pd.Series, config: BootstrapConfig, seed: int
) -> Interval:
    """How much larger the losses `loss_a` are than `loss_b`, window by window.

    Losses are averaged over the symbols of one time, and times resampled in blocks (see `evaluation.bootstrap`):
    neighbouring windows share bars, and symbols move together.

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
    found = deltas(first, second, sample)["log_loss"]
    mean = float((a - b).mean())
    return Interval(mean, mean if found.low is None else found.low, mean if found.high is None else found.high)


def _log_loss(series: FloatArray, sample: Sample) -> Values:
    """The mean of `[T]` losses on the data and on each resample."""
    return {"log_loss": float(series.mean())}, {"log_loss": series[sample.draws.drawn].mean(axis=1)}


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
    text = "passed" if passed else f"{paths.audit} says that something leaks; mend it and run `dvc repro`"
    return Gate("audit", passed, float(passed), 1.0, text)


def status_gate(changed: Iterable[str]) -> Gate:
    """Everything is as `dvc.lock` says, so the lock names what the model was made of."""
    stages = sorted(changed)
    text = "every stage is up to date"
    if stages:
        more = f" and {len(stages) - 3} more" if len(stages) > 3 else ""
        text = f"{len(stages)} out of date, 0 allowed ({', '.join(stages[:3])}{more}); run `dvc repro`"
    return Gate("status", not stages, float(len(stages)), 0.0, text)


def prior_gate(interval: Interval, confidence: float) -> Gate:
    """The candidate's log-loss is below the prior's by more than noise."""
    passed = interval.high < 0
    text = f"log-loss less that of the class frequencies {interval} on validation at {confidence:.0%}"
    if not passed:
        text += f"; the upper bound must be below 0 and is {interval.high:.4f} above it"
    return Gate("prior", passed, interval.high, 0.0, text)


def calibration_gate(ece: float, limit: float) -> Gate:
    """The probabilities mean what they say."""
    passed = ece <= limit
    text = f"calibration error {ece:.4f} on validation, at most {limit:g} allowed (promote.max_ece)"
    return Gate("calibration", passed, ece, limit, text if passed else f"{text}: {ece - limit:.4f} too much")


def champion_gate(interval: Interval | None, rows: int, confidence: float) -> Gate:
    """The candidate is no worse than the present champion beyond noise.

    Args:
        interval: candidate less champion; None where there is no champion, or nothing to compare on.
        rows: windows that both answered, and that the champion was not trained on; -1: no champion.
        confidence: of the interval.
    """
    if rows < 0:
        return Gate("champion", True, None, 0.0, "there is no champion yet")
    if interval is None:
        text = "no validation window lies after what the champion was trained on, so the two can't be compared"
        return Gate("champion", False, None, 0.0, f"{text}; give newer bars, or --force")
    passed = interval.low <= 0
    text = f"log-loss less the champion's {interval} on {rows:,} validation windows at {confidence:.0%}"
    if not passed:
        text += f"; the lower bound may not be above 0 and is by {interval.low:.4f}"
    return Gate("champion", passed, interval.low, 0.0, text)


def read_predictions(paths: Paths, model: str, horizon: int, split: str) -> pd.DataFrame:
    """A cell's stored predictions of test, or of that part of validation on which nothing was fitted.

    Raises:
        DataError: the cell was not evaluated.
    """
    file = paths.predictions(cell_name(model, horizon), split)
    if not file.is_file():
        raise DataError(f"{file}: no such file; run `dvc repro evaluate@{model}-{horizon}` first")
    predictions = pd.read_parquet(file)
    return predictions[predictions["part"].isin([RANKED, TEST])].reset_index(drop=True)


def against_prior(predictions: pd.DataFrame, prior: Sequence[float], config: BootstrapConfig, seed: int) -> Interval:
    """A predictions file against the class frequencies of the train split, given in the order (−1, 0, +1)."""
    constant = -np.log(np.clip(np.asarray(prior), EPSILON, 1.0))[predictions["label"].to_numpy() + 1]
    return paired_interval(losses(predictions), constant, predictions["datetime"], config, seed)


def against_champion(
    predictions: pd.DataFrame, answers: pd.DataFrame, trained_until: pd.Timestamp, config: BootstrapConfig, seed: int
) -> tuple[Interval | None, int]:
    """A predictions file against the champion's own answers to the same bars.

    Args:
        predictions: of the candidate.
        answers: of the champion, to whatever bars.
        trained_until: the last bar that the champion's training saw; windows up to it would flatter it.
        config: confidence level, resamples, block length.
        seed: of the resampling.

    Returns:
        Candidate less champion, and on how many windows.
    """
    champion = answers[[*WINDOW, "p_down", "p_flat", "p_up"]]
    both = predictions.drop(columns=["p_down", "p_flat", "p_up"]).merge(champion, on=WINDOW, how="inner")
    both = both[both["datetime"] > trained_until]
    own = predictions.merge(both[WINDOW], on=WINDOW, how="inner")
    if own.empty:
        return None, 0
    return paired_interval(losses(own), losses(both), own["datetime"], config, seed), len(own)
