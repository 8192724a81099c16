"""Tuning: trials and their rows, studies that resume after a kill, and folds that never look beyond train."""

import ast
import io
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import psutil
import pytest
import yaml
from optuna.trial import TrialState

import barcast
from _cells import FEATURES, Stub, StubConfig, register_stubs, write_windows
from barcast.config import validate
from barcast.data.dataset import DatasetConfig, TimeSeriesDataset
from barcast.errors import ConfigError, DataError, ModelError, TuningError
from barcast.evaluation.backtest import backtest
from barcast.evaluation.metrics import classification_metrics
from barcast.models.registry import ModelRegistry
from barcast.params import load_params, resolve_model
from barcast.paths import Paths
from barcast.tuning.fold_scaler import FoldScaler
from barcast.tuning.fold_scores import FoldScoring, sharpe_per_bar
from barcast.tuning.folds import FoldSplit
from barcast.tuning.search import StepMedianPruner, Steps
from barcast.tuning.search_space import parse_space
from barcast.tuning.settings import DIRECTIONS, UNDIRECTED, StudyConfig, TuneConfig
from barcast.tuning.study_result import StudyProgress
from barcast.tuning.tuner import OptunaModelTuner
from barcast.tuning.workers import worker_threads
from barcast.yaml_io import load_yaml

REPOSITORY = Path(__file__).resolve().parents[1]
SETTINGS = {
    "n_trials": 6,
    "n_jobs": 1,
    "metric": "log_loss",
    "startup_trials": 3,
    "pruner": "none",
    "timeout": None,
    "storage": None,
    "folds": {"scheme": "expanding", "count": 2, "first_train": 0.4, "embargo_bars": 1},
}
SPACE = {"sharpness": {"float": [0.1, 4.0]}}
SCALER = FoldScaler(kind="robust", clip=5.0)
SCORING = FoldScoring(cost_bps=1.0, calibration_bins=5)


class Slow(Stub):
    """A stub that reports losses by its sharpness, round by round; `boom` and `stop` make it fail in between."""

    boom = None
    stop = None
    fits = 0

    def _fit(self, X_train, y_train, X_val, y_val, weight, log):
        type(self).fits += 1
        if type(self).stop == type(self).fits:
            raise KeyboardInterrupt
        if type(self).boom is not None and self.config.sharpness > type(self).boom:
            raise ValueError("sharpness is\ntoo high")
        self.frequencies = np.bincount(y_train + 1, minlength=3) / len(y_train)
        for step in range(20):
            log(
                {"train_log_loss": 1.0, "val_log_loss": 1.2 - 0.005 * step + 0.05 * abs(self.config.sharpness - 2)},
                step,
            )


class SlowConfig(StubConfig):
    early_stopping: bool
    max_rounds: int


@pytest.fixture
def windows(tmp_path, monkeypatch):
    register_stubs(monkeypatch, "stub")
    model = type("Tried", (Slow,), {"config_class": SlowConfig})
    ModelRegistry.register("tried", "test", "a stub that reports rounds")(model)
    paths = Paths(tmp_path)
    write_windows(paths, bars=120)
    shutil.rmtree(paths.windows / "test")
    shutil.rmtree(paths.windows / "val")
    for file in (paths.windows / "labels").glob("[tv][ea][sl]*"):
        file.unlink()
    return paths.windows


def tuner(windows, name="stub", space=SPACE, ledger=None, on_trial=None, seed=1, **changes):
    base = {"model_name": name, "model_family": "test", "horizon": 5, "random_seed": 42, "threads": 1}
    own = {"stub": {"sharpness": 1.0}, "tried": {"sharpness": 1.0, "early_stopping": True, "max_rounds": 20}}
    folds = {**SETTINGS["folds"], **changes.pop("folds", {})}
    return OptunaModelTuner(
        name,
        {**base, **own[name]},
        parse_space(space, name, "space.yaml") if isinstance(space, dict) else space,
        TimeSeriesDataset(DatasetConfig(path=str(windows), horizon=5)),
        validate(StudyConfig, {**SETTINGS, **changes, "folds": folds}, "params.yaml"),
        seed=seed,
        scoring=SCORING,
        scaler=SCALER,
        ledger=ledger,
        wait_seconds=0.1,
        **({"on_trial": on_trial} if on_trial else {}),
    )


