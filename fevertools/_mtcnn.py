"""The arithmetic of MTCNN around its three networks: pyramid, resizing, decoding, suppression. NumPy only, no sessions.

Zhang et al. 2016, "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks", in the exact
form of facenet-pytorch 2.5.3 (rounding, borders, the plus-one conventions and the order of ties included), since its
weights are used. Everything is float32 unless said otherwise.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from fevertools.types import Float32, UInt8Image

UInt16 = npt.NDArray[np.uint16]
Int32 = npt.NDArray[np.int32]
Index = npt.NDArray[np.intp]
Share: TypeAlias = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]

WINDOW = 12  # pixels of the image that one output cell of the proposal network sees
STRIDE = 2  # pixels between two cells
OVERLAP = WINDOW - STRIDE  # pixels that two neighbouring strips share
# Most rows and columns of a strip, without the 10 that it shares with the next one: what the first convolution makes of
# them stays in the cache of a core, and a picture gives enough strips for several cores.
_STRIP_ROWS = 160
_STRIP_COLUMNS = 320
_BAND_ROWS = 64  # of the image; its sums stay in the cache too
_NMS_BLOCK = 128


def pyramid_scales(height: int, width: int, min_face_size: int, factor: float) -> list[float]:
    """Scales at which the image is searched, largest first; empty where the image is smaller than the smallest face."""
    scale = WINDOW / min_face_size
    side = min(height, width) * scale
    scales = []
    while side >= WINDOW:
        scales.append(scale)
        scale *= factor
        side *= factor
    return scales


class SumTable:
    """Summed-area table of an RGB image: entry [y, x] is the sum of all pixels above and left of it.

    Sums wrap around where they outgrow their type, which cancels in the differences that are taken of them, as long as
    the sum of the window itself fits. Half the bytes gather in half the time, so there is a narrow table, and a wide
    one only once a window asks for it. The fourth channel makes a pixel one machine word, which NumPy moves several
    times faster than three numbers. Threads may share one.

    Args:
        image: uint8 (H, W, 3) in C order.
        share: maps a function over items, as `map` does; perhaps by several threads.
    """

    def __init__(self, image: UInt8Image, share: Share = map) -> None:
        self.height, self.width = image.shape[:2]
        self._image = image
        self._lock = threading.Lock()
        self._wide: Int32 | None = None
        self._narrow = np.empty((self.height + 1, self.width + 1, 4), np.uint16)
        self._narrow[0] = 0
        tops = range(0, self.height, _BAND_ROWS)
        # Each band by itself; what lies above it is added once all are there.
        last = list(share(self._sum_band, tops))
        above = np.cumsum(last[:-1], axis=0, dtype=np.uint16)
        list(
            share(
                lambda band: np.add(band[0], band[1], out=band[0]),
                [(self._narrow[1 + top : 1 + top + _BAND_ROWS], row) for top, row in zip(tops[1:], above, strict=True)],
            )
        )

    def _sum_band(self, top: int) -> UInt16:
        """Fill a band with its own sums; the last row of it."""
        band = self._narrow[1 + top : 1 + top + _BAND_ROWS]
        np.copyto(band, _integral(self._image[top : top + _BAND_ROWS])[1:], casting="unsafe")
        row: UInt16 = band[-1]
        return row

    def fitting(self, largest_window: int) -> tuple[npt.NDArray[Any], npt.DTypeLike]:
        """The smaller table that holds sums of so many pixels, a word a pixel (H + 1, W + 1), and the type of a sum."""
        if 255 * largest_window < 1 << 16:
            return self._narrow.view(np.uint64)[..., 0], np.uint16
        with self._lock:
            if self._wide is None:
                self._wide = _integral(self._image)
        return self._wide.view(np.complex128)[..., 0], np.int32  # 16 bytes, only moved, never computed with


def _integral(image: UInt8Image) -> Int32:
    return cv2.integral(cv2.cvtColor(image, cv2.COLOR_RGB2RGBA), sdepth=cv2.CV_32S).view(np.int32)


@dataclass(frozen=True, slots=True)
class Level:
    """A level of the pyramid of an image, and the pixels of the image, `first` to `end`, that each of its own takes."""

    scale: float
    height: int
    width: int
    first_row: Index  # (height,)
    end_row: Index
    first_column: Index  # (width,)
    end_column: Index

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of the proposal network's output."""
        # Its pooling rounds up, so that the last cell may see one pixel less than a window.
        return -(-(self.height - OVERLAP) // STRIDE), -(-(self.width - OVERLAP) // STRIDE)


def make_level(height: int, width: int, scale: float) -> Level:
    rows, columns = int(height * scale + 1), int(width * scale + 1)
    return Level(scale, rows, columns, *_windows(height, rows), *_windows(width, columns))


@dataclass(frozen=True, slots=True)
class Strip:
    """Rows `top` to `bottom` and columns `left` to `right` (ends excluded) of a level."""

    level: Level
    top: int
    bottom: int
    left: int
    right: int


def strips(level: Level) -> list[Strip]:
    """Cut a level so that the cells of the proposal network join without gap or overlap."""
    return [
        Strip(level, top, bottom, left, right)
        for top, bottom in _cut(level.height, _STRIP_ROWS)
        for left, right in _cut(level.width, _STRIP_COLUMNS)
    ]


def _cut(length: int, most: int) -> list[tuple[int, int]]:
    """Start and end of the fewest pieces of about the same length, with cells for `most` pixels at most."""
    count = -(-(length - OVERLAP) // most)
    step = -(-(length - OVERLAP) // (count * STRIDE)) * STRIDE
    return [(start, min(start + step + OVERLAP, length)) for start in range(0, length - OVERLAP, step)]


def _windows(length: int | Int32, cells: int) -> tuple[Index, Index]:
    """First and one-past-last pixel of each of `cells` windows, as adaptive average pooling cuts them: (..., cells)."""
    cell = np.arange(cells)
    size = np.asarray(length, np.intp)[..., None]
    return cell * size // cells, -(-(cell + 1) * size // cells)


def area_resize(table: SumTable, strip: Strip) -> Float32:
    """Adaptive average pooling of the image to a level, one strip of it: float32 (1, 3, rows, columns).

    Windows overlap where the ratio is not whole, which is what tells this from `cv2.INTER_AREA`.
    """
    level, rows, columns = strip.level, slice(strip.top, strip.bottom), slice(strip.left, strip.right)
    y0, y1, x0, x1 = level.first_row[rows], level.end_row[rows], level.first_column[columns], level.end_column[columns]
    high, wide = y1 - y0, x1 - x0
    if 8 * level.width > table.width:
        # Nearly every column is used: differences of whole rows first, at memory speed.
        words, kind = table.fitting(int(high.max() * wide.max()))
        words = words[:, x0[0] : x1[-1] + 1]
        difference = words[y1].view(kind)
        difference -= words[y0].view(kind)
        words = difference.view(words.dtype)
        sums = np.take(words, x1 - x0[0], axis=1).view(kind)
        sums -= np.take(words, x0 - x0[0], axis=1).view(kind)
    else:
        sums = _corner_sums(table, np.stack([y0, y1]), np.stack([x0, x1]))
    sums = sums.reshape(len(y0), len(x0), 4).transpose(2, 0, 1)[:3]
    weights = _inverse(high)[:, None] * _inverse(wide)
    out = np.empty((1, *sums.shape), np.float32)
    np.multiply(sums, weights, out=out, dtype=np.float32, casting="unsafe")
    return out


def area_crops(table: SumTable, boxes: Int32, size: int) -> Float32:
    """Adaptive average pooling of boxes of the image: float32 (N, 3, size, size).

    Boxes are x1, y1, x2, y2, ends excluded; each lies inside the image and has at least one pixel.
    """
    corners = boxes.reshape(-1, 2, 2)  # (N, first and end, x and y)
    edges = np.stack(_windows(corners[:, 1] - corners[:, 0], size))  # (first and end, N, x and y, size)
    wide, high = _inverse(edges[1] - edges[0]).transpose(1, 0, 2)
    edges += corners[:, 0, :, None]
    sums = _corner_sums(table, edges[:, :, 1], edges[:, :, 0])
    sums = sums.reshape(len(boxes), size, size, 4).transpose(0, 3, 1, 2)[:, :3]
    weights = (high[:, :, None] * wide[:, None, :])[:, None]
    out = np.empty(sums.shape, np.float32)
    np.multiply(sums, weights, out=out, dtype=np.float32, casting="unsafe")
    return out


def _corner_sums(table: SumTable, y: Index, x: Index) -> npt.NDArray[Any]:
    """Sums over windows: (..., rows, columns * 4) from their first and end (2, ..., rows) and (2, ..., columns)."""
    words, kind = table.fitting(int((y[1] - y[0]).max() * (x[1] - x[0]).max()))
    # One call of each, since threads pass the interpreter on at each: (2, 2, ..., rows, columns).
    index = (y * words.shape[1])[:, None, ..., None] + x[None, ..., None, :]
    corners = np.take(words.reshape(-1), index).view(kind)
    sides: npt.NDArray[Any] = corners[1]
    sides -= corners[0]
    sums: npt.NDArray[Any] = sides[1]
    sums -= sides[0]
    return sums


def _inverse(length: Index) -> Float32:
    return (1.0 / length).astype(np.float32)


def sigmoid(logit: Float32) -> Float32:
    """Probability of the second of two classes, from the difference of their logits."""
    # exp overflows to inf below -88, and 1 / inf is the right answer.
    with np.errstate(over="ignore"):
        probability: Float32 = np.float32(1) / (np.float32(1) + np.exp(-logit))
    return probability


def decode_cells(cells: Float32, scale: float, threshold: float) -> Float32:
    """Boxes of the cells that look like a face.

    Args:
        cells: (5, h, w) logit and four offsets of each cell of a level.
        scale: of the level.
        threshold: lowest probability.

    Returns:
        (N, 9) x1, y1, x2, y2 in image pixels (whole numbers), probability, four offsets; in raster order.
    """
    # A bound a little below the threshold, so that the exact probability is worked out for few cells.
    bound = np.float32(np.log(threshold / (1 - threshold)) - 1e-3)
    found = np.flatnonzero(cells[0] >= bound)
    values = cells.reshape(5, -1)[:, found]
    probability = sigmoid(values[0])
    keep = probability >= np.float32(threshold)
    y, x = np.divmod(found[keep], cells.shape[2])
    corner = np.stack([STRIDE * x, STRIDE * y], axis=1).astype(np.float32)
    first = np.floor((corner + np.float32(1)) / np.float32(scale))
    last = np.floor((corner + np.float32(WINDOW)) / np.float32(scale))
    return np.concatenate([first, last, probability[keep, None], values[1:, keep].T], axis=1)


def apply_proposal_offsets(boxes: Float32) -> Float32:
    """Move the corners by the offsets in columns 5-8, in widths and heights without the plus one: (N, 5)."""
    size = np.tile(boxes[:, 2:4] - boxes[:, 0:2], 2)
    return np.concatenate([boxes[:, :4] + boxes[:, 5:9] * size, boxes[:, 4:5]], axis=1)


def apply_offsets(boxes: Float32, offsets: Float32) -> Float32:
    """Move the corners by `offsets` (N, 4), in widths and heights with the plus one; other columns stay."""
    size = np.tile(boxes[:, 2:4] - boxes[:, 0:2] + np.float32(1), 2)
    return np.concatenate([boxes[:, :4] + offsets * size, boxes[:, 4:]], axis=1)


def place_landmarks(boxes: Float32, fractions: Float32) -> Float32:
    """Landmarks in pixels (N, 5, 2) from fractions of the box (N, 10): five x, then five y."""
    size = boxes[:, 2:4] - boxes[:, 0:2] + np.float32(1)
    x = size[:, 0, None] * fractions[:, :5] + boxes[:, 0, None] - np.float32(1)
    y = size[:, 1, None] * fractions[:, 5:] + boxes[:, 1, None] - np.float32(1)
    return np.stack([x, y], axis=2)


def square(boxes: Float32) -> Float32:
    """Grow the shorter side of each box, about its centre, to the longer one; other columns stay."""
    size = boxes[:, 2:4] - boxes[:, 0:2]
    side = size.max(axis=1, keepdims=True)
    first = boxes[:, 0:2] + size * np.float32(0.5) - side * np.float32(0.5)
    return np.concatenate([first, first + side, boxes[:, 4:]], axis=1)


def crop_bounds(boxes: Float32, height: int, width: int) -> Int32:
    """Pixels of the image that each box covers: int32 (N, 4) x1, y1, x2, y2, ends excluded; may be empty."""
    bounds = np.trunc(boxes[:, :4]).astype(np.int32)
    # Box coordinates count pixels from 1.
    bounds[:, :2] = np.maximum(bounds[:, :2], 1) - 1
    bounds[:, 2:] = np.minimum(bounds[:, 2:], np.array((width, height), np.int32))
    return bounds


def suppress(boxes: Float32, scores: Float32, threshold: float, *, of_smaller: bool = False) -> Index:
    """Greedy non-maximum suppression.

    Args:
        boxes: (N, 4) x1, y1, x2, y2.
        scores: (N,).
        threshold: a box goes when its overlap with a better kept one is above this.
        of_smaller: measure the overlap as a share of the smaller box, with widths and heights plus one (the last
            stage); else as intersection over union, without the plus one.

    Returns:
        Indices of the kept boxes, best first. Equal scores: the earlier box first, or the later one if `of_smaller`.
    """
    # The order of ties is that of the two routines which facenet-pytorch uses.
    order = np.argsort(scores, kind="stable")[::-1] if of_smaller else np.argsort(-scores, kind="stable")
    extra = np.float32(1 if of_smaller else 0)
    left, top, right, bottom = boxes[order].T
    right, bottom = right + extra, bottom + extra
    sides = np.stack([left, top, right, bottom, (right - left) * (bottom - top)])  # (5, N)
    kept = np.empty(0, np.intp)
    for start in range(0, len(order), _NMS_BLOCK):
        block = np.arange(start, min(start + _NMS_BLOCK, len(order)))
        # In pieces, so that the matrix stays in the cache however many boxes are kept.
        for piece in range(0, len(kept), 4 * _NMS_BLOCK):
            clash = _overlap(sides[:, kept[piece : piece + 4 * _NMS_BLOCK]], sides[:, block], of_smaller) > threshold
            block = block[~clash.any(axis=0)]
        clash = _overlap(sides[:, block], sides[:, block], of_smaller) > threshold
        alive = np.ones(len(block), bool)
        for row in np.flatnonzero(np.triu(clash, 1).any(axis=1)):
            if alive[row]:
                alive[row + 1 :] &= ~clash[row, row + 1 :]
        kept = np.concatenate([kept, block[alive]])
    return order[kept]


def suppress_levels(levels: Sequence[Float32], within: float, threshold: float) -> Index:
    """What `suppress` keeps of the boxes of all levels together, when it has been at each level by itself.

    Two boxes overlap by no more than the ratio of their areas, and levels differ by so much that this is mostly below
    the threshold, so that only the order is to be found.

    Args:
        levels: (N, 5 or more) x1, y1, x2, y2, score, finest level first.
        within: threshold at which each level was suppressed.
        threshold: lowest intersection over union of a box that goes.

    Returns:
        Indices into the concatenated levels, best first.
    """
    boxes = np.concatenate(levels)
    if within > threshold or not _far_apart(levels, threshold):
        return suppress(boxes[:, :4], boxes[:, 4], threshold)
    return np.argsort(-boxes[:, 4], kind="stable")


def _far_apart(levels: Sequence[Float32], ratio: float) -> bool:
    """Whether no box has more than `ratio` of the area of a box of a coarser level."""
    largest = 0.0
    for boxes in levels:
        if len(boxes):
            area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
            # Less, for the rounding of what this stands in for.
            if largest > 0.99 * ratio * float(area.min()):
                return False
            largest = max(largest, float(area.max()))
    return True


def _overlap(one: Float32, other: Float32, of_smaller: bool) -> Float32:
    """Overlap of N boxes with M boxes, (N, M), from their x1, y1, x2, y2 and area: (5, N) and (5, M)."""
    left, top, right, bottom, area = one[:, :, None]
    zero = np.float32(0)
    # In place, since this is all memory traffic.
    shared = np.minimum(right, other[2])
    shared -= np.maximum(left, other[0])
    np.maximum(shared, zero, out=shared)
    height = np.minimum(bottom, other[3])
    height -= np.maximum(top, other[1])
    shared *= np.maximum(height, zero, out=height)
    if of_smaller:
        whole = np.minimum(area, other[4])
    else:
        whole = area + other[4]
        whole -= shared
    # Boxes without area: 0 / 0 is not an overlap.
    with np.errstate(invalid="ignore", divide="ignore"):
        shared /= whole
    ratio: Float32 = shared
    return ratio
