"""The one torch loop: its batches, its schedule, what it refuses, and going on after a kill."""

import math
import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from barcast.data.windows import Windows
from barcast.errors import ModelError
from barcast.networks.describe import describe
from barcast.networks.nhits import NHITS
from barcast.networks.recurrent import Recurrent
from barcast.networks.transformer import Transformer
from barcast.training.batches import WindowSource, epoch_batches, in_order
from barcast.training.loop import (
    Monitor,
    TrainingSet,
    fit_network,
    predict_logits,
    seeded,
)
from barcast.training.loop_config import LoopConfig, TrainingState
from barcast.training.resume_checkpoint import ResumeCheckpoint
from barcast.training.session import pick_device, torch_session

CPU = torch.device("cpu")
LENGTH, WIDTH = 6, 3
SETTINGS = {
    "max_epochs": 4,
    "batch_size": 16,
    "micro_batch": 0,
    "run_length": 1,
    "learning_rate": 0.01,
    "weight_decay": 0.0,
    "schedule": "cosine",
    "warmup_epochs": 0.0,
    "clip_norm": 1.0,
    "label_smoothing": 0.0,
    "class_weights": "none",
    "device": "cpu",
    "precision": "auto",
    "compile": False,
    "deterministic": True,
}


def settings(**changes):
    return LoopConfig(**SETTINGS | changes)


def make(count=120, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count + LENGTH - 1, WIDTH)).astype(np.float32)
    X = Windows(rows, np.arange(LENGTH - 1, len(rows)), LENGTH)
    return TrainingSet(X, np.digitize(X.lag(0)[:, 0], [-0.5, 0.5]), np.ones(count, np.float32))


def small_network(seed=1):
    torch.manual_seed(seed)
    return Recurrent("gru", WIDTH, 5, 8, 1, 0.3, False, "last")


def small_transformer():
    torch.manual_seed(2)
    return Transformer(LENGTH, WIDTH, 8, 1, 2, 16, 0.0, 0.0, "learned", False, "mean")


def fit(network, examples=None, log=None, folder=None, patience=None, score=None, **changes):
    config = settings(**changes)
    examples = examples or make()
    logged = []
    watch = Monitor(
        name="net",
        score=score or (lambda: nll(predict_logits(network, examples.X, config, CPU), examples.y)),
        patience=patience,
        log=log or (lambda metrics, step: logged.append(metrics)),
        resume=folder and ResumeCheckpoint(folder),
    )
    with torch_session(config, 1) as device:
        fit_network(network, examples, config, device, 7, watch)
    return logged


def nll(logits, y):
    return float(nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(y)))


def weights(network):
    return {name: value.numpy().tobytes() for name, value in network.state_dict().items()}


@given(st.integers(1, 300), st.integers(1, 64), st.integers(1, 20), st.integers(0, 5))
def test_an_epoch_meets_every_window_once_in_batches_of_nearly_one_size(count, batch_size, run_length, seed):
    batches = epoch_batches(count, batch_size, run_length, np.random.default_rng(seed))
    order = np.concatenate(batches)
    np.testing.assert_array_equal(np.sort(order), np.arange(count))
    sizes = [len(batch) for batch in batches]
    assert len(sizes) == math.ceil(count / batch_size)
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    breaks = 1 + np.count_nonzero(np.diff(order) != 1)
    assert breaks <= math.ceil(count / run_length) + 1


def test_runs_have_other_borders_each_time_and_single_windows_another_order():
    for run_length in (1, 8):
        rng = np.random.default_rng(0)
        first, second = (np.concatenate(epoch_batches(100, 16, run_length, rng)).tolist() for _ in range(2))
        assert first != second


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(1, 5), st.integers(1, 4))
def test_gathered_windows_and_shared_rows_are_those_of_the_memory_map(positions, length, width):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((80, width)).astype(np.float32)
    rows.flags.writeable = False
    X = Windows(rows, np.sort(rng.choice(np.arange(length - 1, 80), 41, replace=False)), length)
    source, positions = WindowSource(X, CPU), np.asarray(positions)
    expected = np.stack([X[i] for i in positions])
    np.testing.assert_array_equal(source.windows(positions).numpy(), expected)
    shared = source.shared_rows(positions)
    np.testing.assert_array_equal(shared.rows[shared.place].numpy(), expected)
    assert len(shared.rows) == len({row for i in positions for row in range(X.ends[i] - length + 1, X.ends[i] + 1)})


