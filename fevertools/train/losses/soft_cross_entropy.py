"""Cross-entropy against a label distribution."""

import torch.nn.functional as F
from torch import Tensor


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy with the vote distribution as target. Barsoum et al. 2016, Eq. 4 ("cross-entropy loss").

    Args:
        logits: float (N, C), not normalised.
        target: float (N, C), rows sum to 1.

    Returns:
        scalar, nats, the mean over rows. Its least value is the mean entropy of `target`, not 0.
    """
    return -(target * F.log_softmax(logits.float(), dim=1)).sum(dim=1).mean()
