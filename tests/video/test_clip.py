"""The clips that videos are measured on, and their judge: figures are worth as much as these."""

import numpy as np
import pytest

from benchmarks._clip import Actor, Moment, judge, line, play
from benchmarks.video import last_box
from fevertools.streaming import Progress


def box(x, y=50):
    return np.array([x - 20, y - 20, x + 20, y + 20], np.float32)


def truth(*frames):
    """One moment a frame: x of each face, None for one that is hidden."""
    for time, places in enumerate(frames):
        centres = np.array([[0 if x is None else x, 50] for x in places], np.float32)
        visible = np.array([x is not None for x in places], np.float32)
        yield Moment(float(time), np.zeros((1, 1, 3), np.uint8), centres, visible)


def test_the_judge_counts_what_is_wrong():
    moments = list(truth((100, 300), (150, 250), (250, 150), (300, None)))
    right = [
        [(1, box(100)), (2, box(300))],
        [(2, box(250)), (1, box(150))],
        [(1, box(250)), (2, box(150))],
        [(1, box(300))],
    ]
    assert judge(moments, right, 30) == {"faces": 7, "followed": 1.0, "switches": 0, "tracks": 2, "strays": 0}
    swapped = [*right[:2], [(2, box(250)), (1, box(150))], [(2, box(300))]]
    assert judge(moments, swapped, 30)["switches"] == 2
    lost = [right[0], [(1, box(150))], [(1, box(250)), (3, box(150))], [(1, box(300)), (4, box(600))]]
    assert judge(moments, lost, 30) == {
        "faces": 7, "followed": round(6 / 7, 4), "switches": 1, "tracks": 4, "strays": 1
    }  # fmt: skip


def test_one_box_is_the_face_in_front():
    (moment,) = truth((100, 105))
    covered = Moment(0.0, moment.picture, moment.centres, np.array([0.2, 1.0], np.float32))
    assert judge([covered], [[(8, box(101))]], 30) == {
        "faces": 1, "followed": 1.0, "switches": 0, "tracks": 1, "strays": 0
    }  # fmt: skip


def test_later_actors_hide_earlier_ones():
    heads = [np.full((40, 40, 3), value, np.uint8) for value in (50, 200)]
    actors = [Actor(heads[0], line((20, 20), (0, 0))), Actor(heads[1], line((80, 20), (-60, 0)))]
    apart, hidden = play(actors, np.zeros((80, 160, 3), np.uint8), [0.0, 1.0])
    np.testing.assert_array_equal(apart.visible, [1, 1])
    np.testing.assert_array_equal(hidden.visible, [0, 1])
    np.testing.assert_array_equal(hidden.centres, [[40, 40], [40, 40]])
    assert (apart.picture[40, 40, 0], hidden.picture[40, 40, 0], apart.picture[40, 100, 0]) == (50, 200, 200)
    (outside,) = play([Actor(heads[0], line((-20, 20), (0, 0)))], np.zeros((80, 160, 3), np.uint8), [0.0])
    assert outside.visible[0] == pytest.approx(0.5, abs=0.02)


def test_the_last_box_loses_a_face_that_was_away():
    tracks = last_box([[box(100), box(300)], [box(300)], [box(100), box(300)]])
    assert [[number for number, _ in found] for found in tracks] == [[1, 2], [2], [3, 2]]


def test_progress_counts_frames():
    line = Progress(10, shown=False, unit="frames")
    line.advance()
    assert line.line(1.0) == "    1/10 frames  1.0/s  9 s left"
