from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from _cells import (
    EVALUATE,
    FEATURES,
    SEQ_LEN,
    Stub,
    StubConfig,
    register_stubs,
    score_prior,
    train_prior,
    train_stub,
    write_windows,
)
from barcast.config import validate
from barcast.data.dataset import DatasetConfig, Split, TimeSeriesDataset
from barcast.errors import ConfigError, DataError, ModelError
from barcast.evaluation import cell_files
from barcast.evaluation.backtest import backtest
from barcast.evaluation.calibration import Period, choose_calibrator
from barcast.evaluation.evaluator import CellEvaluation, EvaluateConfig, Evaluator
from barcast.evaluation.metrics import classification_metrics
from barcast.evaluation.plots import thin
from barcast.evaluation.postprocess import Postprocess
from barcast.files import read_json
from barcast.models.registry import ModelRegistry
from barcast.paths import Paths
from barcast.probabilities import log_loss
from barcast.stages import baseline as baseline_stage
from barcast.stages import evaluate as stage
from barcast.stages.evaluate import evaluate
from barcast.yaml_io import dump_yaml

CONFIG = validate(EvaluateConfig, EVALUATE, "params.yaml", "evaluate")


@pytest.fixture
def paths(tmp_path, monkeypatch) -> Paths:
    register_stubs(monkeypatch, "leaner")
    paths = Paths(tmp_path)
    write_windows(paths)
    score_prior(paths, 5)
    train_stub(paths, "leaner", 5, sharpness=0.5)
    return paths


def split_of(paths: Paths, name: str) -> Split:
    return TimeSeriesDataset(DatasetConfig(path=str(paths.windows), horizon=5)).split(name)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def evaluation_of(paths: Paths, **changes) -> CellEvaluation:
    config = validate(EvaluateConfig, EVALUATE | changes, "params.yaml", "evaluate")
    model = Stub.load(paths.checkpoint("leaner_h5"))
    return Evaluator(config).evaluate(model, split_of(paths, "val"), split_of(paths, "test"))


def test_evaluator_puts_the_scores_and_the_trading_together(paths):
    found = evaluation_of(paths, calibration={"share": 0.5, "methods": []}).splits["test"]
    split = split_of(paths, "test")
    p = Stub.load(paths.checkpoint("leaner_h5")).predict_proba(split.X)
    bars = split.meta.assign(prediction=p.argmax(axis=1) - 1)
    assert found.metrics == {**classification_metrics(p, split.y, 10), **backtest(bars, 5.0).metrics}
    assert found.metrics["accuracy"] > 0.5  # the stub's momentum hints at the label
    assert found.reliability.groupby("kind")["count"].sum().to_dict() == {
        "raw": len(split.y),
        "published": len(split.y),
    }
    assert found.equity["datetime"].tolist() == sorted(split.meta["datetime"].unique())


def test_predictions_carry_the_truth_and_the_close(paths):
    split = split_of(paths, "val")
    frame = evaluation_of(paths).splits["val"].predictions
    assert frame["label"].tolist() == split.y.tolist()
    assert frame["close"].tolist() == split.meta["close"].tolist()
    assert frame["symbol"].tolist() == split.meta["symbol"].tolist()


def test_only_the_selection_subset_of_validation_is_scored(paths):
    found = evaluation_of(paths)
    frame = found.splits["val"].predictions
    ranked = frame[frame["part"] == "ranked"]
    assert set(frame["part"]) == {"calibration", "purged", "ranked"}
    assert set(found.splits["test"].predictions["part"]) == {"test"}
    expected = log_loss(ranked[["p_down", "p_flat", "p_up"]].to_numpy(), ranked["label"].to_numpy())
    assert found.splits["val"].metrics["log_loss"] == expected
    traded = backtest(ranked[["datetime", "symbol", "close", "prediction"]].copy(), 5.0)
    assert found.splits["val"].metrics["total_return"] == traded.metrics["total_return"]
    assert sum(found.to_json()["windows"].values()) == len(frame) + len(found.splits["test"].predictions)


