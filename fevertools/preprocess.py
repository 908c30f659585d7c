"""From an RGB picture to the pixels a network reads. Normalisation is inside the graphs, so all of it is uint8."""

import cv2
import numpy as np

from fevertools.errors import UnsupportedImageError
from fevertools.types import FaceGeometry, Float32, UInt8Image


def to_luminance(rgb: UInt8Image) -> UInt8Image:
    """Luma of ITU-R BT.601: round(0.299 R + 0.587 G + 0.114 B).

    Args:
        rgb: uint8 (H, W, 3) RGB. A (H, W) image is luminance already and is returned as it is.

    Returns:
        uint8 (H, W).

    Raises:
        UnsupportedImageError: the image is empty, not uint8, or of another shape.
    """
    _check(rgb, "to_luminance")
    return rgb if rgb.ndim == 2 else np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)


def enlarge(maps: Float32, geometry: FaceGeometry) -> Float32:
    """Bring coarse maps to the size of the crop they are of, bicubic, as the grid of a network's last layer lies on it.

    Args:
        maps: float32 (C, h, w).
        geometry: of the crop.

    Returns:
        float32 (C, geometry.height, geometry.width).
    """
    size = (geometry.width, geometry.height)
    return np.stack([cv2.resize(one, size, interpolation=cv2.INTER_CUBIC) for one in maps]).astype(np.float32)


def fit_crop(image: UInt8Image, geometry: FaceGeometry) -> UInt8Image:
    """Bring a picture that is framed already to the size the network reads.

    The whole picture becomes the whole crop, so one with other proportions is stretched. Each axis by itself is
    averaged where it shrinks (area) and interpolated where it grows (bilinear).

    Args:
        image: uint8 (H, W, 3) RGB or (H, W) luminance.
        geometry: output size, from the weights manifest.

    Returns:
        uint8 (geometry.height, geometry.width, 3), or without the last axis for a luminance image.

    Raises:
        UnsupportedImageError: the image is empty, not uint8, or of another shape.
    """
    _check(image, "fit_crop")
    height, width = image.shape[:2]
    shrunk = (min(width, geometry.width), min(height, geometry.height))
    # Two steps, for INTER_AREA averages only when no axis grows.
    if shrunk != (width, height):
        image = np.asarray(cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA), np.uint8)
    if shrunk != (geometry.width, geometry.height):
        size = (geometry.width, geometry.height)
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    return image


def _check(image: UInt8Image, function: str) -> None:
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.size == 0 or image.shape[2:] not in ((), (3,)):
        raise UnsupportedImageError(f"{function} takes uint8 (H, W, 3) or (H, W), got {image.dtype} {image.shape}")
