"""What the examples of the documentation take for granted: pictures, labelled faces, files of others."""

import shutil

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance

BRIGHTNESS = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
HEAD = (100, 0, 350, 250)
MOUTH = (90, 150, 155, 185)
"""Left, top, right and bottom: of the astronaut's head in the photo, and of the mouth in what is cut out."""


@pytest.fixture(scope="session")
def shelf(tmp_path_factory):
    """The folder that each page gets a copy of."""
    data = pytest.importorskip("skimage.data")
    root = tmp_path_factory.mktemp("shelf")
    smiling = Image.fromarray(data.astronaut()).crop(HEAD)
    covered = smiling.copy()
    covered.paste((128, 128, 128), MOUTH)
    both = Image.new("RGB", (2 * smiling.width, smiling.height))
    both.paste(smiling, (0, 0))
    both.paste(covered, (smiling.width, 0))
    for name, picture in {"photo": both, "smile": smiling, "frown": covered, "new": smiling}.items():
        _save(picture, root / f"{name}.jpg")
    for name, picture in {"a": smiling, "b": both, "c": covered}.items():
        _save(picture, root / f"{name}.jpg")
        _save(picture, root / "photos" / f"{name}.jpg")
    for number, brightness in enumerate(BRIGHTNESS):
        for label, picture in (("smile", smiling), ("no-smile", covered)):
            _save(ImageEnhance.Brightness(picture).enhance(brightness), root / "faces" / label / f"{number}.jpg")
    lines = [f"faces/{path.parent.name}/{path.name},{path.parent.name}" for path in sorted(root.glob("faces/*/*.jpg"))]
    (root / "labels.csv").write_text("\n".join(("path,label", *lines, "")), "utf-8")
    np.save(root / "NAME-triplet.npy", np.random.default_rng(0).normal(size=(8, 257)).astype(np.float32))
    _write_tables(root)
    _write_clip(root / "clip.mp4", np.asarray(both))
    return root


def _save(picture, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def _write_tables(root):
    import fevertools as ft
    from fevertools import tables

    with ft.Analyzer(device="cpu", threads=1) as analyzer:
        for day in ("monday", "tuesday"):
            found = analyzer.stream([root / "photo.jpg"])
            tables.write_parquet(tables.to_table(found, analyzer.entry), root / f"{day}.parquet")


def _write_clip(path, photo):
    """Ten frames of a camera that pans over a photo, uint8 RGB."""
    height, width = 240, 320
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (width, height))
    for left in range(0, 100, 10):
        writer.write(np.ascontiguousarray(photo[:height, left : left + width, ::-1]))
    writer.release()


@pytest.fixture
def place(shelf, tmp_path, monkeypatch):
    """The working folder of one page."""
    shutil.copytree(shelf, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


@pytest.fixture
def taken_for_granted(place):
    """Names that examples use and do not make."""
    paths = sorted(place.glob("faces/*/*.jpg"))
    return {
        "np": np,
        "paths": paths,
        "labels": [path.parent.name for path in paths],
        "embeddings": np.random.default_rng(1).normal(size=(3, 256)).astype(np.float32),
    }
