"""Every benchmark runs at a tiny size and prints its figures as one JSON object; no time is asserted."""

import json
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from barcast.files import write_json
from barcast.models.base import BaseModel
from barcast.models.registry import ModelRegistry
from conftest import REPOSITORY

TINY = ["--rows", "400", "--features", "4", "--seq-len", "6", "--rounds", "2"]


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY))


@pytest.fixture
def _in_this_process(monkeypatch):
    """Fits that start no process of their own: importing the libraries anew takes longer than everything else."""
    from benchmarks import _routes, boosting

    monkeypatch.setattr(boosting, "run_once", lambda module, request: _routes.fit(**request))


def figures(capsys):
    """The last line of standard output."""
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_windows_reports_its_ratios(capsys, monkeypatch):
    from benchmarks import windows

    def stand_ins(peers, folder):  # the peers' environment is not part of the test environment
        ways = {"barcast": "barcast", "memcpy": "memcpy", "qlib": "memcpy_blocks", "pytorch_forecasting": "memcpy"}
        start = [sys.executable, "-m", "benchmarks._contestants"]
        return {name: [*start, way, str(folder)] for name, way in ways.items()}

    monkeypatch.setattr(windows, "commands", stand_ins)
    small = ["--rows", "300", "--features", "3", "--seq-len", "6", "--rounds", "2", "--seconds", "0.001"]
    windows.main([*small, "--batch", "8", "32", "--peers", sys.executable])
    found = figures(capsys)
    for key in ("vs_qlib", "vs_pytorch_forecasting", "vs_memcpy", "rss_ratio"):
        assert found[key] > 0
    assert found["details"]["barcast"]["windows_a_second"].keys() == {"8", "32"}
    assert found["vs_qlib"] == min(found["details"]["qlib"]["ratio"].values())
    assert found["base_rows_mib"] == pytest.approx(300 * 3 * 4 / 2**20, rel=1e-3)


def test_windows_says_how_to_get_the_peers(capsys):
    from benchmarks import windows

    with pytest.raises(SystemExit) as stopped:
        windows.main(["--peers", "build/nobody/bin/python"])
    assert stopped.value.code == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "build/nobody/bin/python: no such Python; make the peers' environment" in said.err
    assert "build/peers/bin/pip install" in (REPOSITORY / "benchmarks/README.md").read_text()


def test_a_contestant_that_serves_other_windows_is_found_out(tmp_path):
    from benchmarks._contestants import Barcast
    from benchmarks.windows import write_split

    write_split(tmp_path, "train", 60, 2, 5)
    way = Barcast(tmp_path, "train")
    way.build()
    way.verify()
    with pytest.raises(RuntimeError, match="Barcast serves other windows than the files hold"):
        way.check(way.data.X[np.arange(20)], way.ends()[1:21])


def test_a_worker_that_dies_says_why(tmp_path):
    from benchmarks._measure import worker

    command = [sys.executable, "-m", "benchmarks._contestants", "barcast", str(tmp_path)]
    with worker(command) as ask, pytest.raises(RuntimeError, match=r"FileNotFoundError.*columns\.json"):
        ask(do="build")


@pytest.mark.usefixtures("_in_this_process")
def test_boosting_compares_the_routes(capsys):
    from benchmarks import boosting

    boosting.main([*TINY, "--max-bins", "16"])
    found = figures(capsys)
    assert found["rss_ratio"] > 0
    assert found["lag_list_seconds_ratio"] > 0
    routes = found["models"]["xgboost"]["routes"]
    assert found["log_loss_difference"] == pytest.approx(
        routes["streamed"]["log_loss"] - routes["xgboost_dense"]["log_loss"], abs=1e-6
    )
    assert routes["streamed"]["log_loss"] < routes["streamed"]["prior_log_loss"]
    assert routes["streamed"]["rounds"] == 2


@pytest.mark.parametrize("model", ["lightgbm", "catboost"])
def test_the_other_boosters_have_a_dense_route(model, tmp_path):
    from benchmarks import boosting
    from benchmarks._routes import fit

    asked = boosting.options([*TINY, "--max-bins", "16"])
    folder = boosting.write_data(tmp_path, asked)
    found = fit(f"{model}_dense", model, str(folder), boosting.HORIZON, boosting.settings(asked), "test")
    assert found["rounds"] == 2
    assert found["log_loss"] < found["prior_log_loss"]


