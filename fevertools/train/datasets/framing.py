"""Which face of a picture, and in which frame: shared by the readers that cut faces out of larger pictures."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from fevertools.errors import OptionError
from fevertools.manifest import load_manifest
from fevertools.types import Face, FaceGeometry, Float32, UInt8Image


def served_geometry(size: int | None = None) -> FaceGeometry:
    """The framing that users get from the default encoder, so that what is trained on is what is served.

    Args:
        size: height and width, pixels; None is the encoder's own.

    Raises:
        OptionError: a size below 1.
    """
    geometry = load_manifest().entry(None, "encoder").geometry
    if size is None:
        return geometry
    if size < 1:
        raise OptionError(f"the size of a crop must be at least 1 pixel, got {size}")
    return dataclasses.replace(geometry, height=size, width=size)


def central_face(faces: Sequence[Face], height: int, width: int) -> Face | None:
    """The largest face that covers the middle of the picture; None where none does.

    For pictures that are centred on one person: a face beside the middle is somebody else's.

    Args:
        faces: largest first, as the detector gives them.
        height, width: of the picture, pixels.
    """
    middle = np.array([width, height]) / 2
    covering = (face for face in faces if (face.box[:2] <= middle).all() and (middle <= face.box[2:]).all())
    return next(covering, None)


def crop_box(image: UInt8Image, box: Float32, margin: float) -> UInt8Image:
    """Cut out the square around a box. What lies outside the picture repeats its border.

    Args:
        image: uint8 (H, W, 3) RGB.
        box: (4,) x1, y1, x2, y2 in pixels, x1 < x2 and y1 < y2.
        margin: added on each side, as a fraction of the box's longer side.

    Returns:
        uint8 (S, S, 3), S = the longer side with its margins, rounded, at least 1.
    """
    height, width = image.shape[:2]
    side = max(1, round(float(max(box[2] - box[0], box[3] - box[1])) * (1 + 2 * margin)))
    left, top = np.rint((box[:2] + box[2:] - side) / 2).astype(int)
    rows = np.clip(np.arange(top, top + side), 0, height - 1)
    columns = np.clip(np.arange(left, left + side), 0, width - 1)
    return np.asarray(image[rows[:, None], columns])
