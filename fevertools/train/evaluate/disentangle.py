"""How far expression and identity are apart in the two features of ED2L: linear probes for both, on both."""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import RidgeClassifierCV
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from fevertools.train.evaluate.probe import ProbeOptions, fit_probe
from fevertools.types import Float32

Int64 = npt.NDArray[np.integer]

IMAGES_OF_A_PERSON, FOLDS, SEED = 10, 5, 2019
PENALTIES = (1.0, 10.0, 100.0, 1000.0, 10000.0)  # of the weights; each fit takes that of the least left-out error


def expression_probe(training: Float32, label: Int64, judged: Float32, judged_label: Int64) -> float:
    """Accuracy, percent, of a linear probe (C = 1, standardised) for the expression.

    Args:
        training, judged: features (N, D) and (M, D).
        label, judged_label: (N,) and (M,).
    """
    probe = fit_probe(training, label, ProbeOptions(c=1.0))
    return round(100 * float((probe.predict(judged.astype(np.float64)) == judged_label).mean()), 2)


def identity_probe(features: Float32, person: Int64) -> dict[str, float]:
    """How well a linear classifier tells the people apart of whom there are ten images or more.

    It measures what a feature carries, as leakage does; no person is named and no classifier is kept.

    Args:
        features: (N, D).
        person: (N,) anonymous number.

    Returns:
        {"people", "images", "accuracy": percent over five folds of images, "chance": percent of the most frequent}.
    """
    counts = np.bincount(person)
    rows = np.flatnonzero(counts[person] >= IMAGES_OF_A_PERSON)
    own, vectors = person[rows], features[rows].astype(np.float64)
    # Least squares: a regression over more than a hundred people takes hours, as many support vector machines minutes.
    probe: Pipeline = make_pipeline(StandardScaler(), RidgeClassifierCV(PENALTIES))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
    accuracy = float(np.mean(cross_val_score(probe, vectors, own, cv=folds)))
    return {
        "people": len(np.unique(own)),
        "images": len(rows),
        "accuracy": round(100 * accuracy, 2),
        "chance": round(100 * float(np.bincount(own).max() / len(rows)), 2),
    }


def disentanglement(
    features: dict[str, tuple[Float32, Float32, Float32]], label: Int64, judged_label: Int64, person: Int64
) -> dict[str, Any]:
    """Both probes on each feature.

    Args:
        features: name -> the feature of the training rows, of the judged rows and of LFW.
        label, judged_label: FER-2013 labels of the first two.
        person: of LFW.
    """
    return {
        name: {
            "expression": expression_probe(training, label, judged, judged_label),
            "identity": identity_probe(faces, person),
        }
        for name, (training, judged, faces) in features.items()
    }