def written(result, folder):
    folder.mkdir()
    result.write(folder)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_best_trial_has_the_best_mean_over_the_folds(windows):
    result = tuner(windows, n_trials=15).tune()
    frame = result.frame
    assert frame["state"].tolist() == ["complete"] * 15
    assert frame["value"].min() == result.best.value
    assert result.best_params == {"sharpness": frame.loc[frame["value"].idxmin(), "param.sharpness"]}
    assert frame["param.sharpness"][0] == 1.0  # trial 0 is what the cell has already
    np.testing.assert_allclose(frame["value"], frame[["fold_1", "fold_2"]].mean(axis=1))
    assert frame["log_loss"].tolist() == frame["value"].tolist()
    assert frame["sharpe_per_bar"].notna().all()


@pytest.mark.parametrize(
    ("own", "entry"),
    [(0.12345678, {"float": [0.1, 4.0]}), (7.0, {"choice": [0, 2, 3, 5, 7, 9]}), (7.0, {"int": [0, 99]})],
)
def test_trial_0_is_the_cell_to_the_last_digit(windows, own, entry):
    study = tuner(windows, space={"sharpness": entry}, n_trials=2)
    study.config = study.config.model_copy(update={"sharpness": own})
    sampled = study.tune().frame["param.sharpness"].astype(float)
    assert sampled[0] == own
    assert float(f"{sampled[1]:.4g}") == sampled[1]


def test_a_trial_is_scored_as_by_hand(windows):
    """The same fold, cut, scaled and scored without the tuner."""
    result = tuner(windows, n_trials=1).tune()
    split = TimeSeriesDataset(DatasetConfig(path=str(windows), horizon=5)).split("train")
    index = pd.read_parquet(windows / "train/index.parquet")
    times = np.sort(index["datetime"].unique())[3 : 115 - 0]
    inside = times[: int((times <= index["datetime"].iloc[split.X.ends].max()).sum())]
    start, stop = round(len(inside) * 0.4), round(len(inside) * 0.4) + round(len(inside) * 0.6 / 2)
    ended = index["datetime"].iloc[split.X.ends].to_numpy()
    place = np.searchsorted(inside, ended)
    train, val = place + 1 < start, (place >= start + 1) & (place < stop)
    rows = np.unique(np.concatenate([np.arange(end - 3, end + 1) for end in split.X.ends[train]]))
    raw = split.X.rows.astype(np.float64)
    low, middle, high = np.percentile(raw[rows], [25, 50, 75], axis=0)
    scaled = np.clip((raw - middle) / (high - low), -5, 5).astype(np.float32)
    frequencies = np.bincount(split.y[train] + 1, minlength=3) / train.sum()
    scores = np.log(frequencies + 0.01) + np.outer(scaled[split.X.ends[val], 0].astype(np.float64), (-1, 0, 1))
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    expected = classification_metrics(probabilities, split.y[val], 5)["log_loss"]
    assert result.frame["fold_1"][0] == pytest.approx(expected, abs=1e-9)
    assert result.folds[0]["train"]["windows"] == train.sum()
    assert result.folds[0]["val"]["windows"] == val.sum()


def test_the_same_study_writes_the_same_bytes(windows, tmp_path):
    first = written(tuner(windows).tune(), tmp_path / "a")
    assert written(tuner(windows).tune(), tmp_path / "b") == first
    assert written(tuner(windows, seed=2).tune(), tmp_path / "c") != first
    names = {f"plots/{name}.{kind}" for name in ("history", "importances", "parallel") for kind in ("csv", "svg")}
    assert set(first) == {"best_params.yaml", "trials.parquet", "study.json", *names}
    block = yaml.safe_load(first["best_params.yaml"])
    assert list(block["model"]["stub"]["h5"]) == ["sharpness"]
    for name, content in first.items():
        assert str(tmp_path).encode() not in content, name