def test_blocks_in_order_hold_every_window_once():
    assert [block.tolist() for block in in_order(5, 2)] == [[0, 1], [2, 3], [4]]


def test_rows_encoded_once_give_the_same_logits_and_the_same_training():
    examples, config = make(), settings()
    network = small_transformer()
    with torch.inference_mode():
        plain = network.eval()(torch.from_numpy(examples.X[:])).numpy()
    np.testing.assert_allclose(predict_logits(network, examples.X, config, CPU), plain, atol=1e-6)

    results = []
    for without in (False, True):
        network = small_transformer()
        chosen = nn.Sequential(network) if without else network  # a container offers no `encode_rows`
        fit(chosen, examples, max_epochs=2, run_length=8)
        results.append(predict_logits(network, examples.X, config, CPU))
    np.testing.assert_allclose(*results, atol=1e-4)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    first, second, third = (small_network(seed) for seed in (1, 1, 2))
    logs = [fit(network) for network in (first, second, third)]
    assert weights(first) == weights(second)
    assert logs[0] == logs[1]
    assert weights(first) != weights(third)


class Killed(BaseException):
    """What a process does not live to tell."""


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_a_killed_training_goes_on_to_the_same_bits(tmp_path, schedule):
    options = {"schedule": schedule, "max_epochs": 6, "weight_decay": 0.1, "patience": 6}
    whole = small_network()
    expected = fit(whole, **options)

    folder, seen = tmp_path / "unfinished", []

    def die(metrics, step):
        seen.append(metrics)
        if step == 2:
            raise Killed

    with pytest.raises(Killed):
        fit(small_network(), log=die, folder=folder, **options)
    assert {path.name for path in folder.iterdir()} == {"state.safetensors", "progress.json"}
    resumed = small_network(seed=5)  # its own weights are of no account
    assert fit(resumed, folder=folder, **options) == expected
    assert seen == expected[:3]
    assert weights(resumed) == weights(whole)
    again = small_network(seed=6)  # what is made of the training may be lost still: it stays until it is taken away
    assert fit(again, folder=folder, **options) == expected
    assert weights(again) == weights(whole)


@pytest.mark.parametrize("file", ["state.safetensors", "progress.json"])
def test_a_damaged_resume_checkpoint_is_reported_and_the_training_starts_again(tmp_path, capsys, file):
    whole, folder = small_network(), tmp_path / "unfinished"
    expected = fit(whole, max_epochs=2)
    fit(small_network(seed=3), max_epochs=1, folder=folder)
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    again = small_network()
    assert fit(again, max_epochs=2, folder=folder) == expected
    assert weights(again) == weights(whole)
    assert "unfinished: the resume checkpoint is damaged; the training starts again" in capsys.readouterr().err


def test_a_fitted_network_is_ready_to_answer():
    network = small_network()
    fit(network, max_epochs=1)
    assert not any(module.training for module in network.modules())


def test_the_best_epoch_is_kept_and_patience_ends_the_training():
    scores = iter([1.0, 0.8, 0.9, 0.7, 0.75, 0.71, 0.9, 0.1])
    network, states = small_network(), []
    log = fit(
        network,
        score=lambda: (states.append(weights(network)), next(scores))[1],
        patience=3,
        max_epochs=8,
        schedule="constant",
    )
    assert [metrics["val_log_loss"] for metrics in log] == [1.0, 0.8, 0.9, 0.7, 0.75, 0.71, 0.9]
    assert weights(network) == states[3]


