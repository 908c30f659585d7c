"""Triplet accuracy and agreement on points placed by hand."""

import numpy as np
import pytest

from fevertools.train.datasets.ferplus import SPLITS, FerPlus
from fevertools.train.evaluate import triplet
from fevertools.train.evaluate.networks import Outputs
from fevertools.train.evaluate.triplet import agreement, evaluate_triplets, fixed_list, triplet_accuracy
from fevertools.train.losses.fec_triplet import ONE_CLASS, THREE_CLASS, TWO_CLASS


def at(*degrees: float) -> np.ndarray:
    """Points of the unit circle."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_accuracy_by_hand() -> None:
    vectors = at(0, 20, 90, 60)
    triplets = np.array([[0, 1, 2], [1, 3, 2], [0, 1, 3], [2, 3, 1]])
    kinds = np.array([ONE_CLASS, ONE_CLASS, TWO_CLASS, THREE_CLASS])
    # 20 and 60 degrees are 40 apart, but 60 and 90 are only 30: the second triplet is a miss. Looking at the similar
    # pair from its first member alone, 20 degrees, would take it for a hit.
    assert triplet_accuracy(vectors, triplets, kinds) == {
        "n": 4, "all": 75.0, "one-class": 50.0, "two-class": 100.0, "three-class": 100.0
    }  # fmt: skip


def test_only_direction_counts() -> None:
    """Unscaled, 10 * (0 degrees) would be far from everything."""
    vectors = at(0, 10, 50) * np.array([[10], [0.1], [0.1]], np.float32)
    assert triplet_accuracy(vectors, np.array([[0, 1, 2]]), np.array([TWO_CLASS])) == {
        "n": 1, "all": 100.0, "two-class": 100.0
    }  # fmt: skip


@pytest.mark.parametrize("vectors", [np.ones((3, 4), np.float32), np.zeros((3, 4), np.float32), at(0, 60, 60)])
def test_a_tie_is_a_miss(vectors: np.ndarray) -> None:
    assert triplet_accuracy(vectors, np.array([[0, 1, 2]]), np.array([ONE_CLASS]))["all"] == 0


def test_random_vectors_are_right_in_a_third() -> None:
    rng = np.random.default_rng(0)
    triplets = rng.permuted(np.tile(np.arange(200), (5000, 1)), axis=1)[:, :3]
    figures = triplet_accuracy(rng.normal(size=(200, 8)).astype(np.float32), triplets, np.full(5000, TWO_CLASS))
    assert figures["all"] == pytest.approx(100 / 3, abs=2)


def test_agreement_by_hand() -> None:
    """From a at 0 degrees, cosines .5, 0 and -1: differences .5 (right, right, wrong) and 1.5 (right)."""
    vectors = at(0, 60, 90, 180)
    triplets = np.array([[0, 1, 2], [0, 1, 2], [0, 2, 1], [0, 1, 3]])
    table = agreement(3 * vectors, triplets)
    assert [(row["difference"], row["n"]) for row in table] == [(0.5, 3), (1.5, 1)]
    assert [row["share"] for row in table] == pytest.approx([2 / 3, 1], abs=1e-4)


def test_agreement_grows_with_the_difference() -> None:
    """Votes that choose (a, b) with probability sigmoid(4 x): the table is that curve, and its counts are complete."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(500, 3)).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    a, b, c = rng.integers(0, 500, (3, 50_000))
    difference = (unit[a] * (unit[b] - unit[c])).sum(axis=1)
    chosen = rng.random(len(a)) < 1 / (1 + np.exp(-4 * difference))
    triplets = np.stack([a, np.where(chosen, b, c), np.where(chosen, c, b)], axis=1)
    table = agreement(vectors, triplets)
    assert sum(row["n"] for row in table) == 50_000
    for row in table:
        assert row["share"] == pytest.approx(1 / (1 + np.exp(-4 * row["difference"])), abs=0.02)


def made(seed: int = 0) -> FerPlus:
    """Sixty images of noise in each split with votes of every mixture."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (180, 48, 48)).astype(np.uint8)
    votes = np.zeros((180, 10), np.uint8)
    votes[:, :8] = [rng.multinomial(10, p) for p in rng.dirichlet(np.full(8, 0.4), 180)]
    split = np.repeat(list(SPLITS.values()), 60).astype(np.uint8)
    return FerPlus(images, split, np.zeros(180, np.uint8), votes, np.arange(180))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_votes_themselves_are_the_best_embedding(monkeypatch: pytest.MonkeyPatch, split: str) -> None:
    """Positions count in the split: square roots of the votes find nearly every pair, those of other rows a third."""
    monkeypatch.setattr(triplet, "COUNT", 300)
    data = made()
    votes = np.where(data.votes <= 1, 0, data.votes)[:, :8].astype(np.float32)
    mine, other = (np.sqrt(votes[data.split == SPLITS[name]]) for name in (split, "train"))
    figures = evaluate_triplets(Outputs(mine, triplet=other), data, split)  # type: ignore[arg-type]
    assert figures["embedding"]["n"] == 300
    assert figures["embedding"]["all"] > 90
    assert figures["head"]["all"] < 50
    assert "head" not in evaluate_triplets(Outputs(mine), data, split)  # type: ignore[arg-type]


def test_the_lists_are_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triplet, "COUNT", 90)
    data = made()
    (triplets, kinds), (again, _) = (fixed_list(data, "validation") for _ in range(2))
    np.testing.assert_array_equal(triplets, again)
    assert np.unique(kinds, return_counts=True)[1].tolist() == [30, 30, 30]
    assert triplets.min() >= 0
    assert triplets.max() < 60
