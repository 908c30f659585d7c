"""Tracks by place and motion, on boxes whose owners are known."""

from itertools import permutations

import numpy as np
import pytest

from fevertools.video.tracker import PATIENCE, Tracker, assign, distance_iou


def box(x, y=0.0, side=40.0):
    return [x, y, x + side, y + side]


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def test_distance_iou_of_known_boxes():
    a = boxes(box(0))
    b = boxes(box(0), box(20), box(40), box(80))
    # Halves overlap: 1/3 - 20^2 / (60^2 + 40^2); side by side: -40^2 / (80^2 + 40^2); apart: -80^2 / (120^2 + 40^2).
    np.testing.assert_allclose(distance_iou(a, b), [[1, 1 / 3 - 1 / 13, -1 / 5, -2 / 5]])
    assert distance_iou(a, b[:0]).shape == (1, 0)
    assert np.isfinite(distance_iou(boxes([3, 3, 3, 3]), boxes([3, 3, 3, 3]))).all()


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (1, 1), (3, 3), (2, 5), (5, 2), (5, 5)])
def test_the_assignment_is_the_best_of_all(shape):
    rng = np.random.default_rng(7)
    for _ in range(30):
        gain = rng.normal(size=shape)
        pairs = assign(gain)
        assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
        assert all(gain[pair] > 0 for pair in pairs)
        wide = gain if shape[0] <= shape[1] else gain.T
        best = max(
            sum(max(wide[row, column], 0) for row, column in enumerate(order))
            for order in permutations(range(wide.shape[1]), wide.shape[0])
        )
        assert sum(gain[pair] for pair in pairs) == pytest.approx(best)


def test_the_best_pair_may_have_to_give_way():
    assert assign(np.array([[0.9, 0.8], [0.8, 0.1]])) == [(0, 1), (1, 0)]


def test_faces_keep_their_numbers_in_any_order():
    rng = np.random.default_rng(0)
    tracker = Tracker()
    places = np.array([[0, 0], [60, 5], [30, 90]], np.float32)
    assert tracker.update(0, boxes(*[box(*place) for place in places])) == [1, 2, 3]
    for step in range(1, 60):
        order = rng.permutation(3)
        shaken = places + rng.normal(0, 2, places.shape)
        assert tracker.update(step / 25, boxes(*[box(*shaken[i]) for i in order])) == [i + 1 for i in order]
    assert tracker.alive == {1, 2, 3}


@pytest.mark.parametrize("times", [np.arange(0, 4, 1 / 30), np.arange(0, 4, 0.2), None], ids=["30", "5", "varying"])
def test_faces_that_cross_keep_their_numbers(times):
    """One hides the other for half a second; afterwards each is where the other would be by its last box."""
    if times is None:
        times = np.cumsum(np.random.default_rng(3).uniform(0.02, 0.15, 40))
    tracker, hidden = Tracker(), 0
    for time in times:
        right, left = box(100 * time), box(360 - 100 * time)
        if abs(right[0] - left[0]) < 50:
            hidden += 1
            assert tracker.update(time, boxes(right)) == [1]
        else:
            assert tracker.update(time, boxes(right, left)) == [1, 2]
    assert hidden > 1


@pytest.mark.parametrize(("gap", "same"), [(0.9 * PATIENCE, True), (1.1 * PATIENCE, False)])
def test_a_face_is_waited_for(gap, same):
    tracker = Tracker()
    for time in (0, 0.1, 0.2):
        assert tracker.update(time, boxes(box(5))) == [1]
    for time in np.arange(0.3, 0.2 + gap, 0.1):
        assert tracker.update(time, boxes()) == []
    assert tracker.update(0.2 + gap, boxes(box(5))) == [1 if same else 2]
    assert tracker.alive == {1 if same else 2}


def test_frames_may_be_rarer_than_the_patience():
    tracker = Tracker()
    for step in range(4):
        assert tracker.update(3.0 * step, boxes(box(5 * step))) == [1]
    tracker.update(12.0, boxes())  # missed in one of them
    assert tracker.update(15.0, boxes(box(20))) == [1]


def test_a_face_elsewhere_is_another():
    tracker = Tracker()
    tracker.update(0, boxes(box(0)))
    assert tracker.update(0.04, boxes(box(90))) == [2]
    assert tracker.update(0.08, boxes(box(0), box(90))) == [1, 2]
    for time in np.arange(0.2, 2, 0.1):
        tracker.update(time, boxes())
    assert tracker.update(2, boxes(box(0))) == [3]  # no number is used twice


def test_the_velocity_is_found():
    tracker = Tracker()
    for step in range(30):
        tracker.update(step / 10, boxes([70 * step / 10, 5, 70 * step / 10 + 40, 65]))
    (track,) = tracker._tracks
    np.testing.assert_allclose(track.velocity, [70, 0, 0, 0], atol=1)
    np.testing.assert_allclose(track.predict(3.9), [273, 5, 313, 65], atol=2)
