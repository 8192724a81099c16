from __future__ import annotations

import json
import math

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from barcast.errors import ModelError
from barcast.evaluation.metrics import auc_ovr, classification_metrics, expected_calibration_error, reliability_table

RNG = np.random.default_rng(7)
P = RNG.dirichlet([1.0, 1.5, 2.0], 300)
Y = RNG.integers(-1, 2, 300)


def slow_metrics(p: np.ndarray, y: np.ndarray) -> dict[str, float | None]:
    """Straight from the definitions, one window at a time."""
    predicted = [int(np.argmax(row)) - 1 for row in p]
    pairs = list(zip(y.tolist(), predicted, strict=True))
    metrics: dict[str, float | None] = {"accuracy": sum(a == b for a, b in pairs) / len(pairs)}
    recalls, scores = [], []
    for label, name in ((-1, "down"), (0, "flat"), (1, "up")):
        hit = sum(a == b == label for a, b in pairs)
        predicted_count = sum(b == label for _, b in pairs)
        actual_count = sum(a == label for a, _ in pairs)
        metrics[f"precision_{name}"] = hit / predicted_count if predicted_count else None
        metrics[f"recall_{name}"] = hit / actual_count if actual_count else None
        metrics[f"f1_{name}"] = 2 * hit / (predicted_count + actual_count) if predicted_count + actual_count else None
        recalls.append(metrics[f"recall_{name}"])
        scores.append(metrics[f"f1_{name}"])
    metrics["balanced_accuracy"] = np.mean([r for r in recalls if r is not None])
    metrics["macro_f1"] = np.mean([s for s in scores if s is not None])
    metrics["log_loss"] = sum(-math.log(max(row[label + 1], 1e-15)) for row, label in zip(p, y, strict=True)) / len(y)
    metrics["brier"] = sum(
        sum((row[k] - (label + 1 == k)) ** 2 for k in range(3)) for row, label in zip(p, y, strict=True)
    ) / len(y)
    return metrics


def slow_auc(p: np.ndarray, y: np.ndarray) -> float | None:
    """The share of pairs ranked rightly, ties half, averaged over the classes with both outcomes."""
    areas = []
    for k, label in enumerate((-1, 0, 1)):
        inside, outside = p[y == label, k], p[y != label, k]
        if len(inside) and len(outside):
            areas.append(np.mean([(a > b) + 0.5 * (a == b) for a in inside for b in outside]))
    return float(np.mean(areas)) if areas else None


def slow_ece(p: np.ndarray, y: np.ndarray, bins: int) -> float:
    total = 0.0
    for m in range(bins):
        low, high = m / bins, (m + 1) / bins
        chosen = [i for i in range(len(y)) if low < p[i].max() <= high]
        if chosen:
            accuracy = np.mean([np.argmax(p[i]) - 1 == y[i] for i in chosen])
            confidence = np.mean([p[i].max() for i in chosen])
            total += len(chosen) / len(y) * abs(accuracy - confidence)
    return total


def check_against_oracles(p: np.ndarray, y: np.ndarray) -> None:
    metrics = classification_metrics(p, y, bins=10)
    for key, value in slow_metrics(p, y).items():
        assert metrics[key] == (None if value is None else pytest.approx(value, abs=1e-12)), key
    area = slow_auc(p, y)
    assert metrics["auc_ovr"] == (None if area is None else pytest.approx(area))
    assert metrics["ece"] == pytest.approx(slow_ece(p, y, 10))


def test_all_metrics_against_slow_oracles():
    check_against_oracles(P, Y)


def test_metrics_against_scikit_learn():
    metrics = classification_metrics(P, Y, bins=15)
    predicted = P.argmax(axis=1) - 1
    assert metrics["log_loss"] == pytest.approx(sklearn.metrics.log_loss(Y, P, labels=[-1, 0, 1]))
    assert metrics["balanced_accuracy"] == pytest.approx(sklearn.metrics.balanced_accuracy_score(Y, predicted))
    assert metrics["mcc"] == pytest.approx(sklearn.metrics.matthews_corrcoef(Y, predicted))
    assert metrics["auc_ovr"] == pytest.approx(sklearn.metrics.roc_auc_score(Y, P, multi_class="ovr"))


@settings(max_examples=30, deadline=None)
@given(
    scores=hnp.arrays(np.float64, st.tuples(st.integers(1, 12), st.just(3)), elements=st.sampled_from([0.1, 0.5, 1.0])),
    data=st.data(),
)
def test_small_samples_with_ties_and_absent_classes(scores, data):
    y = np.array(data.draw(st.lists(st.integers(-1, 1), min_size=len(scores), max_size=len(scores))))
    p = scores / scores.sum(axis=1, keepdims=True)
    check_against_oracles(p, y)
    json.dumps(classification_metrics(p, y, bins=5), allow_nan=False)


def test_perfect_and_certain():
    metrics = classification_metrics(np.eye(3)[Y + 1], Y, bins=15)
    for key in ("accuracy", "balanced_accuracy", "macro_f1", "mcc", "auc_ovr"):
        assert metrics[key] == 1.0
    assert metrics["brier"] == metrics["ece"] == 0.0


def test_undefined_values_are_none():
    constant = np.tile([0.2, 0.5, 0.3], (4, 1))
    metrics = classification_metrics(constant, np.array([1, 1, 1, 1]), bins=15)
    assert metrics["precision_up"] is None  # never predicted
    assert metrics["recall_flat"] is None  # never true
    assert metrics["f1_down"] is None  # neither
    assert metrics["f1_up"] == metrics["f1_flat"] == 0.0
    assert metrics["auc_ovr"] is None
    assert metrics["mcc"] == 0.0


def test_auc_averages_over_the_classes_with_both_outcomes():
    p = np.array([[0.6, 0.0, 0.4], [0.3, 0.0, 0.7], [0.8, 0.0, 0.2]])
    assert auc_ovr(p, np.array([-1, 1, 1])) == pytest.approx(0.5)  # flat is never true and does not count


@pytest.mark.parametrize(
    ("p", "y"), [(np.ones((3, 2)) / 2, [0, 0, 0]), (np.ones((2, 3)) / 3, [0]), (np.empty((0, 3)), [])]
)
def test_shapes_that_do_not_belong_together(p, y):
    with pytest.raises(ModelError, match=r"expected probabilities \[N, 3\] and labels \[N\], N ≥ 1, got"):
        classification_metrics(p, y, bins=15)


def test_reliability_table_holds_its_bins_upper_edge():
    p = np.array([[0.5, 0.5, 0.0], [0.75, 0.25, 0.0], [0.0, 0.0, 1.0], [0.0, 0.1, 0.9]])
    table = reliability_table(p, np.array([-1, 1, 1, 1]), bins=4)
    assert table["count"].tolist() == [0, 1, 1, 2]
    assert table["confidence"].iloc[1:].tolist() == [0.5, 0.75, 0.95]
    assert table["accuracy"].iloc[1:].tolist() == [1.0, 0.0, 1.0]
    assert table.iloc[0][["confidence", "accuracy"]].isna().all()
    assert (table["low"].iloc[0], table["high"].iloc[-1]) == (0.0, 1.0)


def test_calibration_error_of_an_honest_and_a_boastful_model():
    y = np.repeat([1, -1], [60, 40])
    honest, boastful = np.tile([0.4, 0.0, 0.6], (100, 1)), np.tile([0.1, 0.0, 0.9], (100, 1))
    assert expected_calibration_error(honest, y, bins=15) == pytest.approx(0.0)
    assert expected_calibration_error(boastful, y, bins=15) == pytest.approx(0.3)
