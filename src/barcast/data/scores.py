"""How well one feature alone tells the outcome: too well means that it knows the future."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from barcast.data.labels import label_columns
from barcast.data.splits import feature_columns
from barcast.errors import LeakageError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

SCORED_ROWS = 20_000
BINS = 32
BLOCKS = 20  # of consecutive rows, learnt from and scored in turn: neighbours share their outcome
MIN_CLASS = 50  # fewer answers of one kind say nothing: their AUC is noise


def check_scores(train: pd.DataFrame, horizons: Sequence[int], max_score: float, seed: int) -> dict[str, Any]:
    """No feature alone may tell the outcome: a forgotten column of the future does.

    Asked of each feature and horizon is whether the label is +1, whether it is -1, and whether each other label
    column and the returns over the next bar and the horizon lie above their medians, which finds copies of
    these. The limit for copies lies half-way from `max_score` to 1: honest features do tell something of them,
    since a sample weight depends on the labels before it and a move in price on the volatility.

    Args:
        train: the train split.
        horizons: whose labels to try.
        max_score: an AUC; real markets rarely exceed 0.6 for the label.
        seed: chooses the rows where there are more than 20,000.

    Raises:
        LeakageError: naming the feature, what it tells, and its score.
    """
    names = feature_columns(train.columns)
    rng = np.random.default_rng(seed)
    found = {True: (0.5, "", ""), False: (0.5, "", "")}  # by whether the label is asked for: score, feature, question
    asked = rows = 0
    for horizon in horizons:
        known = np.flatnonzero(train[f"label_h{horizon}"].notna())
        sample = np.sort(rng.choice(known, min(SCORED_ROWS, len(known)), replace=False))
        questions = _questions(train, sample, horizon)
        asked, rows = asked + len(questions), rows + len(sample)
        for name in names:
            scores = score(train[name].to_numpy()[sample], np.array(list(questions.values()), bool))
            for question, value in zip(questions, scores.tolist(), strict=True):
                kind = question.startswith("label_")
                found[kind] = max(found[kind], (value, name, question))
    _refuse(*found[True], max_score, max_score)
    _refuse(*found[False], (1 + max_score) / 2, max_score)
    worst, fields = {"label": found[True], "copy": found[False]}, ("score", "feature", "question")
    return {
        "examined": {"features": len(names), "questions": asked, "rows": rows},
        "worst": {kind: dict(zip(fields, values, strict=True)) for kind, values in worst.items()},
    }


def _refuse(value: float, feature: str, question: str, limit: float, max_score: float) -> None:
    if value > limit:
        raise LeakageError(
            f"feature '{feature}' alone predicts {question} with AUC {value:.3f}, above {limit:g} (from "
            f"data.audit.max_feature_score = {max_score:g}); drop it if it knows the future, else raise the limit"
        )


def _questions(train: pd.DataFrame, sample: IntArray, horizon: int) -> dict[str, BoolArray]:
    """Yes-no questions about the future of the sampled rows `[n]`, those answered one way nearly always left out."""
    rows = train.iloc[sample]
    label = rows[f"label_h{horizon}"].to_numpy(np.int64)
    questions: dict[str, BoolArray] = {f"label_h{horizon} = {c}": label == c for c in (1, -1)}
    ahead: dict[str, FloatArray] = {
        column: rows[column].to_numpy(np.float64, na_value=np.nan)
        for column in label_columns(horizon)
        if column in rows.columns and not column.startswith(("label_", "touch_type_"))
    }
    for bars in sorted({1, horizon}):
        later = train.groupby("symbol", sort=False)["close"].shift(-bars)
        ahead["the return over the next bar" if bars == 1 else f"the return over the next {bars} bars"] = (
            later / train["close"]
        ).to_numpy(np.float64)[sample]
    questions |= {f"{name} above its median": values > np.nanmedian(values) for name, values in ahead.items()}
    return {name: yes for name, yes in questions.items() if MIN_CLASS <= yes.sum() <= len(yes) - MIN_CLASS}


def score(values: npt.NDArray[Any], answers: BoolArray) -> FloatArray:
    """How well one feature tells the answers, as an AUC in 0.5 … 1.

    The larger of the rank AUC, whichever way round, and the AUC on every other block of rows of the share of
    yes that the rest show in each of 32 bins of the feature: this finds relations that go up and down as well.

    Args:
        values: `[n]`.
        answers: `[Q, n]`, Q may be 0.

    Returns:
        `[Q]`.
    """
    if not answers.size:
        return np.empty(0)
    ranks = average_ranks(values)
    bins = ((ranks - 1) * BINS / len(ranks)).astype(np.int64)
    plain = [rank_auc(ranks, yes) for yes in answers]
    binned = [_binned_auc(bins, yes) for yes in answers]
    best: FloatArray = np.maximum(0.5 + np.abs(np.array(plain) - 0.5), np.array(binned))
    return best


def average_ranks(values: npt.NDArray[Any]) -> FloatArray:
    """Ranks from 1, ties sharing their mean."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: FloatArray = (last - (counts - 1) / 2)[group]
    return ranks


def rank_auc(ranks: FloatArray, yes: BoolArray) -> float:
    """The chance that a yes ranks above a no, ties counting half (Mann-Whitney)."""
    count = int(yes.sum())
    if count in (0, len(yes)):
        return 0.5
    return float((ranks[yes].sum() - count * (count + 1) / 2) / (count * (len(yes) - count)))


def _binned_auc(bins: IntArray, yes: BoolArray) -> float:
    learning = np.arange(len(yes)) * BLOCKS // len(yes) % 2 == 0
    total = np.bincount(bins[learning], minlength=BINS)
    hits = np.bincount(bins[learning], weights=yes[learning], minlength=BINS)
    share = np.where(total > 0, hits / np.maximum(total, 1), yes[learning].mean())  # an unseen bin says nothing
    return rank_auc(average_ranks(share[bins[~learning]]), yes[~learning])