def test_an_interrupted_study_resumes_to_the_same_bytes(windows, tmp_path):
    def run(name, **changes):
        return tuner(windows, "tried", ledger=tmp_path / f"{name}/s.journal", pruner="median", **changes)

    Tried = ModelRegistry.get_metadata("tried").model_class
    whole = written(run("whole", n_trials=9).tune(), tmp_path / "w")
    for interrupt in (2, 5, 3, 2):  # in fold 2 of trial 0; later, wherever that is
        Tried.fits, Tried.stop = 0, interrupt
        with pytest.raises(KeyboardInterrupt):
            run("cut", n_trials=9).tune()
    Tried.stop, seen = None, []
    result = run("cut", n_trials=9, on_trial=lambda trial: seen.append(trial.number)).tune()
    assert written(result, tmp_path / "c") == whole
    assert len(seen) < 9
    assert not list((tmp_path / "cut").glob("*.folds.*"))


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_study_cut_after_any_sample_or_decision_ends_the_same(windows, tmp_path, pruner):
    """Between two samples, or between a pruner's note, the reason and the end of a trial: wherever a kill may come."""
    space = {**SPACE, "max_rounds": {"int": [15, 20]}, "early_stopping": {"choice": [True, False]}}

    def run(name):
        ledger = tmp_path / name / "s.journal"
        return tuner(windows, "tried", space, ledger, pruner=pruner, n_trials=7, startup_trials=2, seed=3).tune()

    whole = run("whole").frame
    assert {"pruned", "complete"} == set(whole["state"])
    lines = (tmp_path / "whole/s.journal").read_bytes().splitlines(keepends=True)
    wanted = {"median": rb'"param_name"', "hyperband": rb'completed_rung|"reason"'}[pruner]
    for kept in [number for number, line in enumerate(lines, 1) if re.search(wanted, line)]:
        (tmp_path / f"{kept}").mkdir()
        (tmp_path / f"{kept}/s.journal").write_bytes(b"".join(lines[:kept]))
        pd.testing.assert_frame_equal(run(f"{kept}").frame, whole, obj=lines[kept - 1].decode())


def test_importances_are_of_the_trials_in_the_result(windows, tmp_path):
    """What the study holds beyond them must not change an output."""
    space, ledger = {**SPACE, "max_rounds": {"int": [1, 20]}}, tmp_path / "s.journal"
    separate = tuner(windows, "tried", space, n_trials=4).tune()
    tuner(windows, "tried", space, ledger, n_trials=9).tune()
    fewer = tuner(windows, "tried", space, ledger, n_trials=4).tune()
    assert len(separate.importances) == 2
    pd.testing.assert_frame_equal(fewer.importances, separate.importances)


def test_more_trials_later_are_the_same_as_at_once_and_nothing_is_repeated(windows, tmp_path):
    ledger, seen = tmp_path / "ledger/s.journal", []
    tuner(windows, ledger=ledger, n_trials=3).tune()
    more = tuner(windows, ledger=ledger, n_trials=7, on_trial=lambda trial: seen.append(trial.number)).tune()
    assert seen == [3, 4, 5, 6]
    assert written(more, tmp_path / "m") == written(tuner(windows, n_trials=7).tune(), tmp_path / "o")
    fewer = tuner(windows, ledger=ledger, n_trials=3, on_trial=lambda trial: seen.append(trial.number)).tune()
    assert (len(seen), fewer.frame["number"].tolist()) == (4, [0, 1, 2])


def test_a_torn_journal_and_a_dead_writers_lock_are_cleaned_up(windows, tmp_path):
    journal = tmp_path / "s.journal"
    expected = written(tuner(windows).tune(), tmp_path / "e")
    tuner(windows, ledger=journal, n_trials=4).tune()
    with open(journal, "ab") as file:
        file.write(b'{"op_code":5,"worker_')
    os.symlink(journal, f"{journal}.lock")
    (tmp_path / "other.folds.xyz").mkdir()
    started = time.monotonic()
    assert written(tuner(windows, ledger=journal).tune(), tmp_path / "m") == expected
    assert time.monotonic() - started < 20
    assert not (tmp_path / "other.folds.xyz").exists()


def test_a_journal_is_used_by_one_run_at_a_time(windows, tmp_path):
    journal = tmp_path / "s.journal"

    def meanwhile(trial):
        with pytest.raises(TuningError, match=r"s.journal: another process runs this study; wait for it or stop it"):
            tuner(windows, ledger=journal).tune()

    tuner(windows, ledger=journal, n_trials=1, on_trial=meanwhile).tune()


