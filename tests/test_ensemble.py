"""Pooling against slow search and known optima; the ensemble's rows through the stages on tiny cells."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from _cells import FEATURES, register_stubs, train_prior, train_stub, write_windows
from _report_cells import write_sources, write_specs
from barcast.config import load_yaml, validate
from barcast.data.windows import DatasetConfig, TimeSeriesDataset
from barcast.errors import DataError
from barcast.evaluation.pooling import Stack, fit_weights, pool
from barcast.files import read_json
from barcast.models.base import log_loss
from barcast.paths import Paths
from barcast.stages.compare import CompareConfig, compare
from barcast.stages.ensemble import EnsembleConfig, ensemble
from barcast.stages.evaluate import EvaluateConfig, evaluate
from barcast.tuning.folds import FoldConfig, cut_folds, read_index
from barcast.tuning.out_of_fold import out_of_fold
from barcast.tuning.scaling import FoldScaler

PARAMS = Path(__file__).resolve().parents[1] / "params.yaml"
FOLDS = FoldConfig(scheme="expanding", count=2, first_train=0.4, embargo_bars=1)
SCALER = FoldScaler(kind="robust", clip=5.0)


def sharpened(y, rng, strength):
    """Probabilities `[N, 3]` that know the truth better the greater `strength` is."""
    logits = rng.normal(size=(len(y), 3))
    logits[np.arange(len(y)), y + 1] += strength
    p = np.exp(logits)
    return p / p.sum(axis=1, keepdims=True)


def example(seed=0, rows=400, strengths=(0.3, 0.8, 0.0)):
    rng = np.random.default_rng(seed)
    y = rng.integers(-1, 2, rows)
    return np.stack([sharpened(y, rng, strength) for strength in strengths]), y


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(20, 300))
def test_the_weights_are_the_best_ones(seed, count, rows):
    """By the condition that is necessary and enough: no member would still gain by more weight."""
    members, y = example(seed, rows, tuple(np.random.default_rng(seed).uniform(0, 1, count)))
    weights = fit_weights(members, y)
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    true = members[:, np.arange(rows), y + 1]
    gain = (true / (weights @ true)).mean(axis=1)
    assert gain.max() <= 1 + 1e-5
    np.testing.assert_allclose(gain[weights > 0], 1, atol=1e-4)
    assert log_loss(pool(members, weights), y) <= min(log_loss(p, y) for p in members) + 1e-12


def test_the_weights_equal_a_grid_search():
    members, y = example(3, strengths=(0.5, 0.4))
    grid = np.linspace(0, 1, 2001)
    losses = [log_loss(pool(members, [w, 1 - w]), y) for w in grid]
    assert fit_weights(members, y)[0] == pytest.approx(grid[int(np.argmin(losses))], abs=1e-3)


def test_a_member_that_does_not_help_gets_exactly_0():
    members, y = example(1, rows=2000)
    blurred = 0.5 * members[1] + 0.5 / 3  # knows nothing that the second does not know better
    weights = fit_weights(np.stack([*members[:2], blurred, np.full_like(blurred, 1 / 3)]), y)
    assert weights[2] == 0.0
    alone = fit_weights(np.stack([members[1]]), y)
    assert alone.tolist() == [1.0]


def test_equal_members_and_certain_ones_do_no_harm():
    members, y = example(2)
    twins = fit_weights(np.stack([members[1], members[1]]), y)
    assert twins.sum() == pytest.approx(1)
    certain = np.zeros_like(members[0])
    certain[:, 0] = 1.0  # log-loss without bound by itself
    both = np.stack([members[0], certain])
    assert log_loss(pool(both, fit_weights(both, y)), y) <= log_loss(members[0], y)


def test_a_stack_finds_the_weights_that_made_the_truth():
    rng = np.random.default_rng(5)
    a, b = (rng.dirichlet([2, 2, 2], 20_000) for _ in range(2))
    logits = 1.5 * np.log(a) + 0.5 * np.log(b) + np.array([0.3, 0.0, -0.3])
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = (rng.random(len(p))[:, None] > p.cumsum(axis=1)).sum(axis=1) - 1
    fitted = Stack.fit({"a": a, "b": b, "noise": rng.dirichlet([2, 2, 2], 20_000)}, y)
    np.testing.assert_allclose(fitted.weights[:2], [1.5, 0.5], atol=0.07)
    assert fitted.weights[2] < 0.05
    np.testing.assert_allclose(fitted.bias, [0.3, 0.0, -0.3], atol=0.06)
    said = fitted.apply({"b": b, "a": a, "noise": a})
    np.testing.assert_allclose(said.sum(axis=1), 1)
    assert set(fitted.to_json()["weights"]) == {"a", "b", "noise"}


def test_a_stack_turns_no_member_upside_down():
    """A member that is wrong on purpose would help with a weight below 0; it gets 0 instead."""
    members, y = example(4, rows=3000, strengths=(0.8, -0.8))
    assert Stack.fit({"right": members[0], "wrong": members[1]}, y).weights[1] == 0.0


def test_the_gradient_of_the_stack_leads_to_the_least_loss():
    members, y = example(6, rows=300)
    named = {str(i): p for i, p in enumerate(members)}
    fitted = Stack.fit(named, y)
    best = log_loss(fitted.apply(named), y)
    rng = np.random.default_rng(0)
    for _ in range(200):
        weights = np.clip(fitted.weights + rng.normal(0, 0.05, 3), 0, None)
        other = Stack(fitted.members, weights, fitted.bias + rng.normal(0, 0.05, 3))
        assert log_loss(other.apply(named), y) >= best - 1e-4


@pytest.fixture(scope="module")
def config():
    scoring = {key: value for key, value in load_yaml(PARAMS)["evaluate"].items() if key != "seeds"}
    return {**scoring, "purge_bars": 2}


@pytest.fixture
def cells(tmp_path, monkeypatch, config):
    """Three evaluated cells: the prior, a good stub, and one that says the same less clearly."""
    register_stubs(monkeypatch, "stub", "dull")
    paths = Paths(tmp_path)
    write_windows(paths, bars=400, hint=60)
    train_prior(paths, 5)
    train_stub(paths, "stub", 5, sharpness=1.0)
    train_stub(paths, "dull", 5, sharpness=0.2)
    for model in ("prior", "stub", "dull"):
        evaluate(model, 5, validate(EvaluateConfig, config, "x"), paths)
    return paths


def settings_of(config, members=("prior", "stub", "dull"), weights=None, stack=()):
    content = {**config, "members": list(members), "weights": weights, "stack": list(stack)}
    return validate(EnsembleConfig, content, "spec")


def write_oof(paths, names):
    for name in names:
        base = {"model_name": name, "model_family": "test", "horizon": 5, "random_seed": 42, "threads": 1}
        dataset = TimeSeriesDataset(DatasetConfig(path=str(paths.windows), horizon=5))
        sharpness = {"stub": 1.0, "dull": 0.2}[name]
        said = out_of_fold(name, {**base, "sharpness": sharpness}, dataset, FOLDS, SCALER)
        (paths.oof / f"{name}_h5").mkdir(parents=True)
        said.to_parquet(paths.oof / f"{name}_h5/predictions.parquet", index=False)


def test_the_rows_have_the_form_of_a_cell_and_the_same_bytes_again(cells, config):
    write_oof(cells, ["stub", "dull"])
    facts = ensemble(5, settings_of(config, stack=["stub", "dull"]), cells)
    folder = cells.ensemble(5)
    first = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    cell = cells.run("stub_h5")
    files = {p.relative_to(cell).as_posix() for p in cell.rglob("*") if p.is_file() and "checkpoints" not in p.parts}
    for row in ("ensemble", "stack"):
        assert {name.partition("/")[2] for name in first if name.startswith(f"{row}/")} == files
        val = pd.read_parquet(folder / row / "predictions/val_predictions.parquet")
        own = pd.read_parquet(cell / "predictions/val_predictions.parquet")
        assert list(val.columns) == list(own.columns)
        for column in ("datetime", "symbol", "label", "part"):
            assert val[column].tolist() == own[column].tolist()
    assert read_json(folder / "weights.json") == facts
    ensemble(5, settings_of(config, stack=["stub", "dull"]), cells)
    assert {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == first


def test_weights_are_fitted_on_the_calibration_slice_alone(cells, config):
    expected = ensemble(5, settings_of(config), cells)["ensemble"]["weights"]
    assert sum(expected.values()) == pytest.approx(1)
    for model in ("prior", "stub", "dull"):  # labels of every other window turned round
        for split in ("val", "test"):
            file = cells.predictions(f"{model}_h5", split)
            frame = pd.read_parquet(file)
            frame["label"] = frame["label"].where(frame["part"] == "calibration", -frame["label"])
            frame.to_parquet(file)
    assert ensemble(5, settings_of(config), cells)["ensemble"]["weights"] == expected


def test_given_weights_are_used_as_they_are(cells, config):
    facts = ensemble(5, settings_of(config, weights={"stub": 0.25, "dull": 0.75}), cells)
    assert facts == {"ensemble": {"weights": {"prior": 0.0, "stub": 0.25, "dull": 0.75}, "fitted": False}}
    said = {
        name: pd.read_parquet(cells.predictions(f"{name}_h5", "test"))[["raw_down", "raw_flat", "raw_up"]].to_numpy()
        for name in ("stub", "dull")
    }
    mixed = pd.read_parquet(cells.ensemble(5) / "ensemble/predictions/test_predictions.parquet")
    np.testing.assert_allclose(
        mixed[["raw_down", "raw_flat", "raw_up"]], 0.25 * said["stub"] + 0.75 * said["dull"], atol=1e-12
    )
    assert not (cells.ensemble(5) / "stack").exists()


def test_out_of_fold_is_out_of_fold(tmp_path, monkeypatch):
    """Each prediction is of a window that comes after all that the model saw; labels are as they stand."""
    register_stubs(monkeypatch, "stub")
    paths = Paths(tmp_path)
    write_windows(paths, bars=200)
    dataset = TimeSeriesDataset(DatasetConfig(path=str(paths.windows), horizon=5))
    base = {"model_name": "stub", "model_family": "test", "horizon": 5, "random_seed": 1, "threads": 1}
    seen = []
    said = out_of_fold("stub", {**base, "sharpness": 1.0}, dataset, FOLDS, SCALER, lambda _, step: seen.append(step))
    split = dataset.split("train")
    _, times, symbols = read_index(split)
    folds = cut_folds(split.X.ends, split.reach, times, symbols, FOLDS)
    assert seen == [0, 1]
    for fold in folds:
        part = said[said["fold"] == fold.number]
        meta = split.meta.iloc[fold.val]
        assert part["datetime"].tolist() == meta["datetime"].tolist()
        assert part["label"].tolist() == split.y[fold.val].tolist()
        assert part["datetime"].min() > split.meta["datetime"].iloc[fold.train].max()
    assert len(FEATURES) == dataset.split("train").X.shape[2]


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda p: p.predictions("dull_h5", "val").unlink(), r"no such file; run `dvc repro evaluate@dull-5` first"),
        (lambda p: None, r"oof/stub_h5/predictions.parquet: no such file; run `dvc repro oof@stub-5` first"),
    ],
)
def test_a_missing_member_says_what_to_run(cells, config, break_it, message):
    break_it(cells)
    with pytest.raises(DataError, match=message):
        ensemble(5, settings_of(config, stack=["stub"]), cells)


def test_members_of_other_windows_are_refused(cells, config):
    file = cells.predictions("dull_h5", "test")
    frame = pd.read_parquet(file)
    frame.iloc[1:].to_parquet(file)
    with pytest.raises(DataError, match=r"test_predictions.parquet: other windows or labels than prior's; run"):
        ensemble(5, settings_of(config), cells)


def test_the_rows_are_on_the_leaderboard(cells, config):
    ensemble(5, settings_of(config), cells)
    write_specs(cells, ["prior", "stub", "dull"], [5])
    write_sources(cells)
    content = {
        **load_yaml(PARAMS)["compare"],
        "cells": [{"model": model, "horizon": 5} for model in ("prior", "stub", "dull")],
        "seeds": [],
        "reach": {"h5": 5},
        "seed": 42,
        "cost_bps": config["cost_bps"],
        "calibration_bins": config["calibration_bins"],
        "resamples": 100,
    }
    board = compare(validate(CompareConfig, content, "compare.yaml"), cells)
    rows = {row.model: row for row in board.horizons[5]}
    assert set(rows) == {"prior", "stub", "dull", "ensemble"}
    metrics = read_json(cells.ensemble(5) / "ensemble/metrics/metrics.json")
    assert rows["ensemble"].test_log_loss.value == pytest.approx(metrics["test"]["log_loss"])
