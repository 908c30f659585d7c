"""Roundings of weights: by brute force, in closed forms, and against rounding to the nearest."""

import itertools

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra `train`")

from fevertools.train.rounding import MOST, round_nine, round_rows

RNG = np.random.default_rng(7)


def cost(error: np.ndarray, moments: np.ndarray) -> float:
    """Mean square of what an error of the weights adds to the output."""
    return float(error @ moments @ error)


def nearest(weight: np.ndarray) -> np.ndarray:
    scale = np.abs(weight).max(axis=1, keepdims=True) / MOST
    return np.round(weight / scale) * scale


def test_the_nine_are_rounded_best_of_all_ways() -> None:
    """By brute force, on the scale that was chosen and on the usual one."""
    weight = RNG.normal(size=(3, 9))
    patches = RNG.normal(size=(200, 9)) + 10  # an even surface, mostly
    moments = np.stack([patches.T @ patches / 200] * 3)
    rounded, scale = round_nine(weight, moments)
    for c in range(3):
        steps, own = rounded[c] / scale[c], cost(rounded[c] - weight[c], moments[c])
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)
        assert np.abs(steps).max() <= MOST + 1e-9
        for grid in (scale[c], np.abs(weight[c]).max() / MOST):
            low = np.floor(weight[c] / grid)
            every = (np.clip(low + up, -MOST, MOST) * grid for up in itertools.product((0, 1), repeat=9))
            assert own <= min(cost(q - weight[c], moments[c]) for q in every) + 1e-12
        assert own <= cost(nearest(weight)[c] - weight[c], moments[c]) + 1e-12


def test_on_a_flat_surface_the_sum_of_the_nine_is_kept() -> None:
    """Where all nine inputs are equal only the sum counts, and some grid meets it closely."""
    weight = RNG.normal(size=(4, 9))
    rounded, _ = round_nine(weight, np.ones((4, 9, 9)))
    np.testing.assert_allclose(rounded.sum(1), weight.sum(1), atol=1e-3)
    assert np.abs(nearest(weight).sum(1) - weight.sum(1)).max() > 5e-3


@pytest.mark.parametrize("rounding", [round_nine, round_rows])
def test_weights_on_a_grid_stay_and_dead_channels_get_a_grid(rounding) -> None:  # type: ignore[no-untyped-def]
    weight = np.stack([np.arange(-4, 5) / MOST * 1.5, np.zeros(9)])
    weight[0, 0] = -1.5
    moments = np.eye(9) if rounding is round_rows else np.stack([np.eye(9)] * 2)
    rounded, scale = rounding(weight, moments)
    np.testing.assert_allclose(rounded, weight, atol=1e-12)
    assert 1e-3 * 1.5 / MOST <= scale[1] <= 1e-3 * 1.5 / 64


def test_rows_are_rounded_to_the_nearest_where_inputs_are_independent() -> None:
    weight = RNG.normal(size=(5, 12))
    rounded, scale = round_rows(weight, np.diag(RNG.uniform(0.5, 2, 12)))
    np.testing.assert_allclose(rounded, nearest(weight), atol=1e-12)
    np.testing.assert_allclose(scale, np.abs(weight).max(1) / MOST)


def test_of_two_equal_inputs_the_second_makes_up_for_the_first() -> None:
    """Closed form: the error of the first column is added to the second before that is rounded."""
    weight = np.array([[1.0, 0.3 / MOST, 0.3 / MOST]])
    moments = np.eye(3)
    moments[1, 2] = moments[2, 1] = 1 - 1e-9
    rounded, scale = round_rows(weight, moments)
    assert scale == pytest.approx([1 / MOST])
    # 0.3 steps become 0; nearly all of it goes to the next, which then has 0.6 steps and becomes one.
    np.testing.assert_allclose(rounded * MOST, [[MOST, 0, 1]], atol=1e-9)


def test_correlated_rows_cost_less_than_the_nearest() -> None:
    inputs = RNG.normal(size=(500, 6)) @ RNG.normal(size=(6, 24)) + 0.1 * RNG.normal(size=(500, 24))
    moments = inputs.T @ inputs / 500
    weight = RNG.normal(size=(8, 24))
    rounded, scale = round_rows(weight, moments)
    steps = rounded / scale[:, None]
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)
    assert np.abs(steps).max() <= MOST + 1e-9
    ours, theirs = (sum(cost(e, moments) for e in q - weight) for q in (rounded, nearest(weight)))
    assert ours < 0.3 * theirs