@pytest.mark.usefixtures("_in_this_process")
def test_lags_scores_every_case(capsys):
    from benchmarks import lags

    lags.main([*TINY, "--horizons"])
    found = figures(capsys)
    for case in ("planted_at_listed_lags", "planted_at_unlisted_lags"):
        assert {"prior", "all", "list", "list_and_spans"} <= found[case].keys()


def test_lags_asks_for_the_window_files(capsys):
    from benchmarks import lags

    with pytest.raises(SystemExit):
        lags.main(["--windows", "build/nowhere"])
    assert "build/nowhere: no window files; run `dvc repro window`" in capsys.readouterr().err


def test_curves_has_one_for_each_case(capsys, tmp_path):
    from benchmarks import curves

    from barcast.data.synthetic import synthetic_splits, write_splits

    write_splits(synthetic_splits(seed=0, n_rows=(299, 150, 150), n_features=8, symbols=["A"]), tmp_path)
    one = ["--models", "gru", "--strides", "2", "4", "--runs", "gru", "--run-lengths", "4", "--epochs", "2"]
    more = ["--seeds", "7", "--channels", "independent", "--channel-epochs", "1"]
    curves.main([*one, *more, "--splits", str(tmp_path)])
    found = figures(capsys)
    assert {"epochs", "stride_2", "stride_4", "run_length_4_seed_7", "channels_independent"} <= found.keys()
    assert len(found["channels_independent"]["patchtst"]["val_log_loss"]) == 1
    assert found["stride_2"]["gru"]["train_windows"] - 2 * found["stride_4"]["gru"]["train_windows"] in (-1, 0, 1)
    assert len(found["run_length_4_seed_7"]["gru"]["val_log_loss"]) == 2


def test_curves_asks_for_the_splits(capsys):
    from benchmarks import curves

    with pytest.raises(SystemExit):
        curves.main(["--splits", "build/nowhere"])
    assert "build/nowhere: no splits; run `dvc repro prepare`" in capsys.readouterr().err


def test_tft_compares_training_by_run_length_and_prediction(capsys, monkeypatch):
    from contextlib import contextmanager

    from benchmarks import _tft, tft

    @contextmanager
    def in_this_process(command):  # importing the libraries anew takes longer than everything else
        yield _tft.Server(command[-1]).answer

    monkeypatch.setattr(tft, "worker", in_this_process)
    small = ["--rows", "40", "--features", "3", "--seq-len", "5", "--hidden-size", "8", "--batch", "8"]
    tft.main([*small, "--threads", "1", "--rounds", "2", "--steps", "2", "--run-lengths", "1", "16"])
    found = figures(capsys)
    assert found["train_ratios"].keys() == {"run_length_1", "run_length_16"}
    assert found["train_ratio"] == found["train_ratios"]["run_length_16"] > 0
    assert found["predict_ratio"] > 0
    assert (
        found["seconds_an_epoch"].keys() == found["peak_rss_mib"].keys() == {"neuralforecast", *found["train_ratios"]}
    )
    assert found["seconds_to_predict"].keys() == {"neuralforecast", "barcast"}


def in_this_process(command):
    """A worker without a process of its own; a peer is stood in for by the loader that every one of them uses."""
    from benchmarks._trainings import WAYS, Server

    way, folder, settings = command[-3:]
    server = Server(WAYS.get(way, WAYS["per_item"]), Path(folder), json.loads(settings))
    return nullcontext(lambda **request: server.answer(**request))


