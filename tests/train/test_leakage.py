"""Identity leakage on embeddings of which it is known what they hold of a person."""

import numpy as np
import pytest

from fevertools.train.evaluate.leakage import leakage

PERSON = np.repeat(np.arange(20), 4)


def every_pair() -> tuple[np.ndarray, np.ndarray]:
    pairs = np.stack(np.triu_indices(len(PERSON), 1), axis=1)
    return pairs, PERSON[pairs[:, 0]] == PERSON[pairs[:, 1]]


def test_orthogonal_people_are_told_apart() -> None:
    embedding = np.eye(20, dtype=np.float32)[PERSON]
    assert leakage(embedding, *every_pair()) == {"n": 80 * 79 // 2, "auc": 1.0}


def test_the_length_of_an_embedding_says_nothing() -> None:
    rng = np.random.default_rng(0)
    embedding = np.eye(20, dtype=np.float32)[PERSON] * rng.uniform(1e-3, 1e3, (80, 1)).astype(np.float32)
    assert leakage(embedding, *every_pair())["auc"] == 1


def test_a_constant_embedding_leaks_nothing() -> None:
    assert leakage(np.ones((80, 5), np.float32), *every_pair())["auc"] == 0.5


def test_an_embedding_of_expressions_alone_leaks_nothing() -> None:
    """Every person shows the same four expressions, so that pairs of two people match more often: below one half."""
    expression = np.tile(np.eye(4, dtype=np.float32), (20, 1))
    # No two faces of one person match; of different people, a quarter does: AUC = P(same > different) + P(equal) / 2.
    assert leakage(expression, *every_pair())["auc"] == pytest.approx(0.5 * 3 / 4)


def test_by_hand() -> None:
    """Cosines .8 and 0 for same, .6 and -1 for different people: three of four comparisons are right."""
    embedding = np.array([[1, 0], [0.8, 0.6], [0, 1], [0.6, 0.8], [-1, 0]], np.float32)
    pairs, same = np.array([[0, 1], [0, 2], [0, 3], [0, 4]]), np.array([True, True, False, False])
    assert leakage(embedding, pairs, same)["auc"] == pytest.approx(0.75)
