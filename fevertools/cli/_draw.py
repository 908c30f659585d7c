"""Annotated pictures: boxes, scores and landmarks, drawn at a size that suits the picture."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from fevertools.errors import OptionError
from fevertools.types import Face, UInt8Image

WRITABLE: Final = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""Suffixes of pictures that can be written."""

_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
_FONT_HEIGHT: Final = 22  # pixels of a capital at scale 1
_GREEN: Final = (80, 220, 60)  # RGB
_BLACK: Final = (0, 0, 0)
_DOTS: Final = ((255, 210, 0), (255, 210, 0), (0, 200, 255), (40, 70, 255), (40, 70, 255))  # RGB, a colour a landmark


def annotate(picture: UInt8Image, faces: Sequence[Face]) -> UInt8Image:
    """A copy of a picture with its faces drawn in: box, score above it, five landmark dots.

    Args:
        picture: uint8 RGB, (H, W, 3).
        faces: in pixels of the picture.

    Returns:
        uint8 RGB, (H, W, 3). Lines are 1/300 of the longer side wide, at least 1 pixel, and digits 1/50 of it high,
        at least 9 pixels, so that they can be read on a thumbnail and on a photo of 12 megapixels shown as a whole;
        thinner and lower on small faces, so that those in a crowd do not hide each other.
    """
    drawn = np.array(picture, np.uint8)
    longer = max(drawn.shape[:2])
    for face in faces:
        x1, y1, x2, y2 = (round(float(value)) for value in face.box)
        width = max(1, round(min(longer / 300, (x2 - x1) / 25)))
        cv2.rectangle(drawn, (x1, y1), (x2, y2), _GREEN, width)
        radius = max(1, round((x2 - x1) / 45), width if x2 - x1 > 30 * width else 1)
        for (x, y), color in zip(face.landmarks, _DOTS, strict=True):
            cv2.circle(drawn, (round(float(x)), round(float(y))), radius, color, cv2.FILLED, cv2.LINE_AA)
    # Over all boxes, so that no line crosses a number.
    for face in faces:
        _write_score(drawn, face, max(9, round(min(longer / 50, float(face.box[2] - face.box[0]) / 4))))
    return drawn


def _write_score(drawn: UInt8Image, face: Face, height: int) -> None:
    """The score above the box, in digits of this height."""
    text, scale, stroke = f"{face.score:.2f}", height / _FONT_HEIGHT, max(1, round(height / 10))
    (length, _), _ = cv2.getTextSize(text, _FONT, scale, stroke)
    pad = max(2, height // 4)
    x1, y1 = round(float(face.box[0])), round(float(face.box[1]))
    # Above the box, inside the picture.
    x = min(max(x1, 0), max(drawn.shape[1] - length - 2 * pad, 0))
    y = max(y1 - height - 2 * pad, 0)
    cv2.rectangle(drawn, (x, y), (x + length + 2 * pad, y + height + 2 * pad), _GREEN, cv2.FILLED)
    cv2.putText(drawn, text, (x + pad, y + pad + height), _FONT, scale, _BLACK, stroke, cv2.LINE_AA)


def save(picture: UInt8Image, path: Path) -> None:
    """Write a picture; the suffix of the path chooses the format.

    Args:
        picture: uint8 RGB, (H, W, 3).
        path: with one of WRITABLE as its suffix.

    Raises:
        OptionError: another suffix, or a picture larger than the format allows.
        OSError: the file cannot be written.
    """
    if path.suffix.lower() not in WRITABLE:
        raise OptionError(f"cannot draw to {path}; use one of the suffixes {', '.join(WRITABLE)}")
    try:
        whole, data = cv2.imencode(path.suffix.lower(), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise OptionError(f"cannot draw to {path}: {error.err}; use another suffix, such as .png") from error
    if not whole:
        raise OptionError(f"cannot draw to {path}; use another suffix, such as .png")
    # Under a short and hidden name first, so that no half picture is ever found under its own.
    temporary = path.with_name(f".{os.getpid()}.tmp")
    try:
        # Not cv2.imwrite, which cannot open every file name on Windows.
        temporary.write_bytes(data.tobytes())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class Album:
    """Where annotated pictures go.

    Args:
        target: a file, where one file is drawn; else a folder, made if need be, that keeps the names below the inputs.
        single: one file is named as the only input.
        replace: write over pictures that are there.

    Raises:
        OptionError: the target cannot be written, or is there and may not be replaced.
    """

    def __init__(self, target: str, *, single: bool, replace: bool) -> None:
        self._target, self._replace = Path(target), replace
        self._single = single and not self._target.is_dir()
        self._used: set[str] = set()
        if self._single and self._target.suffix.lower() not in WRITABLE:
            raise OptionError(f"cannot draw to {target}; use one of the suffixes {', '.join(WRITABLE)}")
        if self._single:
            self._check(self._target)
        elif self._target.exists() and not self._target.is_dir():
            raise OptionError(f"{target} is a file; to draw several pictures, name a folder")

    def place(self, name: str) -> Path:
        """The file for an input of this name. Names that come twice get a number, in the order of the inputs."""
        if self._single:
            return self._target
        stem, suffix = Path(name).with_suffix(""), Path(name).suffix
        suffix = suffix if suffix.lower() in WRITABLE else f"{suffix}.png"
        number, unique = 1, f"{stem}{suffix}"
        while unique.casefold() in self._used:
            number += 1
            unique = f"{stem}-{number}{suffix}"
        self._used.add(unique.casefold())
        return self._target / unique

    def add(self, place: Path, source: str, picture: UInt8Image, faces: Sequence[Face]) -> None:
        """Draw one picture.

        Raises:
            OptionError: a file is there and may not be replaced, or it is the input itself.
        """
        if place.exists() and place.samefile(source):
            raise OptionError(f"drawing to {place} would replace the input; name another file or folder with --draw")
        self._check(place)
        if not self._single:
            place.parent.mkdir(parents=True, exist_ok=True)
        save(annotate(picture, faces), place)

    def _check(self, place: Path) -> None:
        if place.exists() and not self._replace:
            raise OptionError(f"{place} exists; name another with --draw, or replace it with --overwrite")
