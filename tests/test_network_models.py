"""What every network promises beyond the contract of `test_models.py`."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from _cells import write_windows
from barcast.data.windows import Windows
from barcast.errors import ModelError
from barcast.models._network import NetworkModel
from barcast.models.registry import ModelRegistry
from barcast.params import load_params, resolve_model
from barcast.paths import Paths
from barcast.probabilities import log_loss
from barcast.stages import train as stage

REPOSITORY = Path(__file__).resolve().parents[1]
PARAMS = load_params(REPOSITORY / "params.yaml")
NETWORKS = [
    n for n in ModelRegistry.list_models() if issubclass(ModelRegistry.get_metadata(n).model_class, NetworkModel)
]
SMALL = {
    "threads": 1,
    "train_stride": 1,
    "lookback": None,
    "average_seeds": 1,
    "early_stopping": False,
    "batch_size": 16,
    "watch_stride": 1,
    "dropout": 0.0,
    "weight_decay": 0.0,
    "embed_size": 8,
    "hidden_size": 16,
    "d_model": 16,
    "d_ff": 32,
    "layers": 1,
    "heads": 2,
}
LENGTH = 12


@pytest.fixture(params=NETWORKS)
def name(request):
    return request.param


def config(name, **changes):
    values = resolve_model(PARAMS, name, 5, Path("params.yaml")).model_dump()
    return values | {key: value for key, value in (SMALL | changes).items() if key in values}


def create(name, width=2, **changes):
    return ModelRegistry.create(name, config(name, **changes), 5, [f"f{j}" for j in range(width)])


def order_of_events(count, seed):
    """Two events a window at random bars, never its last: up where the first kind comes first, else down.

    Each bar by itself, and each event's mere presence, says nothing of the label.
    """
    rng = np.random.default_rng(seed)
    X = 0.1 * rng.standard_normal((count, LENGTH, 2)).astype(np.float32)
    places = np.stack([rng.permutation(LENGTH - 1)[:2] for _ in range(count)])
    for kind in (0, 1):
        X[np.arange(count), places[:, kind], kind] += 3
    return X, np.where(places[:, 0] < places[:, 1], 1, -1)


def test_it_finds_the_order_of_two_events_which_no_bar_shows(name):
    train, val = order_of_events(1500, 0), order_of_events(400, 1)
    model = create(name, max_epochs=12, batch_size=32, learning_rate=0.005, early_stopping=True, patience=12)
    model.fit(*train, *val)
    assert log_loss(model.predict_proba(val[0]), val[1]) < 0.35
    linear = ModelRegistry.create("logistic", config("logistic", lags=[0], spans=[]), 5, ["f0", "f1"])
    linear.fit(*train, *val)
    assert log_loss(linear.predict_proba(val[0]), val[1]) > 0.6


def test_it_learns_64_windows_by_heart(name):
    rng = np.random.default_rng(2)
    X, y = rng.standard_normal((64, LENGTH, 3)).astype(np.float32), rng.integers(-1, 2, 64)
    model = create(name, 3, max_epochs=150, learning_rate=0.01, schedule="cosine").fit(X, y, X, y)
    assert log_loss(model.predict_proba(X), y) < 0.05


def test_the_gradient_reaches_every_parameter(name):
    import torch

    model = create(name, 3)
    torch.manual_seed(0)
    network = model._build(LENGTH, 3)
    x = torch.randn(32, LENGTH, 3)
    torch.nn.functional.cross_entropy(network.train()(x), torch.arange(32) % 3).backward()
    for key, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert parameter.grad.abs().sum() > 0, key


def test_a_batch_of_one_and_a_last_batch_of_one(name):
    X, y = order_of_events(17, 3)
    model = create(name, max_epochs=1, batch_size=1).fit(X, y, X[:1], y[:1])
    assert np.isfinite(model.predict_proba(X[:1])).all()


def test_the_seed_alone_decides(name):
    import torch

    X, y = order_of_events(64, 4)
    answers = []
    for seed, noise in ((1, 0), (1, 9), (2, 0)):
        torch.manual_seed(noise)
        answers.append(create(name, max_epochs=2, random_seed=seed).fit(X, y, X, y).predict_proba(X))
    np.testing.assert_array_equal(answers[0], answers[1])
    assert not np.array_equal(answers[0], answers[2])


def test_the_log_says_what_the_network_is(name):
    X, y = order_of_events(40, 5)
    history = create(name, max_epochs=2).fit(X, y, X, y).training_history
    assert history[0]["parameters"] > 100
    assert history[0]["flops_per_window"] > 100
    assert 0 < history[0]["receptive_field"] <= LENGTH
    assert "parameters" not in history[1]
    assert {"train_log_loss", "val_log_loss", "learning_rate", "windows"} <= set(history[1])


def test_early_stopping_looks_at_every_nth_validation_window():
    X, y = order_of_events(60, 6)
    model = create("gru", max_epochs=1, watch_stride=4).fit(X, y, X, y)
    expected = log_loss(model.predict_proba(X[::4]), y[::4])
    assert model.training_history[-1]["val_log_loss"] == pytest.approx(expected, abs=1e-6)


# Several networks


def random_windows(count=300, seed=8):
    """Windows that overlap, with a gap, and labels of which two bars tell."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, 2)).astype(np.float32)
    ends = np.delete(np.arange(LENGTH - 1, count), slice(100, 123))
    X = Windows(rows, ends, LENGTH)
    y = np.digitize(X.lag(0)[:, 0] + X.lag(2)[:, 1] + rng.standard_normal(len(X)), [-0.6, 0.6]) - 1
    return X, y, rng.uniform(0.5, 1.5, len(X)).astype(np.float32)


