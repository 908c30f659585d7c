"""Exponential means against their closed form."""

import numpy as np
import pytest

from fevertools import EMOTIONS
from fevertools.video.smoothing import Smoother, expression_of


def vector(*values):
    return np.array(values, np.float32)


@pytest.mark.parametrize("seconds", [0.1, 0.5, 3.0])
def test_a_step_is_the_same_at_any_rate(seconds):
    rng = np.random.default_rng(0)
    for times in (np.arange(0.0, 2, 0.02), np.arange(0.0, 2, 0.4), np.sort(rng.uniform(0, 2, 30))):
        smoother = Smoother(seconds)
        smoother.put(1, 0.0, vector(0, 1))
        for time in times:
            mean = smoother.update(1, time, vector(1, 0))
            expected = 1 - np.exp(-time / seconds)
            np.testing.assert_allclose(mean, [expected, 1 - expected], atol=1e-5)


def test_the_first_vector_stands_for_all_before():
    smoother = Smoother(0.5)
    np.testing.assert_array_equal(smoother.update(4, 10.0, vector(3, 4)), [3, 4])
    np.testing.assert_array_equal(smoother.update(4, 11.0, vector(3, 4)), [3, 4])


def test_none_changes_nothing():
    smoother = Smoother(0)
    for time, value in ((0.0, vector(1, 2)), (0.1, vector(5, -3))):
        np.testing.assert_array_equal(smoother.update(1, time, value), value)


def test_tracks_do_not_mix_and_are_forgotten():
    smoother = Smoother(1.0)
    smoother.update(1, 0.0, vector(0))
    smoother.update(2, 0.0, vector(8))
    assert smoother.update(1, 1.0, vector(1)) == pytest.approx(1 - np.exp(-1))
    assert smoother.update(2, 1.0, vector(8)) == 8
    smoother.keep({2})
    assert smoother.update(1, 2.0, vector(5)) == 5
    assert smoother.update(2, 2.0, vector(0)) == pytest.approx(8 * np.exp(-1))


def test_a_mean_written_down_is_the_whole_state():
    rng = np.random.default_rng(1)
    values = rng.dirichlet(np.ones(8), 50).astype(np.float32)
    whole, second = Smoother(0.3), Smoother(0.3)
    means = [whole.update(1, 0.04 * i, value) for i, value in enumerate(values)]
    second.put(1, 0.04 * 19, np.array([float(str(number)) for number in means[19]], np.float32))
    for i in range(20, 50):
        np.testing.assert_array_equal(second.update(1, 0.04 * i, values[i]), means[i])
    assert means[-1].dtype == np.float32
    np.testing.assert_allclose(np.sum(means, axis=1), 1, atol=1e-6)


def test_expression_of_probabilities():
    even = expression_of(np.full(8, 1 / 8, np.float32), EMOTIONS)
    assert (even.label, tuple(even.probabilities)) == (EMOTIONS[0], EMOTIONS)
    assert even.entropy == pytest.approx(np.log(8), abs=1e-6)
    certain = expression_of(np.eye(8, dtype=np.float32)[4], EMOTIONS)
    assert (certain.label, certain.entropy, certain.probabilities["anger"]) == ("anger", 0.0, 1.0)