def rates(**changes):
    return [metrics["learning_rate"] for metrics in fit(small_network(), **changes)]


def test_schedules():
    """The rate that is logged is the last of the epoch's 8 steps."""
    assert rates(schedule="constant") == [0.01] * 4
    last = np.arange(1, 5) - 1 / 8
    np.testing.assert_allclose(rates(), 0.005 * (1 + np.cos(np.pi * last / 4)))
    warm = rates(schedule="constant", warmup_epochs=2.0)
    np.testing.assert_allclose(warm, [0.01 * 0.875 / 2, 0.01 * 1.875 / 2, 0.01, 0.01])
    scores = iter([1.0, 2.0, 2.0, 2.0, 2.0, 0.5, 2.0, 2.0])
    plateau = rates(schedule="plateau", max_epochs=8, score=lambda: next(scores))
    np.testing.assert_allclose(plateau, [0.01] * 4 + [0.005] * 4)
    short = rates(schedule="constant", warmup_epochs=0.001)  # over before the first step ends
    np.testing.assert_allclose(short, [0.01] * 4)
    (once,) = rates(max_epochs=1, warmup_epochs=0.5)
    np.testing.assert_allclose(once, 0.005 * (1 + np.cos(np.pi * (1 - 1 / 8 - 0.5) / 0.5)))


