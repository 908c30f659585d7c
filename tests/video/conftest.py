import numpy as np
import pytest

from benchmarks._clip import Moment, write
from fevertools import EMOTIONS
from fevertools.types import Expression, Face, FaceResult


def picture(seed, height=48, width=64):
    """Blocks of colour, which survive compression."""
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return blocks.repeat(8, 0).repeat(8, 1)


def found(x, y, side=40, probabilities=None, embedding=None):
    """A face as the pipeline gives it; its label is certain where no probabilities are given."""
    values = [1.0, *[0.0] * (len(EMOTIONS) - 1)] if probabilities is None else list(probabilities)
    named = dict(zip(EMOTIONS, map(float, values), strict=True))
    face = Face(np.array([x, y, x + side, y + side], np.float32), 0.9, np.full((5, 2), (x, y), np.float32))
    vector = np.zeros(4, np.float32) if embedding is None else np.asarray(embedding, np.float32)
    return FaceResult(face, vector, Expression(max(named, key=named.__getitem__), named, 0.5))


@pytest.fixture
def clip(tmp_path):
    """Writes a video: times of its frames -> its path."""
    pytest.importorskip("av")

    def make(times, name="clip.mp4", **size):
        path = tmp_path / name
        nothing = np.empty((0, 2), np.float32), np.empty(0, np.float32)
        write(path, [Moment(time, picture(i, **size), *nothing) for i, time in enumerate(times)])
        return path

    return make
