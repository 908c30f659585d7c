from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fevertools.errors import DataError
from fevertools.labels import EMOTIONS
from fevertools.train.datasets.rafdb import read_rafdb

# The data set's own numbering.
PUBLISHED = {1: "surprise", 2: "fear", 3: "disgust", 4: "happiness", 5: "sadness", 6: "anger", 7: "neutral"}


def write_tree(root: Path) -> None:
    """Seven training faces whose gray tells the class, two test faces, and one listed face without a file."""
    (root / "EmoLabel").mkdir(parents=True)
    (root / "Image" / "aligned").mkdir(parents=True)
    lines = [f"train_{code:05} {code}".replace(" ", ".jpg ") for code in PUBLISHED]
    lines += ["test_0001.jpg 4", "test_0002.jpg 6", "train_00008.jpg 1"]
    (root / "EmoLabel" / "list_patition_label.txt").write_text("\n".join(lines) + "\n")
    for name, gray in [*((f"train_{code:05}", 20 * code) for code in PUBLISHED), ("test_0001", 9), ("test_0002", 90)]:
        face = np.full((100, 100, 3), gray, np.uint8)
        Image.fromarray(face).save(root / "Image" / "aligned" / f"{name}_aligned.jpg")


@pytest.mark.parametrize("below", [".", "basic", "rafdb/basic"])
def test_classes_and_splits(tmp_path: Path, below: str) -> None:
    write_tree(tmp_path / below)
    train, test = (read_rafdb(tmp_path, split) for split in ("train", "test"))
    assert (len(train), train.missing, len(test), test.missing) == (7, 1, 2, 0)
    for i in range(7):
        code = round(train.image(i).mean() / 20)
        target = train.target(i)
        assert EMOTIONS[int(target.argmax())] == PUBLISHED[code]
        assert (target.dtype, target.shape, target.sum()) == (np.float32, (8,), 1)
    assert sorted({int(train.target(i).argmax()) for i in range(7)}) == [0, 1, 2, 3, 4, 5, 6]  # no contempt
    assert [EMOTIONS[int(test.target(i).argmax())] for i in range(2)] == ["happiness", "anger"]
    assert test.image(1).shape == (100, 100, 3)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("train_00001.jpg 0", "line 1"),
        ("train_00001.jpg 5\ntrain_00002.jpg 8", "line 2"),
        ("val_00001.jpg 5", "line 1"),
        ("train_00001.jpg", "line 1"),
    ],
)
def test_lines_that_are_not_of_the_list(tmp_path: Path, lines: str, message: str) -> None:
    write_tree(tmp_path)
    (tmp_path / "EmoLabel" / "list_patition_label.txt").write_text(lines)
    with pytest.raises(DataError, match=message):
        read_rafdb(tmp_path, "train")


def test_no_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no RAF-DB in"):
        read_rafdb(tmp_path, "train")
