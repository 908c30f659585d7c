import math

import numpy as np
import pytest

from fevertools.align import MAX_SUPERSAMPLE, crop_face, estimate_similarity
from fevertools.errors import DegenerateFaceError, OptionError, UnsupportedImageError
from fevertools.types import FaceGeometry

GEOMETRY = FaceGeometry(48, 48, ((0.319, 0.395), (0.693, 0.390), (0.504, 0.603), (0.350, 0.790), (0.657, 0.792)))
TALL = FaceGeometry(112, 96, ((0.319, 0.46), (0.683, 0.46), (0.50, 0.64), (0.350, 0.82), (0.657, 0.82)))


def similarity_matrix(degrees, scale, shift):
    a = scale * np.exp(1j * math.radians(degrees))
    return np.array([[a.real, -a.imag, shift[0]], [a.imag, a.real, shift[1]]])


def apply(matrix, points):
    return points @ matrix[:, :2].T + matrix[:, 2]


def landmarks_of(matrix, geometry=GEOMETRY):
    """Landmarks of a face that `matrix` brings from the crop into the picture."""
    return apply(matrix, geometry.template().astype(np.float64))


@pytest.mark.parametrize("degrees", [0, 17, 90, 180, -135])
@pytest.mark.parametrize("scale", [1e-3, 0.7, 250.0])
def test_estimate_similarity_recovers_a_known_transform(degrees, scale):
    matrix = similarity_matrix(degrees, scale, (-31.5, 1200.25))
    source = np.random.default_rng(0).normal(size=(5, 2)) * 40 + 100
    assert np.allclose(estimate_similarity(source, apply(matrix, source)), matrix, rtol=0, atol=1e-9 * max(1, scale))


def umeyama(source, target):
    """The paper's own route: the singular value decomposition of the covariance, with the sign that bars reflection."""
    x, y = source - source.mean(0), target - target.mean(0)
    u, d, vt = np.linalg.svd(y.T @ x / len(x))
    s = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    linear = (d * s).sum() / (x**2).sum(1).mean() * (u * s) @ vt
    return np.column_stack([linear, target.mean(0) - linear @ source.mean(0)])


@pytest.mark.parametrize("mirrored", [False, True])
def test_estimate_similarity_is_the_least_squares_solution_without_reflection(mirrored):
    rng = np.random.default_rng(1)
    for _ in range(50):
        source = rng.normal(size=(5, 2)) * 30
        target = apply(similarity_matrix(*rng.normal(size=2) * 50, rng.normal(size=2)), source)
        target = target * (-1 if mirrored else 1, 1) + rng.normal(size=(5, 2)) * 15
        matrix = estimate_similarity(source, target)
        assert np.allclose(matrix, umeyama(source, target), atol=1e-8)
        assert np.linalg.det(matrix[:, :2]) > 0


def test_estimate_similarity_takes_points_on_one_line():
    source = np.array([[0, 0], [1, 0], [2, 0]])
    assert np.allclose(estimate_similarity(source, source[:, ::-1]), [[0, -1, 0], [1, 0, 0]])


@pytest.mark.parametrize("points", [np.full((5, 2), 1234.567), np.full((5, 2), np.nan), np.full((5, 2), np.inf)])
def test_estimate_similarity_refuses_points_without_extent(points):
    with pytest.raises(DegenerateFaceError):
        estimate_similarity(points.astype(np.float32), GEOMETRY.template())


def test_estimate_similarity_refuses_a_target_without_extent():
    with pytest.raises(DegenerateFaceError):
        estimate_similarity(GEOMETRY.template(), np.ones((5, 2)))


@pytest.mark.parametrize("shapes", [((5, 2), (4, 2)), ((5, 3), (5, 3)), ((1, 2), (1, 2)), ((10,), (10,))])
def test_estimate_similarity_refuses_other_shapes(shapes):
    with pytest.raises(OptionError, match=r"\(N, 2\)"):
        estimate_similarity(np.ones(shapes[0]), np.ones(shapes[1]))


def dots(points, sigma, height, width):
    """Gaussian dots at continuous coordinates, one picture each."""
    y, x = np.arange(height) + 0.5, np.arange(width) + 0.5
    bell = [[np.exp(-((axis - p) ** 2) / (2 * sigma**2)) for axis, p in ((y, py), (x, px))] for px, py in points]
    return [np.rint(255 * np.outer(down, across)).astype(np.uint8) for down, across in bell]


def centroid(image):
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    weight = image.astype(np.float64)
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


@pytest.mark.parametrize("geometry", [GEOMETRY, TALL])
@pytest.mark.parametrize("degrees", [0, 30, -75, 180])
@pytest.mark.parametrize("step", [0.6, 1.0, 1.5, 3.3, 9.7, 20.0])
def test_landmarks_land_on_the_template(geometry, degrees, step):
    size = int(1.6 * step * max(geometry.height, geometry.width)) + 8
    matrix = similarity_matrix(degrees, step, (0, 0))
    centre = apply(matrix, np.array([geometry.width / 2, geometry.height / 2]))
    matrix[:, 2] = np.array([size / 2 + 0.37, size / 2 - 1.21]) - centre
    points = landmarks_of(matrix, geometry)
    for picture, target in zip(dots(points, 2.0 * step, size, size), geometry.template(), strict=True):
        crop = crop_face(picture, points, geometry)
        assert crop.shape == (geometry.height, geometry.width)
        assert np.abs(centroid(crop) - target).max() < 0.1


