"""Temporal Fusion Transformer (Lim, Arik, Loeff and Pfister 2021) as a classifier, on neuralforecast's modules.

neuralforecast's TFT forecasts a series h bars ahead. Here it predicts one bar ahead from only the features: the
series is all zeros, so what neuralforecast embeds of it are learnt constants. Outputs and gradients are those of
neuralforecast's forward pass with the same weights; they are computed in another order, and many times faster.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from neuralforecast.models.tft import GRN, TemporalCovariateEncoder, TemporalFusionDecoder, TFTEmbedding
from torch import Tensor, nn
from torch.nn import functional

from barcast.networks._gating import GatedResidual, GatedSkip, LastStepAttention, StackedLinear
from barcast.networks.dropout import Dropout

CONSTANTS = 2  # variables beside the features: neuralforecast's series, and its last value at every bar
BLOCK = 2**20  # values of one layer that are made at once: more would leave a CPU's caches


class Parts(NamedTuple):
    """The modules that neuralforecast's TFT consists of."""

    embedding: TFTEmbedding
    encoder: TemporalCovariateEncoder
    decoder: TemporalFusionDecoder
    head: nn.Linear

    @classmethod
    def new(
        cls, seq_len: int, width: int, hidden_size: int, heads: int, dropout: float, attention_dropout: float
    ) -> Parts:
        """Modules as neuralforecast makes and initialises them."""
        common: dict[str, Any] = {"hidden_size": hidden_size, "dropout": dropout, "grn_activation": "ELU"}
        steps = {"example_length": seq_len + 1, "encoder_length": seq_len}
        return cls(
            TFTEmbedding(hidden_size, stat_input_size=0, futr_input_size=1, hist_input_size=width, tgt_size=1),
            TemporalCovariateEncoder(num_historic_vars=width + CONSTANTS, num_future_vars=1, **common),
            TemporalFusionDecoder(n_head=heads, attn_dropout=attention_dropout, **steps, **common),
            nn.Linear(hidden_size, 3),
        )

    @classmethod
    def of(cls, model: Any) -> Parts:
        """Those of a `neuralforecast.models.TFT` with h = 1, only historic covariates, and three outputs."""
        return cls(model.embedding, model.temporal_encoder, model.temporal_fusion_decoder, model.output_adapter)


class TFT(nn.Module):
    """Variable selection, LSTM, attention of the last step, logits.

    Embeddings and variable selection look at one bar, since there is no static context: `encode_rows`
    computes them once for a bar that many windows share. Of the decoder only the last step is computed, for
    nothing else is asked. That step comes after the window's last bar, and its input is a learnt constant: what
    neuralforecast embeds of the bar to come, of which nothing is known.

    Args:
        parts: modules whose weights are taken over, as copies.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        encoder, decoder = parts.encoder, parts.decoder
        self.selection = VariableSelection(
            parts.embedding, list(encoder.history_vsn.var_grns), encoder.history_vsn.joint_grn
        )
        self.query = nn.Parameter(_encoded(encoder.future_vsn.var_grns, parts.embedding.futr_exog_embedding_bias)[0])
        self.history, self.future = deepcopy(encoder.history_encoder), deepcopy(encoder.future_encoder)
        self.recurrent_gate = GatedSkip(encoder.input_gate, encoder.input_gate_ln)
        self.enrich = GatedResidual(decoder.enrichment_grn)
        self.attend = LastStepAttention(decoder.attention)
        self.attention_gate = GatedSkip(decoder.attention_gate, decoder.attention_ln)
        self.feed_forward = GatedResidual(decoder.positionwise_grn)
        self.decoder_gate = GatedSkip(decoder.decoder_gate, decoder.decoder_ln)
        self.head = deepcopy(parts.head)

    def forward(self, x: Tensor) -> Tensor:
        encoded = self.encode_rows(x.reshape(-1, x.shape[-1]))  # [B, L, F] -> [B*L, H]
        return self.forward_encoded(encoded.view(*x.shape[:-1], -1))  # [B, L, H] -> [B, 3]

    def encode_rows(self, rows: Tensor) -> Tensor:
        """`[R, F] -> [R, H]`."""
        encoded: Tensor = self.selection(rows)
        return encoded

    def forward_encoded(self, encoded: Tensor) -> Tensor:
        """`[B, L, H] -> [B, 3]`."""
        temporal = self._temporal(encoded)
        enriched = self.enrich(temporal)
        attended, _ = self.attend(enriched)  # [B, H], as all that follows
        state = self.feed_forward(self.attention_gate(attended, enriched[:, -1]))
        logits: Tensor = self.head(self.decoder_gate(state, temporal[:, -1]))
        return logits

    def selection_weights(self, rows: Tensor) -> Tensor:
        """The share of each feature in a bar, `[R, F] -> [R, F]`; what a row lacks to 1 the constants have."""
        return self.selection.weights(rows)[:, :-CONSTANTS]

    def attention(self, encoded: Tensor) -> Tensor:
        """What the last step looks at, `[B, L, H] -> [B, L+1]`: bars, oldest first, then itself. A row sums to 1."""
        weights: Tensor = self.attend(self.enrich(self._temporal(encoded)))[1]
        return weights

    def _temporal(self, encoded: Tensor) -> Tensor:
        """The window's bars and the step after them, each knowing what came before, `[B, L, H] -> [B, L+1, H]`."""
        query = self.query.expand(len(encoded), 1, -1)
        history, state = self.history(encoded)
        future, _ = self.future(query, state)
        temporal: Tensor = self.recurrent_gate(torch.cat([history, future], dim=1), torch.cat([encoded, query], dim=1))
        return temporal