def test_a_failing_trial_is_a_row_and_not_the_end(windows):
    Tried = ModelRegistry.get_metadata("tried").model_class
    Tried.boom = 2.0
    frame = tuner(windows, "tried", n_trials=12).tune().frame
    failed = frame[frame["state"] == "failed"]
    assert 0 < len(failed) < 12
    assert set(failed["reason"]) == {"ValueError: sharpness is"}
    assert failed["value"].isna().all()
    assert (failed["param.sharpness"] > 2).all()
    Tried.boom = 0.0
    with pytest.raises(TuningError, match=r"tried: no trial completed \(2 started\); the first: ValueError: sharpness"):
        tuner(windows, "tried", n_trials=2).tune()


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_hopeless_trials_are_pruned(windows, pruner):
    frame = tuner(windows, "tried", n_trials=20, pruner=pruner).tune().frame
    pruned = frame[frame["state"] == "pruned"]
    assert len(pruned) > 2
    assert pruned["value"].isna().all()
    assert pruned["reported"].notna().all()
    assert pruned["reason"].str.fullmatch(r"given up (in fold \d, round \d+|after fold 1)").all()
    assert frame["reported"].min() == frame.loc[frame["state"] == "complete", "reported"].min()


@pytest.mark.parametrize("name", ["prior", "logistic", "xgboost", "lightgbm", "catboost", "lstm"])
def test_every_library_can_be_stopped_by_its_log(name, tmp_path):
    """Any library (the networks share theirs): what the log raises comes out unchanged, at once."""
    paths = Paths(tmp_path)
    write_windows(paths, bars=60)
    dataset = TimeSeriesDataset(DatasetConfig(path=str(paths.windows), horizon=5))
    train, val = dataset.split("train"), dataset.split("val")
    config = resolve_model(load_params(REPOSITORY / "params.yaml"), name, 5, Path("params.yaml"))
    plain = {**config.model_dump(mode="json"), "threads": 1}
    plain |= {key: value for key, value in {"lookback": None, "lags": [0, 1]}.items() if key in plain}
    model = ModelRegistry.create(name, plain, 5, FEATURES)
    calls = []

    def log(metrics, step):
        calls.append(step)
        raise optuna.TrialPruned

    with pytest.raises(optuna.TrialPruned):
        model.fit(train.X, train.y, val.X, val.y, sample_weight=train.weight, log=log)
    assert calls == [0]


def test_the_median_is_taken_per_step_so_a_hard_fold_does_not_count_against_a_trial():
    study = optuna.create_study(direction="minimize", pruner=StepMedianPruner(2, 0))
    for easy, hard in ((1.0, 1.2), (1.1, 1.3), (1.2, 1.4)):
        trial = study.ask()
        trial.report(easy, 0)
        trial.report(hard, 1)
        study.tell(trial, hard)
    good, bad = study.ask(), study.ask()
    good.report(1.05, 0)
    assert not good.should_prune()
    good.report(1.25, 1)
    assert not good.should_prune()
    bad.report(1.0, 0)
    bad.report(1.35, 1)  # Optuna's own would compare the 1.0 of the easy fold with the 1.3 of the hard one
    assert bad.should_prune()


def test_the_last_step_of_a_fold_is_its_end():
    steps = Steps(60)
    within = [steps.within(1, round_) for round_ in range(60)]
    assert [step for step in within if step is not None] == [10, 11, 12, 13, 14, 15, 16, 17, 18]
    assert (steps.end(0), steps.end(1)) == (9, 19)
    assert [Steps(1).within(0, 0), Steps(1).end(0), Steps(1).end(2)] == [None, 0, 2]
    assert [Steps(3).within(0, r) for r in range(3)] == [0, 1, None]


def test_a_function_of_a_trial_is_a_search_space_too(windows):
    def space(trial):
        return {"sharpness": trial.suggest_float("x", 0.5, 1.5) * 2}

    result = tuner(windows, space=space).tune()
    assert result.frame["param.sharpness"].between(1, 3).all()
    assert list(result.best_params) == ["sharpness"]
    frame = tuner(windows, space=lambda trial: {"threads": 4}, n_trials=1)
    with pytest.raises(TuningError, match="stub: threads can't be tuned; remove it from the search space"):
        frame.tune()


def test_a_space_that_the_model_refuses_is_an_error_before_any_trial(windows):
    with pytest.raises(ConfigError, match=r"sharpness = 'x': expected .*\(when sharpness = \"x\" is tried\)"):
        tuner(windows, space={"sharpness": {"choice": ["x"]}})


@pytest.mark.parametrize("metric", ["sharpe", "macro_f1"])
def test_another_metric_has_its_own_direction(windows, metric):
    result = tuner(windows, metric=metric, n_trials=8).tune()
    assert result.settings.direction == "maximize"
    assert result.best.value == result.frame["value"].max()


