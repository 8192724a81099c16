"""N-HiTS, TFT and PatchTST: they answer as neuralforecast's own do with the same weights, and what holds of each."""

import random

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from neuralforecast.losses.pytorch import BasePointLoss
from torch import nn

from barcast.data.windows import Windows
from barcast.errors import ConfigError, ModelError
from barcast.networks import nhits as nhits_module
from barcast.networks import tft as tft_module
from barcast.networks.dropout import Dropout, with_cheap_dropout
from barcast.networks.nhits import NHITS, BarPool
from barcast.networks.patchtst import PatchTST
from barcast.networks.tft import CONSTANTS, TFT, Parts
from barcast.networks.transformer import Transformer
from test_network_models import create

HORIZON = 1
BUILDERS = {
    "nhits": lambda length, width: NHITS(length, width, 8, 2, [2, 1], "max", 0.1),
    "nhits, one block": lambda length, width: NHITS(length, width, 8, 1, [1], "mean", 0.0),
    "tft": lambda length, width: TFT(Parts.new(length, width, 8, 2, 0.1, 0.1)),
    "patchtst, mixed": lambda length, width: PatchTST(length, width, "mixed", 2, 1, 8, 2, 2, 16, 0.1, "layer"),
    "patchtst, independent": lambda length, width: PatchTST(
        length, width, "independent", 2, 1, 8, 2, 2, 16, 0.1, "batch"
    ),
}


@pytest.fixture(params=BUILDERS)
def build(request):
    def seeded(length=6, width=3, seed=0):
        torch.manual_seed(seed)
        return BUILDERS[request.param](length, width)

    return seeded


class ThreeOutputs(BasePointLoss):
    """What makes neuralforecast's networks answer three numbers a step."""

    def __init__(self):
        super().__init__(outputsize_multiplier=3, output_names=["-0", "-1", "-2"])


def their_input(x, series):
    """A batch as neuralforecast's networks take it; `series` is `[B, L]`."""
    series = series.unsqueeze(-1)
    return {
        "insample_y": series,
        "insample_mask": torch.ones_like(series),
        "hist_exog": x,
        "futr_exog": None,
        "stat_exog": None,
    }


def theirs(name, length, width, **options):
    """One of neuralforecast's own networks, every weight moved from where it begins, dropout off."""
    import neuralforecast.models

    covariates = {} if name == "PatchTST" else {"hist_exog_list": [f"f{j}" for j in range(width)]}
    network = getattr(neuralforecast.models, name)(
        h=HORIZON, input_size=length, loss=ThreeOutputs(), random_seed=1, **covariates, **options
    )
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return network.eval()


def their_tft(length, width, hidden_size, heads):
    return theirs("TFT", length, width, hidden_size=hidden_size, n_head=heads)


def answer_of_tft(network, x):
    return network(their_input(x, torch.zeros(x.shape[:2]))).squeeze(1)


