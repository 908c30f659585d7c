"""Boxes of faces over time -> tracks, by where the boxes are and how they move. Nothing here looks at who it is.

SORT (Bewley et al. 2016) without the libraries around it: those that are kept bring SciPy, Matplotlib or a second build
of OpenCV, which overwrites ours, for what is a motion filter and an assignment. Two things differ from SORT. Time is in
seconds, so that frames may come at any rate. And boxes are compared by their distance-IoU, which goes on where two
boxes no longer overlap, so that a face is also followed from one analysed frame to the next of a few a second.

The assignment is the best of all, not greedy: where two faces cross, the best single pair often leaves the worst one.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fevertools.types import Float32

PATIENCE: Final = 1.0
"""Seconds for which a track waits for its face: a miss of the detector, or another face in front of it."""

_GATE: Final = -0.2
"""Least distance-IoU of a pair. Boxes of one size reach it a face's width apart."""

# In sides of the face, measured on faces that stand still and that cross.
_JITTER: Final = 0.05  # of a detected box
_SPEED: Final = 2.0  # a second, of a face that is new
_ACCELERATION: Final = 4.0  # a second squared

_Float64 = npt.NDArray[np.float64]


class Tracker:
    """Numbers for the faces of one video, from 1, in the order in which they appear; none is used twice."""

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._count = 0
        self._time: float | None = None

    @property
    def alive(self) -> frozenset[int]:
        """Tracks that are seen, or waited for."""
        return frozenset(track.number for track in self._tracks)

    def update(self, time: float, boxes: Float32) -> list[int]:
        """The track of each box of one frame.

        Args:
            time: seconds, not before that of the last frame.
            boxes: float32 (n, 4) x1, y1, x2, y2 in pixels, one a face.

        Returns:
            n different numbers.
        """
        # Where frames are rare, a face may be missed in one of them as well.
        waited = max(PATIENCE, 2 * (time - (time if self._time is None else self._time)))
        self._tracks = [track for track in self._tracks if time - track.time <= waited]
        self._time = time
        numbers = [0] * len(boxes)
        predicted = np.array([track.predict(time) for track in self._tracks]).reshape(-1, 4)
        for row, column in assign(distance_iou(predicted, boxes) - _GATE):
            self._tracks[row].correct(time, boxes[column])
            numbers[column] = self._tracks[row].number
        for column, number in enumerate(numbers):
            if not number:
                self._count += 1
                numbers[column] = self._count
                self._tracks.append(_Track(self._count, time, _centre_and_size(boxes[column])))
        return numbers


@dataclass(slots=True)
class _Track:
    """A Kalman filter of constant velocity, the same for both axes, in units of the side of the face."""

    number: int
    time: float  # seconds, of the last box
    place: _Float64  # (4,) centre x, centre y, width, height; pixels
    velocity: _Float64 = field(default_factory=lambda: np.zeros(4))  # (4,) pixels a second; sizes have none
    covariance: _Float64 = field(default_factory=lambda: np.diag([_JITTER**2, _SPEED**2]))  # (2, 2) place, velocity

    def predict(self, time: float) -> _Float64:
        """Where the box is at that time: (4,) x1, y1, x2, y2 in pixels. Nobody keeps moving alike beyond PATIENCE."""
        centre, size = np.split(self.place + min(time - self.time, PATIENCE) * self.velocity, 2)
        return np.concatenate([centre - size / 2, centre + size / 2])

    def correct(self, time: float, box: Float32) -> None:
        """Take a detected box in."""
        step = time - self.time
        motion = np.array([[1, step], [0, 1]])
        push = np.array([step**2 / 2, step])
        covariance = motion @ self.covariance @ motion.T + _ACCELERATION**2 * np.outer(push, push)
        gain = covariance[:, 0] / (covariance[0, 0] + _JITTER**2)
        place = self.place + step * self.velocity
        surprise = _centre_and_size(box) - place
        self.place = place + gain[0] * surprise
        self.velocity = self.velocity + gain[1] * surprise * (1, 1, 0, 0)
        self.covariance = covariance - np.outer(gain, covariance[0])
        self.time = time


def _centre_and_size(box: Float32) -> _Float64:
    low, high = np.split(np.asarray(box, np.float64), 2)
    return np.concatenate([(low + high) / 2, high - low])


def distance_iou(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> _Float64:
    """Intersection over union, less the squared distance of the centres over that of the corners of both boxes.

    Zheng et al. 2020, Eq. 6 and 7.

    Args:
        a: (n, 4) x1, y1, x2, y2.
        b: (m, 4).

    Returns:
        float64 (n, m), above -1; 1 for the same box.
    """
    a, b = np.asarray(a, np.float64)[:, None], np.asarray(b, np.float64)[None]
    overlap = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None).prod(-1)
    areas = [np.clip(box[..., 2:] - box[..., :2], 0, None).prod(-1) for box in (a, b)]
    distance = ((a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) ** 2).sum(-1) / 4
    reach = ((np.maximum(a[..., 2:], b[..., 2:]) - np.minimum(a[..., :2], b[..., :2])) ** 2).sum(-1)
    tiny = np.finfo(np.float64).tiny
    return np.asarray(overlap / np.maximum(areas[0] + areas[1] - overlap, tiny) - distance / np.maximum(reach, tiny))


def assign(gain: npt.NDArray[Any]) -> list[tuple[int, int]]:
    """The pairs of rows and columns, each used once, that gain most together; no pair without a gain above 0.

    Shortest augmenting paths, Jonker and Volgenant 1987: O(n^3), a millisecond for ten faces.

    Args:
        gain: (n, m), finite.
    """
    if gain.shape[0] > gain.shape[1]:
        return sorted((row, column) for column, row in assign(gain.T))
    cost = -np.maximum(gain, 0.0)
    rows, columns = cost.shape
    # Row and column 0 are where a path begins.
    of_row, of_column = np.zeros(rows + 1), np.zeros(columns + 1)
    matched = np.zeros(columns + 1, np.int64)
    for row in range(1, rows + 1):
        matched[0], column = row, 0
        least, came = np.full(columns + 1, np.inf), np.zeros(columns + 1, np.int64)
        used = np.zeros(columns + 1, bool)
        while matched[column]:
            used[column] = True
            here = matched[column]
            reduced = np.concatenate([[np.inf], cost[here - 1] - of_row[here] - of_column[1:]])
            nearer = ~used & (reduced < least)
            least[nearer], came[nearer] = reduced[nearer], column
            following = int(np.where(used, np.inf, least).argmin())
            step = least[following]
            of_row[matched[used]] += step
            of_column[used] -= step
            least[~used] -= step
            column = following
        while column:
            matched[column] = matched[came[column]]
            column = int(came[column])
    pairs = ((int(row) - 1, column) for column, row in enumerate(matched[1:]) if row)
    return sorted((row, column) for row, column in pairs if gain[row, column] > 0)