def test_an_undefined_score_is_a_failed_trial(windows):
    frame = tuner(windows, metric="profit_factor", n_trials=4, space={"sharpness": {"float": [1e-6, 1e-5]}})
    with pytest.raises(TuningError, match=r"no trial completed .* profit_factor is undefined; set tune.metric"):
        frame.tune()


def test_directions_cover_every_metric_of_the_evaluator():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([1, 1, 1], 50)
    bars = pd.DataFrame(
        {
            "datetime": pd.date_range("2020", periods=50, freq="h", tz="UTC"),
            "symbol": "A",
            "close": rng.uniform(9, 11, 50),
            "prediction": rng.integers(-1, 2, 50),
        }
    )
    scores = classification_metrics(probabilities, rng.integers(-1, 2, 50), 5)
    assert set(scores) | set(backtest(bars, 1.0).metrics) == set(DIRECTIONS) | set(UNDIRECTED)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"metric": "log_los"},
            "tune.metric = 'log_los': expected a metric of the evaluator; did you mean 'log_loss'",
        ),
        ({"metric": "trades"}, "expected a metric that can be optimised; trades has no direction"),
        ({"pruner": "mean"}, "tune.pruner = 'mean': expected 'median', 'hyperband' or 'none'"),
        ({"n_trials": 0}, "tune.n_trials = 0: expected"),
        ({"models": ["a", "a"]}, "expected each entry once; 'a' is repeated"),
    ],
)
def test_settings_are_refused_in_plain_words(changes, message):
    with pytest.raises(ConfigError, match=message):
        validate(TuneConfig, {**SETTINGS, "models": [], "horizons": [], **changes}, "params.yaml", "tune")


def test_sharpe_per_bar_is_per_bar_at_any_stride(windows):
    split = TimeSeriesDataset(DatasetConfig(path=str(windows), horizon=5)).split("train")
    index = pd.read_parquet(split.index_file)
    predictions = np.random.default_rng(0).integers(-1, 2, len(split.X))

    def ratio(step, predicted):
        X = split.X.select(slice(None, None, step))
        offset = split.label_end_offset[::step]
        part = FoldSplit("x", X, split.y[::step], split.weight[::step], offset, split.index_file, index)
        return sharpe_per_bar(part, predicted, 2.0)

    whole = backtest(split.meta.assign(prediction=predictions), 2.0)
    net = whole.equity["equity"].pct_change()
    net.iloc[0] = whole.equity["equity"].iloc[0] - 1
    assert ratio(1, predictions) == pytest.approx(net.mean() / net.std(ddof=1))
    a_year = pd.Timedelta("365.25D") / pd.Timedelta("30min")
    assert ratio(1, predictions) * np.sqrt(a_year) == pytest.approx(whole.metrics["sharpe"], rel=1e-9)
    # every 4th window (a symbol has 112 = 4 · 28), held between: what the same positions earn bar by bar
    bars = split.meta.assign(prediction=np.repeat(predictions[::4], 4))
    bars = bars.iloc[[*range(0, 109), *range(112, 221)]]  # after a symbol's last window nothing is held
    equity = backtest(bars, 2.0).equity["equity"].to_numpy()
    steps = equity / np.concatenate([[1.0], equity[:-1]]) - 1
    assert ratio(4, predictions[::4]) == pytest.approx(steps.mean() / steps.std(ddof=1))
    assert ratio(1, np.zeros(len(split.X), np.int64)) is None


def test_threads_times_workers_stay_within_the_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert [worker_threads(6, jobs) for jobs in (1, 2, 3, 8)] == [6, 4, 2, 1]
    with pytest.raises(ConfigError, match=r"tune.n_jobs = 9: expected at most 8, one worker per core"):
        worker_threads(1, 9)


def test_the_tuner_has_no_way_to_the_other_splits(windows):
    study = tuner(windows)  # val and test are not even there
    for split in ("val", "test"):
        with pytest.raises(DataError, match=f"split '{split}': not accessible; allowed: train"):
            study.dataset.split(split)
    study.tune()


