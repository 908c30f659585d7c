"""The figures of one network on the FER+ protocols."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fevertools.errors import DataError
from fevertools.labels import EMOTIONS, FER2013
from fevertools.train.datasets.ferplus import PROTOCOLS, FerPlus, Protocol, Split, select, without_earlier_twin
from fevertools.train.evaluate.image_sets import Encoded, split_rows
from fevertools.train.evaluate.metrics import classification, confusion, per_class_f1, per_class_recall
from fevertools.types import Float32


def evaluate_ferplus(encoded: Encoded, data: FerPlus, split: Split) -> dict[str, Any]:
    """Every protocol on one split, with and without averaging over the mirror image.

    Args:
        encoded: the images of that split, in the order of their rows.
        data: FER-2013 with FER+.
        split: which one.

    Returns:
        {"flip" | "single": {protocol: see `protocol_figures`}}. Mirror averaging is the mean of the two logits. A
        network with a head for the seven FER-2013 labels has the protocol "fer2013", beside those of FER+ or alone.

    Raises:
        DataError: the network has no class logits.
    """
    rows = split_rows(data, split)
    views = {"single": encoded.single}
    if views["single"].logits is None and views["single"].fer2013 is None:
        raise DataError("these weights have no class logits")
    views["flip"] = encoded.flip
    figures: dict[str, Any] = {}
    for view, outputs in views.items():
        figures[view] = {}
        for protocol in PROTOCOLS if outputs.logits is not None else ():
            assert outputs.logits is not None
            chosen = select(data, protocol, split)
            classes = EMOTIONS[: chosen.target.shape[1]]
            if len(classes) > outputs.logits.shape[1]:
                continue  # a network without contempt has the seven-class protocol only
            mine = outputs.logits[np.searchsorted(rows, chosen.rows)][:, : len(classes)]
            figures[view][protocol] = protocol_figures(mine, chosen, data, classes)
        if outputs.fer2013 is not None:
            figures[view]["fer2013"] = protocol_figures(outputs.fer2013, fer2013(data, split), data, FER2013)
    return figures


def fer2013(data: FerPlus, split: Split) -> Protocol:
    """All rows of a split with their FER-2013 label, one-hot over the seven."""
    rows = split_rows(data, split)
    return Protocol(rows, np.eye(len(FER2013), dtype=np.float32)[data.label[rows]])


def protocol_figures(
    logits: npt.NDArray[np.floating], chosen: Protocol, data: FerPlus, classes: tuple[str, ...]
) -> dict[str, Any]:
    """Figures on the rows of one protocol.

    Args:
        logits: (N, C) for the rows of `chosen`.
        chosen: rows and targets.
        data: tells which rows have a twin in an earlier split.
        classes: C names.

    Returns:
        {"all" | "without earlier twins": {"n", and those of `metrics.classification`}, "recall" | "f1": {class:
        percent}, "confusion": rows of counts}.
    """
    clean = without_earlier_twin(data, chosen.rows)
    return {
        "all": counted(logits, chosen.target),
        "without earlier twins": counted(logits[clean], chosen.target[clean]),
        **by_class(logits, chosen.target, classes),
        "confusion": confusion(logits, chosen.target).tolist(),
    }


def counted(logits: npt.NDArray[np.floating], target: Float32) -> dict[str, float]:
    """Number of rows and the figures of `metrics.classification`, rounded as they are printed."""
    percent = ("accuracy", "mean_recall", "mean_f1")
    figures = classification(logits, target).items()
    return {"n": len(logits), **{name: round(value, 2 if name in percent else 4) for name, value in figures}}


def by_class(
    logits: npt.NDArray[np.floating], target: Float32, classes: tuple[str, ...]
) -> dict[str, dict[str, float]]:
    """Recall and F1 of each class that has rows, percent: {"recall" | "f1": {class: value}}."""
    values = {"recall": per_class_recall(logits, target), "f1": per_class_f1(logits, target)}
    return {
        name: {c: round(float(v), 1) for c, v in zip(classes, row, strict=True) if not np.isnan(v)}
        for name, row in values.items()
    }
