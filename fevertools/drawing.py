"""Results drawn into pictures: faces, expressions with bars of their probabilities, and where the network looked.

Every function gives a new picture back. Lines and letters grow with the faces and never get too small to read; what
has no free place beside its face stands in columns at the right of the picture, under the number of the face.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias, TypeVar

import cv2
import numpy as np

from fevertools._canvas import BLACK, LEAST_TEXT, WHITE, Places, Rect, Rgb, frame, length, paste, write
from fevertools.types import Explanation, Expression, Face, UInt8Image

COLORS: Final[Mapping[str, Rgb]] = MappingProxyType(
    {
        "neutral": (200, 200, 200),
        "happiness": (250, 210, 50),
        "surprise": (250, 145, 40),
        "sadness": (80, 150, 255),
        "anger": (240, 70, 60),
        "disgust": (90, 195, 80),
        "fear": (195, 120, 245),
        "contempt": (60, 205, 205),
    }
)
"""Label -> RGB of its box, bars and time line; all bright enough for black letters."""

_OTHER: Final = (255, 255, 255)
_GREEN: Final = (80, 220, 60)
_GROUND: Final = 28  # grey level of a card
_LEAST_SIDE: Final = 320  # pixels; smaller pictures are enlarged, for 9 px letters would not fit
_DOTS: Final = ((255, 210, 0), (255, 210, 0), (0, 200, 255), (40, 70, 255), (40, 70, 255))  # RGB, a colour a landmark


class Expressed(Protocol):
    """A face and how it looks: `FaceResult`, `Explanation`, or a face of a video."""

    @property
    def face(self) -> Face: ...

    @property
    def expression(self) -> Expression: ...


Shown = TypeVar("Shown", bound=Expressed)
Card: TypeAlias = Callable[[Shown, int], UInt8Image]
"""What stands beside a face, drawn for a height of its capitals: uint8 RGB, (h, w, 3)."""


def draw_faces(picture: UInt8Image, faces: Sequence[Face]) -> UInt8Image:
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
    for face in faces:
        side, width = float(face.box[2] - face.box[0]), _line(drawn, face)
        frame(drawn, _rect(face), _GREEN, width)
        radius = max(1, round(side / 45), width if side > 30 * width else 1)
        for (x, y), color in zip(face.landmarks, _DOTS, strict=True):
            cv2.circle(drawn, (round(float(x)), round(float(y))), radius, color, cv2.FILLED, cv2.LINE_AA)
    # Over all boxes, so that no line crosses a number.
    for face in faces:
        height = max(LEAST_TEXT, round(min(max(drawn.shape[:2]) / 50, float(face.box[2] - face.box[0]) / 4)))
        tag = _tag(f"{face.score:.2f}", _GREEN, height)
        x1, y1 = _rect(face)[:2]
        x, y = min(max(x1, 0), max(drawn.shape[1] - tag.shape[1], 0)), max(y1 - tag.shape[0], 0)
        paste(drawn, tag, x, y)
    return drawn


def draw_expressions(picture: UInt8Image, faces: Sequence[Expressed]) -> UInt8Image:
    """A copy of a picture with a box and the label of each face, and bars of its probabilities beside it.

    Where there are several faces they have their numbers, from 0, as in the column `face` of a table.

    Args:
        picture: uint8 RGB, (H, W, 3).
        faces: in pixels of the picture, such as the faces of `Analyzer.analyze`.

    Returns:
        uint8 RGB. As large as the picture, unless some bars have no place in it: they stand in columns at its right
        then. A picture of less than 320 pixels is enlarged by a whole number first.
    """
    return _lay_out(picture, faces, _bars)


def draw_maps(picture: UInt8Image, explanations: Sequence[Explanation]) -> UInt8Image:
    """A copy of a picture with a box and the label of each face, and beside it where the network looked for that label.

    What stands beside a face is the crop that the network was shown, under its class activation map: dark blue where
    a place said least for the label, yellow where it said most.

    Args:
        picture: uint8 RGB, (H, W, 3).
        explanations: what `Analyzer.explain` gives for the picture.

    Returns:
        uint8 RGB, laid out as by `draw_expressions`.
    """
    return _lay_out(picture, explanations, _heat)


def draw_labels(picture: UInt8Image, faces: Sequence[Expressed], names: Sequence[str]) -> UInt8Image:
    """A copy of a picture with a box for each face, and above it a name and the label; of the same size.

    Args:
        picture: uint8 RGB, (H, W, 3).
        faces: in pixels of the picture.
        names: what stands before the label, one a face; may be empty.
    """
    drawn = np.array(picture, np.uint8)
    _mark(drawn, faces, names, Places(drawn.shape[0], drawn.shape[1], map(_rect, (found.face for found in faces))))
    return drawn


# ------------------------------------------------------------------------------------------------------------- places


def _lay_out(picture: UInt8Image, faces: Sequence[Shown], card: Card[Shown]) -> UInt8Image:
    scale = -(-_LEAST_SIDE // max(picture.shape[:2]))
    drawn = np.array(picture, np.uint8).repeat(scale, 0).repeat(scale, 1)
    boxes = [_rect(found.face, scale) for found in faces]
    places = Places(drawn.shape[0], drawn.shape[1], boxes)
    names = [str(number) if len(faces) > 1 else "" for number in range(len(faces))]
    _mark(drawn, faces, names, places, scale)
    left_over: list[int] = []
    for number, (found, box) in enumerate(zip(faces, boxes, strict=True)):
        ideal = max(LEAST_TEXT, round(min((box[3] - box[1]) / 11, max(drawn.shape[:2]) / 45)))
        for height in dict.fromkeys((ideal, max(LEAST_TEXT, ideal * 2 // 3), LEAST_TEXT)):
            made = _titled(card(found, height), found, names[number], height)
            rect = places.take(_beside(box, made.shape[0], made.shape[1]))
            if rect is not None:
                paste(drawn, made, *rect[:2])
                break
        else:
            left_over.append(number)
    if not left_over:
        return drawn
    others = [faces[number] for number in left_over], [names[number] for number in left_over]
    return np.hstack([drawn, _columns(drawn.shape[0], *others, card)])


def _mark(drawn: UInt8Image, faces: Sequence[Expressed], names: Sequence[str], places: Places, scale: int = 1) -> None:
    """Boxes, and a tag at each that hides no face and no other tag; the words are fewer where there is little room."""
    for found in faces:
        frame(drawn, _rect(found.face, scale), _color(found.expression.label), _line(drawn, found.face, scale))
    for found, name in zip(faces, names, strict=True):
        box, label = _rect(found.face, scale), found.expression.label
        height = max(LEAST_TEXT, round(min(max(drawn.shape[:2]) / 45, (box[2] - box[0]) / 6)))
        percent = f"{100 * found.expression.probabilities[label]:.0f} %"
        for words in ((name, label, percent), (name, label), (name or label,)):
            tag = _tag(" ".join(filter(None, words)), _color(label), height)
            rect = places.take(_around(box, tag.shape[0], tag.shape[1], drawn.shape[1]))
            if rect is not None:
                break
        else:  # no place is free: the last of the three, over the top of its own face
            rect = max(box[0], 0), max(box[1], 0), box[2], box[3]
        paste(drawn, tag, *rect[:2])


def _around(box: Rect, height: int, width: int, right: int) -> list[Rect]:
    """Places of a tag: above the box, then below it, from its left end or to its right end, or within the picture."""
    x1, y1, x2, y2 = box
    lefts = dict.fromkeys((x1, x2 - width, min(max(x1, 0), right - width)))
    return [(x, y, x + width, y + height) for y in (y1 - height - 2, y2 + 3) for x in lefts]


def _beside(box: Rect, height: int, width: int) -> list[Rect]:
    """Places of a card: right of the box, left, below, above; a little away, and slid along it."""
    x1, y1, x2, y2 = box
    gap = max(4, (x2 - x1) // 20)
    along = [y1 + step * (y2 - y1 - height) // 4 for step in (0, 1, 2, 3, 4)]
    across = [x1 + step * (x2 - x1 - width) // 4 for step in (0, 1, 2, 3, 4)]
    corners = [(x, y) for x in (x2 + gap, x1 - gap - width) for y in along]
    # Below and above there may be the tag.
    tag = gap + (x2 - x1) // 4
    corners += [(x, y) for y in (y2 + gap, y2 + tag, y1 - gap - height, y1 - tag - height) for x in across]
    return [(x, y, x + width, y + height) for x, y in corners]


def _columns(height: int, faces: Sequence[Shown], names: Sequence[str], card: Card[Shown]) -> UInt8Image:
    """Columns of cards: uint8 RGB, (height, w, 3)."""
    # A card is 14 times as high as a capital: three columns, if that leaves letters to be read.
    text = max(LEAST_TEXT + 2, min(height // 34, 3 * height // (14 * len(faces))))
    cards = [_titled(card(found, text), found, name, text) for found, name in zip(faces, names, strict=True)]
    pad = text // 2
    high, wide = (max(made.shape[axis] for made in cards) + pad for axis in (0, 1))
    rows = max(1, height // high)
    drawn = np.full((height, pad + wide * -(-len(cards) // rows), 3), _GROUND, np.uint8)
    for place, made in enumerate(cards):
        paste(drawn, made, pad + wide * (place // rows), high * (place % rows))
    return drawn


# -------------------------------------------------------------------------------------------------------------- cards


def _tag(text: str, color: Rgb, height: int) -> UInt8Image:
    pad = max(2, height // 4)
    tag = np.empty((height + 2 * pad, length(text, height) + 2 * pad, 3), np.uint8)
    tag[:] = color
    write(tag, text, pad, pad, height, BLACK)
    return tag


def _titled(card: UInt8Image, found: Expressed, name: str, height: int) -> UInt8Image:
    """A card under the name and label of its face, if that has a name: in a crowd it may stand nearer to another."""
    if not name:
        return card
    tag = _tag(f"{name} {found.expression.label}", _color(found.expression.label), height)
    titled = np.full((card.shape[0] + tag.shape[0], max(card.shape[1], tag.shape[1]), 3), _GROUND, np.uint8)
    paste(titled, tag, 0, 0)
    paste(titled, card, 0, tag.shape[0])
    return titled


def _bars(found: Expressed, height: int) -> UInt8Image:
    """Name, bar and percentage of every label, one a row."""
    probabilities = found.expression.probabilities
    pad, row, bar = max(3, height // 3), round(1.5 * height), 6 * height
    names = max(length(name, height) for name in probabilities)
    drawn = np.full(
        (len(probabilities) * row + 2 * pad - (row - height), names + bar + length("100", height) + 4 * pad, 3),
        _GROUND,
        np.uint8,
    )
    start = names + 2 * pad
    for place, (name, probability) in enumerate(probabilities.items()):
        y = pad + place * row
        write(drawn, name, pad, y, height)
        drawn[y : y + height, start : start + bar] = 2 * _GROUND
        drawn[y : y + height, start : start + round(bar * probability)] = _color(name)
        write(drawn, f"{100 * probability:.0f}", start + bar + pad, y, height, WHITE)
    return drawn


def _heat(found: Explanation, height: int) -> UInt8Image:
    """The crop under the map of its label, in a frame of the label's colour, about as high as the bars would be."""
    side, edge = 11 * height, max(1, height // 6)
    crop, heat = (
        cv2.resize(plane, (round(side * plane.shape[1] / plane.shape[0]), side), interpolation=cv2.INTER_CUBIC)
        for plane in (found.crop, found.heat())
    )
    heat = np.clip(heat, 0, 1)
    colors = cv2.applyColorMap(np.rint(255 * heat).astype(np.uint8), cv2.COLORMAP_PLASMA)[..., ::-1]  # BGR -> RGB
    cover = 0.3 + 0.3 * heat[..., None]
    drawn = np.rint(crop[..., None] * (1 - cover) + colors * cover).astype(np.uint8)
    framed = np.empty((drawn.shape[0] + 2 * edge, drawn.shape[1] + 2 * edge, 3), np.uint8)
    framed[:] = _color(found.expression.label)
    paste(framed, drawn, edge, edge)
    return framed


def _color(label: str) -> Rgb:
    return COLORS.get(label, _OTHER)


def _rect(face: Face, scale: int = 1) -> Rect:
    x1, y1, x2, y2 = (round(scale * float(value)) for value in face.box)
    return x1, y1, x2, y2


def _line(drawn: UInt8Image, face: Face, scale: int = 1) -> int:
    """Width of the line of a box, pixels."""
    longer = float(max(drawn.shape[:2]))
    return max(1, round(min(longer / 300, scale * float(face.box[2] - face.box[0]) / 25)))