def test_no_module_of_the_tuner_names_the_test_split():
    source = Path(barcast.__file__).parent
    for path in [*sorted((source / "tuning").glob("*.py")), source / "stages/tune.py"]:
        strings = [n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)]
        assert not [s for s in strings if isinstance(s, str) and s.strip("/") in ("test", "val_scaled")], path
    stage = load_yaml(REPOSITORY / "dvc.yaml")["stages"]["tune"]
    assert stage["deps"] == [
        "data/windows/labels/train_h${item.horizon}.npy",
        "data/windows/train",
        "experiments/specs/tune_${item.model}_h${item.horizon}.yaml",
    ]


LOGISTIC = """
    import sys
    from pathlib import Path
    from barcast.config import validate
    from barcast.data.dataset import DatasetConfig, TimeSeriesDataset
    from barcast.tuning.fold_scaler import FoldScaler
    from barcast.tuning.search_space import parse_space
    from barcast.tuning.fold_scores import FoldScoring
    from barcast.tuning.settings import StudyConfig
    from barcast.tuning.tuner import OptunaModelTuner
    import json

    def main(windows, ledger, out, settings):
        base = dict(model_name="logistic", model_family="linear", horizon=5, random_seed=42, threads=1,
                    train_stride=1, lags=[0], spans=[], C=0.01, max_iterations=200)
        space = {"C": {"float": [0.0001, 1.0], "log": True}, "lags": {"choice": [[0], [0, 1], [0, 1, 2]]}}
        result = OptunaModelTuner(
            "logistic", base, parse_space(space, "logistic", "space.yaml"),
            TimeSeriesDataset(DatasetConfig(path=windows, horizon=5)),
            validate(StudyConfig, json.loads(settings), "params.yaml"), seed=3,
            scoring=FoldScoring(cost_bps=1.0, calibration_bins=5), scaler=FoldScaler(kind="robust", clip=5.0),
            ledger=Path(ledger),
        ).tune()
        Path(out).mkdir()
        result.write(Path(out))

    if __name__ == "__main__":
        main(*sys.argv[1:])
"""


