"""Triplets of faces drawn from FER+ votes: the open stand-in for the annotated triplets of FEC."""

import numpy as np
import numpy.typing as npt
import torch

from fevertools.errors import DataError
from fevertools.train.datasets.ferplus import FerPlus, Split, select, without_earlier_twin, without_evaluated_twins
from fevertools.train.losses.fec_triplet import ONE_CLASS, THREE_CLASS, TWO_CLASS
from fevertools.train.losses.vote_triplets import GAP, jensen_shannon, triplet_kind

Int64 = npt.NDArray[np.int64]

KINDS = (ONE_CLASS, TWO_CLASS, THREE_CLASS)
DRAWS, MOST_DRAWS = 1 << 16, 1 << 24  # at a time, in all

# Images of a triplet (i, j, k), the similar pair first, by which of the sides ij, ik and jk is the shortest.
ORDERS = np.array([(0, 1, 2), (0, 2, 1), (1, 2, 0)])


def vote_triplets(data: FerPlus, split: Split, count: int, seed: int) -> tuple[Int64, Int64]:
    """Random triplets of the protocol `ferplus8` whose similar pair is clear, in equal parts of the three types.

    Three images are drawn; the pair with the closest vote distributions (Jensen-Shannon) is the similar one, and the
    triplet is kept when the runner-up is at least `vote_triplets.GAP` nats further. Types are equally frequent, as in
    FEC. No image has a pixel-identical twin in its triplet, nor, for training, in an evaluated split, nor, for
    evaluation, in an earlier one.

    Args:
        data: FER-2013 with FER+.
        split: from which the images are.
        count: T; parts differ by one where three does not divide it.
        seed: the list depends on nothing else.

    Returns:
        rows of `data`, int64 (T, 3), the similar pair first, in random order; their types, int64 (T,).

    Raises:
        DataError: too few images, or hardly a clear triplet of some type.
    """
    chosen = select(data, "ferplus8", split)
    apart = without_evaluated_twins if split == "train" else without_earlier_twin
    kept = apart(data, chosen.rows)
    rows, votes = chosen.rows[kept], chosen.target[kept].astype(np.float64)
    rng = np.random.default_rng(seed)
    found: dict[int, list[Int64]] = {kind: [] for kind in KINDS}
    wanted = {kind: count // 3 + (number < count % 3) for number, kind in enumerate(KINDS)}
    for _ in range(MOST_DRAWS // DRAWS if len(rows) >= 3 else 0):
        drawn = rng.integers(len(rows), size=(DRAWS, 3))
        twins = np.sort(data.twin[rows[drawn]], axis=1)
        triplets, kinds = clear(drawn[(np.diff(twins, axis=1) > 0).all(axis=1)], votes)
        for kind in KINDS:
            found[kind].append(triplets[kinds == kind])
        if all(sum(map(len, found[kind])) >= wanted[kind] for kind in KINDS):
            break
    else:
        counts = ", ".join(f"{sum(map(len, found[kind]))} of {wanted[kind]}" for kind in KINDS)
        raise DataError(f"clear triplets of one, two and three classes in {split}: {counts}; ask for fewer")
    order = rng.permutation(count)
    parts = [np.concatenate(found[kind])[: wanted[kind]] for kind in KINDS]
    return rows[np.concatenate(parts)[order]], np.repeat(KINDS, [len(part) for part in parts])[order]


def clear(triplets: Int64, votes: npt.NDArray[np.float64]) -> tuple[Int64, Int64]:
    """Those triplets that have a clear similar pair, with it first, and their types.

    Args:
        triplets: (M, 3) rows of `votes`.
        votes: (N, C) distributions.
    """
    i, j, k = torch.from_numpy(votes[triplets.T])  # (M, C) each
    sides = torch.stack([jensen_shannon(i, j), jensen_shannon(i, k), jensen_shannon(j, k)], dim=1)
    ordered = sides.sort(dim=1).values
    keep = (ordered[:, 1] - ordered[:, 0] >= GAP).numpy()
    ordered_triplets = np.take_along_axis(triplets, ORDERS[sides.argmin(dim=1).numpy()], axis=1)
    kinds = triplet_kind(*(side.argmax(dim=1) for side in (i, j, k))).numpy().astype(np.int64)
    return ordered_triplets[keep], kinds[keep]
