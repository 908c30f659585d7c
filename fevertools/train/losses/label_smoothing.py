"""Label smoothing of soft labels."""

import torch
from torch import Tensor


def smoothed(probabilities: Tensor, alpha: float) -> Tensor:
    """Mix a distribution with the uniform one. EmoXNet, Eq. 3: (1 - alpha) p + alpha / N.

    Args:
        probabilities: (B, N), rows sum to 1: softmax outputs of the ensemble.
        alpha: share of the uniform distribution, 0-1; the paper has 0.1.
    """
    return torch.lerp(probabilities, torch.full_like(probabilities, 1 / probabilities.shape[1]), alpha)
