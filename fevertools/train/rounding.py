"""Weights to integers: which way each is rounded, so that the outputs of a layer change the least."""

import itertools
from typing import Final

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

MOST: Final = 127  # of an int8 weight; -128 is left out, so that a channel can change its sign

_TOPS: Final = range(64, MOST + 1)  # candidates of what the largest weight of a channel becomes
_ROUNDINGS: Final = np.array(list(itertools.product((0, 1), repeat=9)), np.float64)  # (512, 9): down, up
_DAMPING: Final = 0.01  # of the mean square of an input


def round_nine(weight: Float64, moments: Float64) -> tuple[Float64, Float64]:
    """Round the nine weights of each channel of a depthwise convolution, or of one that reads one channel.

    They often cancel out over an even surface, which rounding each to the nearest number spoils. So they are rounded
    together, as Nagel et al. 2020 (AdaRound), Eq. 13, for the least expected square of the change of their output; of
    nine weights all 512 roundings are tried, each for several scales.

    Args:
        weight: (C, 9).
        moments: (C, 9, 9) mean product of any two of the nine numbers that the weights are multiplied with, times
            any factor.

    Returns:
        (C, 9) whole multiples, -MOST to MOST, of (C,) the scale of each channel.
    """
    scales = _largest(weight)[:, None] / np.array(_TOPS)  # (C, T)
    rounded, chosen = np.empty_like(weight), np.empty(len(weight))
    for channel, grid in enumerate(scales):
        steps = np.clip(np.floor(weight[channel] / grid[:, None])[:, None] + _ROUNDINGS, -MOST, MOST)
        candidates = (steps * grid[:, None, None]).reshape(-1, 9)
        errors = candidates - weight[channel]
        best = int(((errors @ moments[channel]) * errors).sum(axis=1).argmin())
        rounded[channel], chosen[channel] = candidates[best], grid[best // len(_ROUNDINGS)]
    return rounded, chosen


def round_rows(weight: Float64, moments: Float64) -> tuple[Float64, Float64]:
    """Round the rows of a matrix, such as a pointwise convolution. Frantar et al. 2023 (GPTQ), Algorithm 1.

    One column after the other is rounded, and what that changes is made up for, as far as can be, by the columns to
    come, whose inputs are correlated with its own.

    Args:
        weight: (O, I).
        moments: (I, I) mean product of any two inputs, times any factor.

    Returns:
        (O, I) whole multiples, -MOST to MOST, of (O,) the scale of each row.
    """
    scale = _largest(weight) / MOST
    left, rounded = weight.copy(), np.empty_like(weight)
    damped = moments + _DAMPING * np.diag(moments).mean() * np.eye(len(moments))
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    for column, row in enumerate(factor):
        rounded[:, column] = np.clip(np.round(left[:, column] / scale), -MOST, MOST) * scale
        error = (left[:, column] - rounded[:, column]) / row[column]
        left[:, column + 1 :] -= np.outer(error, row[column + 1 :])
    return rounded, scale


def _largest(weight: Float64) -> Float64:
    """Of each channel; of one that is nearly dead, what keeps its bias, counted in the same steps, an integer."""
    largest = np.abs(weight).max(axis=1)
    return np.asarray(np.maximum(largest, 1e-3 * largest.max()), np.float64)