class TestTFTIsNeuralforecasts:
    """Without a series to forecast, with their weights."""

    @pytest.mark.parametrize(
        ("length", "width", "hidden_size", "heads"), [(1, 1, 4, 1), (5, 3, 8, 2), (60, 107, 16, 4), (20, 7, 32, 8)]
    )
    def test_answers(self, length, width, hidden_size, heads):
        network = their_tft(length, width, hidden_size, heads)
        x = torch.randn(9, length, width)
        with torch.no_grad():
            expected, answer = answer_of_tft(network, x), TFT(Parts.of(network)).eval()(x)
        assert expected.std() > 0.01
        torch.testing.assert_close(answer, expected, rtol=0, atol=1e-5)

    def test_gradients(self):
        network = their_tft(8, 5, 8, 2)
        ours = TFT(Parts.of(network)).eval()
        x, y = torch.randn(16, 8, 5), torch.arange(16) % 3
        for answer in (answer_of_tft(network, x), ours(x)):
            nn.functional.cross_entropy(answer, y).backward()
        selection, other = ours.selection, network.temporal_encoder.history_vsn
        own = range(5)
        pairs = {
            "embedding": (selection.embed.weight.grad[:, 0], network.embedding.hist_exog_embedding_vectors.grad),
            "its bias": (selection.embed.bias.grad.view(5, 8), network.embedding.hist_exog_embedding_bias.grad),
            "first": (
                selection.first.weight.grad,
                torch.stack([other.var_grns[i].lin_a.weight.grad.T for i in own]),
            ),
            "gate": (
                selection.gate.weight.grad,
                torch.stack([other.var_grns[i].glu.lin.weight.grad[8:].T for i in own]),
            ),
            "norm": (
                selection.norm.grad.view(5, 8),
                torch.stack([other.var_grns[i].layer_norm.ln.weight.grad for i in own]),
            ),
            "joint": (selection.joint_skip.weight.grad, other.joint_grn.out_proj.weight.grad[:, : 5 * 8]),
            "lstm": (ours.history.weight_hh_l0.grad, network.temporal_encoder.history_encoder.weight_hh_l0.grad),
            "decoder": (ours.future.weight_hh_l0.grad, network.temporal_encoder.future_encoder.weight_hh_l0.grad),
            "attention": (
                ours.attend.project.weight.grad,
                network.temporal_fusion_decoder.attention.qkv_linears.weight.grad,
            ),
            "head": (ours.head.weight.grad, network.output_adapter.weight.grad),
        }
        for name, (ours_gradient, their_gradient) in pairs.items():
            assert their_gradient.abs().max() > 1e-4, name
            torch.testing.assert_close(ours_gradient, their_gradient, rtol=1e-3, atol=1e-6, msg=name)

    def test_selection_weights_and_attention(self):
        network = their_tft(7, 4, 8, 2)
        ours = TFT(Parts.of(network)).eval()
        x = torch.randn(5, 7, 4)
        with torch.no_grad():
            answer_of_tft(network, x)
            looks = network.interpretability_params
            rows = x.view(-1, 4)
            weights = ours.selection_weights(rows).view(5, 7, 4)
            attention = ours.attention(ours.encode_rows(rows).view(5, 7, -1))
        torch.testing.assert_close(weights, looks["history_vsn_wgts"][..., :-CONSTANTS], rtol=0, atol=1e-6)
        torch.testing.assert_close(attention, looks["attn_wts"].mean(dim=1)[:, -1], rtol=0, atol=1e-6)
        torch.testing.assert_close(attention.sum(dim=1), torch.ones(5))


@pytest.mark.parametrize(("length", "pools"), [(12, [2, 2, 1]), (7, [4, 3])])
@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_nhits_is_neuralforecasts_on_the_learnt_series(length, pools, pooling):
    modes = {"max": "MaxPool1d", "mean": "AvgPool1d"}
    blocks = {"stack_types": ["identity"] * len(pools), "n_blocks": [1] * len(pools), "mlp_units": [[16, 16]] * 2}
    rates = {"n_pool_kernel_size": pools, "n_freq_downsample": [1] * len(pools), "pooling_mode": modes[pooling]}
    network = theirs("NHITS", length, 5, **blocks, **rates)
    ours = NHITS(length, 5, 16, 2, pools, pooling, 0.0).eval()
    state = {name: value for name, value in network.state_dict().items() if name.startswith("blocks")}
    last = max(name.rpartition(".")[0] for name in state)
    state = {name: value[length:] if name.startswith(last) else value for name, value in state.items()}
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["series.weight", "series.bias"], [])
    x = torch.randn(9, length, 5)
    with torch.no_grad():
        series = ours.series(x).squeeze(-1)
        expected = network(their_input(x, series)).squeeze(1) - series[:, -1:]  # their naive forecast
        torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_nhits_learns_the_same_whether_its_blocks_are_asked_whole_or_in_parts(pooling, monkeypatch):
    network, x, y = NHITS(7, 3, 8, 2, [4, 3, 1], pooling, 0.0), torch.randn(6, 7, 3), torch.arange(6) % 3

    def whole(block, series, x):
        explained, answer = block(series, None, x, None)
        return explained, answer.squeeze(1)

    gradients = []
    for ask in (nhits_module._ask, whole):
        monkeypatch.setattr(nhits_module, "_ask", ask)
        network.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]))
    assert gradients[0].abs().max() > 0.01
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("length", "patch_len", "stride"), [(12, 4, 2), (11, 5, 3), (4, 4, 2)])
def test_patchtst_of_independent_channels_is_the_mean_of_neuralforecasts(length, patch_len, stride):
    sizes = {"hidden_size": 8, "n_heads": 2, "encoder_layers": 2, "linear_hidden_size": 16}
    network = theirs("PatchTST", length, 3, patch_len=patch_len, stride=stride, revin=False, **sizes)
    ours = PatchTST(length, 3, "independent", patch_len, stride, 8, 2, 2, 16, 0.0, "batch").eval()
    names = {"W_P": "embed", "W_pos": "positions", "linear": "head"}
    state = {}
    for name, value in network.model.state_dict().items():
        parts = name.removeprefix("backbone.").removeprefix("head.").split(".")
        state[".".join([names.get(parts[0], parts[0]), *parts[1:]])] = value
    ours.load_state_dict(state)
    x = torch.randn(6, length, 3)
    with torch.no_grad():
        each = torch.stack([network(their_input(x, x[..., j])).squeeze(1) for j in range(3)])
        torch.testing.assert_close(ours(x), each.mean(dim=0), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("length", "patch_len", "stride"), [(7, 4, 2), (8, 4, 4), (9, 4, 3), (5, 5, 2), (7, 1, 4)])
