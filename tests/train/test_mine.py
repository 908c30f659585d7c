"""Mining by hand: centroids, cosines, the sign of the margin; the list goes through a file; sheets are sorted."""

from pathlib import Path

import numpy as np
import pytest

from fevertools.errors import DataError
from fevertools.train.mine import (
    Mined,
    centroids,
    contact_sheet,
    mine,
    read_list,
    similarities,
    write_list,
    write_sheets,
)

CLASSES = ("angry", "happy", "sad")


def test_centroids_by_hand() -> None:
    embedding = np.array([[1, 0], [3, 0], [0, 2], [-1, -1]], np.float32)
    np.testing.assert_allclose(centroids(embedding, np.array([0, 0, 1, 2]), 3), [[2, 0], [0, 2], [-1, -1]])
    with pytest.raises(DataError, match="class 1"):
        centroids(embedding, np.array([0, 0, 2, 2]), 3)


def test_similarities_are_cosines() -> None:
    found = similarities(np.array([[3.0, 4.0]], np.float32), np.array([[10, 0], [0, 0.1], [-3, -4]], np.float32))
    np.testing.assert_allclose(found, [[0.6, 0.8, -1]], atol=1e-6)


def test_the_nearest_class_wins_and_by_the_margin() -> None:
    """Eq. 5 read as a distance would label the first face with its least similar class."""
    similarity = np.array([[0.9, 0.1, 0.2], [0.5, 0.45, 0.0], [0.1, 0.3, 0.6], [0.2, 0.2, 0.2]], np.float32)
    mined = mine(similarity, delta=0.3)
    assert mined.rows.tolist() == [0, 2]
    assert mined.label.tolist() == [0, 2]
    np.testing.assert_allclose(mined.similarity, [0.9, 0.6])
    np.testing.assert_allclose(mined.margin, [0.7, 0.3], rtol=1e-6)
    assert mine(similarity, delta=0.0).rows.tolist() == [0, 1, 2, 3]
    assert mine(similarity, delta=1.0).rows.tolist() == []


def test_list_goes_through_a_file(tmp_path: Path) -> None:
    mined = mine(np.random.default_rng(0).random((20, 3)).astype(np.float32), 0.1)
    write_list(mined, CLASSES, tmp_path / "a" / "mined.parquet", {"delta": 0.1})
    again = read_list(tmp_path / "a" / "mined.parquet", CLASSES)
    for name in ("rows", "label", "similarity", "margin"):
        np.testing.assert_array_equal(getattr(again, name), getattr(mined, name))
    with pytest.raises(DataError, match="mined samples"):
        read_list(tmp_path / "a" / "mined.parquet", ("x", "y", "z"))
    (tmp_path / "junk.parquet").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"junk\.parquet"):
        read_list(tmp_path / "junk.parquet", CLASSES)


def test_sheet_is_sorted(tmp_path: Path) -> None:
    images = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8) + 10
    similarity = np.array([0.1, 0.9, 0.5], np.float32)
    mined = Mined(np.array([0, 3, 4]), np.array([1, 1, 1]), similarity, similarity)
    sheet = contact_sheet(images, mined, 1, columns=2)
    assert sheet.shape == (4, 4)
    assert sheet[::2, ::2].tolist() == [[13, 14], [10, 0]]
    assert contact_sheet(images, mined, 0, columns=2).max() == 0
    write_sheets(images, mined, CLASSES, tmp_path / "sheets")
    assert sorted(p.name for p in (tmp_path / "sheets").iterdir()) == ["angry.png", "happy.png", "sad.png"]