def test_a_face_in_the_frame_of_the_template_is_cut_out_unchanged():
    picture = np.random.default_rng(0).integers(0, 256, (90, 100, 3), np.uint8)
    crop = crop_face(picture, landmarks_of(similarity_matrix(0, 1, (13, 29))), GEOMETRY)
    assert crop.dtype == np.uint8
    assert np.array_equal(crop, picture[29:77, 13:61])


@pytest.mark.parametrize("step", [2, 3, MAX_SUPERSAMPLE])
def test_a_crop_pixel_is_the_mean_of_the_pixels_it_covers(step):
    picture = np.random.default_rng(0).integers(0, 256, (50 * step, 60 * step), np.uint8)
    crop = crop_face(picture, landmarks_of(similarity_matrix(0, step, (7, 1))), GEOMETRY)
    covered = picture[1 : 1 + 48 * step, 7 : 7 + 48 * step].reshape(48, step, 48, step).mean((1, 3))
    assert np.abs(crop - covered).max() <= 0.51


@pytest.mark.parametrize("degrees", [0, 23, 45])
@pytest.mark.parametrize("step", [3.1, 7.9, 10.3, 40.7])
def test_a_fine_checkerboard_becomes_gray(degrees, step):
    size = int(1.5 * 48 * step)
    board = (np.indices((size, size)).sum(0) % 2 * 255).astype(np.uint8)
    matrix = similarity_matrix(degrees, step, (0, 0))
    matrix[:, 2] = size / 2 - apply(matrix, np.array([24.0, 24.0]))
    crop = crop_face(board, landmarks_of(matrix), GEOMETRY).astype(float)
    # Without supersampling both are near 127; the exact mean over the area of each crop pixel reaches 18 and 9.
    assert np.abs(crop - 127.5).max() < 19
    assert crop.std() < 7


def test_gray_and_colour_agree():
    picture = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    points = landmarks_of(similarity_matrix(12, 2.3, (80, 20)))
    crop = crop_face(picture, points, GEOMETRY)
    for channel in range(3):
        assert np.array_equal(crop[:, :, channel], crop_face(picture[:, :, channel], points, GEOMETRY))


@pytest.mark.parametrize("shift", [(-60, -20), (70, 60), (-60, 90), (20, -130), (-40, 400)])
@pytest.mark.parametrize("step", [0.8, 2.2])
def test_outside_of_the_picture_its_border_repeats(shift, step):
    picture = np.random.default_rng(2).integers(0, 256, (80, 110, 3), np.uint8)
    points = landmarks_of(similarity_matrix(33, step, shift))
    padded = np.pad(picture, ((600, 600), (600, 600), (0, 0)), mode="edge")
    difference = crop_face(picture, points, GEOMETRY) - crop_face(padded, points + 600, GEOMETRY).astype(float)
    assert np.abs(difference).max() <= 1  # the origin of the cut differs, and with it the last bit of the coordinates


@pytest.mark.parametrize("shift", [1e5, 1e7, 1e9])
def test_a_face_far_outside_shows_the_nearest_corner(shift):
    picture = np.zeros((64, 80), np.uint8)
    picture[-1, -1] = 200
    points = landmarks_of(similarity_matrix(20, 1.5, (shift, shift)))
    assert np.array_equal(np.unique(crop_face(picture, points, GEOMETRY)), [200])
    picture[0, 0] = 90
    assert np.array_equal(np.unique(crop_face(picture, points - 2 * shift, GEOMETRY)), [90])


@pytest.mark.parametrize("step", [1, 300])
def test_sides_that_opencv_cannot_warp(step):
    picture = np.full((48 * step + 10, 70_000) if step == 1 else (700, 40_000), 60, np.uint8)
    picture[:, -100:] = 180
    x = picture.shape[1] - 148 if step == 1 else picture.shape[1] - 48 * step
    crop = crop_face(picture, landmarks_of(similarity_matrix(0, step, (x, 3))), GEOMETRY)
    if step == 1:
        assert np.array_equal(np.unique(crop), [60])
        assert crop_face(picture, landmarks_of(similarity_matrix(0, 1, (x + 24, 3))), GEOMETRY)[:, 25:].min() == 180
    else:
        assert (crop[:, :47] == 60).all()
        assert abs(float(crop[0, 47]) - 100) <= 4  # a third of the last column is bright


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1)])
@pytest.mark.parametrize("step", [0.01, 1, 500, 1e9, 1e25])
def test_any_size_of_face_in_any_size_of_picture(shape, step):
    crop = crop_face(np.full(shape, 77, np.uint8), landmarks_of(similarity_matrix(5, step, (0, 0))), GEOMETRY)
    assert np.array_equal(np.unique(crop), [77])


def test_the_picture_is_left_alone():
    picture = np.random.default_rng(0).integers(0, 256, (90, 100, 3), np.uint8)
    picture.flags.writeable = False
    points = landmarks_of(similarity_matrix(0, 1, (13, 29))).astype(np.float32)
    before = points.copy()
    crop_face(picture[:, ::-1], points, GEOMETRY)
    assert np.array_equal(points, before)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((50, 50, 3), np.float32),
        np.zeros((50, 50, 4), np.uint8),
        np.zeros((50, 50, 1), np.uint8),
        np.zeros((0, 50, 3), np.uint8),
        np.zeros((2, 50, 50, 3), np.uint8),
    ],
)
def test_other_images_are_refused(image):
    with pytest.raises(UnsupportedImageError, match="uint8"):
        crop_face(image, GEOMETRY.template(), GEOMETRY)


def test_coinciding_landmarks_are_refused():
    with pytest.raises(DegenerateFaceError, match="coincide"):
        crop_face(np.zeros((50, 50, 3), np.uint8), np.full((5, 2), 20, np.float32), GEOMETRY)
