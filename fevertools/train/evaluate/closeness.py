"""How near embeddings of one precision are to those of another, of the same faces."""

import numpy as np

from fevertools.types import Float32


def closeness(mine: Float32, exact: Float32) -> dict[str, float]:
    """Cosine of the two embeddings of each face.

    Args:
        mine, exact: (N, D) of the same N faces, none of them 0.

    Returns:
        {"cosine_mean", "cosine_percentile_1", "cosine_min"}, rounded to five decimals.
    """
    a, b = (np.asarray(vectors, np.float64) for vectors in (mine, exact))
    cosine = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    figures = {"mean": cosine.mean(), "percentile_1": np.percentile(cosine, 1), "min": cosine.min()}
    return {f"cosine_{name}": round(float(value), 5) for name, value in figures.items()}
