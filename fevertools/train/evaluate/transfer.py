"""Transfer to sharp colour photos: emotions of LFW, through detector, crop and network as users get them.

LFW takes no part in any choice and has no split. Its pictures may have served as unlabeled faces in a distillation; its
emotion labels are in no training.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold

from fevertools.labels import EMOTIONS
from fevertools.train.evaluate.probe import ProbeOptions, fit_probe, iterations, probe_scores
from fevertools.train.evaluate.protocols import by_class, counted
from fevertools.types import Float32

Int64 = npt.NDArray[np.int64]

CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger")
"""The emotions of LFW with more than a hundred images, in the order of `labels.EMOTIONS`."""

FOLDS, SEED = 5, 2019


def zero_shot(logits: Float32, label: Int64) -> dict[str, Any]:
    """The class head as it is, on the faces whose label is one of the five.

    Args:
        logits: (M, 8) in the order of `labels.EMOTIONS`.
        label: (M,) index into `labels.EMOTIONS`.

    Returns:
        {"restricted": argmax over the five, "unrestricted": argmax over all eight}, each with the figures of
        `protocols.counted`, of which `mean_recall` over the five is the headline, "recall" and "f1".
    """
    columns = np.array([EMOTIONS.index(name) for name in CLASSES])
    rows = np.isin(label, columns)
    target = np.eye(len(EMOTIONS), dtype=np.float32)[label[rows]]
    return {
        "restricted": _figures(logits[rows][:, columns], target[:, columns], CLASSES),
        "unrestricted": _figures(logits[rows], target, EMOTIONS),
    }


def transfer_probe(embedding: Float32, label: Int64, person: Int64, options: ProbeOptions) -> dict[str, Any]:
    """Linear probe over the five classes in five folds that share no person; every class weighs the same.

    C = 10000 is that of the papers; C = 1 is beside it because some hundred faces a class leave 256 dimensions room to
    overfit.

    Args:
        embedding: (M, D).
        label: (M,) index into `labels.EMOTIONS`.
        person: (M,) anonymous number of the person.
        options: of which standardisation is taken.

    Returns:
        {"C=10000" | "C=1": figures over all faces, each judged by the fold that has not seen the person}.
    """
    columns = np.array([EMOTIONS.index(name) for name in CLASSES])
    rows = np.isin(label, columns)
    embedding, person = embedding[rows], person[rows]
    own = np.searchsorted(columns, label[rows])  # 0-4
    target = np.eye(len(CLASSES), dtype=np.float32)[own]
    figures = {}
    for c in (10_000.0, 1.0):
        chosen = replace(options, c=c, balanced=True)
        scores, most = np.empty(target.shape), 0
        for fitted, judged in folds(own, person):
            probe = fit_probe(embedding[fitted], own[fitted], chosen)
            scores[judged] = probe_scores(probe, embedding[judged], len(CLASSES))
            most = max(most, iterations(probe))
        figures[f"C={c:g}"] = {**_figures(scores, target, CLASSES), "iterations": most}
    return figures


def folds(label: Int64, person: Int64) -> list[tuple[Int64, Int64]]:
    """Rows to fit on and rows to judge, five times: no person on both sides, classes as even as that allows."""
    split = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=SEED).split(label, label, person)
    return [(np.asarray(fitted), np.asarray(judged)) for fitted, judged in split]


def _figures(logits: npt.NDArray[np.floating], target: Float32, classes: tuple[str, ...]) -> dict[str, Any]:
    return {**counted(logits, target), **by_class(logits, target, classes)}