def test_each_network_is_what_one_of_its_seed_and_windows_is_and_their_mean_is_predicted(name, tmp_path):
    (X, y, weight), (val_X, val_y, _) = random_windows(), random_windows(120, seed=9)
    common = {"max_epochs": 3, "early_stopping": True, "patience": 1, "learning_rate": 0.02, "watch_stride": 2}
    several = create(name, average_seeds=3, train_stride=4, **common)
    several.fit(X, y, val_X, val_y, sample_weight=weight)
    alone, steps = [], []
    for number in range(3):
        own = X.thinned(4, number * 4 // 3)
        single = create(name, random_seed=42 + number * 10_007, **common)
        single.fit(X.select(own), y[own], val_X, val_y, sample_weight=weight[own])
        alone.append(single.predict_proba(val_X))
        steps += [{**entry, "step": number * 3 + entry["step"]} for entry in single.training_history]
    assert not np.allclose(alone[0], alone[1], atol=1e-3)
    np.testing.assert_allclose(several.predict_proba(val_X), np.mean(alone, axis=0), rtol=0, atol=1e-12)
    facts = {"parameters", "flops_per_window", "receptive_field"}
    without = [{key: value for key, value in entry.items() if key not in facts} for entry in steps]
    logged = [{key: value for key, value in entry.items() if key not in facts} for entry in several.training_history]
    assert logged == without
    assert [facts <= set(entry) for entry in several.training_history] == [True] + [False] * (len(steps) - 1)

    several.save(tmp_path / "model")
    assert {file.name for file in (tmp_path / "model").glob("*.safetensors")} == {
        f"network_{k}.safetensors" for k in range(3)
    }
    loaded = type(several).load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(val_X), several.predict_proba(val_X))


def test_a_single_network_is_trained_by_the_loop_and_nothing_is_averaged():
    from barcast.training.loop import Monitor, TrainingSet, fit_network, predict_logits, seeded
    from barcast.training.session import torch_session

    X, y, weight = random_windows()
    model = create("gru", max_epochs=3).fit(X, y, X, y, sample_weight=weight)
    with torch_session(model.config, 1) as device:
        seeded(42)
        network = create("gru")._build(LENGTH, 2)
        watch = Monitor(name="gru", score=lambda: 1.0, patience=None, log=lambda *_: None, resume=None)
        fit_network(network, TrainingSet(X, y + 1, weight / weight.mean()), model.config, device, 43, watch)
        logits = predict_logits(network, X, model.config, device).astype(float)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(model.predict_proba(X), powers / powers.sum(axis=1, keepdims=True), rtol=1e-12)


