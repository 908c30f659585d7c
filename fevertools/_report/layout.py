"""Similarities of faces -> a place for each on a flat map."""

from typing import Any, Final

import numpy as np

from fevertools.errors import MissingExtraError
from fevertools.types import Float32

FEW: Final = 12
"""Fewer faces than this have no neighbourhoods for t-SNE to keep; their principal coordinates are shown."""

WIDTH: Final = 1000
"""Of the map, in its own units. Its height is as the faces lie, LEAST_HEIGHT to WIDTH."""

LEAST_HEIGHT: Final = 500

_ROUNDING: Final = 1e-3
"""Distances of vectors of length 1 that float32 similarities cannot tell from 0."""


def method(count: int) -> str:
    """How so many faces are placed, in words."""
    if count < FEW:
        return "principal coordinates (classical scaling) of the similarities"
    return f"t-SNE of the similarities, perplexity {_perplexity(count):.0f}"


def place(alike: Float32, seed: int) -> tuple[Float32, int]:
    """Lay faces out so that those that are alike lie near to each other.

    t-SNE (van der Maaten and Hinton 2008, scikit-learn's Barnes-Hut) on the distances d of vectors of length 1, for
    which the similarity is 1 - d^2 / 2, begun at the principal coordinates; these themselves for fewer than FEW faces.
    Directions on the map mean nothing, so it is turned to be wide rather than high.

    Args:
        alike: (n, n) similarities, 1 on the diagonal.
        seed: of t-SNE.

    Returns:
        float32 (n, 2) places x, y with 0 <= x <= WIDTH and 0 <= y <= the height, and that height.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    decomposition, manifold = learners()
    count = len(alike)
    if count < 2:
        return np.full((count, 2), (WIDTH / 2, LEAST_HEIGHT / 2), np.float32), LEAST_HEIGHT
    table = alike.astype(np.float64)
    table = (table + table.T) / 2  # rounding may leave it not quite symmetric
    places = np.zeros((count, 2))
    scaling = decomposition.KernelPCA(2, kernel="precomputed", eigen_solver="auto", random_state=seed)
    found = scaling.fit_transform(table)
    places[:, : found.shape[1]] = found
    if np.ptp(places, axis=0).max() < _ROUNDING:
        places[:] = 0
    elif count >= FEW:
        distances = np.sqrt(np.maximum(2 - 2 * table, 0))
        np.fill_diagonal(distances, 0)
        start = (places / places[:, 0].std() * 1e-4).astype(np.float32)  # as scikit-learn scales its own start
        sne = manifold.TSNE(metric="precomputed", init=start, perplexity=_perplexity(count), random_state=seed)
        places = np.asarray(sne.fit_transform(distances), np.float64)
    return _fit(places)


def _perplexity(count: int) -> float:
    return min(30.0, (count - 1) / 3)


def _fit(places: Any) -> tuple[Float32, int]:
    """Turned to its longest direction, and scaled alike in both."""
    places = places - places.mean(axis=0)
    places = places @ np.linalg.svd(places, full_matrices=False)[2].T
    low, high = places.min(axis=0), places.max(axis=0)
    extent = float((high - low).max())
    scale = WIDTH / extent if extent > 0 else 0.0
    size = (high - low) * scale
    height = max(LEAST_HEIGHT, round(float(size[1])))
    places = (places - (low + high) / 2) * scale + (WIDTH / 2, height / 2)
    return np.clip(places, 0, (WIDTH, height)).astype(np.float32), height


def learners() -> tuple[Any, Any]:
    """The modules `sklearn.decomposition` and `sklearn.manifold`.

    Raises:
        MissingExtraError: they are not installed.
    """
    try:
        import sklearn.decomposition
        import sklearn.manifold
    except ModuleNotFoundError as error:
        raise MissingExtraError('a report needs scikit-learn: pip install "fevertools[report]"') from error
    return sklearn.decomposition, sklearn.manifold