def test_sequence_compares_training(capsys, monkeypatch):
    from benchmarks import sequence

    monkeypatch.setattr(sequence, "worker", in_this_process)
    monkeypatch.setitem(sequence.LIMITS, "two_threads", sequence.own("loop"))  # two would stall beside other tests
    small = ["--rows", "300", "--features", "3", "--seq-len", "6", "--batch", "16", "--rounds", "1", "--batches", "1"]
    sequence.main(["--models", "gru", *small, "--peers", sys.executable])
    found = figures(capsys)["models"]["gru"]
    for key in ("vs_per_item", "vs_qlib", "vs_qlib_cpu", "vs_qlib_fit", "vs_neuralforecast", "vs_per_item_2_workers"):
        assert found[key] > 0
    limits, peers = found["heats"][:2]
    assert found["overhead"] == pytest.approx(1 / limits["bare"]["ratio"] - 1, abs=1e-3)
    assert found["rss_ratio_uncached"] == pytest.approx(
        limits["uncached"]["rss_added_mib"] / found["base_rows_and_model_mib"], rel=1e-2
    )
    assert not found.keys() & {"vs_uncached", "vs_loop", "vs_bare"}
    assert peers["qlib_fit"]["against"] == "fit"
    whole = (300 * 3 * 4 + 4 * 4 * limits["loop"]["parameters"]) / 2**20
    assert found["base_rows_and_model_mib"] == pytest.approx(whole, rel=1e-3)


def test_sequence_says_how_to_get_the_peers(capsys):
    from benchmarks import sequence

    with pytest.raises(SystemExit):
        sequence.main(["--peers", "build/nobody/bin/python"])
    assert "build/nobody/bin/python: no such Python; make the peers' environment" in capsys.readouterr().err


def test_a_plain_data_set_answers_the_windows_of_the_loop(tmp_path):
    from benchmarks._trainings import Items, Loop
    from benchmarks.sequence import config, options
    from benchmarks.windows import write_split

    write_split(tmp_path, "train", 60, 2, 5)
    way = Loop(tmp_path, "train", {"model": "gru", "config": config("gru", options([]), {}), "workers": 0})
    way.build()
    items = Items(way.data)
    np.testing.assert_array_equal([items[i][0].numpy() for i in range(len(items))], way.data.X[:])
    assert [items[i][1] - 1 for i in range(len(items))] == way.data.y.tolist()


def test_a_draw_is_made_of_whole_runs(tmp_path):
    from benchmarks._trainings import Loop
    from benchmarks.windows import write_split

    write_split(tmp_path, "train", 60, 2, 5)
    way = Loop(
        tmp_path,
        "train",
        {"model": "gru", "config": {"batch_size": 4, "micro_batch": 0, "run_length": 8}, "workers": 0},
    )
    runs = way.draw(16, 50).reshape(-1, 8)
    assert len(runs) == 2
    assert (np.diff(runs) == 1).all()


def test_prepare_reports_seconds_and_memory(capsys):
    from benchmarks import prepare

    prepare.main(["--bars", "12000"])  # in a process of its own, as at full size
    found = figures(capsys)
    assert found["seconds"] > 0
    assert 0.01 < found["peak_rss_gb"] < 6


def test_all_of_them_write_their_results(tmp_path, monkeypatch, capsys):
    from benchmarks import __main__ as everything

    lines = {"windows": 'noise\n{"a": 1}\n', "prepare": '{"b": 2}\n'}

    def run(command, **_):
        name = command[-1].removeprefix("benchmarks.")
        return subprocess.CompletedProcess(command, 0 if name in lines else 1, lines.get(name, ""))

    monkeypatch.setattr(everything.subprocess, "run", run)
    monkeypatch.setattr(everything, "RESULTS", tmp_path)
    assert everything.main(["windows", "lags", "prepare"]) == 1
    assert {path.name: json.loads(path.read_text()) for path in tmp_path.iterdir()} == {
        "windows.json": {"a": 1},
        "prepare.json": {"b": 2},
    }
    assert "failed: lags" in capsys.readouterr().err


def test_evaluation_times_both_stages(capsys, monkeypatch):
    from benchmarks import evaluation

    ModelRegistry.list_models()
    monkeypatch.setattr(BaseModel, "registered", dict(BaseModel.registered))  # the stand-ins go with the test
    monkeypatch.setattr(evaluation, "IMPORTS", "import json")
    evaluation.main(["--models", "2", "--rows", "800", "--resamples", "100"])
    found = figures(capsys)
    assert (found["cells"], found["rows"], found["resamples"]) == (4, 800, 100)
    assert found["seconds"] == pytest.approx(found["evaluate_seconds"] + found["compare_seconds"], rel=0.05)
    assert found["cpu_seconds"] > 0
    assert found["start_seconds"] > 0