def test_predictions_have_calibrated_and_uncalibrated_probabilities(paths):
    found = evaluation_of(paths)
    frame = found.splits["test"].predictions
    raw = Stub.load(paths.checkpoint("leaner_h5")).predict_proba(split_of(paths, "test").X)
    assert np.array_equal(frame[["raw_down", "raw_flat", "raw_up"]].to_numpy(), raw)
    assert np.array_equal(frame[["p_down", "p_flat", "p_up"]].to_numpy(), found.postprocess.calibrator.apply(raw))
    assert found.splits["test"].uncalibrated["log_loss"] == log_loss(raw, split_of(paths, "test").y)
    assert set(found.splits["test"].uncalibrated) == {"log_loss", "brier", "ece"}


def test_strategies_and_holding_trade_their_positions(paths):
    found = evaluation_of(paths).splits["test"]
    frame, bars = found.predictions, split_of(paths, "test").meta[["datetime", "symbol", "close"]]
    for strategy in ("sets", "threshold"):
        assert found.strategies[strategy] == backtest(bars.assign(prediction=frame[f"act_{strategy}"]), 5.0).metrics
    held = backtest(bars.assign(prediction=1), 5.0)
    assert found.strategies["buy_hold"] == held.metrics
    assert found.equity["buy_hold"].tolist() == held.equity["equity"].tolist()
    falls = found.equity["equity"] / np.maximum(found.equity["equity"].cummax(), 1) - 1
    assert found.equity["drawdown"].tolist() == falls.tolist()
    assert found.equity["drawdown"].min() == pytest.approx(found.metrics["max_drawdown"])


def test_what_serving_loads_is_what_was_evaluated(paths):
    evaluate("leaner", 5, CONFIG, paths)
    postprocess = Postprocess.load(paths.run("leaner_h5") / "metrics/postprocess.json")
    split = split_of(paths, "test")
    output = postprocess.apply(Stub.load(paths.checkpoint("leaner_h5")).predict(split.X, split.meta))
    frame = pd.read_parquet(paths.predictions("leaner_h5", "test"))
    served = output.to_dataframe()
    assert served.equals(frame[list(served)])
    for strategy, positions in postprocess.positions(output).items():
        assert positions.tolist() == frame[f"act_{strategy}"].tolist()


