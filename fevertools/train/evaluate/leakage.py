"""Identity leakage: how well an embedding of expressions still tells people apart. Lower is better.

A measure of what should not be in the embedding: the same pictures that rank face-recognition networks rank how much of
the person is left. fevertools recognises nobody, and offers nothing that does.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import normalize

from fevertools.types import Float32


def leakage(embedding: Float32, pairs: npt.NDArray[np.int64], same: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Area under the ROC curve of telling same from different people by the cosine of two embeddings.

    Args:
        embedding: (N, D).
        pairs: (P, 2) rows of `embedding`.
        same: (P,) whether both are one person; some are and some are not.

    Returns:
        {"n": P, "auc": .5 where nothing of the person is left, 1 where all people can be told apart}. Compare with the
        start that the network was trained from: `evaluate start:...`.
    """
    unit = normalize(embedding.astype(np.float64))
    cosine = (unit[pairs[:, 0]] * unit[pairs[:, 1]]).sum(axis=1)
    return {"n": len(pairs), "auc": round(float(roc_auc_score(same, cosine)), 4)}
