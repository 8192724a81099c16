"""How well one feature alone tells the outcome: too well means that it knows the future."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
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
MARGIN = 1.15  # features drift as slowly as labels overlap: of 960 martingales 11 are refused without it, none with it
CERTAIN = 0.95  # on however little data, a feature that tells the label better than this knows it


def check_scores(train: pd.DataFrame, horizons: Sequence[int], max_score: float, seed: int) -> dict[str, Any]:
    """No feature alone may tell the outcome: a forgotten column of the future does.

    Asked of each feature and horizon is whether the label is +1, whether it is -1, and whether each other label
    column and the returns over the next bar and the horizon lie above their medians, which finds copies of
    these. The limit for copies lies half-way from `max_score` to 1: honest features do tell something of them,
    since a sample weight depends on the labels before it and a move in price on the volatility. On little data
    a limit is raised to what chance reaches, see `chance_score`.

    Args:
        train: the train split.
        horizons: whose labels to try.
        max_score: an AUC; real markets rarely exceed 0.6 for the label.
        seed: chooses the rows where there are more than 20,000.

    Returns:
        What was `examined`, and the `worst` of labels and copies: nearest to its limit.

    Raises:
        LeakageError: naming the feature, what it tells, its score and the limit.
    """
    names, rng = feature_columns(train.columns), np.random.default_rng(seed)
    asked = [_ask(train, horizon, rng) for horizon in horizons]
    count = sum(len(each.questions) for each in asked)
    found = {"label": Found(), "copy": Found()}
    for each in asked:
        for one in _answers(train, names, each, each.limits(max_score, len(names) * count)):
            kind = _kind(one.question)
            found[kind] = max(found[kind], one, key=Found.excess)
    for worst in found.values():
        _refuse(worst, max_score)
    return {
        "examined": {"features": len(names), "questions": count, "rows": sum(len(each.rows) for each in asked)},
        "worst": {kind: asdict(worst) for kind, worst in found.items()},
    }


@dataclass(frozen=True)
class Found:
    """How well a feature answers a question about the future, and above which score it is refused."""

    score: float = 0.5
    limit: float = 1.0
    feature: str = ""
    question: str = ""

    def excess(self) -> float:
        return self.score - self.limit


@dataclass(frozen=True)
class Asked:
    """What is asked of one horizon's rows, and about how many of their answers don't overlap, by kind of question."""

    rows: IntArray  # [n]
    questions: dict[str, BoolArray]  # [n] each
    independent: dict[str, float]

    def limits(self, max_score: float, tests: int) -> list[float]:
        """The score above which each question's best feature is refused; `tests` are features × questions in all."""
        limits = []
        for question, yes in self.questions.items():
            independent = min(self.independent[_kind(question)], len(yes))
            chance = chance_score(independent, float(yes.mean()), tests)
            limits.append(max(_for_kind(question, max_score), min(chance, _for_kind(question, CERTAIN))))
        return limits


def _kind(question: str) -> str:
    return "label" if question.startswith("label_") else "copy"


def _for_kind(question: str, limit: float) -> float:
    return limit if _kind(question) == "label" else (1 + limit) / 2


def chance_score(independent: float, share: float, tests: int) -> float:
    """The AUC that the best of many features that know nothing stays below, in 19 of 20 data sets.

    Without knowledge an AUC has the standard deviation `1 / sqrt(12 n p (1 - p))` (Mann and Whitney 1947), n being the
    number of independent answers and p the share of yes; how many of these the best of all tests strays from 0.5
    is bounded as Bonferroni did. `MARGIN` comes on top.

    Args:
        independent: answers that don't overlap.
        share: of yes, neither 0 nor 1.
        tests: features × questions.
    """
    far = NormalDist().inv_cdf(1 - 0.05 / 2 / tests)
    return 0.5 + MARGIN * far / math.sqrt(12 * independent * share * (1 - share))


def _ask(train: pd.DataFrame, horizon: int, rng: np.random.Generator) -> Asked:
    """Labels overlap while they look ahead, and symbols move together: of n bars' times n / reach answers are new."""
    known = np.flatnonzero(train[f"label_h{horizon}"].notna())
    rows = np.sort(rng.choice(known, min(SCORED_ROWS, len(known)), replace=False))
    times = train["datetime"].iloc[known].nunique()
    reach = max(float(train[f"bars_to_hit_h{horizon}"].iloc[known].mean()), 1.0)
    independent = {"label": times / reach, "copy": times / max(reach, horizon)}
    return Asked(rows, _questions(train, rows, horizon), independent)


def _answers(train: pd.DataFrame, names: Sequence[str], asked: Asked, limits: Sequence[float]) -> Iterator[Found]:
    answers = np.array(list(asked.questions.values()), bool)  # [Q, n]
    for name in names:
        scores = score(train[name].to_numpy()[asked.rows], answers).tolist()
        for question, value, limit in zip(asked.questions, scores, limits, strict=True):
            yield Found(value, limit, name, question)


def _refuse(found: Found, max_score: float) -> None:
    if found.score <= found.limit:
        return
    raised = found.limit > _for_kind(found.question, max_score)
    source = f"data.audit.max_feature_score = {max_score:g}"
    source += ", raised to what chance alone can reach on so few independent labels" if raised else ""
    raise LeakageError(
        f"feature '{found.feature}' alone predicts {found.question} with AUC {found.score:.3f}, above "
        f"{found.limit:.3g} (from {source}); drop it if it knows the future, else raise the limit"
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
