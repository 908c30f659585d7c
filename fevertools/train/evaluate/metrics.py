"""Metrics, arrays to numbers. Percent where the name is a share that papers print in percent, else plain numbers."""

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix, f1_score, recall_score

from fevertools.encoder import softmax
from fevertools.types import Float32


def classification(logits: npt.NDArray[np.floating], target: Float32) -> dict[str, float]:
    """Figures of one split.

    Args:
        logits: (N, C).
        target: (N, C) vote distribution; its argmax is the label.

    Returns:
        accuracy, mean_recall, mean_f1: percent. ece: 0-1, 15 bins. cross_entropy, kl: nats, against the distribution.
    """
    label, predicted, probabilities = target.argmax(axis=1), logits.argmax(axis=1), softmax(logits)
    present = np.unique(label)
    cross_entropy = -(target * np.log(probabilities + 1e-12)).sum(axis=1).mean()
    entropy = -(target * np.log(np.where(target > 0, target, 1))).sum(axis=1).mean()
    return {
        "accuracy": 100 * float((label == predicted).mean()),
        "mean_recall": 100 * float(recall_score(label, predicted, labels=present, average="macro", zero_division=0)),
        "mean_f1": 100 * float(f1_score(label, predicted, labels=present, average="macro", zero_division=0)),
        "ece": expected_calibration_error(probabilities, label),
        "cross_entropy": float(cross_entropy),
        "kl": float(cross_entropy - entropy),
    }


def expected_calibration_error(
    probabilities: npt.NDArray[np.floating], label: npt.NDArray[np.integer], bins: int = 15
) -> float:
    """Expected calibration error, equal-width bins of the top probability. Guo et al. 2017, Eq. 3: 0-1."""
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == label
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(float((correct[index == b] - confidence[index == b]).sum())) for b in range(bins)]
    return sum(gaps) / len(label)


def per_class_recall(logits: npt.NDArray[np.floating], target: Float32) -> npt.NDArray[np.float64]:
    """Recall of each of the C classes, percent, NaN where a class has no rows: (C,)."""
    matrix = confusion(logits, target).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(100 * matrix.diagonal() / matrix.sum(axis=1))


def per_class_f1(logits: npt.NDArray[np.floating], target: Float32) -> npt.NDArray[np.float64]:
    """F1 of each of the C classes, percent, NaN where a class has no rows: (C,)."""
    classes, label = np.arange(target.shape[1]), target.argmax(axis=1)
    values = f1_score(label, logits.argmax(axis=1), labels=classes, average=None, zero_division=0)
    return np.where(np.isin(classes, label), 100 * values, np.nan)


def confusion(logits: npt.NDArray[np.floating], target: Float32) -> npt.NDArray[np.int64]:
    """Confusion matrix, rows are labels, columns are predictions: int64 (C, C)."""
    labels = np.arange(target.shape[1])
    return np.asarray(confusion_matrix(target.argmax(axis=1), logits.argmax(axis=1), labels=labels))


def fit_temperature(logits: npt.NDArray[np.floating], target: Float32) -> float:
    """The temperature T > 0 that minimises the negative log likelihood of the labels under softmax(logits / T).

    Guo et al. 2017, section 4.2. To be fitted on validation, never on test.
    """
    label = target.argmax(axis=1)
    grid = np.geomspace(0.25, 4.0, 400)
    losses = [-np.log(softmax(logits / t)[np.arange(len(label)), label] + 1e-12).mean() for t in grid]
    return float(grid[int(np.argmin(losses))])
