"""Marks that can be read on any picture: text, frames, and the places that are still free for them."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fevertools.types import UInt8Image

Rgb: TypeAlias = tuple[int, int, int]
Rect: TypeAlias = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels; x2 and y2 are the first beyond it."""

BLACK: Final = (0, 0, 0)
WHITE: Final = (255, 255, 255)
LEAST_TEXT: Final = 9
"""Pixels of the lowest capital that is still read."""

_CAPITAL: Final = 0.72  # of the size of a font of Pillow: the height of its capitals


def write(drawn: UInt8Image, text: str, x: int, y: int, height: int, color: Rgb = WHITE) -> None:
    """Write into a picture, in place; what lies outside of it is cut off.

    Args:
        drawn: uint8 RGB, (H, W, 3).
        text: one line in any script; letters that the font lacks become empty boxes.
        x, y: left end and top of a capital, pixels.
        height: of a capital, pixels.
        color: RGB.
    """
    ink, above = _ink(text, height)
    x1, y1 = max(x, 0), max(y - above, 0)
    x2, y2 = min(x + ink.shape[1], drawn.shape[1]), min(y - above + ink.shape[0], drawn.shape[0])
    if x1 >= x2 or y1 >= y2:
        return
    part = drawn[y1:y2, x1:x2]
    cover = ink[y1 - y + above : y2 - y + above, x1 - x : x2 - x, None]
    part[:] = np.rint(part * (1 - cover) + np.asarray(color, np.float32) * cover)


def length(text: str, height: int) -> int:
    """Pixels from the left to the right end of a text."""
    return int(_ink(text, height)[0].shape[1])


@lru_cache(maxsize=1024)
def _ink(text: str, height: int) -> tuple[Any, int]:
    """How much of each pixel the text covers, float32 (h, w) from 0 to 1, and its rows above a capital."""
    font = _font(height)
    left, top, right, bottom = font.getbbox(text, anchor="ls")
    size = max(1, round(right) - min(0, round(left))), max(1, round(bottom) - round(top))
    plane = Image.new("L", size)
    ImageDraw.Draw(plane).text((-min(0, round(left)), -round(top)), text, 255, font, anchor="ls")
    return np.asarray(plane, np.float32) / 255, -round(top) - height


@lru_cache(maxsize=64)
def _font(height: int) -> Any:
    return ImageFont.load_default(height / _CAPITAL)


def frame(drawn: UInt8Image, rect: Rect, color: Rgb, width: int) -> None:
    """Draw a rectangle in place, its line between two dark ones, so that it stands out on bright ground too."""
    corners = (rect[0], rect[1]), (rect[2], rect[3])
    cv2.rectangle(drawn, *corners, BLACK, width + 2 * max(1, width // 3))
    cv2.rectangle(drawn, *corners, color, width)


def paste(drawn: UInt8Image, card: UInt8Image, x: int, y: int) -> None:
    """Put a card in place, its left upper corner at x, y; what lies outside of the picture is cut off."""
    part = drawn[max(y, 0) : max(y + card.shape[0], 0), max(x, 0) : max(x + card.shape[1], 0)]
    part[:] = card[max(-y, 0) :, max(-x, 0) :][: part.shape[0], : part.shape[1]]


class Places:
    """What is still free of a picture.

    Args:
        height, width: of the picture.
        taken: rectangles that nothing may cover.
    """

    def __init__(self, height: int, width: int, taken: Iterable[Rect]) -> None:
        self._height, self._width = height, width
        self._taken = np.asarray(list(taken), np.int64).reshape(-1, 4)

    def take(self, candidates: Iterable[Rect]) -> Rect | None:
        """The first candidate that lies in the picture and touches nothing that is taken; it is taken then."""
        for x1, y1, x2, y2 in candidates:
            if min(x1, y1) < 0 or x2 > self._width or y2 > self._height:
                continue
            taken = self._taken
            if not ((x1 < taken[:, 2]) & (taken[:, 0] < x2) & (y1 < taken[:, 3]) & (taken[:, 1] < y2)).any():
                self._taken = np.vstack([taken, (x1, y1, x2, y2)])
                return x1, y1, x2, y2
        return None
