"""What the contestants of `forecasts` say, scored by barcast's own statistics, and the table of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from barcast.comparison.horizon import SignificanceConfig
from barcast.comparison.intervals import Values, deltas
from barcast.comparison.ranking import rank_correlation, rank_scores
from barcast.comparison.resampled_metrics import ScoredPredictions, bootstrap_metrics, observed_metrics
from barcast.comparison.resampling import BootstrapSample
from barcast.comparison.significance import confidence_set
from barcast.probabilities import PROBABILITY_COLUMNS, Probabilities, log_loss
from benchmarks._measure import rounded
from benchmarks._workspace import Cost

SCRIPT, PRIOR = "script", "prior"
HEAD = (
    f"{'':22} {'seconds':>8} {'MB':>6}  {'val':>7} {'raw':>7}  {'test':>7} {'raw':>7}  {'skill':>7} {'MCC':>7}"
    f"  {'test - script':^27}  {'test - best':^27}  {'p':>5}"
)


@dataclass(frozen=True)
class Forecast:
    """Probabilities `[N, 3]` of a contestant by split, of val only the ranked part.

    A row of barcast's leaderboard also has those before calibration (`raw`) and the content of its metrics.json. The
    ranking is judged by its cells but the prior (`is_ranked`).
    """

    said: Mapping[str, Probabilities]
    cost: Cost
    raw: Mapping[str, Probabilities] | None = None
    metrics: Mapping[str, Any] | None = None
    is_ranked: bool = False


@dataclass(frozen=True)
class Rules:
    """How forecasts are judged: of params.yaml, `compare:`, `evaluate:` and `seed`."""

    compare: SignificanceConfig
    cost_bps: float
    bins: int
    seed: int


def scored(windows: pd.DataFrame, probabilities: Probabilities, rules: Rules) -> ScoredPredictions:
    """`windows` has N rows of datetime, symbol, close and label."""
    said = dict(zip(PROBABILITY_COLUMNS, probabilities.T, strict=True))
    frame = windows.assign(**said, prediction=probabilities.argmax(axis=1) - 1)
    return ScoredPredictions.from_frame(frame, rules.cost_bps, rules.bins)


def score(forecasts: Mapping[str, Forecast], windows: Mapping[str, pd.DataFrame], rules: Rules) -> dict[str, Any]:
    """Every contestant's figures, and how well the rankings of barcast's cells predict that of test.

    Args:
        forecasts: by name, among them those of SCRIPT and PRIOR.
        windows: of "val" (its ranked part) and "test".
        rules: how to judge.
    """
    first = {SCRIPT: forecasts[SCRIPT], **forecasts}  # block lengths are chosen for differences to the first one
    models = {name: scored(windows["test"], found.said["test"], rules) for name, found in first.items()}
    sample, values = bootstrap_metrics(models, rules.compare, rules.seed)
    own = {name: found.metrics for name, found in forecasts.items() if found.metrics is not None}
    scores = rank_scores(own)
    best = min(scores, key=scores.__getitem__, default=None)
    points = {
        "val": {
            name: observed_metrics(scored(windows["val"], found.said["val"], rules))
            for name, found in forecasts.items()
        },
        "test": {name: found[0] for name, found in values.items()},
    }
    p_values = confidence_set({name: model.losses for name, model in models.items()}, sample, rules.seed)
    contestants = {
        name: {
            **figures(name, forecast, windows, points),
            "rank_score": scores.get(name),
            "vs_script": difference(name, SCRIPT, sample, values),
            "vs_best": difference(name, best, sample, values),
            "mcs_p": p_values[name],
            "in_mcs": p_values[name] >= rules.compare.mcs_size,
        }
        for name, forecast in forecasts.items()
    }
    cells = [name for name, forecast in forecasts.items() if forecast.is_ranked]
    agreement = {
        "score": agree([scores[name] for name in cells], cells, sample, values),
        "val": agree([points["val"][name]["log_loss"] or 0.0 for name in cells], cells, sample, values),
    }
    counts = {f"{split}_windows": len(frame) for split, frame in windows.items()}
    return {**counts, "best": best, "contestants": contestants, "rank_correlation": agreement}


def figures(
    name: str,
    forecast: Forecast,
    windows: Mapping[str, pd.DataFrame],
    points: Mapping[str, Mapping[str, Mapping[str, float | None]]],
) -> dict[str, Any]:
    """What a contestant cost and how good it was, without any comparison but the skill."""
    content: dict[str, Any] = {
        "seconds": forecast.cost.seconds,
        "cpu_seconds": forecast.cost.cpu_seconds,
        "peak_rss_mib": forecast.cost.peak_mib,
    }
    for split, found in points.items():
        loss, prior = found[name]["log_loss"], found[PRIOR]["log_loss"]
        content[split] = {"log_loss": loss, "skill": 1 - (loss or 0.0) / (prior or 1.0), "mcc": found[name]["mcc"]}
        if forecast.raw is not None:
            content[split]["raw_log_loss"] = log_loss(forecast.raw[split], windows[split]["label"].to_numpy())
    return content


def difference(
    name: str, other: str | None, sample: BootstrapSample, values: Mapping[str, Values]
) -> dict[str, Any] | None:
    """Test log-loss of `name` minus `other`'s, with its paired interval; None of a contestant to itself."""
    if other is None or name == other:
        return None
    return vars(deltas(values[name], values[other], sample)["log_loss"])