def test_coverage_reports_every_share(capsys):
    from benchmarks import coverage

    small = ["--simulations", "4", "--bars", "300", "--resamples", "100", "--truth-bars", "3000", "--horizons", "5"]
    coverage.main(small)
    found = figures(capsys)
    assert set(found["intervals"]["h5"]) == {*coverage.METRICS, "delta"}
    for part in (found["intervals"], found["sets"], found["false_discoveries"]):
        for figure in part["h5"].values():
            assert 0 <= figure["share"] <= 1
            assert 0 < figure["binomial_error"] < 1
    differences = [point["log_loss_difference"] for point in found["power"]["h5"]]
    assert differences == sorted(differences, reverse=True)


def test_simulated_markets_have_the_probabilities_that_they_say():
    from benchmarks._markets import simulate

    for horizon in (1, 5, 20):
        market = simulate(300_000, horizon, np.random.default_rng(horizon))
        p = market.probabilities(market.signal)
        assert p.sum(axis=-1) == pytest.approx(1)
        strong = np.abs(market.signal) > 1
        for chosen in (strong & (market.signal > 0), strong & (market.signal < 0), ~strong):
            came = [(market.label[chosen] == label).mean() for label in (-1, 0, 1)]
            assert came == pytest.approx(p[chosen].mean(axis=0), abs=0.015)


@pytest.mark.slow
def test_intervals_sets_and_verdicts_keep_their_word(capsys):
    """A fifth of `python -m benchmarks.coverage`: shares within 3 binomial errors of nominal."""
    from benchmarks import coverage

    coverage.main(["--simulations", "100", "--resamples", "300", "--truth-bars", "400000"])
    found = figures(capsys)
    for horizon in ("h5", "h20"):
        for name in ("log_loss", "brier", "accuracy", "mcc", "auc_ovr", "sharpe", "delta"):
            figure = found["intervals"][horizon][name]
            assert figure["share"] >= figure["nominal"] - 1.5 * figure["binomial_error"], (horizon, name)
        for figure in found["sets"][horizon].values():
            assert abs(figure["share"] - figure["nominal"]) <= 1.5 * figure["binomial_error"]
        for name in ("verdicts", "confidence_set"):
            figure = found["false_discoveries"][horizon][name]
            assert figure["share"] <= figure["nominal"] + 1.5 * figure["binomial_error"], (horizon, name)
        powers = [point["called_better"] for point in found["power"][horizon]]
        assert powers == sorted(powers)
        assert powers[-1] > 0.9


def write_forecast_windows(folder):
    """Three splits of 300 rows in runs of two symbols, as the contestants of `forecasts` get them."""
    from benchmarks._forecast_peers import write_windows

    rng = np.random.default_rng(0)
    for seed, split in enumerate(("train", "val", "test")):
        rows = np.random.default_rng(seed).standard_normal((300, 4)).astype(np.float32)
        np.save(folder / f"{split}_rows.npy", rows)
        ends = np.concatenate([np.arange(5, 150), np.arange(155, 300)])
        y = np.sign(rows[ends, 0]).astype(np.int64) * (rng.random(len(ends)) > 0.3)
        write_windows(folder, split, folder / f"{split}_rows.npy", 6, ends, None if split == "test" else y)


def test_a_contestant_gets_the_windows_without_the_labels_of_test(tmp_path):
    from benchmarks._forecast_peers import read_windows

    write_forecast_windows(tmp_path)
    train, test = (read_windows(tmp_path, split) for split in ("train", "test"))
    assert test.y is None
    assert set(train.y) == {-1, 0, 1}
    np.testing.assert_array_equal(train.last, [train.rows[end] for end in train.ends])
    whole = [train.rows[end - 5 : end + 1].T for end in train.ends[3:8]]
    np.testing.assert_array_equal(train.whole(slice(3, 8)), whole)
    few = train.thinned(100)
    np.testing.assert_array_equal(few.ends, train.ends[::3])
    np.testing.assert_array_equal(few.y, train.y[::3])
    np.testing.assert_array_equal(train.thinned(1000).ends, train.ends)


