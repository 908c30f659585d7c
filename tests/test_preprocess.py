import numpy as np
import pytest

from fevertools.errors import UnsupportedImageError
from fevertools.preprocess import fit_crop, to_luminance
from fevertools.types import FaceGeometry

GEOMETRY = FaceGeometry(48, 32, ((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8)))


def test_luminance_is_bt601():
    rgb = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    expected = rgb @ np.array([0.299, 0.587, 0.114])
    gray = to_luminance(rgb)
    assert gray.shape == (40, 50)
    assert gray.dtype == np.uint8
    assert np.abs(gray - expected).max() <= 0.51
    assert to_luminance(np.array([[[255, 0, 0]]], np.uint8)).item() == 76  # red, so the order is RGB


def test_luminance_of_gray_is_gray():
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(to_luminance(np.repeat(gray[:, :, None], 3, 2)), gray)
    assert to_luminance(gray) is gray


def test_fit_crop_leaves_the_right_size_alone():
    crop = np.random.default_rng(0).integers(0, 256, (48, 32, 3), np.uint8)
    assert np.array_equal(fit_crop(crop, GEOMETRY), crop)


def test_fit_crop_averages_where_it_shrinks():
    picture = np.random.default_rng(0).integers(0, 256, (48 * 3, 32 * 5), np.uint8)
    assert np.abs(fit_crop(picture, GEOMETRY) - picture.reshape(48, 3, 32, 5).mean((1, 3))).max() <= 0.51


def test_fit_crop_interpolates_where_it_grows():
    ramp = np.repeat(np.arange(0, 240, 10, dtype=np.uint8)[:, None], 32, 1)  # 24 rows of 10 each
    fitted = fit_crop(ramp, GEOMETRY)[:, 0].astype(int)
    assert np.array_equal(np.diff(fitted)[1:-1], [5] * 45)


def test_fit_crop_treats_each_axis_by_itself():
    # Columns alternate, rows are few: averaging must happen across although the picture grows downward.
    stripes = np.tile(np.array([0, 255], np.uint8), (6, 32))  # (6, 64)
    fitted = fit_crop(stripes, GEOMETRY)
    assert fitted.shape == (48, 32)
    assert fitted.min() >= 127
    assert fitted.max() <= 128


@pytest.mark.parametrize("function", [to_luminance, lambda image: fit_crop(image, GEOMETRY)])
@pytest.mark.parametrize("shape", [(0, 4), (4, 4, 4), (4,), (1, 4, 4, 3)])
def test_other_images_are_refused(function, shape):
    with pytest.raises(UnsupportedImageError, match="uint8"):
        function(np.zeros(shape, np.uint8))
    with pytest.raises(UnsupportedImageError, match="float32"):
        function(np.zeros((4, 4), np.float32))