def test_a_mixed_patch_holds_all_features_of_its_bars(length, patch_len, stride):
    network = PatchTST(length, 3, "mixed", patch_len, stride, 8, 1, 2, 16, 0.0, "layer")
    x = torch.randn(2, length, 3)
    longer = torch.cat([x, x[:, -1:].expand(-1, stride, -1)], dim=1)
    patches = longer.unfold(1, patch_len, stride).transpose(2, 3).flatten(2)  # [B, P, K*F]
    with torch.no_grad():
        tokens = network.embed(patches) + network.positions
        expected = network.head(network.encoder(tokens).transpose(1, 2).flatten(1))
        torch.testing.assert_close(network.eval()(x), expected)


@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 4), st.sampled_from(["max", "mean"]))
def test_bars_are_pooled_as_torch_does(length, size, width, how):
    x = torch.randn(2, width, length)
    module = nn.MaxPool1d if how == "max" else nn.AvgPool1d
    torch.testing.assert_close(BarPool(size, how)(x), module(size, stride=size, ceil_mode=True)(x))


# What holds of each of them


@pytest.mark.parametrize(("length", "width"), [(2, 1), (3, 1), (6, 3), (9, 2)])
def test_shapes_and_a_batch_of_one(build, length, width):
    network = build(length, width)
    for training in (True, False):
        for count in (1, 4):
            logits = network.train(training)(torch.randn(count, length, width))
            assert logits.shape == (count, 3)
            assert torch.isfinite(logits).all()


def test_extreme_inputs_give_finite_answers(build):
    network = build().eval()
    for value in (0.0, 1e4, -1e4):
        assert torch.isfinite(network(torch.full((2, 6, 3), value))).all()


def test_an_answer_depends_on_its_own_window_alone(build):
    network, x = build().eval(), torch.randn(5, 6, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(x)[2].square().sum(), x)
    touched = gradient.abs().sum(dim=(1, 2)) > 0
    assert touched.tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("name", ["nhits", "tft", "patchtst, mixed"])
def test_so_it_does_in_training_unless_batch_norm_is_asked_for(name):
    network, x = BUILDERS[name](6, 3).train(), torch.randn(4, 6, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(x)[1].square().sum(), x)
    assert (gradient.abs().sum(dim=(1, 2)) > 0).tolist() == [False, True, False, False]


def test_every_bar_and_every_feature_count(build):
    network, x = build().eval(), torch.randn(16, 6, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(x).square().sum(), x)
    assert (gradient.abs().sum(dim=0) > 0).all()


def test_the_gradient_reaches_every_parameter(build):
    network = build()
    nn.functional.cross_entropy(network(torch.randn(32, 6, 3)), torch.arange(32) % 3).backward()
    unreached = [n for n, p in network.named_parameters() if p.requires_grad and not p.grad.any()]
    assert unreached == []


