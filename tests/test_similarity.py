import math

import numpy as np
import pytest

from fevertools.errors import OptionError
from fevertools.similarity import similarity

A = np.array([[3.0, 4.0], [0.0, 2.0], [-3.0, -4.0]], np.float32)
# Outputs (x, 2 y + 1, 4) of an embedding (x, y).
HEAD = np.array([[1.0, 0.0, 0.0], [0.0, 2.0, 1.0], [0.0, 0.0, 4.0]], np.float32)


def test_two_vectors_give_a_float():
    value = similarity(A[0], A[1])
    assert type(value) is float
    assert value == pytest.approx(0.8, abs=1e-7)
    assert similarity(A[0], A[2]) == -1.0
    assert similarity(A[0], A[0] * 7) == 1.0


def test_two_sets_give_a_table():
    table = similarity(A, A[:2])
    assert table.dtype == np.float32
    assert np.allclose(table, [[1, 0.8], [0.8, 1], [-1, -0.8]], atol=1e-7)


def test_one_against_a_set_is_broadcast():
    assert np.allclose(similarity(A[0], A), [1, 0.8, -1])
    assert np.allclose(similarity(A, A[0]), [1, 0.8, -1])
    assert similarity(A[0], A).shape == similarity(A, A[0]).shape == (3,)
    assert similarity(A, A[:1]).shape == (3, 1)


def test_it_equals_the_definition():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 256)).astype(np.float32), rng.normal(size=(5, 256)).astype(np.float32)
    expected = [[float(x @ y) / math.sqrt(float(x @ x) * float(y @ y)) for y in b] for x in a]
    assert np.allclose(similarity(a, b), expected, atol=1e-6)


def test_zero_vectors_are_zero_to_everything():
    zero = np.zeros(2, np.float32)
    assert similarity(zero, A[0]) == 0.0
    assert similarity(zero, zero) == 0.0
    assert np.array_equal(similarity(np.stack([zero, A[0]]), A[:1]), [[0], [1]])


@pytest.mark.parametrize("scale", [1e-320, 1e-30, 1e30, 1e300])
def test_no_length_over_or_underflows(scale):
    assert similarity(np.array([3.0, 4.0]) * scale, np.array([1.0, 0.0])) == pytest.approx(0.6, rel=1e-3)


def test_never_beyond_one():
    v = np.random.default_rng(1).normal(size=(200, 37))
    assert np.abs(similarity(v, v)).max() <= 1.0


def test_empty_sets_keep_their_shape():
    assert similarity(np.empty((0, 2), np.float32), A).shape == (0, 3)
    assert similarity(A[0], np.empty((0, 2), np.float32)).shape == (0,)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.zeros((48, 48), np.uint8), A, "dtype uint8"),
        (["x"], A, "dtype"),
        ([[1.0, 2.0], [1.0]], A, "not an array"),
        (np.zeros((1, 2, 2), np.float32), A, r"shape \(1, 2, 2\)"),
        (np.float32(1.0), A, r"shape \(\)"),
        (np.zeros(0, np.float32), A, r"shape \(0,\)"),
        (np.zeros(3, np.float32), A, "3 and of 2 dimensions.*same weights"),
        (np.array([np.nan, 1.0]), A, "finite"),
        (np.array([np.inf, 1.0]), A, "finite"),
        (np.array([1j, 1.0]), A, "dtype complex128"),
    ],
)
def test_other_input_is_refused(a, b, message):
    with pytest.raises(OptionError, match=message):
        similarity(a, b)


def test_an_unknown_metric_lists_the_known():
    with pytest.raises(OptionError, match="'dot'; known: triplet, cosine"):
        similarity(A, A, metric="dot")


# --- the triplet head


def test_the_head_is_applied_with_its_bias():
    # Outputs (0, 3, 4) and (3, 0, 4): 16 / 25. Without the bias (0, 2, 0) and (3, -1, 0): -2 / sqrt(40).
    a, b = np.array([0.0, 1.0]), np.array([3.0, -0.5])
    assert similarity(a, b, head=HEAD) == pytest.approx(0.64, abs=1e-12)
    assert similarity(a, b, head=HEAD, metric="triplet") == pytest.approx(0.64, abs=1e-12)
    # Outputs (0, 3, 4) and (0, 0, 4), from an embedding without direction for which y = -1 / 2.
    assert similarity(a, np.array([0.0, -0.5]), head=HEAD) == pytest.approx(0.8, abs=1e-12)


def test_triplet_is_one_minus_half_the_squared_distance():
    rng = np.random.default_rng(2)
    head = rng.normal(size=(32, 257)).astype(np.float32)
    a, b = rng.normal(size=(6, 256)).astype(np.float32), rng.normal(size=(4, 256)).astype(np.float32)
    left, right = (x.astype(np.float64) @ head[:, :-1].T + head[:, -1] for x in (a, b))
    left, right = (x / np.sqrt((x**2).sum(1, keepdims=True)) for x in (left, right))
    expected = [[1 - ((x - y) ** 2).sum() / 2 for y in right] for x in left]
    table = similarity(a, b, head=head)
    assert table.dtype == np.float32
    assert np.allclose(table, expected, atol=1e-6)
    assert not np.allclose(table, similarity(a, b), atol=0.05)
    assert similarity(a[0], b, head=head).shape == (4,)
    assert similarity(a, b[0], head=head).shape == (6,)
    assert type(similarity(a[0], b[0], head=head)) is float
    assert similarity(np.empty((0, 256), np.float32), b, head=head).shape == (0, 4)


def test_cosine_leaves_the_head_alone():
    assert np.array_equal(similarity(A, A, metric="cosine", head=HEAD), similarity(A, A))
    assert similarity(np.ones(5), np.ones(5), metric="cosine", head=HEAD) == pytest.approx(1)  # of any D


def test_embeddings_of_any_length_go_through_the_head():
    # Far out the bias no longer matters: (3, 8, 0) and (1, 0, 0). Near 0 it is all there is.
    far = similarity(np.array([3.0, 4.0]) * 1e300, np.array([1.0, 0.0]) * 1e308, head=HEAD)
    assert far == pytest.approx(3 / math.sqrt(73), rel=1e-9)
    near = similarity(np.array([3.0, 4.0]) * 1e-320, np.array([-1.0, 0.0]) * 1e-320, head=HEAD)
    assert near == pytest.approx(1, rel=1e-12)


def test_outputs_that_are_zero_are_zero_to_everything():
    head = np.array([[1.0, 0.0, -3.0], [0.0, 1.0, -4.0]], np.float32)
    assert np.array_equal(similarity(A[:1], A, head=head), [[0, 0, 0]])


def test_a_head_of_other_weights_is_refused():
    with pytest.raises(OptionError, match=r"of 5 dimensions, but the triplet head takes 2: .*whose weights made them"):
        similarity(np.ones(5), np.ones(5), head=HEAD)
    with pytest.raises(OptionError, match=r"needs the triplet head of the weights.*metric='cosine'"):
        similarity(A, A, metric="triplet")
