"""The one table of metrics: both forms of each row agree, and a new row needs no other edit."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from _cells import COMPARE, EVALUATE, register_stubs, score_prior, train_prior, train_stub, write_windows
from _report_cells import write_sources, write_specs
from barcast.comparison.paired_bootstrap import PairedSettings, paired_deltas
from barcast.comparison.resampled_metrics import ScoredPredictions
from barcast.comparison.resampling import BootstrapIndices
from barcast.config import validate
from barcast.evaluation.evaluator import EvaluateConfig
from barcast.evaluation.metrics import METRICS, Metric, ratio_of_sums, shown_metrics
from barcast.files import read_json
from barcast.paths import Paths
from barcast.probabilities import PROBABILITY_COLUMNS
from barcast.revisions import diff_render
from barcast.revisions.diff import CellDiff, Diff
from barcast.stages.compare import CompareConfig, compare
from barcast.stages.evaluate import evaluate


def random_predictions(seed: int, times: int = 80) -> ScoredPredictions:
    """Two symbols, of which the second starts later; probabilities with ties."""
    rng = np.random.default_rng(seed)
    stamps = pd.date_range("2020-01-01", periods=times, freq="30min", tz="UTC")
    frame = pd.DataFrame({"datetime": [*stamps, *stamps[7:]], "symbol": ["A"] * times + ["B"] * (times - 7)})
    p = rng.dirichlet([1.0, 1.5, 2.0], len(frame)).round(2) + 0.01
    frame[[*PROBABILITY_COLUMNS]] = p / p.sum(axis=1, keepdims=True)
    frame["label"], frame["prediction"] = rng.integers(-1, 2, len(frame)), p.argmax(axis=1) - 1
    frame["close"] = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, len(frame))))
    return ScoredPredictions.from_frame(frame, cost_bps=3.0, bins=7)


@pytest.mark.parametrize("name", METRICS)
def test_scalar_and_resampled_form_agree(name):
    for seed in range(5):
        scored, metric = random_predictions(seed), METRICS[name]
        value = metric.scalar(scored if metric.source == "predictions" else scored.traded)
        resampled = scored.resample(BootstrapIndices.identity(scored.times))[name]
        assert resampled == pytest.approx([value], rel=1e-12, abs=1e-12)
        assert metric.bounds[0] <= value <= metric.bounds[1]


def test_no_other_metric_is_computed_than_those_of_the_table():
    scored = random_predictions(0)
    assert set(scored.resample(BootstrapIndices.identity(scored.times))) == set(METRICS)
    assert all(name == metric.name for name, metric in METRICS.items())


def test_each_place_shows_what_narrower_places_show():
    names = [{metric.name for metric in shown_metrics(place)} for place in ("terminal", "markdown", "page", "file")]
    assert names == sorted(names, key=len)
    assert all(narrow < wide for narrow, wide in pairwise(names))
    assert names[-1] == set(METRICS) - {"log_loss"}


CERTAIN = Metric(
    "certain",
    "certainty",
    "mean probability of the true class",
    *ratio_of_sums(lambda of: of.probabilities[np.arange(len(of.y)), of.y + 1], lambda of: np.ones(len(of.y))),
    form=".5f",
    shown="terminal",
)
LONGEST = Metric(
    "best_time",
    "best time",
    "largest return of one time",
    lambda traded: float(traded.net.max()),
    resampled=None,
    source="trades",
    form=".4%",
)


@pytest.fixture
def paths(tmp_path, monkeypatch) -> Paths:
    """Two trained cells, of which nothing is evaluated yet."""
    paths = Paths(tmp_path)
    register_stubs(monkeypatch, "sharp")
    write_windows(paths, bars=100)
    score_prior(paths, 5)
    train_prior(paths, 5)
    train_stub(paths, "sharp", 5, 1.5)
    write_specs(paths, ("prior", "sharp"), (5,))
    write_sources(paths)
    return paths


def test_a_new_row_is_evaluated_compared_and_shown_without_another_edit(paths, monkeypatch):
    for metric in (CERTAIN, LONGEST):
        monkeypatch.setitem(METRICS, metric.name, metric)
    cells = [{"model": model, "horizon": 5} for model in ("prior", "sharp")]
    for name in ("prior", "sharp"):
        evaluate(name, 5, validate(EvaluateConfig, EVALUATE, "evaluate.yaml"), paths)
    compare(validate(CompareConfig, COMPARE | {"cells": cells, "label_end_offset": {"h5": 5}}, "compare.yaml"), paths)

    metrics = read_json(paths.cell_metrics("sharp_h5"))
    assert 0 < metrics["test"]["certain"] < 1
    assert metrics["abstention"]["sets"]["test"]["best_time"] >= 0
    intervals = read_json(paths.report / "intervals.json")["h5"]["sharp"]
    assert intervals["metrics"]["certain"]["value"] == pytest.approx(metrics["test"]["certain"])
    assert intervals["deltas"]["certain"]["verdict"] == "better"
    assert "best_time" not in intervals["metrics"], "it has no resampled form"
    row = read_json(paths.report / "leaderboard.json")["horizons"]["h5"][0]
    assert row["certain"] == intervals["metrics"]["certain"]
    assert row["best_time"] == metrics["test"]["best_time"]
    header = (paths.report / "leaderboard.md").read_text().splitlines()[6]
    assert "| certainty |" in header
    assert "best time" not in header, "only the page shows it"
    page = (paths.report / "index.html").read_text()
    assert f"{row['certain']['low']:.5f} … {row['certain']['high']:.5f}" in page
    assert f"{row['best_time']:.4%}" in page
    assert "mean probability of the true class" in page


def test_a_new_row_is_in_the_diff_without_another_edit(paths, monkeypatch):
    for metric in (CERTAIN, LONGEST):
        monkeypatch.setitem(METRICS, metric.name, metric)
    frames, settings = [], PairedSettings(**{name: COMPARE[name] for name in PairedSettings.model_fields})
    for name in ("prior", "sharp"):
        evaluate(name, 5, validate(EvaluateConfig, EVALUATE, "evaluate.yaml"), paths)
        frames.append(pd.read_parquet(paths.predictions(f"{name}_h5", "test")))
    before, after = (read_json(paths.cell_metrics(f"{name}_h5"))["test"] for name in ("prior", "sharp"))
    deltas = paired_deltas(*frames, settings)
    cell = CellDiff("sharp", 5, "trained again", (), before, after, deltas, len(frames[0]))
    text = diff_render.render_markdown(Diff("a", "b", {}, (cell,)))
    line = next(line for line in text.splitlines() if line.startswith("| certainty |"))
    for part in (f"{before['certain']:.5f}", f"{after['certain']:.5f}", f"{deltas['certain'].value:+.5f}", "better"):
        assert part in line
    assert f"| best time | {before['best_time']:.4%} | {after['best_time']:.4%} | – |" in text