def test_the_script_and_the_prior_write_probabilities(tmp_path):
    from benchmarks._forecast_peers import read_forecast, read_windows
    from benchmarks._workspace import watched

    write_forecast_windows(tmp_path)
    for name in ("script", "prior"):  # as LightGBM's threads would spin here, and starve beside another test
        command = [sys.executable, "-m", "benchmarks._forecast_peers", name, str(tmp_path), "1"]
        watched(command, tmp_path / "log.txt", REPOSITORY)
    val = read_windows(tmp_path, "val")
    said = {name: read_forecast(tmp_path / f"{name}.npz", {"val": 290, "test": 290}) for name in ("script", "prior")}
    shares = np.bincount(read_windows(tmp_path, "train").y + 1) / 290
    np.testing.assert_allclose(said["prior"]["test"], np.tile(shares, (290, 1)))
    assert (said["script"]["val"].argmax(axis=1) - 1 == val.y).mean() > 0.6
    with pytest.raises(RuntimeError, match=r"prior\.npz, test: expected \[10, 3\], got \[290, 3\]"):
        read_forecast(tmp_path / "prior.npz", {"val": 290, "test": 10})


def test_a_forecast_of_no_probabilities_is_refused(tmp_path):
    from benchmarks._forecast_peers import in_order, read_forecast, write_forecast

    said = in_order(np.array([[0.25, 0.75]]), np.array([1, -1]))  # a library's own order, and a class it never saw
    assert said.tolist() == [[0.75, 0.0, 0.25]]
    write_forecast(tmp_path / "a.npz", said * (1 + 1e-4), said * 2)
    assert read_forecast(tmp_path / "a.npz", {"val": 1})["val"].sum() == pytest.approx(1, abs=1e-12)
    with pytest.raises(RuntimeError, match=r"a\.npz, test: rows that are no probabilities"):
        read_forecast(tmp_path / "a.npz", {"test": 1})


def forecast_of(windows, weight):
    """Probabilities of the truth's class that are `weight` surer than even ones, as both published and raw."""
    from benchmarks._forecast_scores import Forecast
    from benchmarks._workspace import Cost

    def said(frame):
        rng = np.random.default_rng(len(frame))
        right = np.where(rng.random(len(frame)) < 0.7, frame["label"], rng.integers(-1, 2, len(frame)))
        return (1 - weight) / 3 + weight * np.eye(3)[right + 1]

    both = {split: said(frame) for split, frame in windows.items()}
    metrics = {"folds": None, "val": {"log_loss": 1 - weight}}
    return Forecast(both, Cost(1.0, 2.0, 30.0), both, metrics, is_ranked=True)


@pytest.fixture
def scores():
    """`forecasts` at one horizon: a script that knows little, four cells that know more and more, and a prior."""
    from dataclasses import replace

    import pandas as pd
    from benchmarks._forecast_scores import Rules, score

    from barcast.comparison.horizon import SignificanceConfig

    windows = {}
    for seed, split in enumerate(("val", "test")):
        times = pd.date_range("2024", periods=200, freq="1h", tz="UTC")
        labels = np.random.default_rng(seed).integers(-1, 2, 200)
        windows[split] = pd.DataFrame({"datetime": times, "symbol": "A", "close": 100.0, "label": labels})
    weights = {"script": 0.1, "prior": 0.0, "barcast:a": 0.2, "barcast:b": 0.3, "barcast:c": 0.4, "barcast:d": 0.6}
    forecasts = {name: forecast_of(windows, weight) for name, weight in weights.items()}
    peers = {"raw": None, "metrics": None, "is_ranked": False}
    forecasts |= {name: replace(forecasts[name], **peers) for name in ("script", "prior")}
    judge = SignificanceConfig(level=0.95, resamples=200, block_factor=1.0, mcs_size=0.1, pbo_blocks=4)
    return score(forecasts, windows, Rules(judge, cost_bps=5.0, bins=10, seed=0))


