"""Faces in pictures that were decoded at a fraction of their size: how small they may be, and where they are."""

from typing import Final

import numpy as np

from fevertools.image import Picture
from fevertools.options import whole
from fevertools.types import Face

DRAFT_FACE: Final = 48
"""Pixels of the smallest face that may be looked for in a smaller picture: as many as the networks are shown."""

_FACTORS: Final = (8, 4, 2)  # by which the sides of a JPEG can shrink


def draft_factor(min_face_size: int) -> int:
    """The most by which the sides of a JPEG may shrink: 1, 2, 4 or 8.

    Raises:
        OptionError: `min_face_size` is not a whole number above 0.
    """
    smallest = whole(min_face_size, "min_face_size")
    return next((factor for factor in _FACTORS if smallest >= factor * DRAFT_FACE), 1)


def in_picture(faces: list[Face], picture: Picture) -> list[Face]:
    """Faces that the detector found, moved to where they are in a smaller picture.

    MTCNN's points are pixel centres counted from 1, half a pixel ahead. At full size everyone expects half a pixel
    of them, not half of one that has grown.
    """
    ahead = 0.5 - 0.5 / picture.factor
    return faces if picture.factor == 1 else [_placed(face, 1, (-ahead, -ahead)) for face in faces]


def at_full_size(faces: list[Face], picture: Picture) -> list[Face]:
    """Faces of a smaller picture in pixels of the upright image at full size."""
    return faces if picture.factor == 1 else [_placed(face, picture.factor, picture.origin) for face in faces]


def _placed(face: Face, factor: int, origin: tuple[float, float]) -> Face:
    shift = np.array(origin, np.float32)
    box = face.box * np.float32(factor) + np.concatenate([shift, shift])
    return Face(box, face.score, face.landmarks * np.float32(factor) + shift)
