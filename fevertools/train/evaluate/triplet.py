"""Triplet accuracy, and what a difference of two similarities means."""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.preprocessing import normalize

from fevertools.train.datasets.ferplus import FerPlus, Split
from fevertools.train.datasets.triplets import vote_triplets
from fevertools.train.evaluate.image_sets import split_rows
from fevertools.train.evaluate.networks import Outputs
from fevertools.train.losses.fec_triplet import ONE_CLASS, THREE_CLASS, TWO_CLASS
from fevertools.types import Float32

Int64 = npt.NDArray[np.int64]

COUNT, SEED = 6000, 2019
"""The fixed lists: a third of each kind, from PublicTest or from PrivateTest."""

KINDS = {ONE_CLASS: "one-class", TWO_CLASS: "two-class", THREE_CLASS: "three-class"}
EDGES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5)
"""Between the bins of the difference of two cosines, which is 0 to 2."""


def evaluate_triplets(outputs: Outputs, data: FerPlus, split: Split) -> dict[str, Any]:
    """Triplet accuracy on the fixed list of a split.

    Args:
        outputs: for the rows of `split`, in their order.
        data: FER-2013 with FER+.
        split: "validation" or "test".

    Returns:
        {"seed", "embedding": see `triplet_accuracy`, "head": the same on the outputs of the triplet head, if any}.
    """
    triplets, kinds = fixed_list(data, split)
    figures: dict[str, Any] = {"seed": SEED, "embedding": triplet_accuracy(outputs.embedding, triplets, kinds)}
    if outputs.triplet is not None:
        figures["head"] = triplet_accuracy(outputs.triplet, triplets, kinds)
    return figures


def fixed_list(data: FerPlus, split: Split) -> tuple[Int64, Int64]:
    """What every network is measured on: triplets (T, 3) by position in the split, similar pair first; kinds (T,)."""
    rows, kinds = vote_triplets(data, split, COUNT, SEED)
    return np.searchsorted(split_rows(data, split), rows), kinds


def triplet_accuracy(vectors: Float32, triplets: Int64, kinds: Int64) -> dict[str, float]:
    """Share of triplets whose similar pair is the closest of the three. Vemulapalli & Agarwala 2019, section 5.

    Args:
        vectors: (N, D) any norm; compared by the squared distance of vectors of length 1.
        triplets: (T, 3) rows of `vectors`, the similar pair first.
        kinds: (T,) `ONE_CLASS`, `TWO_CLASS` or `THREE_CLASS`.

    Returns:
        {"n": T, "all": percent, and percent for each kind that is there}. A tie is a miss, so that vectors that are all
        equal score 0, not 100; a third is chance.
    """
    first, second, odd = normalize(vectors.astype(np.float64))[triplets.T]
    near, *far = (((a - b) ** 2).sum(axis=1) for a, b in ((first, second), (first, odd), (second, odd)))
    right = near < np.minimum(*far)
    figures = {"n": len(triplets), "all": round(100 * float(right.mean()), 2)}
    for kind, name in KINDS.items():
        if (kinds == kind).any():
            figures[name] = round(100 * float(right[kinds == kind].mean()), 2)
    return figures


def agreement(vectors: Float32, triplets: Int64) -> list[dict[str, float]]:
    """How often votes agree that b is more alike to a than c is, by how much larger the cosine of (a, b) is.

    Every triplet (a, b, c) of which votes say that (a, b) is the similar pair is looked at from a. Where (a, b) has the
    larger cosine, votes agree with the similarity; where (a, c) has, they do not. Triplets are clear ones, so that this
    says nothing of faces that votes hardly tell apart.

    Args:
        vectors: (N, D) any norm.
        triplets: (T, 3) rows of `vectors`, the similar pair first.

    Returns:
        Bins with triplets in them, ascending: {"difference": mean difference of the two cosines, 0-2; "share": 0-1, of
        triplets in which votes agree; "n": triplets}.
    """
    a, b, c = normalize(vectors.astype(np.float64))[triplets.T]
    difference = (a * b).sum(axis=1) - (a * c).sum(axis=1)
    size = np.abs(difference)
    bins = np.digitize(size, EDGES)
    return [
        {
            "difference": round(float(size[bins == number].mean()), 2),
            "share": round(float((difference[bins == number] > 0).mean()), 4),
            "n": int((bins == number).sum()),
        }
        for number in np.unique(bins)
    ]
