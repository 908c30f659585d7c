"""How alike two expressions look, from their embeddings."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fevertools.errors import OptionError
from fevertools.options import choice
from fevertools.types import Float32

Float64: TypeAlias = npt.NDArray[np.float64]

Metric: TypeAlias = Literal["triplet", "cosine"]


def similarity(
    a: npt.ArrayLike, b: npt.ArrayLike, *, metric: Metric | None = None, head: Float32 | None = None
) -> float | Float32:
    """Compare embeddings. 1 is the same expression, 0 is unrelated, -1 the opposite.

    Args:
        a: (D,) one embedding or (n, D) several, of a floating-point dtype.
        b: (D,) or (m, D).
        metric: "triplet", the cosine of the outputs of the head, which is 1 - d^2 / 2 for the distance d between the
            outputs scaled to length 1; "cosine", that of the embeddings themselves; None is "triplet" with a head and
            "cosine" without. What is zero has no direction and is 0 to everything.
        head: float32 (E, D + 1), the linear map to the E outputs that the triplet loss compared; its last column is
            the bias. See `weights.load_head`.

    Returns:
        float for two single embeddings; float32 (n, m) for two sets; float32 (n,) or (m,) for one against a set.

    Raises:
        OptionError: another shape or dtype, different dimensions, numbers that are not finite, an unknown metric, or
            "triplet" without a head or with one for another D.
    """
    if metric is None:
        metric = "cosine" if head is None else "triplet"
    choice(metric, "metric", METRICS)
    left, right = _vectors(a, "a"), _vectors(b, "b")
    if left.shape[-1] != right.shape[-1]:
        raise OptionError(
            f"embeddings of {left.shape[-1]} and of {right.shape[-1]} dimensions cannot be compared: "
            "make both with the same weights"
        )
    rows, columns = (METRICS[metric](np.atleast_2d(vectors), head) for vectors in (left, right))
    table = _cosines(rows, columns)
    if left.ndim == right.ndim == 1:
        return float(table[0, 0])
    if left.ndim == 1:
        table = table[0]
    elif right.ndim == 1:
        table = table[:, 0]
    return table.astype(np.float32)


def _outputs(vectors: Float64, head: Float32 | None) -> Float64:
    """What the head makes of embeddings, but for its length: (n, D) -> (n, E)."""
    if head is None:
        raise OptionError(
            "the metric 'triplet' needs the triplet head of the weights that made the embeddings; "
            "use the similarity of their Analyzer, or metric='cosine'"
        )
    if vectors.shape[1] + 1 != head.shape[1]:
        raise OptionError(
            f"embeddings of {vectors.shape[1]} dimensions, but the triplet head takes {head.shape[1] - 1}: use the "
            "similarity of the Analyzer whose weights made them, or metric='cosine'"
        )
    # The bias is the weight of a coordinate that is 1. Scaling with it turns no output, and keeps each from overflow.
    return _unit(np.pad(vectors, ((0, 0), (0, 1)), constant_values=1.0)) @ head.T.astype(np.float64)


def _cosines(rows: Float64, columns: Float64) -> Float64:
    """(n, E), (m, E) -> (n, m)."""
    try:
        # The clip only takes rounding away: |cos| <= 1.
        return np.clip(_unit(rows) @ _unit(columns).T, -1.0, 1.0)
    except MemoryError as error:
        raise OptionError(f"{len(rows)} x {len(columns)} similarities: {error}; compare in parts") from error


METRICS: Final[Mapping[Metric, Callable[[Float64, Float32 | None], Float64]]] = MappingProxyType(
    {"triplet": _outputs, "cosine": lambda vectors, _: vectors}
)
"""Name -> function from embeddings (n, D) and the head to the vectors whose cosine it is."""


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
    try:
        with np.errstate(over="ignore"):  # finite numbers of more than 64 bits may be none here
            vectors = array.astype(np.float64)
        finite = np.isfinite(vectors).all()
    except MemoryError as error:
        raise OptionError(f"`{name}` has shape {array.shape}: {error}; compare in parts") from error
    if not finite:
        raise OptionError(f"`{name}` holds numbers that are not finite; drop those rows first")
    return vectors