def test_the_seed_alone_decides_and_no_other_generator_is_touched(build):
    random.seed(3)
    np.random.seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist()
    first, second, other = build(), build(), build(seed=1)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    for (name, value), again in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(value, again), name
    assert any(
        not torch.equal(a, b) for a, b in zip(first.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_weights_are_contiguous_and_share_no_memory(build):
    state = build().state_dict()
    assert all(value.is_contiguous() for value in state.values())
    assert len({value.untyped_storage().data_ptr() for value in state.values()}) == len(state)
    assert all(value.untyped_storage().nbytes() == value.nbytes for value in state.values())


@pytest.mark.parametrize("block", [1, 50, 2**20])
def test_tft_encodes_rows_in_blocks(block, monkeypatch):
    """A window's answer is that of its rows, encoded among others and in blocks of any size."""
    network = TFT(Parts.new(6, 3, 8, 2, 0.0, 0.0)).eval()
    rows = torch.randn(20, 3)
    place = torch.arange(15)[:, None] + torch.arange(6)
    with torch.no_grad():
        expected = network(rows[place])
        monkeypatch.setattr(tft_module, "BLOCK", block)
        torch.testing.assert_close(network.forward_encoded(network.encode_rows(rows)[place]), expected)


def test_tft_learns_the_same_of_shared_rows_as_of_windows():
    """The gradient of a row that windows share is the sum of theirs."""
    rows, place, y = torch.randn(20, 3), torch.arange(15)[:, None] + torch.arange(6), torch.arange(15) % 3
    gradients = []
    for shared in (False, True):
        torch.manual_seed(0)
        network = TFT(Parts.new(6, 3, 8, 2, 0.0, 0.0))
        logits = network.forward_encoded(network.encode_rows(rows)[place]) if shared else network(rows[place])
        nn.functional.cross_entropy(logits, y).backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]))
    assert gradients[0].abs().max() > 0.01
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_a_transformer_answers_as_torchs_encoder(layers, causal, pooling):
    network = Transformer(7, 3, 8, layers, 2, 16, 0.0, 0.0, "learned", causal, pooling)
    x = torch.randn(5, 7, 3)
    mask = nn.Transformer.generate_square_subsequent_mask(7) if causal else None
    gradients = []
    for whole in (False, True):
        network.zero_grad()
        if whole:
            states = network.encoder(network.project(x) + network.positions, mask, is_causal=causal)
            logits = network.head(network.pool(network.norm(states)))
            torch.testing.assert_close(logits, network(x))
        else:
            logits = network(x)
        logits.square().sum().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]))
    assert gradients[0].abs().max() > 0.01
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)


class TestDropout:
    @pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
    def test_it_drops_a_share_and_keeps_the_mean(self, p):
        torch.manual_seed(0)
        y = Dropout(p)(torch.ones(333, 301))
        assert (y == 0).float().mean() == pytest.approx(p, abs=0.01)
        assert y.mean() == pytest.approx(1, abs=0.02)
        assert len(y.unique()) == (1 if p == 0 else 2)

    def test_nearly_all_is_dropped_and_not_all(self):
        assert torch.isfinite(Dropout(0.9999)(torch.ones(1000))).all()

    def test_the_gradient_passes_where_values_do(self):
        x = torch.ones(50, 7, requires_grad=True)
        y = Dropout(0.4)(x)
        y.sum().backward()
        torch.testing.assert_close(x.grad, y.detach())

    def test_it_is_off_in_prediction_and_repeats_with_the_seed(self):
        x = torch.randn(10, 3)
        assert torch.equal(Dropout(0.5).eval()(x), x)
        answers = [(torch.manual_seed(seed), Dropout(0.5)(x))[1] for seed in (1, 1, 2)]
        assert torch.equal(answers[0], answers[1])
        assert not torch.equal(answers[0], answers[2])

    def test_it_takes_the_place_of_torchs(self):
        network = with_cheap_dropout(nn.Sequential(nn.Dropout(0.3), nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1))))
        found = [module.p for module in network.modules() if type(module) is Dropout]
        assert found == [0.3, 0.1]
        assert not [module for module in network.modules() if type(module) is nn.Dropout]


# The models on them


