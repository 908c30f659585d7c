from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fevertools.errors import DataError
from fevertools.train.datasets.faces import read_faces


def save(path: Path, gray: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 6, 3), gray, np.uint8)).save(path)


def test_a_tree_of_all_kinds_in_order(tmp_path: Path) -> None:
    names = ["a/2.png", "a/b/1.webp", "a/b/3.tif", "c.bmp", "d.GIF", "e.jpg"]
    for gray, name in enumerate(names, start=1):
        save(tmp_path / name, 10 * gray)
    (tmp_path / "finished.jsonl").write_text("{}\n")
    (tmp_path / "a" / "whole.jpg").write_bytes((tmp_path / "e.jpg").read_bytes()[:-40])  # truncated
    (tmp_path / "a" / "page.png").write_text("<html>")
    (tmp_path / "empty.jpg").touch()
    faces = read_faces(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in faces.paths] == names
    assert (len(faces), faces.broken) == (6, 3)
    for i in range(6):
        image = faces.image(i)
        assert (image.dtype, image.shape) == (np.uint8, (8, 6, 3))
        assert abs(image.mean() - 10 * (i + 1)) <= 2


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="crop-faces"):
        read_faces(tmp_path / "absent")
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(DataError, match="none of the 1 images"):
        read_faces(tmp_path)
