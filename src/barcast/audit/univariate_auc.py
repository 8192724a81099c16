"""How well one feature alone predicts the outcome: a score that is too good means that it knows the future."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from barcast.data.frames import BoolArray, FloatArray, IntArray, feature_columns, label_columns
from barcast.errors import LeakageError

SCORED_ROWS = 20_000
BINS = 32
BLOCKS = 20  # of consecutive rows, fitted and scored in turn: neighbours share their outcome
MIN_CLASS = 50  # the AUC of fewer rows of one class is noise
MARGIN = 1.15  # features drift as slowly as labels overlap: of 960 martingales 11 are refused without it, none with it
CERTAIN = 0.95  # on however little data, a feature that predicts the label better than this knows it


def check_univariate_auc(
    train: pd.DataFrame, horizons: Sequence[int], max_auc: float, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """No feature alone may predict the outcome: one that does is probably a column of the future.

    The binary targets of each horizon are whether the label is +1, whether it is -1, and whether each other label
    column and the returns over the next bar and the horizon are above their medians, which finds copies of these.
    The limit for copies is half-way from `max_auc` to 1: honest features do predict them a little, since a sample
    weight depends on the labels before it and a move in price on the volatility. On little data a limit is raised
    to what chance reaches, see `chance_auc`.

    Real markets rarely exceed an AUC of 0.6 for the label. The seed chooses the rows if there are more than 20,000.
    Returns what was examined, and the worst of labels and copies: nearest to its limit.

    Raises:
        LeakageError: naming the feature, its target, its score and the limit.
    """
    names, rng = feature_columns(train.columns), np.random.default_rng(seed)
    samples = [_sample(train, horizon, rng) for horizon in horizons]
    count = sum(len(sample.targets) for sample in samples)
    worst = {"label": FeatureScore(), "copy": FeatureScore()}
    for sample in samples:
        limits = [sample.limit(target, max_auc, len(names) * count) for target in sample.targets]
        targets = np.array(list(sample.targets.values()), bool)  # [T, n]
        for name in names:
            scores = univariate_auc(train[name].to_numpy()[sample.rows], targets).tolist()
            for target, score, limit in zip(sample.targets, scores, limits, strict=True):
                before = worst[_kind(target)]
                if score - limit > before.score - before.limit:
                    worst[_kind(target)] = FeatureScore(score, limit, name, target)
    for scored in worst.values():
        if scored.score > scored.limit:
            source = f"data.audit.max_feature_score = {max_auc:g}"
            if scored.limit > _for_kind(scored.question, max_auc):
                source += ", raised to what chance alone can reach on so few independent labels"
            raise LeakageError(
                f"feature '{scored.feature}' alone predicts {scored.question} with AUC {scored.score:.3f}, above "
                f"{scored.limit:.3g} (from {source}); drop it if it knows the future, else raise the limit"
            )
    examined = {"features": len(names), "questions": count, "rows": sum(len(sample.rows) for sample in samples)}
    return examined, {kind: asdict(scored) for kind, scored in worst.items()}


@dataclass(frozen=True)
class FeatureScore:
    """The AUC of one feature for one target, and the limit above which it is refused."""

    score: float = 0.5
    limit: float = 1.0
    feature: str = ""
    question: str = ""  # the target in words


@dataclass(frozen=True)
class Sample:
    """Rows of train with the binary targets of one horizon."""

    rows: IntArray  # [n]
    targets: dict[str, BoolArray]  # [n] each
    independent: dict[str, float]  # by kind of target: about how many of the rows have outcomes that don't overlap

    def limit(self, target: str, max_auc: float, tests: int) -> float:
        """The AUC above which the target's best feature is refused; `tests` is features × targets in all."""
        positive = self.targets[target]
        chance = chance_auc(min(self.independent[_kind(target)], len(positive)), float(positive.mean()), tests)
        return max(_for_kind(target, max_auc), min(chance, _for_kind(target, CERTAIN)))


def _kind(target: str) -> str:
    return "label" if target.startswith("label_") else "copy"


def _for_kind(target: str, limit: float) -> float:
    return limit if _kind(target) == "label" else (1 + limit) / 2


