"""Open data behind the protocols that the paper's methods ask for."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fevertools.train.datasets.ferplus import read_ferplus, select
from fevertools.train.datasets.open_sources import drawn_triplets, voted_faces


def test_open_sources(made_data: Path) -> None:
    data = read_ferplus(made_data)
    faces = voted_faces(data, "ferplus8", "train")
    protocol = select(data, "ferplus8", "train")
    assert len(faces) < len(protocol.rows)  # twins of evaluated rows stay out
    image = faces.image(0)
    assert (image.shape, image.dtype) == ((48, 48, 3), np.uint8)
    np.testing.assert_array_equal(image[:, :, 0], image[:, :, 2])
    assert faces.target(0).sum() == pytest.approx(1)
    assert len(voted_faces(data, "ferplus8", "validation")) == len(select(data, "ferplus8", "validation").rows)
    votes = np.random.default_rng(0).multinomial(10, [0.4, 0.3, 0.3, 0, 0, 0, 0, 0, 0, 0], len(data.images))
    mixed = dataclasses.replace(data, votes=votes.astype(np.uint8))
    triplets = drawn_triplets(mixed, "train", 12, seed=1)
    assert Counter(triplets.triplet(i)[3] for i in range(len(triplets))) == {1: 4, 2: 4, 3: 4}
    first, *_ = triplets.triplet(0)
    np.testing.assert_array_equal(triplets.image(first)[:, :, 1], mixed.images[first])