def periods_of(evaluation: CellEvaluation) -> list[Period]:
    """The periods of the calibration subset, by hand: thirds of its times, all but the last purged."""
    frame = evaluation.splits["val"].predictions
    own = frame[frame["part"] == "calibration"]
    times = sorted(own["datetime"].unique())
    periods = []
    for third in range(3):
        inside = own[own["datetime"].isin([t for place, t in enumerate(times) if place * 3 // len(times) == third])]
        if third < 2:
            inside = inside.drop(inside.groupby("symbol").tail(EVALUATE["purge_bars"]).index)
        periods.append(Period(inside[["raw_down", "raw_flat", "raw_up"]].to_numpy(), inside["label"].to_numpy()))
    return periods


def write_folds(paths: Paths, sizes: tuple[int, ...] = (60, 40, 50), power: float = 3.0) -> list[Period]:
    """Out-of-fold predictions of a model that is too sure of itself, as `oof@leaner-5` leaves them."""
    rng = np.random.default_rng(0)
    frames = []
    for number, size in enumerate(sizes, 1):
        truth = rng.dirichlet([2, 2, 2], size)
        y = (rng.random((size, 1)) > truth.cumsum(axis=1)).sum(axis=1) - 1
        sure = truth**power / (truth**power).sum(axis=1, keepdims=True)
        frames.append(pd.DataFrame(sure, columns=["p_down", "p_flat", "p_up"]).assign(fold=number, label=y))
    file = paths.oof_predictions("leaner_h5")
    file.parent.mkdir(parents=True)
    pd.concat(frames, ignore_index=True).to_parquet(file)
    return [Period(frame[["p_down", "p_flat", "p_up"]].to_numpy(), frame["label"].to_numpy()) for frame in frames]


def test_without_folds_the_calibrator_is_chosen_only_on_the_calibration_subset(paths):
    found = evaluation_of(paths)
    choice = choose_calibrator(["temperature", "vector"], [], periods_of(found))
    assert found.choice.calibrator == choice.calibrator == found.postprocess.calibrator
    losses = {method: losses.mean() for method, losses in choice.holdout.items()}
    assert found.to_json()["calibration"]["candidates"] == losses
    assert found.to_json()["folds"] is None


@pytest.mark.parametrize("methods", [[], ["temperature"], ["temperature", "vector"]])
def test_folds_choose_the_calibrator_too_and_each_is_scored_by_one_fitted_without_it(paths, methods):
    folds = write_folds(paths)
    config = validate(EvaluateConfig, EVALUATE | {"calibration": {"share": 0.5, "methods": methods}}, "spec")
    evaluate("leaner", 5, config, paths)
    plain = evaluation_of(paths, calibration={"share": 0.5, "methods": methods})
    choice = choose_calibrator(methods, folds, periods_of(plain))
    metrics = read_json(paths.cell_metrics("leaner_h5"))
    assert metrics["calibration"] == {
        "method": choice.calibrator.method,
        "candidates": pytest.approx({method: losses.mean() for method, losses in choice.holdout.items()}),
    }
    assert Postprocess.load(paths.run("leaner_h5") / "metrics/postprocess.json").calibrator == choice.calibrator
    assert metrics["folds"]["by_fold"] == pytest.approx(choice.chosen_losses[:3].tolist())
    assert metrics["folds"]["windows"] == 150
    assert metrics["folds"]["log_loss"] == pytest.approx(np.average(choice.chosen_losses[:3], weights=[60, 40, 50]))
    if not methods:
        assert metrics["folds"]["by_fold"] == pytest.approx([log_loss(fold.probabilities, fold.y) for fold in folds])


def test_an_empty_out_of_fold_folder_means_no_folds(paths):
    evaluate("leaner", 5, CONFIG, paths)
    before = contents(paths.run("leaner_h5"))
    paths.oof_predictions("leaner_h5").parent.mkdir(parents=True)
    evaluate("leaner", 5, CONFIG, paths)
    assert contents(paths.run("leaner_h5")) == before
    assert read_json(paths.cell_metrics("leaner_h5"))["folds"] is None


class LimitedConfig(StubConfig):
    max_rounds: int
    patience: int
    early_stopping: bool


class Limited(Stub):
    """Its loss on validation is lowest at the ninth of twelve rounds."""

    config_class = LimitedConfig


@pytest.mark.parametrize(("patience", "limit"), [(4, "max_rounds = 12"), (3, None)])
def test_a_training_that_its_limit_ended_is_reported(paths, monkeypatch, capsys, patience, limit):
    ModelRegistry.register("limited", "test", "a stub")(Limited)
    values = {"model_name": "limited", "model_family": "test", "horizon": 5, "random_seed": 42, "threads": 1}
    model = Limited(
        {**values, "sharpness": 0.5, "max_rounds": 12, "patience": patience, "early_stopping": True}, 5, FEATURES
    )
    train, val = split_of(paths, "train"), split_of(paths, "val")
    model.fit(train.X, train.y, val.X, val.y).save(paths.checkpoint("limited_h5"))
    evaluate("limited", 5, CONFIG, paths)
    assert read_json(paths.cell_metrics("limited_h5"))["ended_by_limit"] == limit
    words = "limited_h5: max_rounds = 12 ended the training while validation was still improving; raise it"
    assert (words in capsys.readouterr().out) == (limit is not None)
    evaluate("leaner", 5, CONFIG, paths)  # which knows no limit
    assert read_json(paths.cell_metrics("leaner_h5"))["ended_by_limit"] is None


def test_a_validation_too_short_to_be_cut_is_refused(paths):
    with pytest.raises(DataError, match=r"the calibration subset has no window .*widen the validation split"):
        evaluation_of(paths, purge_bars=60)


def test_an_unfitted_model_is_refused(paths):
    config = {"model_name": "leaner", "model_family": "test", "horizon": 5, "random_seed": 0, "threads": 1}
    model = Stub(config | {"sharpness": 1.0}, 5, FEATURES)
    with pytest.raises(ModelError, match="leaner: predict was called before fit"):
        Evaluator(CONFIG).evaluate(model, split_of(paths, "val"), split_of(paths, "test"))


def test_stage_writes_predictions_metrics_and_plots(paths):
    evaluate("leaner", 5, CONFIG, paths)
    run = paths.run("leaner_h5")
    written = contents(run / "predictions") | contents(run / "metrics") | contents(run / "plots")
    kinds = ("confusion", "reliability", "equity", "coverage")
    plots = [f"{split}_{kind}.csv" for split in ("val", "test") for kind in kinds]
    metrics = ["metrics.json", "postprocess.json"]
    predictions = ["val_predictions.parquet", "test_predictions.parquet"]
    assert sorted(written) == sorted([*predictions, *metrics, "importance.csv", *plots])
    assert not list(run.rglob(".*")), "a temporary name was left behind"
    frame = pd.read_parquet(paths.predictions("leaner_h5", "test"))
    probabilities = ["p_down", "p_flat", "p_up"]
    sets = ["set_size", "in_down", "in_flat", "in_up"]
    raw = ["raw_down", "raw_flat", "raw_up"]
    output = ["datetime", "symbol", "horizon", "prediction", *probabilities, "uncertainty", *sets]
    assert list(frame) == [*output, *raw, "act_sets", "act_threshold", "label", "close", "part"]
    assert (frame["set_size"] == frame[sets[1:]].sum(axis=1)).all()
    assert str(frame["datetime"].dtype.tz) == "UTC"
    scores = read_json(paths.cell_metrics("leaner_h5"))["test"]
    assert scores["log_loss"] == log_loss(frame[probabilities].to_numpy(), frame["label"].to_numpy())


def test_plots_are_what_dvc_draws(paths):
    evaluate("leaner", 5, CONFIG, paths)
    plots, frame = paths.plots("leaner_h5"), pd.read_parquet(paths.predictions("leaner_h5", "test"))
    confusion = pd.read_csv(plots / "test_confusion.csv")
    names = {-1: "down", 0: "flat", 1: "up"}
    assert confusion["actual"].tolist() == frame["label"].map(names).tolist()
    assert confusion["predicted"].tolist() == frame["prediction"].map(names).tolist()
    assert pd.read_csv(plots / "importance.csv")["importance"].tolist() == [0.7, 0.2, 0.1]
    assert len(pd.read_csv(plots / "test_reliability.csv")) == 2 * 10
    coverage = pd.read_csv(plots / "test_coverage.csv")
    assert coverage["windows"].sum() == len(frame)
    equity = pd.read_csv(plots / "test_equity.csv")
    assert list(equity) == ["datetime", "equity", "drawdown", "sets", "threshold", "buy_hold", "prior"]
    total = read_json(paths.cell_metrics("leaner_h5"))["test"]["total_return"]
    assert equity["equity"].iloc[-1] - 1 == pytest.approx(total)


def test_thinning_keeps_both_ends():
    frame = pd.DataFrame({"equity": np.arange(10_001)})
    kept = thin(frame)["equity"].tolist()
    assert (len(kept), kept[0], kept[-1]) == (500, 0, 10_000)
    assert max(np.diff(kept)) - min(np.diff(kept)) <= 1
    assert thin(frame.head(3))["equity"].tolist() == [0, 1, 2]


def test_each_cell_has_the_prior_s_metrics_beside_its_own(paths):
    train_prior(paths, 5)
    for model in ("prior", "leaner"):
        evaluate(model, 5, CONFIG, paths)
    own, beside = read_json(paths.cell_metrics("prior_h5")), read_json(paths.cell_metrics("leaner_h5"))
    assert beside["prior"] == own["prior"] == {"val": own["val"], "test": own["test"]}
    train, test = split_of(paths, "train"), split_of(paths, "test")
    weights = np.array([train.weight[train.y == label].sum() for label in (-1, 0, 1)], np.float64)
    expected = log_loss(np.tile(weights / weights.sum(), (len(test.y), 1)), test.y)
    assert own["raw"]["test"]["log_loss"] == pytest.approx(expected, rel=1e-3)  # but for the prior's smoothing
    frame = pd.read_parquet(paths.predictions("prior_h5", "test"))
    assert beside["prior_probabilities"] == frame[["p_down", "p_flat", "p_up"]].iloc[-1].tolist()


def test_a_missing_baseline_names_the_command(paths):
    shutil.rmtree(paths.baseline(5))
    with pytest.raises(DataError, match=r"baseline/h5: no such folder; run `dvc repro baseline@5` first"):
        evaluate("leaner", 5, CONFIG, paths)


def test_the_baseline_s_main_reads_its_spec(paths, monkeypatch):
    before = contents(paths.baseline(5))
    shutil.rmtree(paths.baseline(5))
    monkeypatch.chdir(paths.root)
    paths.specs.mkdir(parents=True)
    paths.spec("baseline").write_text(dump_yaml({"stage": "baseline", "config": CONFIG.model_dump()}))
    baseline_stage.main("5")
    assert contents(paths.baseline(5)) == before
    assert set(before) == {"metrics.json", "val_equity.parquet", "test_equity.parquet"}


def test_the_test_split_changes_nothing_on_validation(paths):
    evaluate("leaner", 5, CONFIG, paths)
    before = read_json(paths.cell_metrics("leaner_h5"))
    fitted = (paths.run("leaner_h5") / "metrics/postprocess.json").read_bytes()
    file = paths.windows / "labels/test_h5.npy"
    labels = np.load(file)
    labels["label"] *= -1
    np.save(file, labels)
    score_prior(paths, 5)
    evaluate("leaner", 5, CONFIG, paths)
    after = read_json(paths.cell_metrics("leaner_h5"))
    assert (after["val"], after["prior"]["val"]) == (before["val"], before["prior"]["val"])
    assert after["calibration"] == before["calibration"]
    assert (paths.run("leaner_h5") / "metrics/postprocess.json").read_bytes() == fitted
    assert after["test"] != before["test"]


def test_same_inputs_same_bytes(paths):
    evaluate("leaner", 5, CONFIG, paths)
    first = contents(paths.run("leaner_h5"))
    evaluate("leaner", 5, CONFIG, paths)
    assert contents(paths.run("leaner_h5")) == first


def test_metrics_are_strict_json(paths):
    evaluate("leaner", 5, CONFIG, paths)
    text = paths.cell_metrics("leaner_h5").read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))["prior"]["test"]


def test_a_failure_keeps_the_last_good_folder(paths, monkeypatch):
    evaluate("leaner", 5, CONFIG, paths)
    before = contents(paths.run("leaner_h5"))

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cell_files, "plot_tables", fail)
    with pytest.raises(OSError, match="No space left"):
        evaluate("leaner", 5, CONFIG, paths)
    assert contents(paths.run("leaner_h5")) == before