def test_the_networks_share_the_training_windows_out(monkeypatch):
    X, y, weight = random_windows()
    weight[::5] = 0
    learnt = []
    monkeypatch.setattr("barcast.training.loop.fit_network", lambda network, examples, *_: learnt.append(examples))
    create("gru", average_seeds=4, train_stride=4).fit(X, y, X, y, sample_weight=weight)
    every = np.concatenate([examples.X.ends for examples in learnt])
    assert sorted(every.tolist()) == X.ends[weight > 0].tolist()  # each window is in one of them
    for examples in learnt:
        assert examples.weight.mean() == pytest.approx(1, rel=1e-6)


def test_a_class_that_one_network_never_sees_is_one_of_the_model_s(tmp_path):
    """Every second window is thinned away for it, and with them every label of +1."""
    X, y, _ = random_windows(120)
    y = np.where(np.arange(len(X)) % 2, 1, np.where(y > 0, 0, y))
    X = Windows(X.rows, np.arange(LENGTH - 1, LENGTH - 1 + len(X)), LENGTH)
    for class_weights in ("none", "balanced"):
        with np.errstate(all="raise"):
            model = create("gru", average_seeds=2, train_stride=2, max_epochs=2, class_weights=class_weights)
            model.fit(X, y, X, y)
        probabilities = model.predict_proba(X)
        assert np.isfinite(probabilities).all()
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
        assert (probabilities[:, 2] > 0.01).all()


def test_too_few_windows_for_every_network_are_refused():
    X, y, _ = random_windows()
    model = create("gru", average_seeds=3, train_stride=30, max_epochs=1)
    with pytest.raises(ModelError, match="train_stride 30 keeps none of 9 windows; lower it"):
        model.fit(X.select(slice(0, 9)), y[:9], X, y)


# What a network sees of a window


def test_a_lookback_is_a_fit_on_shorter_windows(name, tmp_path):
    (X, y, weight), (val_X, val_y, _) = random_windows(150), random_windows(120, seed=9)
    sees_five = create(name, lookback=5, max_epochs=2, pool_sizes=[4, 2]).fit(X, y, val_X, val_y, sample_weight=weight)
    short = create(name, max_epochs=2, pool_sizes=[4, 2]).fit(X.last(5), y, val_X.last(5), val_y, sample_weight=weight)
    assert sees_five.training_history == short.training_history
    np.testing.assert_array_equal(sees_five.predict_proba(val_X), short.predict_proba(val_X.last(5)))
    assert sees_five.get_feature_importance().equals(short.get_feature_importance())
    sees_five.save(tmp_path / "model")
    loaded = type(sees_five).load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(val_X), sees_five.predict_proba(val_X))


def test_bars_before_the_lookback_change_no_prediction(name):
    X, y, _ = random_windows(120)
    model = create(name, lookback=6, max_epochs=1, pool_sizes=[4, 2]).fit(X, y, X, y)
    altered = X[:]
    altered[:, : LENGTH - 6] = 9.0
    np.testing.assert_allclose(model.predict_proba(altered), model.predict_proba(X), rtol=0, atol=1e-6)


def test_a_lookback_beyond_the_window_is_refused(name):
    X, y, _ = random_windows(60)
    model = create(name, lookback=LENGTH + 1)
    with pytest.raises(ModelError, match=f"lookback 13 is longer than a window of seq_len {LENGTH}; shorten it"):
        model.fit(X, y, X, y)
    assert not model.is_fitted


@pytest.mark.parametrize("device_rows", [True, False])
def test_windows_that_share_rows_are_learnt_as_others_are(name, device_rows):
    """Runs of neighbouring windows, whose rows are encoded once where the network can, also learn."""
    rng = np.random.default_rng(7)
    rows = rng.standard_normal((700, 2)).astype(np.float32)
    X = Windows(rows, np.arange(LENGTH - 1, 700), LENGTH)
    y = np.sign(X.lag(0)[:, 0] + X.lag(2)[:, 1]).astype(int)
    if not device_rows:
        X = X[:]
    model = create(name, max_epochs=12, learning_rate=0.005, run_length=8).fit(X, y, X, y)
    assert log_loss(model.predict_proba(X), y) < 0.5


def epochs_done(unfinished):
    """Of the second network."""
    try:
        return max(len(json.loads(path.read_text())["history"]) for path in unfinished.glob("*/1/progress.json"))
    except (ValueError, FileNotFoundError):  # none yet, or it is being replaced
        return 0