def agree(
    scores: Sequence[float], cells: Sequence[str], sample: BootstrapSample, values: Mapping[str, Values]
) -> dict[str, Any] | None:
    """The rank correlation of scores known beforehand with the cells' test log-losses; None of too few cells."""
    if not cells:
        return None
    losses = np.array([values[name][0]["log_loss"] for name in cells], np.float64)
    resampled = np.column_stack([values[name][1]["log_loss"] for name in cells])
    found = rank_correlation(scores, losses, resampled, sample)
    return vars(found) if found else None


def tidy(content: Any) -> Any:
    """Every float to six significant digits."""
    if isinstance(content, Mapping):
        return {key: tidy(value) for key, value in content.items()}
    return rounded(content, 6) if isinstance(content, float) else content


def table(horizon: str, found: Mapping[str, Any]) -> str:
    """The figures of one horizon as lines of text, the smallest test log-loss first."""
    rows = found["contestants"]
    scored = [name for name in rows if "test" in rows[name]]
    ordered = sorted(scored, key=lambda name: rows[name]["test"]["log_loss"])
    missing = [f"{name:22} not measured: {rows[name]['not_measured']}" for name in rows if name not in scored]
    title = (
        f"{horizon}: log-loss on {found['val_windows']:,} windows of val and {found['test_windows']:,} of test; "
        f"barcast ranks first: {found['best'] or 'none'}"
    )
    lines = [title, HEAD, *(line(name, rows[name]) for name in ordered), *missing]
    rank = found["rank_correlation"]
    told = [f"of the ranking {_interval(rank['score'], 2)}", f"of val's log-loss {_interval(rank['val'], 2)}"]
    lines.append(f"rank correlation with test over barcast's cells: {', '.join(told)}")
    return "\n".join(lines)


def line(name: str, row: Mapping[str, Any]) -> str:
    """One contestant; `*` marks the members of the model confidence set, whose p-values are last."""
    val, test = row["val"], row["test"]
    raw = [f"{split['raw_log_loss']:7.4f}" if "raw_log_loss" in split else f"{'':7}" for split in (val, test)]
    return (
        f"{name:22} {row['seconds']:8.1f} {row['peak_rss_mib']:6.0f}  {val['log_loss']:7.4f} {raw[0]}  "
        f"{test['log_loss']:7.4f} {raw[1]}  {test['skill']:7.2%} {test['mcc']:7.4f}  "
        f"{_interval(row['vs_script'], 4):^27}  {_interval(row['vs_best'], 4):^27}  "
        f"{row['mcs_p']:4.2f}{'*' if row['in_mcs'] else ' '}"
    )


def _interval(found: Mapping[str, Any] | None, digits: int) -> str:
    if found is None or found["value"] is None:
        return "-"
    if found["low"] is None:
        return f"{found['value']:+.{digits}f}"
    return f"{found['value']:+.{digits}f} [{found['low']:+.{digits}f}, {found['high']:+.{digits}f}]"