def chance_auc(independent: float, share: float, tests: int) -> float:
    """The AUC that the best of many features without any information stays below, in 19 of 20 data sets.

    Without information an AUC has the standard deviation `1 / sqrt(12 n p (1 - p))` (Mann and Whitney 1947), n being
    the number of independent rows, whose outcomes don't overlap, and p the share of positives, neither 0 nor 1.
    Bonferroni's bound gives how many of these the best of all tests, features × targets, strays from 0.5. `MARGIN`
    comes on top.
    """
    far = NormalDist().inv_cdf(1 - 0.05 / 2 / tests)
    return 0.5 + MARGIN * far / math.sqrt(12 * independent * share * (1 - share))


def _sample(train: pd.DataFrame, horizon: int, rng: np.random.Generator) -> Sample:
    """Labels overlap while they look ahead, and symbols move together: of n times n / mean offset are independent."""
    known = np.flatnonzero(train[f"label_h{horizon}"].notna())
    rows = np.sort(rng.choice(known, min(SCORED_ROWS, len(known)), replace=False))
    times = train["datetime"].iloc[known].nunique()
    label_end_offset = max(float(train[f"bars_to_hit_h{horizon}"].iloc[known].mean()), 1.0)
    independent = {"label": times / label_end_offset, "copy": times / max(label_end_offset, horizon)}
    return Sample(rows, _targets(train, rows, horizon), independent)


def _targets(train: pd.DataFrame, rows: IntArray, horizon: int) -> dict[str, BoolArray]:
    """Binary targets about the future of the sampled rows `[n]`, without those of almost only one class."""
    sampled = train.iloc[rows]
    label = sampled[f"label_h{horizon}"].to_numpy(np.int64)
    targets: dict[str, BoolArray] = {f"label_h{horizon} = {c}": label == c for c in (1, -1)}
    ahead: dict[str, FloatArray] = {
        column: sampled[column].to_numpy(np.float64, na_value=np.nan)
        for column in label_columns(horizon)
        if column in sampled.columns and not column.startswith(("label_", "touch_type_"))
    }
    for bars in sorted({1, horizon}):
        later = train.groupby("symbol", sort=False)["close"].shift(-bars)
        name = "the return over the next bar" if bars == 1 else f"the return over the next {bars} bars"
        ahead[name] = (later / train["close"]).to_numpy(np.float64)[rows]
    targets |= {f"{name} above its median": values > np.nanmedian(values) for name, values in ahead.items()}
    return {name: yes for name, yes in targets.items() if MIN_CLASS <= yes.sum() <= len(rows) - MIN_CLASS}


def univariate_auc(values: npt.NDArray[Any], targets: BoolArray) -> FloatArray:
    """How well one feature predicts binary targets, as an AUC in 0.5 … 1.

    The larger of two: the rank AUC in either direction, and an AUC that finds relations that go up and down as well.
    The latter scores every other block of rows by the share of positives in the feature's bin of 32, taken from the
    other blocks. `[n]` values and `[T, n]` targets, where T may be 0, give `[T]`.
    """
    if not targets.size:
        return np.empty(0)
    ranks = average_ranks(values)
    bins = ((ranks - 1) * BINS / len(ranks)).astype(np.int64)
    plain = np.array([rank_auc(ranks, positive) for positive in targets])
    return np.maximum(0.5 + np.abs(plain - 0.5), [_binned_auc(bins, positive) for positive in targets])


def average_ranks(values: npt.NDArray[Any]) -> FloatArray:
    """Ranks from 1, ties sharing their mean."""
    return np.asarray(pd.Series(values).rank(), np.float64)


def rank_auc(ranks: FloatArray, positive: BoolArray) -> float:
    """The chance that a positive ranks above a negative, ties counting half (Mann-Whitney)."""
    count = int(positive.sum())
    if count in (0, len(positive)):
        return 0.5
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(positive) - count)))


def _binned_auc(bins: IntArray, positive: BoolArray) -> float:
    fitted = np.arange(len(positive)) * BLOCKS // len(positive) % 2 == 0
    total = np.bincount(bins[fitted], minlength=BINS)
    hits = np.bincount(bins[fitted], weights=positive[fitted], minlength=BINS)
    share = np.where(total > 0, hits / np.maximum(total, 1), positive[fitted].mean())  # the mean for an unseen bin
    return rank_auc(average_ranks(share[bins[~fitted]]), positive[~fitted])
