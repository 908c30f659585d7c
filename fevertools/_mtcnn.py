"""The arithmetic of MTCNN around its three networks: pyramid, resizing, decoding, suppression. NumPy only, no sessions.

Zhang et al. 2016, "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks", in the exact
form of facenet-pytorch 2.5.3 (rounding, borders, the plus-one conventions and the order of ties included), since its
weights are used. Everything is float32 unless said otherwise.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fevertools.types import Float32, UInt8Image

UInt16 = npt.NDArray[np.uint16]
Int32 = npt.NDArray[np.int32]
Index = npt.NDArray[np.intp]

WINDOW = 12  # pixels of the image that one output cell of the proposal network sees
STRIDE = 2  # pixels between two cells
_STRIP_PIXELS = 1 << 16  # enough work for a call, and activations that stay near the core's cache
_STRIP_ROWS = 64  # at least; strips overlap by 10 rows
_STRIP_COLUMNS = 1 << 13  # at most, and 10 more; no photo is so wide, but what a stranger sends may be
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


@dataclass(frozen=True, slots=True)
class SumTable:
    """Summed-area table of an RGB image: entry [y, x] is the sum of all pixels above and left of it.

    Sums wrap around where they outgrow their type, which cancels in the differences that are taken of them, as long as
    the sum of the window itself fits. Half the bytes gather in half the time, so there is a second, narrow table for
    the windows that are small enough. The fourth channel makes a pixel one machine word, which NumPy moves several
    times faster than three numbers.
    """

    height: int  # of the image
    width: int
    narrow: UInt16  # (height + 1, width + 1, 4)
    wide: Int32  # (height + 1, width + 1, 4)

    def fitting(self, largest_window: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """The smaller table that can hold sums of so many pixels, and the same table as (rows, columns) of words."""
        if 255 * largest_window < 1 << 16:
            return self.narrow, self.narrow.view(np.uint64)[..., 0]
        return self.wide, self.wide.view(np.complex128)[..., 0]  # 16 bytes, only moved, never computed with


def sum_table(image: UInt8Image) -> SumTable:
    """The table of an RGB image, uint8 (H, W, 3) in C order."""
    wide = cv2.integral(cv2.cvtColor(image, cv2.COLOR_RGB2RGBA), sdepth=cv2.CV_32S)
    return SumTable(image.shape[0], image.shape[1], wide.astype(np.uint16), wide.view(np.int32))


@dataclass(frozen=True, slots=True)
class Strip:
    """Rows `top` to `bottom` and columns `left` to `right` (ends excluded) of the pyramid level of this scale."""

    scale: float
    height: int  # of the whole level
    width: int
    top: int
    bottom: int
    left: int = 0
    right: int | None = None  # None: the end of the level


def strips(height: int, width: int, scale: float) -> list[Strip]:
    """Cut a level of the pyramid of an image so that the cells of the proposal network join without gap or overlap."""
    rows, columns = int(height * scale + 1), int(width * scale + 1)
    step = max(_STRIP_ROWS, _STRIP_PIXELS // columns) // STRIDE * STRIDE
    overlap = WINDOW - STRIDE
    return [
        Strip(scale, rows, columns, top, min(top + step + overlap, rows), left, left + _STRIP_COLUMNS + overlap)
        for top in range(0, rows - overlap, step)
        for left in range(0, columns - overlap, _STRIP_COLUMNS)
    ]


def _windows(length: int | Int32, cells: int) -> tuple[Index, Index]:
    """First and one-past-last pixel of each of `cells` windows, as adaptive average pooling cuts them: (..., cells)."""
    cell = np.arange(cells)
    size = np.asarray(length, np.intp)[..., None]
    return cell * size // cells, -(-(cell + 1) * size // cells)


def area_resize(table: SumTable, strip: Strip) -> Float32:
    """Adaptive average pooling of the image to a pyramid level, one strip of it: float32 (1, 3, rows, columns).

    Windows overlap where the ratio is not whole, which is what tells this from `cv2.INTER_AREA`.
    """
    y0, y1 = (edge[strip.top : strip.bottom] for edge in _windows(table.height, strip.height))
    x0, x1 = (edge[strip.left : strip.right] for edge in _windows(table.width, strip.width))
    high, wide = y1 - y0, x1 - x0
    numbers, words = table.fitting(int(high.max() * wide.max()))
    if 8 * strip.width > table.width:
        # Nearly every column is used: differences of whole rows first, at memory speed.
        numbers = numbers[:, x0[0] : x1[-1] + 1]
        difference = np.take(numbers, y1, axis=0)
        difference -= np.take(numbers, y0, axis=0)
        words = difference.view(words.dtype)[..., 0]
        sums = np.take(words, x1 - x0[0], axis=1).view(numbers.dtype)
        sums -= np.take(words, x0 - x0[0], axis=1).view(numbers.dtype)
    else:
        sums = _corner_sums(table, y0[:, None], y1[:, None], x0, x1)
    sums = sums.reshape(len(y0), len(x0), 4)
    weights = _inverse(high)[:, None] * _inverse(wide)
    out = np.empty((1, 3, len(y0), len(x0)), np.float32)
    for channel in range(3):
        np.multiply(sums[:, :, channel], weights, out=out[0, channel], dtype=np.float32, casting="unsafe")
    return out


def area_crops(table: SumTable, boxes: Int32, size: int) -> Float32:
    """Adaptive average pooling of boxes of the image: float32 (N, 3, size, size).

    Boxes are x1, y1, x2, y2, ends excluded; each lies inside the image and has at least one pixel.
    """
    x0, x1 = (edge + boxes[:, 0, None] for edge in _windows(boxes[:, 2] - boxes[:, 0], size))
    y0, y1 = (edge + boxes[:, 1, None] for edge in _windows(boxes[:, 3] - boxes[:, 1], size))
    sums = _corner_sums(table, y0[:, :, None], y1[:, :, None], x0[:, None, :], x1[:, None, :])
    sums = sums.reshape(len(boxes), size, size, 4)
    weights = _inverse(y1 - y0)[:, :, None] * _inverse(x1 - x0)[:, None, :]
    out = np.empty((len(boxes), 3, size, size), np.float32)
    for channel in range(3):
        np.multiply(sums[..., channel], weights, out=out[:, channel], dtype=np.float32, casting="unsafe")
    return out


def _corner_sums(table: SumTable, y0: Index, y1: Index, x0: Index, x1: Index) -> npt.NDArray[Any]:
    """Sums over the windows [y0, y1) x [x0, x1), broadcast together; the last axis holds the four channels of each."""
    numbers, words = table.fitting(int((y1 - y0).max() * (x1 - x0).max()))
    flat = words.reshape(-1)
    top, bottom = y0 * words.shape[1], y1 * words.shape[1]
    sums: npt.NDArray[Any] = np.take(flat, bottom + x1).view(numbers.dtype)
    sums -= np.take(flat, bottom + x0).view(numbers.dtype)
    sums -= np.take(flat, top + x1).view(numbers.dtype)
    sums += np.take(flat, top + x0).view(numbers.dtype)
    return sums


def _inverse(length: Index) -> Float32:
    return (1.0 / length).astype(np.float32)


def sigmoid(logit: Float32) -> Float32:
    """Probability of the second of two classes, from the difference of their logits."""
    # exp overflows to inf below -88, and 1 / inf is the right answer.
    with np.errstate(over="ignore"):
        probability: Float32 = np.float32(1) / (np.float32(1) + np.exp(-logit))
    return probability


def decode_cells(cells: Float32, strip: Strip, threshold: float) -> Float32:
    """Boxes of the cells that look like a face.

    Args:
        cells: (5, h, w) logit and four offsets of each cell.
        strip: where in the pyramid they lie.
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
    corner = np.stack([STRIDE * x + strip.left, STRIDE * y + strip.top], axis=1).astype(np.float32)
    scale = np.float32(strip.scale)
    first = np.floor((corner + np.float32(1)) / scale)
    last = np.floor((corner + np.float32(WINDOW)) / scale)
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
