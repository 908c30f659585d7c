"""Triplets from votes: hand-made votes, equal parts, the similar pair, twins and determinism."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from fevertools.errors import DataError
from fevertools.train.datasets import triplets
from fevertools.train.datasets.ferplus import SPLITS, FerPlus, find_twins, read_ferplus, select
from fevertools.train.datasets.triplets import clear, vote_triplets
from fevertools.train.losses.fec_triplet import ONE_CLASS, THREE_CLASS, TWO_CLASS
from fevertools.train.losses.vote_triplets import GAP, jensen_shannon


@pytest.fixture(scope="module")
def mixed(made_data: Path) -> FerPlus:
    """The made images with votes that disagree, so that every type has clear triplets."""
    data = read_ferplus(made_data)
    votes = np.random.default_rng(0).multinomial(10, [0.4, 0.3, 0.3, 0, 0, 0, 0, 0, 0, 0], len(data.images))
    return dataclasses.replace(data, votes=votes.astype(np.uint8))


def test_the_similar_pair_comes_first_wherever_it_stood() -> None:
    votes = np.eye(4)[[0, 0, 1, 2]]
    votes[1] = [0.97, 0.03, 0, 0]
    ordered, kinds = clear(np.array([(0, 1, 2), (0, 2, 1), (2, 0, 1), (1, 2, 3)]), votes)
    # In the last one the side of 1 and 2 is less than GAP shorter than the others, which are ln 2: unclear.
    assert ordered.tolist() == [[0, 1, 2], [0, 1, 2], [0, 1, 2]]
    assert kinds.tolist() == [TWO_CLASS] * 3
    ordered, kinds = clear(np.array([(0, 1, 2)]), np.array([[0.6, 0.4], [0.5, 0.5], [1.0, 0.0]]))
    assert (ordered.tolist(), kinds.tolist()) == ([[0, 1, 2]], [ONE_CLASS])
    ordered, kinds = clear(np.array([(2, 1, 0)]), np.array([[0.6, 0.4, 0], [0.4, 0.6, 0], [0, 0, 1]]))
    assert (ordered.tolist(), kinds.tolist()) == ([[1, 0, 2]], [THREE_CLASS])


def test_list(mixed: FerPlus) -> None:
    rows, kinds = vote_triplets(mixed, "train", 100, seed=4)
    assert (rows.shape, rows.dtype, kinds.shape, kinds.dtype) == ((100, 3), np.int64, (100,), np.int64)
    assert Counter(kinds.tolist()) == {ONE_CLASS: 34, TWO_CLASS: 33, THREE_CLASS: 33}
    assert len(set(kinds[:10].tolist())) > 1  # shuffled
    protocol = select(mixed, "ferplus8", "train")
    target = dict(zip(protocol.rows.tolist(), torch.from_numpy(protocol.target), strict=True))
    for (first, second, odd), kind in zip(rows.tolist(), kinds.tolist(), strict=True):
        a, b, c = target[first], target[second], target[odd]
        near, far = jensen_shannon(a, b), min(jensen_shannon(a, c), jensen_shannon(b, c))
        assert far - near >= GAP - 1e-6
        assert kind == len({int(votes.argmax()) for votes in (a, b, c)})


def test_twins_stay_out(mixed: FerPlus) -> None:
    images = mixed.images.copy()
    images[10:20] = images[9]  # ten twins in training
    images[21], images[170] = images[165], images[22]  # training rows 21 and 22 have twins in validation
    data = dataclasses.replace(mixed, images=images, twin=find_twins(images))
    rows, _ = vote_triplets(data, "train", 600, seed=0)
    assert (data.split[rows] == SPLITS["train"]).all()
    assert not np.isin(rows, (21, 22)).any()
    assert all(len(set(data.twin[row].tolist())) == 3 for row in rows)
    rows, _ = vote_triplets(data, "validation", 300, seed=0)
    assert (data.split[rows] == SPLITS["validation"]).all()
    assert not np.isin(rows, (165, 170)).any()


def test_seed_alone_decides(mixed: FerPlus) -> None:
    first, again, other = (vote_triplets(mixed, "train", 60, seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_what_cannot_be_drawn_is_told(mixed: FerPlus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unanimous votes have no clear triplet of one class."""
    monkeypatch.setattr(triplets, "MOST_DRAWS", triplets.DRAWS)
    unanimous = np.eye(10, dtype=np.uint8)[mixed.label % 8] * 10
    with pytest.raises(DataError, match=r"0 of 10, \d+ of 10, \d+ of 10"):
        vote_triplets(dataclasses.replace(mixed, votes=unanimous), "train", 30, seed=0)