def test_forecasts_are_scored_against_the_script_and_the_best_row(scores):
    rows = scores["contestants"]
    assert scores["best"] == "barcast:d"
    assert rows["prior"]["test"] == pytest.approx({"log_loss": np.log(3), "skill": 0.0, "mcc": 0.0})
    assert rows["barcast:a"]["val"]["raw_log_loss"] == pytest.approx(rows["barcast:a"]["val"]["log_loss"])
    assert rows["script"]["vs_script"] is rows["barcast:d"]["vs_best"] is None
    apart = rows["barcast:b"]["vs_script"]
    assert apart["value"] == pytest.approx(rows["barcast:b"]["test"]["log_loss"] - rows["script"]["test"]["log_loss"])
    assert apart["low"] < apart["value"] < apart["high"] < 0
    assert (apart["verdict"], rows["barcast:b"]["vs_best"]["verdict"]) == ("better", "worse")
    assert [name for name in rows if rows[name]["in_mcs"]] == ["barcast:d"]
    for agreement in scores["rank_correlation"].values():
        assert agreement["low"] <= agreement["value"] == agreement["high"] == pytest.approx(1)


def test_the_table_of_forecasts_has_a_line_for_each(scores):
    from benchmarks._forecast_scores import table, tidy

    scores["contestants"]["tabm"] = {"not_measured": "no such Python"}
    lines = table("h5", tidy(scores)).splitlines()
    assert lines[0] == "h5: log-loss on 200 windows of val and 200 of test; barcast ranks first: barcast:d"
    ranked = ["barcast:d", "barcast:c", "barcast:b", "barcast:a", "script", "prior", "tabm"]
    assert [line.split()[0] for line in lines[2:9]] == ranked
    assert lines[2].endswith("*")
    assert lines[8].endswith("not measured: no such Python")
    assert lines[9].startswith("rank correlation with test over barcast's cells: of the ranking +1.00 [")


def test_a_workspace_takes_other_bars(tmp_path):
    from benchmarks._workspace import Workspace, replaced

    from barcast.data.synthetic import synthetic_bars

    synthetic_bars(["BBB", "AAA"], 20, seed=0).to_parquet(tmp_path / "bars.parquet", index=False)
    space = Workspace.build(tmp_path / "space", tmp_path / "bars.parquet", [])
    assert space.params.symbols == ["AAA", "BBB"]
    assert space.params.data.path == str(tmp_path / "bars.parquet")
    content = {"symbols": ["X"], "data": {"path": "a/b"}, "label": {"symbols": {"AAA": 1, "X": 2}}}
    assert replaced(content, tmp_path / "bars.parquet", ["AAA"])["label"] == {"symbols": {"AAA": 1}}
    assert replaced(content, None, [])["data"] == {"path": str(REPOSITORY / "a/b")}


def test_a_process_is_watched_and_says_why_it_failed(tmp_path):
    from benchmarks._workspace import watched

    hold = "import time; x = bytearray(50 << 20); time.sleep(0.1); print('done')"
    cost = watched([sys.executable, "-c", hold], tmp_path / "logs/a.txt", tmp_path)
    assert cost.seconds > 0.1
    assert cost.cpu_seconds > 0
    assert cost.peak_mib > 50
    assert (cost + cost).peak_mib == cost.peak_mib
    assert (tmp_path / "logs/a.txt").read_text() == "done\n"
    with pytest.raises(RuntimeError, match="exit status 3, last words: too bad"):
        watched([sys.executable, "-c", "print('too bad'); exit(3)"], tmp_path / "b.txt", tmp_path)


