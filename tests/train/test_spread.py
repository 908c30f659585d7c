"""Variance inside of classes and between them: by hand, as parts of the whole, and free of scale."""

import numpy as np
import pytest

from fevertools.train.evaluate.spread import spread


def test_by_hand() -> None:
    embedding = np.array([[0.0, 0.0], [2.0, 0.0], [9.0, 0.0], [11.0, 0.0]], np.float32)
    assert spread(embedding, np.array([0, 0, 4, 4])) == {"intra": 1.0, "inter": 20.25, "ratio": round(1 / 20.25, 4)}


def test_parts_of_the_whole_variance() -> None:
    rng = np.random.default_rng(0)
    embedding, label = rng.normal(size=(200, 5)).astype(np.float32), rng.integers(0, 3, 200)
    figures = spread(embedding, label)
    whole = ((embedding - embedding.mean(axis=0)) ** 2).sum(axis=1).mean()
    assert figures["intra"] + figures["inter"] == pytest.approx(whole, abs=2e-4)
    assert spread(10 * embedding, label)["ratio"] == pytest.approx(figures["ratio"], rel=1e-2)
