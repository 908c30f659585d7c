"""Linear probe: how much a logistic regression reads out of frozen embeddings.

DeepFEVER, section III-B: scikit-learn's logistic regression with C = 10000 on features extracted once. There for
AffectNet and RAF-DB; here for FER-2013's seven labels and the eight classes of FER+.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from fevertools.labels import EMOTIONS, FER2013
from fevertools.train.datasets.ferplus import FerPlus, Protocol, Split, select, without_evaluated_twins
from fevertools.train.evaluate.image_sets import split_rows
from fevertools.train.evaluate.protocols import fer2013, protocol_figures
from fevertools.types import Float32

Float64 = npt.NDArray[np.float64]

MAX_ITERATIONS = 1000
"""Of Newton's method, which takes about ten. Where a Hessian is singular, scikit-learn goes on with L-BFGS."""


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """How the probe is fitted."""

    c: float = 10_000.0  # inverse strength of the L2 penalty
    standardise: bool = True  # every coordinate to mean 0 and deviation 1 on the training rows
    balanced: bool = False  # classes weigh the same whatever their number of rows, as DeepFEVER does on AffectNet
    mirror: bool = False  # embeddings are the mean over an image and its mirror image


def fit_probe(embedding: Float32, label: npt.NDArray[np.integer], options: ProbeOptions) -> Pipeline:
    """Fit the probe: multinomial logistic regression in float64, whatever the embeddings are.

    Newton's method reaches the minimum in about ten steps, where L-BFGS takes thousands for so weak a penalty.

    Args:
        embedding: (N, D).
        label: (N,) at least two classes.
        options: C, standardisation and class weights.
    """
    weights = "balanced" if options.balanced else None
    regression = LogisticRegression(
        C=options.c, solver="newton-cholesky", max_iter=MAX_ITERATIONS, class_weight=weights
    )
    scaler = StandardScaler(with_mean=options.standardise, with_std=options.standardise)
    return make_pipeline(scaler, regression).fit(embedding.astype(np.float64), label)


def probe_scores(probe: Pipeline, embedding: Float32, classes: int) -> Float64:
    """Log-probabilities (N, C); -inf for classes that the probe was not fitted on."""
    scores = np.full((len(embedding), classes), -np.inf)
    scores[:, probe.classes_] = probe.predict_log_proba(embedding.astype(np.float64))
    return scores


def evaluate_probe(
    training: Float32, evaluated: Float32, data: FerPlus, split: Split, options: ProbeOptions
) -> dict[str, Any]:
    """Probe both label sets of FER-2013 images. Training rows with a twin in an evaluated split are left out.

    Args:
        training: (N, D) embeddings of all training rows, in their order.
        evaluated: (M, D) embeddings of the rows of `split`.
        data: FER-2013 with FER+.
        split: "validation" or "test".
        options: how the probe is fitted.

    Returns:
        {"fer2013" | "ferplus8": {see `protocol_figures`, "training_rows", "iterations"}}.
    """
    tasks = {
        "fer2013": (fer2013(data, "train"), fer2013(data, split), FER2013),
        "ferplus8": (select(data, "ferplus8", "train"), select(data, "ferplus8", split), EMOTIONS),
    }
    figures = {}
    for name, (given, asked, classes) in tasks.items():
        clean = without_evaluated_twins(data, given.rows)
        probe = fit_probe(_of(training, data, "train", given)[clean], given.target[clean].argmax(axis=1), options)
        scores = probe_scores(probe, _of(evaluated, data, split, asked), len(classes))
        figures[name] = {
            **protocol_figures(scores, asked, data, classes),
            "training_rows": int(clean.sum()),
            "iterations": iterations(probe),
        }
    return figures


def iterations(probe: Pipeline) -> int:
    """Iterations of a fitted probe; `MAX_ITERATIONS` where it did not converge."""
    return int(probe[-1].n_iter_.max())


def _of(embedding: Float32, data: FerPlus, split: Split, protocol: Protocol) -> Float32:
    return embedding[np.searchsorted(split_rows(data, split), protocol.rows)]
