"""One face -> the framing its network was trained on: a similarity transform of five landmarks, then one crop.

Coordinates are continuous: pixel i covers [i, i + 1) and its centre lies at i + 0.5.
"""

import cmath
import math
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from fevertools.errors import DegenerateFaceError, OptionError, UnsupportedImageError
from fevertools.types import FaceGeometry, UInt8Image

Float64: TypeAlias = npt.NDArray[np.float64]

MAX_SUPERSAMPLE = 8
"""Samples per axis and crop pixel. A face with more picture pixels per crop pixel is first reduced by averaging."""

_COINCIDENT = 1e-9  # spread of the points, relative to the size of their coordinates
_UNRELATED = 1e-6  # fitted scale, relative to the one that the two spreads suggest
_LARGEST_FRAME = 1e30  # picture pixels along a side; OpenCV's warp takes float32


def estimate_similarity(source: npt.NDArray[Any], target: npt.NDArray[Any]) -> Float64:
    """Fit rotation, uniform scale and translation, without reflection. Umeyama 1991, Eq. 40-42, in two dimensions.

    Written over the complex numbers, where such a transform is z -> a z + b: the least-squares a is
    sum(conj(z - mean z) (w - mean w)) / sum(|z - mean z|^2), and b = mean w - a mean z.

    Args:
        source: (N, 2) points x, y; N >= 2.
        target: (N, 2) points that the source is brought to.

    Returns:
        float64 (2, 3): target = M[:, :2] @ source + M[:, 2], with the least sum of squared distances.

    Raises:
        DegenerateFaceError: all source points coincide, or the fit has no finite scale above 0.
        OptionError: the arrays are not two (N, 2) arrays of the same length.
    """
    if np.shape(source) != np.shape(target) or np.ndim(source) != 2 or np.shape(source)[1] != 2 or len(source) < 2:
        raise OptionError(
            f"two arrays of points (N, 2), N >= 2, are needed; got {np.shape(source)} and {np.shape(target)}"
        )
    try:
        source, target = (np.asarray(points).astype(np.float64, casting="same_kind") for points in (source, target))
    except TypeError as error:
        raise OptionError(f"points are numbers of pixels: {error}") from error
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise DegenerateFaceError("landmarks that are not finite numbers cannot be aligned")
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
        z, w = source[:, 0] + 1j * source[:, 1], target[:, 0] + 1j * target[:, 1]
        from_mean, to_mean = z - z.mean(), w - w.mean()
        spread, target_spread = float(np.linalg.norm(from_mean)), float(np.linalg.norm(to_mean))
        if spread <= _COINCIDENT * max(1.0, float(np.abs(z).max())):
            raise DegenerateFaceError("the landmarks coincide, so the face has no size; give five different points")
        a = complex(np.vdot(from_mean, to_mean)) / (spread * spread)
        b = complex(w.mean() - a * z.mean())
        if not (_UNRELATED * target_spread < math.hypot(a.real, a.imag) * spread < math.inf and cmath.isfinite(b)):
            raise DegenerateFaceError("no similarity transform relates the landmarks to the template")
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def crop_face(image: UInt8Image, landmarks: npt.NDArray[Any], geometry: FaceGeometry) -> UInt8Image:
    """Warp one face to the geometry its network was trained on.

    Each crop pixel is the mean of the picture area it covers, so a large face does not alias. What lies outside the
    picture repeats its border. Faces partly or wholly outside the picture are allowed.

    Args:
        image: uint8 (H, W, 3) RGB or (H, W) luminance, of any size.
        landmarks: float (5, 2) x, y in pixels of `image`, in the order of `labels.LANDMARKS`.
        geometry: template and output size, from the weights manifest.

    Returns:
        uint8 (geometry.height, geometry.width, 3), or without the last axis for a luminance image.

    Raises:
        DegenerateFaceError: the landmarks coincide, are not finite, or make a face too large for numbers.
        UnsupportedImageError: the image is empty, not uint8, or of another shape.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.size == 0 or image.shape[2:] not in ((), (3,)):
        raise UnsupportedImageError(f"crop_face takes uint8 (H, W, 3) or (H, W), got {image.dtype} {image.shape}")
    to_crop = estimate_similarity(landmarks, geometry.template())
    to_image = _invert(to_crop)
    step = math.hypot(to_image[0, 0], to_image[1, 0])  # picture pixels per crop pixel
    if not step * max(geometry.height, geometry.width) <= _LARGEST_FRAME:
        raise DegenerateFaceError(
            f"the landmarks make a face of {step * geometry.width:.0e} pixels; no picture has one"
        )
    patch, origin = _cut(image, to_image, geometry)
    shrink = math.ceil(step / MAX_SUPERSAMPLE)
    ratio = np.ones(2)
    if shrink > 1:
        height, width = patch.shape[:2]
        reduced = (max(1, round(width / shrink)), max(1, round(height / shrink)))
        patch = cv2.resize(patch, reduced, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        ratio = np.array([width, height]) / reduced
    supersample = max(1, math.ceil(step / shrink))
    to_image[:, 2] -= origin
    return _sample(patch, to_image / ratio[:, None], supersample, geometry)


def _invert(matrix: Float64) -> Float64:
    """The inverse of a (2, 3) similarity transform, by its closed form."""
    linear = matrix[:, :2].T / (matrix[0, 0] ** 2 + matrix[1, 0] ** 2)
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def _cut(image: UInt8Image, to_image: Float64, geometry: FaceGeometry) -> tuple[UInt8Image, Float64]:
    """The part of the image that the crop can touch, and its origin in the coordinates of `to_image`.

    OpenCV cannot warp sources with a side of 32767 pixels or more; it also costs less to look at a part. A frame wholly
    outside is moved up to the border: it shows the same repeated border pixels, with coordinates that OpenCV can hold.
    """
    height, width = image.shape[:2]
    corners = np.array([[0, 0], [geometry.width, 0], [0, geometry.height], [geometry.width, geometry.height]])
    corners = corners @ to_image[:, :2].T + to_image[:, 2]
    low, high = corners.min(axis=0), corners.max(axis=0)
    size = np.array([width, height], np.float64)
    move = np.where(high < 0, -high, np.where(low > size, size - low, 0.0))
    first = np.clip(np.floor(low + move) - 2, 0, size - 1).astype(int)  # 2: reach of the interpolation, and rounding
    last = np.clip(np.ceil(high + move) + 2, first + 1, size).astype(int)
    return image[first[1] : last[1], first[0] : last[0]], first - move


def _sample(patch: UInt8Image, to_patch: Float64, supersample: int, geometry: FaceGeometry) -> UInt8Image:
    """Bilinear samples on a grid `supersample` times as fine as the crop, then their exact means."""
    # OpenCV maps indices, whose pixel centres lie half a pixel before the continuous coordinate.
    linear = to_patch[:, :2] / supersample
    matrix = np.column_stack([linear, linear @ np.array([0.5, 0.5]) + to_patch[:, 2] - 0.5])
    fine = cv2.warpAffine(
        patch,
        matrix,
        (supersample * geometry.width, supersample * geometry.height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if supersample > 1:
        fine = cv2.resize(fine, (geometry.width, geometry.height), interpolation=cv2.INTER_AREA)
    return np.asarray(fine, np.uint8)