@pytest.mark.parametrize(
    ("name", "changes", "least"),
    [("nhits", {"pool_sizes": [5, 1]}, 5), ("patchtst", {"patch_len": 7, "patch_stride": 2}, 7), ("tft", {}, 1)],
)
def test_the_smallest_seq_len(name, changes, least):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((12, least, 2)).astype(np.float32), np.arange(12) % 3 - 1
    model = create(name, max_epochs=1, **changes).fit(X, y, X, y)
    assert np.isfinite(model.predict_proba(X)).all()
    if least > 1:
        message = rf"{name}: .* {least - 1} bars .* {least}; set model.lookback .* to {least} or more"
        with pytest.raises(ModelError, match=message):
            create(name, max_epochs=1, **changes).fit(X[:, 1:], y, X[:, 1:], y)


@pytest.mark.parametrize(
    ("name", "changes"), [("tft", {"hidden_size": 10, "heads": 4}), ("patchtst", {"d_model": 10, "heads": 4})]
)
def test_heads_must_share_evenly(name, changes):
    with pytest.raises(ConfigError, match="a multiple of heads, got 10 and 4"):
        create(name, **changes)


@pytest.fixture(scope="module")
def tft():
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((900, 4)).astype(np.float32)
    X = Windows(rows, np.arange(5, 900), 6)
    y = np.sign(X.lag(0)[:, 2]).astype(int)
    model = create("tft", 4, max_epochs=8, learning_rate=0.005, run_length=8, watch_stride=3)
    return model.fit(X, y, X.select(slice(0, 200)), y[:200])


class TestWhatTFTLooksAt:
    def test_the_feature_that_tells_comes_first(self, tft):
        frame = tft.get_feature_importance()
        assert list(frame.columns) == ["feature", "lag", "importance"]
        assert frame["feature"].iloc[0] == "f2"
        assert sorted(frame["feature"]) == ["f0", "f1", "f2", "f3"]
        assert frame["lag"].isna().all()
        assert frame["importance"].sum() == pytest.approx(1)
        assert frame["importance"].is_monotonic_decreasing

    def test_attention_by_lag(self, tft):
        frame = tft.get_attention()
        assert frame["lag"].tolist()[:-1] == [0, 1, 2, 3, 4, 5]
        assert frame["lag"].isna().tolist() == [False] * 6 + [True]
        assert frame["attention"].sum() == pytest.approx(1)
        assert (frame["attention"] > 0).all()

    @pytest.mark.parametrize("changes", [{}, {"average_seeds": 2, "lookback": 4, "max_epochs": 1}])
    def test_they_are_means_over_the_watched_windows_and_the_networks(self, tft, changes):
        rows = np.random.default_rng(1).standard_normal((900, 4)).astype(np.float32)
        if changes:
            X = Windows(rows, np.arange(5, 205), 6)
            y = np.sign(X.lag(0)[:, 2]).astype(int)
            tft = create("tft", 4, watch_stride=3, **changes).fit(X, y, X, y)
        bars = changes.get("lookback", 6)
        x = torch.from_numpy(Windows(rows, np.arange(5, 205), 6)[::3][:, -bars:])
        weights, attention = [], []
        for network in tft._networks:
            with torch.no_grad():
                weights.append(network.selection_weights(x.reshape(-1, 4)).double().mean(dim=0).numpy())
                encoded = network.encode_rows(x.reshape(-1, 4)).view(*x.shape[:2], -1)
                attention.append(network.attention(encoded).double().mean(dim=0).numpy())
        weights, attention = np.mean(weights, axis=0), np.mean(attention, axis=0)
        frame = tft.get_feature_importance().set_index("feature")["importance"]
        np.testing.assert_allclose(frame[["f0", "f1", "f2", "f3"]], weights / weights.sum(), atol=1e-6)
        expected = attention[[*range(bars - 1, -1, -1), bars]]
        np.testing.assert_allclose(tft.get_attention()["attention"], expected, atol=1e-6)

    def test_they_are_saved(self, tft, tmp_path):
        tft.save(tmp_path / "model")
        loaded = type(tft).load(tmp_path / "model")
        pd.testing.assert_frame_equal(loaded.get_attention(), tft.get_attention())
        pd.testing.assert_frame_equal(loaded.get_feature_importance(), tft.get_feature_importance())

    def test_there_are_none_before_fit(self):
        with pytest.raises(ModelError, match="tft: its attention was asked for before fit; fit or load it first"):
            create("tft").get_attention()
