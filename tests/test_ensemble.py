"""Weights against slow search and known optima; the ensemble through the stages on tiny cells."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from _cells import FEATURES, register_stubs, score_prior, train_prior, train_stub, write_windows
from _report_cells import write_sources, write_specs
from barcast.cache.fingerprint import Fingerprinter
from barcast.cache.specs import STAGES
from barcast.config import validate
from barcast.data.dataset import DatasetConfig, TimeSeriesDataset
from barcast.errors import DataError
from barcast.evaluation.calibration import Period, choose_calibrator
from barcast.evaluation.ensemble import EnsembleConfig, fit_weights, weighted_average
from barcast.evaluation.evaluator import UNCALIBRATED_COLUMNS, EvaluateConfig
from barcast.evaluation.validation_split import cut_calibration
from barcast.files import read_json
from barcast.paths import Paths
from barcast.probabilities import PROBABILITY_COLUMNS, log_loss
from barcast.stages.compare import CompareConfig, compare
from barcast.stages.ensemble import ensemble
from barcast.stages.evaluate import evaluate
from barcast.stages.oof import oof
from barcast.tuning.fold_scaler import FoldScaler
from barcast.tuning.folds import FoldConfig, cut_folds, read_index
from barcast.tuning.out_of_fold import out_of_fold
from barcast.yaml_io import dump_yaml, load_yaml

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
    assert log_loss(weighted_average(members, weights), y) <= min(log_loss(p, y) for p in members) + 1e-12


def test_the_weights_equal_a_grid_search():
    members, y = example(3, strengths=(0.5, 0.4))
    grid = np.linspace(0, 1, 2001)
    losses = [log_loss(weighted_average(members, [w, 1 - w]), y) for w in grid]
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
    assert log_loss(weighted_average(both, fit_weights(both, y)), y) <= log_loss(members[0], y)


@pytest.mark.parametrize("shrink", [0.0, 0.3, 1.0])
def test_shrinking_moves_the_best_weights_toward_equal_ones(shrink):
    members, y = example(1)
    best = fit_weights(members, y)
    np.testing.assert_allclose(fit_weights(members, y, shrink), (1 - shrink) * best + shrink / 3, rtol=1e-12)
    assert fit_weights(members, y, 1.0).tolist() == pytest.approx([1 / 3] * 3)


@pytest.fixture(scope="module")
def config():
    scoring = {
        key: value for key, value in load_yaml(PARAMS)["evaluate"].items() if key not in ("seeds", "out_of_fold")
    }
    return {**scoring, "purge_bars": 2}


MEMBERS = ("prior", "stub", "dull")
RAW, OUT_OF_FOLD = [*UNCALIBRATED_COLUMNS], [*PROBABILITY_COLUMNS]


@pytest.fixture
def cells(tmp_path, monkeypatch, config):
    """Three evaluated cells: the prior, a good stub, and one that predicts the same less clearly."""
    register_stubs(monkeypatch, "stub", "dull")
    paths = Paths(tmp_path)
    write_windows(paths, bars=400, hint=60)
    score_prior(paths, 5, **config)
    train_prior(paths, 5)
    train_stub(paths, "stub", 5, sharpness=1.0)
    train_stub(paths, "dull", 5, sharpness=0.2)
    for model in MEMBERS:
        evaluate(model, 5, validate(EvaluateConfig, config, "x"), paths)
    return paths


def settings_of(config, members=MEMBERS, weights=None, shrink=0.0):
    content = {**config, "members": list(members), "weights": weights, "shrink": shrink}
    return validate(EnsembleConfig, content, "spec")


def write_oof(paths, names=MEMBERS):
    for name in names:
        base = {"model_name": name, "model_family": "test", "horizon": 5, "random_seed": 42, "threads": 1}
        dataset = TimeSeriesDataset(DatasetConfig(path=str(paths.windows), horizon=5))
        own = {"prior": {}, "stub": {"sharpness": 1.0}, "dull": {"sharpness": 0.2}}[name]
        predicted = out_of_fold(name, {**base, **own}, dataset, FOLDS, SCALER)
        (paths.oof / f"{name}_h5").mkdir(parents=True)
        predicted.to_parquet(paths.oof_predictions(f"{name}_h5"), index=False)


def blocks_of(paths):
    """By hand, `[J, N, 3]` and labels: of each fold, and of the calibration subset."""
    folds = [pd.read_parquet(paths.oof_predictions(f"{name}_h5")) for name in MEMBERS]
    blocks = []
    for number in (1, 2):
        parts = [frame[frame["fold"] == number] for frame in folds]
        blocks.append((np.stack([part[OUT_OF_FOLD].to_numpy() for part in parts]), parts[0]["label"].to_numpy()))
    frames = [pd.read_parquet(paths.predictions(f"{name}_h5", "val")) for name in MEMBERS]
    parts = [frame[frame["part"] == "calibration"] for frame in frames]
    return [*blocks, (np.stack([part[RAW].to_numpy() for part in parts]), parts[0]["label"].to_numpy())]


def weights_by_hand(blocks, shrink):
    return fit_weights(np.concatenate([p for p, _ in blocks], axis=1), np.concatenate([y for _, y in blocks]), shrink)


def test_the_ensemble_has_the_files_of_a_cell_and_the_same_bytes_again(cells, config):
    write_oof(cells)
    weights = ensemble(5, settings_of(config), cells)
    folder = cells.ensemble(5)
    first = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    cell = cells.run("stub_h5")
    files = {p.relative_to(cell).as_posix() for p in cell.rglob("*") if p.is_file() and "checkpoints" not in p.parts}
    assert set(first) == {"weights.json", *(f"ensemble/{name}" for name in files)}
    val = pd.read_parquet(folder / "ensemble/predictions/val_predictions.parquet")
    own = pd.read_parquet(cell / "predictions/val_predictions.parquet")
    assert list(val.columns) == list(own.columns)
    for column in ("datetime", "symbol", "label", "part"):
        assert val[column].tolist() == own[column].tolist()
    windows = sum(len(y) for _, y in blocks_of(cells))
    facts = {"weights": weights, "fitted": True, "windows": windows}
    assert read_json(folder / "weights.json") == {"ensemble": facts}
    ensemble(5, settings_of(config), cells)
    assert {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == first


@pytest.mark.parametrize("shrink", [0.0, 0.5])
def test_weights_are_fitted_out_of_fold_and_on_the_calibration_subset(cells, config, shrink):
    write_oof(cells)
    weights = ensemble(5, settings_of(config, shrink=shrink), cells)
    expected = weights_by_hand(blocks_of(cells), shrink)
    assert list(weights) == list(MEMBERS)
    np.testing.assert_allclose(list(weights.values()), expected, rtol=1e-12)
    frames = [pd.read_parquet(cells.predictions(f"{name}_h5", "test")) for name in MEMBERS]
    mixed = pd.read_parquet(cells.ensemble(5) / "ensemble/predictions/test_predictions.parquet")[RAW]
    np.testing.assert_allclose(mixed, sum(w * frame[RAW] for w, frame in zip(expected, frames, strict=True)), rtol=1e-9)


@pytest.mark.parametrize(("methods", "shrink"), [([], 0.0), ([], 0.5), (["temperature"], 0.2)])
def test_a_fold_is_scored_by_weights_and_a_calibrator_fitted_without_it(cells, config, methods, shrink):
    write_oof(cells)
    calibration = {**config["calibration"], "methods": methods}
    ensemble(5, settings_of({**config, "calibration": calibration}, shrink=shrink), cells)
    blocks, mixed = blocks_of(cells), []
    for left_out in (0, 1):
        others = [block for number, block in enumerate(blocks) if number != left_out]
        weights = weights_by_hand(others, shrink)
        p, y = blocks[left_out]
        mixed.append(Period(sum(w * member for w, member in zip(weights, p, strict=True)), y))
    val = pd.read_parquet(cells.ensemble(5) / "ensemble/predictions/val_predictions.parquet")
    stretches = cut_calibration(val, val["part"].to_numpy(), 3, config["purge_bars"])
    raw, label = val[RAW].to_numpy(), val["label"].to_numpy()
    choice = choose_calibrator(methods, mixed, [Period(raw[rows], label[rows]) for rows in stretches])
    metrics = read_json(cells.ensemble(5) / "ensemble/metrics/metrics.json")
    assert metrics["calibration"]["method"] == choice.calibrator.method
    found, windows = metrics["folds"], [len(fold.y) for fold in mixed]
    np.testing.assert_allclose(found["by_fold"], choice.chosen_losses[:2], rtol=1e-9)
    if not methods:
        assert found["by_fold"] == pytest.approx([log_loss(fold.probabilities, fold.y) for fold in mixed])
    assert found["windows"] == sum(windows)
    assert found["log_loss"] == pytest.approx(np.average(found["by_fold"], weights=windows))


def test_the_selection_subset_and_test_change_no_weight(cells, config):
    write_oof(cells)
    expected = ensemble(5, settings_of(config), cells)
    assert sum(expected.values()) == pytest.approx(1)
    folds = read_json(cells.ensemble(5) / "ensemble/metrics/metrics.json")["folds"]
    for model in MEMBERS:  # labels of every other window turned round
        for split in ("val", "test"):
            file = cells.predictions(f"{model}_h5", split)
            frame = pd.read_parquet(file)
            frame["label"] = frame["label"].where(frame["part"] == "calibration", -frame["label"])
            frame.to_parquet(file)
    assert ensemble(5, settings_of(config), cells) == expected
    assert read_json(cells.ensemble(5) / "ensemble/metrics/metrics.json")["folds"] == folds


@pytest.mark.parametrize("without", [MEMBERS, ("dull",)])
def test_if_a_member_has_no_folds_weights_are_fitted_only_on_the_calibration_subset(cells, config, without):
    write_oof(cells)
    expected = weights_by_hand(blocks_of(cells)[2:], 0.0)
    for name in without:
        cells.oof_predictions(f"{name}_h5").unlink()  # an empty folder: the model is not in evaluate.out_of_fold
    weights = ensemble(5, settings_of(config), cells)
    np.testing.assert_allclose(list(weights.values()), expected, rtol=1e-12)
    assert read_json(cells.ensemble(5) / "ensemble/metrics/metrics.json")["folds"] is None
    calibrated = pd.read_parquet(cells.predictions("stub_h5", "val"))["part"].eq("calibration").sum()
    assert read_json(cells.ensemble(5) / "weights.json")["ensemble"]["windows"] == calibrated


def test_given_weights_are_used_as_they_are(cells, config):
    write_oof(cells)
    given = {"stub": 0.25, "dull": 0.75}
    for shrink in (0.0, 0.5):  # of fitted ones only
        weights = ensemble(5, settings_of(config, weights=given, shrink=shrink), cells)
        assert weights == {"prior": 0.0, **given}
    facts = read_json(cells.ensemble(5) / "weights.json")["ensemble"]
    assert (facts["weights"], facts["fitted"]) == (weights, False)
    predicted = {
        name: pd.read_parquet(cells.predictions(f"{name}_h5", "test"))[RAW].to_numpy() for name in ("stub", "dull")
    }
    mixed = pd.read_parquet(cells.ensemble(5) / "ensemble/predictions/test_predictions.parquet")
    np.testing.assert_allclose(mixed[RAW], 0.25 * predicted["stub"] + 0.75 * predicted["dull"], atol=1e-12)
    metrics = read_json(cells.ensemble(5) / "ensemble/metrics/metrics.json")
    if metrics["calibration"]["method"] == "none":
        averaged = [log_loss(0.25 * p[1] + 0.75 * p[2], y) for p, y in blocks_of(cells)[:2]]
        assert metrics["folds"]["by_fold"] == pytest.approx(averaged)


def test_out_of_fold_is_out_of_fold(tmp_path, monkeypatch):
    """Each prediction is of a window that comes after all that the model saw; labels are as they stand."""
    register_stubs(monkeypatch, "stub")
    paths = Paths(tmp_path)
    write_windows(paths, bars=200)
    dataset = TimeSeriesDataset(DatasetConfig(path=str(paths.windows), horizon=5))
    base = {"model_name": "stub", "model_family": "test", "horizon": 5, "random_seed": 1, "threads": 1}
    seen = []
    predicted = out_of_fold(
        "stub", {**base, "sharpness": 1.0}, dataset, FOLDS, SCALER, lambda _, step: seen.append(step)
    )
    split = dataset.split("train")
    _, times, symbols = read_index(split)
    folds = cut_folds(split.X.ends, split.label_end_offset, times, symbols, FOLDS)
    assert seen == [0, 1]
    for fold in folds:
        part = predicted[predicted["fold"] == fold.number]
        meta = split.meta.iloc[fold.val]
        assert part["datetime"].tolist() == meta["datetime"].tolist()
        assert part["label"].tolist() == split.y[fold.val].tolist()
        assert part["datetime"].min() > split.meta["datetime"].iloc[fold.train].max()
    assert len(FEATURES) == dataset.split("train").X.shape[2]


def test_the_stage_fits_a_cell_out_of_fold_or_leaves_an_empty_folder(tmp_path, monkeypatch, capsys):
    register_stubs(monkeypatch, "stub", "dull")
    paths = Paths(tmp_path)
    write_windows(paths, bars=200)
    paths.specs.mkdir(parents=True)
    base = {"model_name": "stub", "model_family": "test", "horizon": 5, "random_seed": 1, "threads": 1}
    folds = {"folds": FOLDS.model_dump(), "scaler": SCALER.model_dump()}
    for name, own in (("stub", {**base, "sharpness": 1.0}), ("dull", None)):
        spec = {"config": {"base": own, **folds}, "libraries": {}}
        paths.spec(f"oof_{name}_h5").write_text(dump_yaml(spec))
        oof(name, 5, paths)
    dataset = TimeSeriesDataset(DatasetConfig(path=str(paths.windows), horizon=5), splits=("train",))
    expected = out_of_fold("stub", {**base, "sharpness": 1.0}, dataset, FOLDS, SCALER)
    pd.testing.assert_frame_equal(pd.read_parquet(paths.oof_predictions("stub_h5")), expected)
    assert list((paths.oof / "dull_h5").iterdir()) == []
    assert "dull_h5: not in evaluate.out_of_fold, so it has no folds" in capsys.readouterr().out


def test_a_missing_member_names_the_command(cells, config):
    cells.predictions("dull_h5", "val").unlink()
    with pytest.raises(DataError, match=r"no such file; run `dvc repro evaluate@dull-5` first"):
        ensemble(5, settings_of(config), cells)


def test_members_of_other_windows_are_refused(cells, config):
    file = cells.predictions("dull_h5", "test")
    frame = pd.read_parquet(file)
    frame.iloc[1:].to_parquet(file)
    with pytest.raises(DataError, match=r"test_predictions.parquet: other windows or labels than prior's; run"):
        ensemble(5, settings_of(config), cells)


def test_members_of_other_folds_are_refused(cells, config):
    write_oof(cells)
    file = cells.oof_predictions("dull_h5")
    frame = pd.read_parquet(file)
    frame.iloc[1:].to_parquet(file)
    with pytest.raises(DataError, match=r"dull_h5/predictions.parquet: other windows or labels than prior's; run"):
        ensemble(5, settings_of(config), cells)


def test_the_ensemble_is_on_the_leaderboard(cells, config):
    ensemble(5, settings_of(config), cells)
    write_specs(cells, list(MEMBERS), [5])
    write_sources(cells)
    content = {
        **load_yaml(PARAMS)["compare"],
        "cells": [{"model": model, "horizon": 5} for model in MEMBERS],
        "seeds": [],
        "label_end_offset": {"h5": 5},
        "seed": 42,
        "cost_bps": config["cost_bps"],
        "calibration_bins": config["calibration_bins"],
        "resamples": 100,
    }
    board = compare(validate(CompareConfig, content, "compare.yaml"), cells)
    rows = {row["model"]: row for row in board["horizons"]["h5"]}
    assert set(rows) == {"prior", "stub", "dull", "ensemble"}
    metrics = read_json(cells.ensemble(5) / "ensemble/metrics/metrics.json")
    assert rows["ensemble"]["test_log_loss"]["value"] == pytest.approx(metrics["test"]["log_loss"])


def test_the_stage_computes_without_models_and_networks():
    modules = Fingerprinter().fingerprint(*STAGES["ensemble"].roots).code
    assert not [name for name in modules if re.match(r"barcast\.(models|networks|training|tuning|data)\b", name)]
    assert "barcast.evaluation.attribution" not in modules