@pytest.fixture
def race(tmp_path, monkeypatch):
    """A race at horizon 1 without processes: peers run in this one, a stage writes what a cell would."""
    from benchmarks import _forecast_peers, _forecast_runs
    from benchmarks._workspace import Cost, Workspace
    from benchmarks.windows import write_split

    space = Workspace.build(tmp_path, None, [])
    for split in ("train", "val", "test"):
        write_split(tmp_path / "data/windows", split, 800, 2, 6)
    space.paths.specs.mkdir(parents=True)
    models = [name for name in ("prior", "logistic", "xgboost") if name in space.params.models]
    cells = [f"{kind}{model}_h1" for model in models for kind in ("", "oof_")]
    for name in ("prepare", "window", "baseline", "evaluate", *cells):
        space.paths.spec(name).write_text(name)
    found = _forecast_runs.Race(space, 1, tmp_path / "no/python", 1.0)
    ran = []

    def stage(self, name, model, horizon=None):
        ran.append((name, model))
        if name == "baseline":
            return Cost(1.0, 1.0, 10.0)
        if (name, model) == ("evaluate", models[2]):
            raise RuntimeError("exit status 1, last words: no luck")
        for split, frame in found.windows.items():
            file = space.paths.predictions(f"{model}_h1", split)
            file.parent.mkdir(parents=True, exist_ok=True)
            said = dict.fromkeys(("p_down", "p_flat", "p_up", "raw_down", "raw_flat", "raw_up"), 1 / 3)
            frame.assign(**said).to_parquet(file)
        write_json(space.paths.cell_metrics(f"{model}_h1"), {"folds": None, "val": {"log_loss": 1.1}})
        return Cost(1.0, 1.0, 10.0)

    def here(command, log, folder):
        _forecast_peers.run("prior", Path(command[4]), float(command[5]))
        if log.stem != "prior":
            shutil.copy(log.with_name("prior.npz"), log.with_suffix(".npz"))
        return Cost(2.0, 2.0, 20.0)

    monkeypatch.setattr(Workspace, "stage", stage)
    monkeypatch.setattr(_forecast_runs, "watched", here)
    return found, [f"barcast:{model}" for model in models], ran


def test_contestants_run_at_a_horizon_and_what_fails_is_reported(race):
    from benchmarks._forecast_runs import ENSEMBLES, Race

    runs, cells, ran = race
    found = runs.run(["prior", "script", "tabm", *cells, ENSEMBLES])
    rows = found["contestants"]
    assert found["train_windows"] == found["test_windows"] == 790
    assert found["val_windows"] < 790  # the ranked part
    assert "no such Python; make the peers' environment" in rows["tabm"]["not_measured"]
    assert rows[cells[2]] == {"not_measured": "exit status 1, last words: no luck"}
    assert rows[ENSEMBLES]["not_measured"].endswith("has no predictions")
    assert [step for step, model in ran if model == "prior"] == ["oof", "train", "evaluate"]
    assert rows[cells[0]]["seconds"] == 3.0
    assert rows[cells[0]]["test"]["log_loss"] == pytest.approx(np.log(3))
    assert rows["script"]["vs_best"]["verdict"] in ("noise", "better", "worse")
    ran.clear()
    again = Race(runs.space, 1, runs.python, runs.budget).run(["prior", "script", *cells[:2]])
    assert again["contestants"][cells[0]] == rows[cells[0]]
    assert not ran  # the workspace has them


def test_forecasts_refuses_an_unknown_contestant_and_knows_what_needs_what(capsys):
    from benchmarks import forecasts
    from benchmarks._forecast_runs import ENSEMBLES, contestants

    with pytest.raises(SystemExit):
        forecasts.options(["--only", "script,barcast:nobody"])
    assert "unknown contestant 'barcast:nobody'; known: script, prior, autogluon_medium" in capsys.readouterr().err
    known = contestants(["a", "b"])
    cells = ["barcast:a", "barcast:b"]
    assert forecasts.chosen([], known) == known
    assert forecasts.chosen(["tabm"], known) == ["script", "prior", "tabm"]
    assert forecasts.chosen(["barcast"], known) == ["script", "prior", *cells, ENSEMBLES]
    assert forecasts.chosen([ENSEMBLES], known) == ["script", "prior", *cells, ENSEMBLES]
    assert forecasts.chosen(["barcast:b"], known) == ["script", "prior", "barcast:b"]


def test_forecasts_prints_a_table_and_saves_its_figures(capsys, monkeypatch, tmp_path, scores):
    from benchmarks import forecasts

    monkeypatch.setattr(forecasts.Workspace, "stage", lambda *_: None)
    monkeypatch.setattr(forecasts.Race, "run", lambda self, names: scores)
    saved = {}
    monkeypatch.setattr(forecasts, "write_json", lambda file, content: saved.update({file.name: content}))
    forecasts.main(["--only", "script", "--save", "forecasts-other", "--workspace", str(tmp_path)])
    said = capsys.readouterr()
    found = json.loads(said.out.splitlines()[-1])
    assert saved["forecasts-other.json"]["horizons"].keys() == found["horizons"].keys()
    assert found["bars"] == "data/raw/bars.parquet"
    assert "barcast ranks first: barcast:d" in said.err
