"""How good are the classes and their probabilities? Pure functions, scikit-learn where it has the metric.

scikit-learn is imported where it is called: the checks of params.yaml read `EvaluateConfig` and should not
wait two seconds for it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from barcast.errors import ModelError
from barcast.evaluation.calibration import expected_calibration_error
from barcast.models.base import CLASSES, Labels, Probabilities, log_loss

Metrics = dict[str, float | None]

CLASS_NAMES = ("down", "flat", "up")


def defined(value: float) -> float | None:
    """A finite number as it is, None (JSON null) for NaN and infinity."""
    return float(value) if np.isfinite(value) else None


def classification_metrics(probabilities: npt.ArrayLike, y: npt.ArrayLike, bins: int) -> Metrics:
    """Score probabilities, and the classes that they favour, against the truth.

    None where a value is undefined: the precision of a class never predicted, the recall of a class that
    never came, the F1 of one that neither did, `auc_ovr` where no class has both outcomes. Macro averages
    (`macro_f1`, `balanced_accuracy`, `auc_ovr`) go over the classes where the value is defined. `mcc` is 0
    where predictions or truth are constant (scikit-learn's convention, the limit of Gorodkin 2004, eq. 7).

    Args:
        probabilities: `[N, 3]`, ordered (−1, 0, +1), rows summing to 1.
        y: `[N]` in {−1, 0, 1}.
        bins: bins of the expected calibration error.

    Returns:
        accuracy, balanced_accuracy, macro_f1, precision_/recall_/f1_ of down, flat and up, mcc,
        log_loss (nats), brier (sum over the classes, 0 … 2), auc_ovr, ece.

    Raises:
        ModelError: shapes that do not belong together, or no window at all.
    """
    from sklearn import metrics as sk

    p, truth = np.asarray(probabilities, np.float64), np.asarray(y, np.int64)
    if p.shape != (len(truth), len(CLASSES)) or not len(truth):
        raise ModelError(f"metrics: expected probabilities [N, 3] and labels [N], N ≥ 1, got {p.shape}, {truth.shape}")
    predicted = np.asarray(CLASSES)[p.argmax(axis=1)]
    return {
        "accuracy": defined(sk.accuracy_score(truth, predicted)),
        "balanced_accuracy": defined(sk.recall_score(truth, predicted, average="macro", zero_division=np.nan)),
        "macro_f1": defined(sk.f1_score(truth, predicted, average="macro", zero_division=np.nan)),
        **_by_class(truth, predicted),
        "mcc": float(sk.matthews_corrcoef(truth, predicted)) if np.ptp(truth) and np.ptp(predicted) else 0.0,
        **probability_metrics(p, truth, bins),
        "auc_ovr": auc_ovr(p, truth),
    }


def probability_metrics(probabilities: Probabilities, y: Labels, bins: int) -> Metrics:
    """`log_loss`, `brier` and `ece` of `[N, 3]` probabilities and `[N]` labels: what calibration changes."""
    from sklearn.metrics import brier_score_loss

    return {
        "log_loss": log_loss(probabilities, y),
        "brier": defined(brier_score_loss(y, probabilities, labels=CLASSES, scale_by_half=False)),
        "ece": expected_calibration_error(probabilities, y, bins),
    }


def auc_ovr(probabilities: Probabilities, y: Labels) -> float | None:
    """One-vs-rest area under the ROC curve, `[N, 3]` and `[N]`, averaged over the classes that have both outcomes.

    None where no class has both, that is where y is constant.
    """
    from sklearn.metrics import roc_auc_score

    outcomes = [(y == label, probabilities[:, column]) for column, label in enumerate(CLASSES)]
    scores = [roc_auc_score(truth, score) for truth, score in outcomes if 0 < truth.sum() < len(truth)]
    return float(np.mean(scores)) if scores else None


def _by_class(truth: Labels, predicted: Labels) -> Metrics:
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(truth, predicted, labels=CLASSES, zero_division=np.nan)
    return {
        f"{metric}_{name}": defined(value)
        for metric, values in zip(("precision", "recall", "f1"), columns, strict=False)
        for name, value in zip(CLASS_NAMES, values, strict=True)
    }
