"""Vectors over time -> steadier vectors, one a track."""

import math
from collections.abc import Collection, Sequence

import numpy as np

from fevertools.types import Expression, Float32


class Smoother:
    """Exponential means: what was seen t seconds ago weighs exp(-t / seconds) of what is seen now.

    A step from 0 to 1 is 1 - exp(-t / seconds) after t, however many frames came between. The first vector of a track
    stands for all that was before it.

    Args:
        seconds: above 0, or 0 for none, where vectors come out as they went in.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._states: dict[int, tuple[float, Float32]] = {}

    def update(self, track: int, time: float, value: Float32) -> Float32:
        """The mean of a track, one more vector of which is known: float32, of the same shape.

        Args:
            track: its number.
            time: seconds, not before that of its last vector.
            value: float32.
        """
        if track in self._states and self._seconds > 0:
            before, mean = self._states[track]
            # float32 also between the frames: a table holds the whole state, so that a run can go on from one.
            value = (mean + (value - mean) * -math.expm1((before - time) / self._seconds)).astype(np.float32)
        self.put(track, time, value)
        return value

    def put(self, track: int, time: float, mean: Float32) -> None:
        """Go on from this mean of a track."""
        self._states[track] = time, mean

    def keep(self, tracks: Collection[int]) -> None:
        """Forget all tracks but these."""
        self._states = {track: state for track, state in self._states.items() if track in tracks}


def expression_of(probabilities: Float32, labels: Sequence[str]) -> Expression:
    """The expression of these probabilities, float32 (C,), of C labels; see `encoder.express`."""
    values = probabilities.astype(np.float64)
    positive = values[values > 0]
    return Expression(
        label=labels[int(values.argmax())],
        probabilities=dict(zip(labels, values.tolist(), strict=True)),
        entropy=max(0.0, -float((positive * np.log(positive)).sum())),
    )
