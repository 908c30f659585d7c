"""The figures of one network on the FER+ protocols."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fevertools.labels import EMOTIONS
from fevertools.train.datasets.ferplus import PROTOCOLS, FerPlus, Split, select, without_earlier_twin
from fevertools.train.evaluate.metrics import classification, confusion, per_class_recall
from fevertools.types import Float32

Predict: TypeAlias = Callable[[npt.NDArray[np.uint8]], tuple[Float32, Float32]]
"""uint8 crops (N, 48, 48, 1) -> embeddings (N, D), logits (N, 8)."""


def evaluate_ferplus(predict: Predict, data: FerPlus, split: Split) -> dict[str, Any]:
    """Every protocol on one split, with and without averaging over the mirror image.

    Returns:
        {"flip" | "single": {protocol: {"all" | "without earlier twins": {...}, "recall": ..., "confusion": ...}}}.
        Mirror averaging is the mean of the two logits.
    """
    rows = select(data, "ferplus8", split).rows  # the other protocols are subsets
    crops = data.images[rows][:, :, :, None]
    single = predict(crops)[1]
    flip = np.asarray((single + predict(np.ascontiguousarray(crops[:, :, ::-1]))[1]) / 2, np.float32)
    place = np.full(len(data.images), -1)
    place[rows] = np.arange(len(rows))
    return {
        view: {protocol: _protocol(logits, data, protocol, split, place) for protocol in PROTOCOLS}
        for view, logits in (("single", single), ("flip", flip))
    }


def _protocol(
    logits: Float32, data: FerPlus, protocol: str, split: Split, place: npt.NDArray[np.int64]
) -> dict[str, Any]:
    chosen = select(data, protocol, split)
    mine, classes = logits[place[chosen.rows]][:, : chosen.target.shape[1]], EMOTIONS[: chosen.target.shape[1]]
    clean = without_earlier_twin(data, chosen.rows)
    recall = per_class_recall(mine, chosen.target)
    return {
        "all": {"n": len(mine), **_rounded(classification(mine, chosen.target))},
        "without earlier twins": {"n": int(clean.sum()), **_rounded(classification(mine[clean], chosen.target[clean]))},
        "recall": {
            name: round(float(value), 1) for name, value in zip(classes, recall, strict=True) if not np.isnan(value)
        },
        "confusion": confusion(mine, chosen.target).tolist(),
    }


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    percent = ("accuracy", "mean_recall", "mean_f1")
    return {name: round(value, 2 if name in percent else 4) for name, value in figures.items()}