def test_a_killed_cell_ends_in_the_same_files_as_an_unbroken_one(tmp_path):
    """`kill -9` in the middle of the second network's training, then the same command again."""
    paths = {}
    for case in ("whole", "killed"):
        root = tmp_path / case
        root.mkdir()
        paths[case] = Paths(root)
        write_windows(paths[case], bars=300)
        paths[case].specs.mkdir(parents=True)
        content = {"config": config("gru", average_seeds=2, max_epochs=10, batch_size=8), "libraries": {}}
        paths[case].spec("gru_h5").write_text(yaml.safe_dump(content))
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "barcast.stages.train", "gru", "5"]

    def run(case):
        done = subprocess.run(command, cwd=paths[case].root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("whole")
    process = subprocess.Popen(command, cwd=paths["killed"].root, env=environment, stdout=subprocess.DEVNULL)
    unfinished = paths["killed"].unfinished("gru_h5")
    deadline = time.monotonic() + 60
    while epochs_done(unfinished) < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not paths["killed"].checkpoint("gru_h5").exists()
    run("killed")
    files = [
        {p.relative_to(each.run("gru_h5")): p.read_bytes() for p in each.run("gru_h5").rglob("*") if p.is_file()}
        for each in paths.values()
    ]
    assert files[0] == files[1]
    assert len(files[0]) > 5
    assert list(itertools.chain(*(each.unfinished("gru_h5").glob("*") for each in paths.values()))) == []


@pytest.mark.parametrize("stopped", [2, 4, 7, 8])  # in the first of two networks, at its end, and in the second
def test_a_cell_of_several_networks_resumes_in_any_of_them(tmp_path, monkeypatch, stopped):
    written, logged = [], {}
    for case in ("whole", "stopped"):
        paths = Paths(tmp_path / case)
        write_windows(paths)
        paths.specs.mkdir(parents=True)
        content = {"config": config("gru", max_epochs=4, average_seeds=2, train_stride=3), "libraries": {}}
        paths.spec("gru_h5").write_text(yaml.safe_dump(content))
        monkeypatch.chdir(paths.root)
        logged[case] = []

        @contextlib.contextmanager
        def open_run(*arguments, steps=logged[case], last=stopped if case == "stopped" else None):
            def log(metrics, step):
                steps.append(step)
                if len(steps) == last:
                    raise KeyboardInterrupt

            yield log

        monkeypatch.setattr("barcast.tracking.open_run", open_run)
        if case == "stopped":
            with pytest.raises(KeyboardInterrupt):
                stage.main("gru", "5")
            assert not paths.checkpoint("gru_h5").exists()
        stage.main("gru", "5")
        files = [path for path in paths.run("gru_h5").rglob("*") if path.is_file()]
        written.append({path.relative_to(paths.root): path.read_bytes() for path in files})
        assert not list(paths.unfinished("gru_h5").glob("*"))
    assert written[0] == written[1]
    assert logged["whole"] == list(range(8))
    assert logged["stopped"] == [*range(stopped), *range(8)]  # what was trained before is reported again


@pytest.mark.parametrize("damaged", [False, True])
def test_a_cell_that_goes_on_times_only_the_epochs_that_it_trains_now(tmp_path, monkeypatch, damaged):
    paths, reached = Paths(tmp_path), {}
    write_windows(paths)
    paths.specs.mkdir(parents=True)
    content = {"config": config("gru", max_epochs=5), "libraries": {}}
    paths.spec("gru_h5").write_text(yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path)

    @contextlib.contextmanager
    def open_run(*arguments):
        yield log

    def log(metrics, step):
        if step == 2 and step not in reached:
            reached[step] = metrics
            raise KeyboardInterrupt
        reached[step] = metrics

    monkeypatch.setattr("barcast.tracking.open_run", open_run)
    with pytest.raises(KeyboardInterrupt):
        stage.main("gru", "5")
    if damaged:
        next(paths.unfinished("gru_h5").glob("*/0/progress.json")).write_text("{")
    stage.main("gru", "5")
    timed = [step for step, metrics in sorted(reached.items()) if "windows_per_second" in metrics]
    assert timed == ([0, 1, 2, 3, 4] if damaged else [3, 4])
    history = json.loads((paths.checkpoint("gru_h5") / "model.json").read_text())["training_history"]
    assert len(history) == 5
    assert not any("windows_per_second" in metrics for metrics in history)
    assert not list(paths.unfinished("gru_h5").glob("*"))