@pytest.fixture
def study_process(windows, tmp_path):
    script = tmp_path / "study.py"
    script.write_text(textwrap.dedent(LOGISTIC))

    def start(name, **settings):
        command = [sys.executable, str(script), str(windows), str(tmp_path / f"{name}.journal"), str(tmp_path / name)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        arguments = [*command, json.dumps({**SETTINGS, **settings})]
        return subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def finish(process):
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error

    def here(name, **settings):
        arguments = str(windows), str(tmp_path / f"{name}.journal"), str(tmp_path / name)
        runpy.run_path(str(script))["main"](*arguments, json.dumps({**SETTINGS, **settings}))

    return start, finish, here


def finished(journal):
    """The numbers of the trials that finish in a journal, one entry per time that they do."""
    if not journal.exists():
        return []
    lines = [json.loads(line) for line in journal.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [line["trial_id"] for line in lines if line.get("state") in (TrialState.COMPLETE, TrialState.PRUNED)]


def outputs(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def wait_for(process, journal, trials):
    deadline = time.monotonic() + 60
    while len(finished(journal)) < trials:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)


def test_a_killed_study_resumes_to_the_same_bytes_and_a_shared_one_loses_nothing(study_process, tmp_path):
    start, finish, here = study_process
    cut = start("cut", n_trials=12)
    wait_for(cut, tmp_path / "cut.journal", 3)
    os.killpg(cut.pid, signal.SIGKILL)
    cut.communicate()
    before = finished(tmp_path / "cut.journal")
    assert 3 <= len(before) < 12
    finish(start("cut", n_trials=12))
    here("whole", n_trials=12)
    assert outputs(tmp_path / "cut") == outputs(tmp_path / "whole")
    assert sorted(finished(tmp_path / "cut.journal")) == list(range(12))
    finish(start("shared", n_trials=12, n_jobs=2))
    assert sorted(finished(tmp_path / "shared.journal")) == list(range(12))
    attributes = pd.read_json(tmp_path / "shared.journal", lines=True)["user_attr"].dropna()
    assert len({each["owner"] for each in attributes if "owner" in each}) == 2
    frame = pd.read_parquet(tmp_path / "shared/trials.parquet")
    assert frame["state"].tolist() == ["complete"] * 12


@pytest.mark.parametrize("killed", ["worker", "parent"])
def test_workers_and_their_parent_do_not_outlive_each_other(study_process, tmp_path, killed):
    start, _, _ = study_process
    parent = start("shared", n_trials=500, n_jobs=2)
    wait_for(parent, tmp_path / "shared.journal", 1)
    workers = [each for each in psutil.Process(parent.pid).children() if "spawn_main" in " ".join(each.cmdline())]
    assert workers
    (workers[0] if killed == "worker" else parent).kill()
    assert not psutil.wait_procs(workers, timeout=30)[1]
    _, error = parent.communicate(timeout=30)
    if killed == "worker":
        assert "TuningError: shared: a worker process died; finished trials are kept, run the same command" in error


POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


@pytest.fixture
def postgres(tmp_path_factory):
    """The URL of a PostgreSQL for this test, run by an ordinary user, on a socket in a temporary folder."""
    if not POSTGRES:
        pytest.skip("no PostgreSQL under /usr/lib/postgresql; install Debian's package postgresql")
    tools, user = POSTGRES[-1].parent, {"user": "nobody"} if os.getuid() == 0 else {}
    folder = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    if user:
        shutil.chown(folder, "nobody")
    run = {"check": True, "capture_output": True, "cwd": folder, **user}
    subprocess.run([tools / "initdb", "-D", folder / "db", "-U", "tuner", "-A", "trust", "--no-sync"], **run)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, "check": True, **user}
    options = f"-c listen_addresses='' -k {folder} -c fsync=off"
    subprocess.run([tools / "pg_ctl", "-D", folder / "db", "-o", options, "-w", "start"], **quiet)
    yield f"postgresql+psycopg://tuner@/postgres?host={folder}"
    subprocess.run([tools / "pg_ctl", "-D", folder / "db", "-m", "immediate", "stop"], **quiet)
    shutil.rmtree(folder)


def test_a_database_stores_a_study_as_a_journal_does(windows, tmp_path, postgres):
    journal = written(tuner(windows, n_trials=6).tune(), tmp_path / "j")
    ledger = tmp_path / "name_of_the_study.journal"
    Tried = ModelRegistry.get_metadata("tried").model_class
    tuner(windows, n_trials=3, storage=postgres, ledger=ledger).tune()
    database = tuner(windows, n_trials=6, storage=postgres, ledger=ledger).tune()
    assert not ledger.exists()
    assert written(database, tmp_path / "d") == journal
    Tried.fits, Tried.stop = 0, 4
    other = tmp_path / "other.journal"
    with pytest.raises(KeyboardInterrupt):
        tuner(windows, "tried", n_trials=4, storage=postgres, ledger=other).tune()
    Tried.stop = None
    study = optuna.load_study(study_name="other", storage=postgres)
    running = study.get_trials(states=(TrialState.RUNNING,))
    assert len(running) == 1  # its process lives: it is this one
    dead = {**running[0].user_attrs, "owner": running[0].user_attrs["owner"].replace(f":{os.getpid()}:", ":999999:")}
    study._storage.set_trial_user_attr(running[0]._trial_id, "owner", dead["owner"])
    frame = tuner(windows, "tried", n_trials=4, storage=postgres, ledger=other).tune().frame
    assert frame["number"].tolist() == [0, 1, 2, 3]


def test_progress_shows_trial_best_value_and_time_left(windows):
    stream = io.StringIO()
    settings = tuner(windows, n_trials=4).settings
    with StudyProgress("tune stub_h5", settings, stream) as progress:
        tuner(windows, n_trials=4, on_trial=progress.on_trial).tune()
    lines = stream.getvalue().splitlines()
    assert re.fullmatch(r"tune stub_h5  trial 1/4  best log_loss \d\.\d{4}", lines[0])
    assert re.fullmatch(r"tune stub_h5  trial 4/4  best log_loss \d\.\d{4}  done in .*", lines[-1])


def test_a_database_out_of_reach_is_one_line(windows):
    gone = "postgresql+psycopg://nobody@127.0.0.1:9/none?connect_timeout=2"
    with pytest.raises(TuningError, match=r"tune.storage: .*; start the database or set it to null"):
        tuner(windows, storage=gone).tune()


def test_a_model_error_inside_a_fold_is_the_reason(windows, monkeypatch):
    def refuse(self, *arguments):
        raise ModelError("the loss is not finite; lower learning_rate")

    monkeypatch.setattr(Stub, "_fit", refuse)
    with pytest.raises(TuningError, match="the loss is not finite; lower learning_rate"):
        tuner(windows, n_trials=2).tune()