def test_untrained_cell_names_the_command(paths):
    with pytest.raises(DataError, match=r"checkpoints/model: no trained model; run `dvc repro train@leaner-20` first"):
        evaluate("leaner", 20, CONFIG, paths)


def test_unknown_model_names_the_nearest(paths):
    with pytest.raises(ModelError, match="unknown model 'leanr'; did you mean 'leaner'"):
        evaluate("leanr", 5, CONFIG, paths)


def test_windows_of_other_features_are_refused(paths):
    layout = {"features": [*FEATURES[:2], "surprise"], "seq_len": SEQ_LEN}
    (paths.windows / "test/columns.json").write_text(json.dumps(layout))
    with pytest.raises(DataError, match=r"test/columns.json: the features are not those that leaner was trained on"):
        evaluate("leaner", 5, CONFIG, paths)


def test_main_reads_its_spec_and_tells_the_tracker(paths, monkeypatch):
    told = []
    tracker = SimpleNamespace(log_evaluation=lambda where, cell: told.append((where, cell)))
    monkeypatch.setitem(sys.modules, "barcast.tracking", tracker)
    monkeypatch.chdir(paths.root)
    paths.specs.mkdir(parents=True)
    paths.spec("evaluate").write_text(dump_yaml({"stage": "evaluate", "config": CONFIG.model_dump()}))
    stage.main("leaner", "5")
    assert told == [(Paths(), "leaner_h5")]
    assert paths.cell_metrics("leaner_h5").is_file()


def test_main_refuses_a_horizon_that_is_no_number():
    with pytest.raises(ConfigError, match="horizon 'five': expected a whole number of bars such as 5"):
        stage.main("leaner", "five")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cost_bps": -1.0}, r"evaluate.cost_bps = -1.0: expected greater than or equal to 0"),
        ({"calibration_bins": 0}, r"evaluate.calibration_bins = 0: expected greater than or equal to 1"),
        ({"alpha": 1.0}, r"evaluate.alpha = 1.0: expected less than 1"),
        ({"sets": "raps"}, r"evaluate.sets = 'raps': expected 'lac' or 'aps'"),
        ({"cost_bp": 5.0}, r"unknown key 'evaluate.cost_bp'; did you mean 'cost_bps'"),
    ],
)
def test_config_errors(change, message):
    with pytest.raises(ConfigError, match=message):
        validate(EvaluateConfig, CONFIG.model_dump() | change, "params.yaml", "evaluate")
