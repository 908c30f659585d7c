"""How compact the classes are in the space of the embedding: what center loss is meant to change."""

import numpy as np
import numpy.typing as npt

from fevertools.types import Float32


def spread(embedding: Float32, label: npt.NDArray[np.integer]) -> dict[str, float]:
    """Variance inside of classes and between them.

    Args:
        embedding: (N, D).
        label: (N,).

    Returns:
        {"intra": mean squared distance of an embedding to the mean of its class; "inter": mean squared distance of
        those means, over the rows, to the mean of all; "ratio": intra / inter}. The ratio does not depend on the scale
        of the embedding, the other two do; intra + inter is the whole variance.
    """
    vectors = embedding.astype(np.float64)
    means = np.zeros_like(vectors)
    for own in np.unique(label):
        means[label == own] = vectors[label == own].mean(axis=0)
    intra = float(((vectors - means) ** 2).sum(axis=1).mean())
    inter = float(((means - vectors.mean(axis=0)) ** 2).sum(axis=1).mean())
    return {
        "intra": round(intra, 4),
        "inter": round(inter, 4),
        "ratio": round(intra / inter, 4) if inter > 0 else np.inf,
    }