@pytest.mark.parametrize(("patience", "halved_after"), [(1, 1), (3, 1), (4, 2), (7, 3)])
def test_a_plateau_is_seen_before_patience_ends(patience, halved_after):
    worse = iter(range(100))
    options = {"schedule": "plateau", "max_epochs": 20, "patience": patience, "score": lambda: float(next(worse))}
    found = rates(**options)
    assert len(found) == 1 + patience
    halvings = [0, *((epoch - 1) // halved_after for epoch in range(1, 1 + patience))]
    np.testing.assert_allclose(found, 0.01 * 0.5 ** np.array(halvings))


def test_plateaus_are_counted_from_the_history():
    progress = TrainingState()
    for loss, expected in [(1.0, 0), (2.0, 0), (2.0, 1), (2.0, 1), (2.0, 2), (0.5, 2)]:
        progress.add({"val_log_loss": loss})
        assert progress.plateaus(2) == expected
    assert (progress.best_loss, progress.best_epoch, progress.stale) == (0.5, 5, 0)


def test_a_loss_that_is_not_finite_stops_with_step_rate_and_hint():
    examples = make()
    huge = TrainingSet(Windows(1e30 * examples.X.rows, examples.X.ends, LENGTH), examples.y, examples.weight)
    network = nn.Sequential(nn.Flatten(), nn.Linear(LENGTH * WIDTH, 3))
    with pytest.raises(ModelError, match=r"net: epoch 1, step 2: the loss is not finite at learning rate 1e\+18"):
        fit(network, huge, learning_rate=1e18, schedule="constant", clip_norm=0.0)


def test_a_validation_that_is_not_finite_stops_the_training():
    with pytest.raises(ModelError, match=r"net: epoch 1: validation log-loss is nan; lower learning_rate"):
        fit(small_network(), score=lambda: float("nan"))


def test_weights_of_windows_and_classes_are_weights_of_the_loss():
    """Doubling a window and weighing it twice are the same, in one step of plain gradient direction."""
    examples = make(24)
    doubled = np.concatenate([np.arange(24), np.flatnonzero(examples.y == 0)])
    weighed = np.where(examples.y == 0, 2.0, 1.0).astype(np.float32)
    cases = [
        TrainingSet(examples.X.select(doubled), examples.y[doubled], np.ones(len(doubled), np.float32)),
        TrainingSet(examples.X, examples.y, weighed / weighed.mean()),
    ]
    results = []
    for case in cases:
        network = small_network()
        network.drop.p = 0.0
        fit(network, case, max_epochs=1, batch_size=64, schedule="constant", clip_norm=0.0)
        results.append(predict_logits(network, examples.X, settings(), CPU))
    np.testing.assert_allclose(*results, atol=1e-5)


@pytest.mark.parametrize("clip_norm", [0.0, 0.3, 1e3])
def test_the_loop_is_the_plain_one_written_out(clip_norm):
    """Three epochs with decay, a cosine without warm-up, and gradients that are never, sometimes or not clipped."""
    examples, plain, ours = make(), small_network(), small_network()
    X, y = torch.from_numpy(examples.X[:]), torch.from_numpy(examples.y)
    vectors, matrices = ([p for p in plain.parameters() if (p.ndim > 1) is kind] for kind in (False, True))
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer, norms = torch.optim.AdamW(groups, lr=0.01), []
    for epoch in range(3):
        batches = epoch_batches(len(y), 16, 1, seeded(7, epoch))
        for number, batch in enumerate(batches):
            for group in groups:
                group["lr"] = 0.01 * 0.5 * (1 + math.cos(math.pi * (epoch + number / len(batches)) / 3))
            optimizer.zero_grad()
            nn.functional.cross_entropy(plain(X[batch]), y[batch]).backward()
            norms.append(nn.utils.clip_grad_norm_(plain.parameters(), clip_norm or math.inf).item())
            optimizer.step()
    assert min(norms) < 0.3 < max(norms)
    fit(ours, max_epochs=3, weight_decay=0.1, clip_norm=clip_norm)
    for name, found in ours.state_dict().items():
        np.testing.assert_allclose(found.numpy(), plain.state_dict()[name].numpy(), atol=1e-5)


@pytest.mark.parametrize("run_length", [1, 4])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_gradients_of_micro_batches_add_up_to_the_batchs(run_length, smoothing):
    """Batches of 40 in parts of 16 at most, of windows that weigh differently: the same weights but for rounding."""
    examples = make()
    weighed = TrainingSet(examples.X, examples.y, np.where(examples.y == 0, 2.0, 0.5).astype(np.float32))
    results, losses = [], []
    for micro_batch in (0, 16, 1):
        network = small_network()
        network.drop.p = 0.0
        changes = {"batch_size": 40, "run_length": run_length, "label_smoothing": smoothing, "micro_batch": micro_batch}
        losses.append([entry["train_log_loss"] for entry in fit(network, weighed, **changes)])
        results.append(predict_logits(network, examples.X, settings(), CPU))
    for other in (1, 2):
        np.testing.assert_allclose(results[other], results[0], atol=1e-4)
        np.testing.assert_allclose(losses[other], losses[0], atol=1e-5)
    assert abs(results[0]).max() > 0.1


def test_no_more_windows_than_a_micro_batch_go_through_the_network_at_once():
    network, sizes = small_network(), []
    network.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    fit(network, max_epochs=1, batch_size=50, micro_batch=7, score=lambda: 1.0)
    assert sum(sizes) == 120
    assert max(sizes) <= 7


def test_balanced_classes_raise_the_rare_one():
    examples = make(400)
    rare = np.flatnonzero(examples.y == 2)[:12]
    chosen = np.sort(np.concatenate([np.flatnonzero(examples.y < 2), rare]))
    case = TrainingSet(examples.X.select(chosen), examples.y[chosen], np.ones(len(chosen), np.float32))
    shares = []
    for class_weights in ("none", "balanced"):
        network = small_network()
        fit(network, case, class_weights=class_weights)
        logits = torch.from_numpy(predict_logits(network, case.X, settings(), CPU))
        shares.append(float(torch.softmax(logits, 1)[:, 2].mean()))
    assert shares[1] > 2 * shares[0]


def test_label_smoothing_keeps_answers_from_certainty_and_out_of_the_logged_loss():
    losses, tops = [], []
    for smoothing in (0.0, 0.3):
        network = small_network()
        losses.append(fit(network, max_epochs=30, label_smoothing=smoothing)[-1]["train_log_loss"])
        tops.append(torch.softmax(torch.from_numpy(predict_logits(network, make().X, settings(), CPU)), 1).max().item())
    assert tops[1] < 0.9 < tops[0]
    assert losses[1] < 1.05


def test_a_session_puts_threads_and_determinism_back():
    def state():
        filled = torch.utils.deterministic.fill_uninitialized_memory
        return torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), filled

    before = state()
    assert before[1:] == (False, True)  # torch's own defaults
    with torch_session(settings(), before[0] + 1) as device:
        assert device == CPU
        assert state() == (before[0] + 1, True, False)
    assert state() == before


STEPS = """
import resource
import torch
from barcast.training.memory import keep_freed_memory

def step():
    for _ in [torch.ones(2**19) for _ in range(24)]:  # 48 MiB, all free again after it
        pass

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if {kept}:
    keep_freed_memory()
for _ in range(5):
    step()
before = faults()
for _ in range(20):
    step()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")
def test_memory_that_a_step_frees_is_not_asked_of_the_system_again():
    small = {"MALLOC_MMAP_THRESHOLD_": "131072"}  # from which on glibc asks the system: left alone, it is moved by luck
    pages = {}
    for kept in (False, True):
        command = [sys.executable, "-c", STEPS.format(kept=kept)]
        done = subprocess.run(command, env={**os.environ, **small}, capture_output=True, text=True, check=True)
        pages[kept] = int(done.stdout)
    assert pages[True] < pages[False] / 4


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ModelError, match=f"device = '{name}': this machine has none"):
        pick_device(name)
    with pytest.warns(UserWarning, match=rf"device = '{name}': this machine has none .* predicts on its cpu"):
        assert pick_device(name, predicting=True) == CPU
    assert pick_device("auto") == CPU


def test_epochs_are_seeded_apart():
    draws = []
    for epoch in (0, 1, 0):
        rng = seeded(3, epoch)
        draws.append((torch.rand(2).tolist(), rng.random()))
    assert draws[0] == draws[2] != draws[1]


@pytest.mark.parametrize("embed_size", [0, 4])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_what_a_network_is_in_numbers(cell, embed_size):
    gates, read = {"lstm": 4, "gru": 3}[cell], embed_size or 5
    facts = describe(Recurrent(cell, 5, embed_size, 7, 1, 0.0, False, "last"), seq_len=9, width=5)
    assert facts["parameters"] == 6 * embed_size + gates * 7 * (read + 7 + 2) + 7 * 3 + 3
    assert facts["flops_per_window"] == 2 * (9 * (5 * embed_size + gates * 7 * (read + 7)) + 7 * 3)
    assert facts["receptive_field"] == 9


def test_the_receptive_field_ends_where_no_bar_counts():
    class LastTwo(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 3)

        def forward(self, x):
            return self.linear(x[:, -2:].flatten(1))

    assert describe(LastTwo(), seq_len=9, width=4)["receptive_field"] == 2


def test_a_bar_that_one_windows_maximum_passes_over_counts_too():
    network = NHITS(60, 1, 8, 1, [8, 4, 2], "max", 0.0)
    assert describe(network, seq_len=60, width=1)["receptive_field"] == 60


@pytest.mark.parametrize("run_length", [1, 8])
def test_a_compiled_network_learns_the_same(monkeypatch, run_length):
    """With the compiler's eager backend: generating code needs minutes, and changes the last digits alone."""
    calls = []
    monkeypatch.setattr(torch, "compile", lambda function, **_: calls.append(function) or function)
    monkeypatch.setattr(nn.Module, "compile", lambda self, **_: calls.append(self))
    networks = [small_transformer(), small_transformer()]
    logs = [fit(network, compile=c, run_length=run_length) for network, c in zip(networks, (False, True), strict=True)]
    assert logs[0] == logs[1]
    assert len(calls) == 3
