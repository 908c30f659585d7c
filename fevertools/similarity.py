"""How alike two expressions look, from their embeddings."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from fevertools.errors import OptionError
from fevertools.types import Float32

Float64: TypeAlias = npt.NDArray[np.float64]


def similarity(a: npt.ArrayLike, b: npt.ArrayLike, *, metric: str = "cosine") -> float | Float32:
    """Compare embeddings. 1 is the same expression, 0 is unrelated, -1 the opposite.

    Args:
        a: (D,) one embedding or (n, D) several, of a floating-point dtype.
        b: (D,) or (m, D).
        metric: "cosine", the only one so far. A zero vector has no direction and is 0 to everything.

    Returns:
        float for two single embeddings; float32 (n, m) for two sets; float32 (n,) or (m,) for one against a set.

    Raises:
        OptionError: another shape or dtype, different dimensions, numbers that are not finite, or an unknown metric.

    Example:
        >>> vectors = fevertools.embed("photo.jpg")             # (n_faces, 256)
        >>> fevertools.similarity(vectors[0], vectors[1])       # float
        >>> fevertools.similarity(vectors, vectors)             # (n_faces, n_faces)
    """
    if metric not in METRICS:
        raise OptionError(f"no metric named {metric!r}; known: {', '.join(METRICS)}")
    left, right = _vectors(a, "a"), _vectors(b, "b")
    if left.shape[-1] != right.shape[-1]:
        raise OptionError(
            f"embeddings of {left.shape[-1]} and of {right.shape[-1]} dimensions cannot be compared: "
            "make both with the same weights"
        )
    table = METRICS[metric](np.atleast_2d(left), np.atleast_2d(right))  # (n, m)
    if left.ndim == right.ndim == 1:
        return float(table[0, 0])
    if left.ndim == 1:
        table = table[0]
    elif right.ndim == 1:
        table = table[:, 0]
    return table.astype(np.float32)


def _cosine(a: Float64, b: Float64) -> Float64:
    """(n, D), (m, D) -> (n, m)."""
    # The clip only takes rounding away: |cos| <= 1.
    return np.clip(_unit(a) @ _unit(b).T, -1.0, 1.0)


METRICS: Final[Mapping[str, Callable[[Float64, Float64], Float64]]] = MappingProxyType({"cosine": _cosine})
"""Name -> function from (n, D) and (m, D) to (n, m)."""


def _unit(vectors: Float64) -> Float64:
    """Rows scaled to length 1; zero rows stay zero."""
    # By the largest component first, so that no square over- or underflows.
    peak = np.abs(vectors).max(axis=1, keepdims=True)
    vectors = vectors / np.where(peak > 0, peak, 1.0)
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norm > 0, norm, 1.0), np.float64)


def _vectors(value: npt.ArrayLike, name: str) -> Float64:
    try:
        array: npt.NDArray[Any] = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise OptionError(f"`{name}` is not an array of embeddings: {error}") from error
    if not np.issubdtype(array.dtype, np.floating):
        raise OptionError(f"`{name}` has dtype {array.dtype}: similarity compares embeddings (float32), not pictures")
    if array.ndim not in (1, 2) or array.shape[-1] == 0:
        raise OptionError(f"`{name}` has shape {array.shape}: one embedding (D,) or several (n, D) are needed")
    if not np.isfinite(array).all():
        raise OptionError(f"`{name}` holds numbers that are not finite; drop those rows first")
    return array.astype(np.float64)
