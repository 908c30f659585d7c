import numpy as np
import pytest

from fevertools.errors import OptionError
from fevertools.manifest import load_manifest
from fevertools.train.datasets.framing import central_face, crop_box, served_geometry
from fevertools.types import Face


def face(x1: float, y1: float, x2: float, y2: float) -> Face:
    return Face(np.array([x1, y1, x2, y2], np.float32), 1.0, np.zeros((5, 2), np.float32))


def test_served_geometry_is_the_default_encoder_s_at_another_size() -> None:
    served = load_manifest().entry(None, "encoder").geometry
    assert served_geometry() == served
    larger = served_geometry(140)
    assert (larger.height, larger.width, larger.landmarks) == (140, 140, served.landmarks)
    with pytest.raises(OptionError, match="at least 1"):
        served_geometry(0)


def test_central_face_covers_the_middle() -> None:
    beside, small, large = face(0, 0, 104, 104), face(100, 40, 110, 60), face(60, 10, 140, 90)
    assert central_face([beside, large, small], 100, 210) is large  # the middle is (105, 50)
    assert central_face([beside, small, large], 100, 210) is small  # the order given is by size
    assert central_face([beside], 100, 260) is None
    assert central_face([], 100, 210) is None


def test_crop_box_is_the_square_around_the_box() -> None:
    y, x = np.mgrid[:40, :60]
    image = np.stack([y, x, x + y], axis=2).astype(np.uint8)
    box = np.array([20, 10, 30, 30], np.float32)  # 10 x 20: widened to x 15..35
    np.testing.assert_array_equal(crop_box(image, box, 0.0), image[10:30, 15:35])
    np.testing.assert_array_equal(crop_box(image, box, 0.25), image[5:35, 10:40])


def test_crop_box_repeats_the_border() -> None:
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    crop = crop_box(image, np.array([-2, 0, 2, 4], np.float32), 0.0)
    np.testing.assert_array_equal(crop, image[:, [0, 0, 0, 1]])
    assert crop_box(image, np.array([1, 1, 1.2, 1.2], np.float32), 0.0).shape == (1, 1, 3)