class VariableSelection(nn.Module):
    """Embedding, gated residual network and selection weight of every feature (eq. 6 to 8), `[R, F] -> [R, H]`.

    neuralforecast has a network a feature and calls them one after another; here each layer is one batched
    product. Where a linear layer A follows the embedding x·v + b of a feature x, the embedding is not made:
    A(x·v + b) = x·(A v) + A b, which makes of a layer over all embeddings, F·H wide, one that is F wide.

    Args:
        embedding: of the features, and of the constants.
        networks: F of the features, then those of the constants.
        joint: the one that weighs them.
    """

    def __init__(self, embedding: TFTEmbedding, networks: Sequence[GRN], joint: GRN) -> None:
        super().__init__()
        vectors, biases = embedding.hist_exog_embedding_vectors, embedding.hist_exog_embedding_bias  # [F, H]
        constants = torch.cat([embedding.futr_exog_embedding_bias, embedding.tgt_embedding_bias])  # [2, H]
        own, others = networks[: len(vectors)], networks[len(vectors) :]
        self.embed = StackedLinear(vectors.unsqueeze(1), biases)
        self.first, self.second = StackedLinear.of([n.lin_a for n in own]), StackedLinear.of([n.lin_i for n in own])
        self.value, self.gate = _halves([n.glu.lin for n in own])
        self.norm = nn.Parameter(torch.cat([n.layer_norm.ln.weight for n in own]).detach())  # [F*H]
        self.norm_bias = nn.Parameter(torch.cat([n.layer_norm.ln.bias for n in own]).detach())
        self.norm_epsilon = own[0].layer_norm.ln.eps
        self.drop = Dropout(own[0].dropout.p)
        self.constants = nn.Parameter(_encoded(others, constants))  # [2, H]
        self.joint_first = _of_features(joint.lin_a, constants)
        self.joint_skip = _of_features(joint.out_proj, constants)
        self.joint_second = deepcopy(joint.lin_i)
        self.joint_gate = GatedSkip(joint.glu, joint.layer_norm.ln)

    def forward(self, rows: Tensor) -> Tensor:
        weights = self.weights(rows)
        slope = torch.bmm(self.embed.weight, self.first.weight)  # [F, 1, H]
        start = self.first(self.embed.offset)
        size = max(1, BLOCK // self.norm.numel()) if rows.device.type == "cpu" else len(rows)
        blocks = zip(torch.split(rows, size), torch.split(weights, size), strict=True)
        return torch.cat([self._blend(*block, slope, start) for block in blocks])

    def weights(self, rows: Tensor) -> Tensor:
        """The selection weights, those of the constants last, `[R, F] -> [R, F+2]`."""
        state = functional.elu(self._after_embedding(self.joint_first, rows))
        weights = self.joint_gate(self.joint_second(state), self._after_embedding(self.joint_skip, rows))
        return torch.softmax(weights, dim=-1)

    def _blend(self, rows: Tensor, weights: Tensor, slope: Tensor, start: Tensor) -> Tensor:
        """The weighted mean of the outputs of the networks of features and constants, `[R, F] -> [R, H]`."""
        features, hidden = self.embed.weight.shape[0], self.embed.weight.shape[2]
        x = rows.T.unsqueeze(-1)  # [F, R, 1]
        state = functional.elu(torch.baddbmm(start, x, slope))  # [F, R, H]
        state = self.drop(self.second(state))
        state = self.value(state) * torch.sigmoid(self.gate(state)) + self.embed(x)
        state = functional.layer_norm(state, (hidden,), eps=self.norm_epsilon)
        shares, others = torch.split(weights, [features, CONSTANTS], dim=1)
        scale = torch.bmm(shares.T.unsqueeze(-1), self.norm.view(features, 1, hidden))  # [F, R, H]
        offset = shares @ self.norm_bias.view(features, hidden) + others @ self.constants  # [R, H]
        return (state * scale).sum(dim=0) + offset

    def _after_embedding(self, layer: nn.Linear, rows: Tensor) -> Tensor:
        """A layer over the embeddings of all features, `[R, F] -> [R, out]`."""
        by_feature = layer.weight.view(len(layer.weight), *self.embed.weight.shape[::2])  # [out, F, H]
        weight = (by_feature * self.embed.weight.squeeze(1)).sum(dim=-1)  # [out, F]
        answer: Tensor = functional.linear(rows, weight, layer(self.embed.bias))
        return answer


def _halves(layers: Sequence[nn.Linear]) -> tuple[StackedLinear, StackedLinear]:
    """The layers of gated linear units as one stack of the values' halves and one of the gates'."""
    pairs = [(layer.weight.T.chunk(2, dim=1), layer.bias.chunk(2)) for layer in layers]
    first, second = (StackedLinear([w[i] for w, _ in pairs], [b[i] for _, b in pairs]) for i in (0, 1))
    return first, second


def _of_features(layer: nn.Linear, constants: Tensor) -> nn.Linear:
    """A layer over the embeddings of features and constants, as one over those of only the features."""
    split = layer.in_features - constants.numel()
    kept = nn.Linear(split, layer.out_features)
    with torch.no_grad():
        kept.weight.copy_(layer.weight[:, :split])
        kept.bias.copy_(layer.bias + layer.weight[:, split:] @ constants.flatten())
    return kept


def _encoded(networks: Iterable[GRN], embeddings: Tensor) -> Tensor:
    """What gated residual networks make of their embeddings `[n, H]`, dropout off, as a constant `[n, H]`."""
    pairs = zip(networks, embeddings, strict=True)
    with torch.no_grad():
        return torch.stack([deepcopy(network).eval()(embedding) for network, embedding in pairs])
