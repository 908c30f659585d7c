"""The two sides of expression dispelling: a dispeller that looks for the expression, features that hide it."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn


class Dispelling(NamedTuple):
    """Both losses, each of which trains its own side only."""

    adversarial: Tensor  # l_e^a, the dispeller's cross-entropy
    uniform: Tensor  # l_e^p (Eq. 5), how far the dispeller's guess is from telling nothing


def dispelling_losses(features: Tensor, label: Tensor, dispeller: nn.Linear) -> Dispelling:
    """Losses of the dispelling branch. "Adversarial Feature Distillation", section 2.3 and Eq. 5.

    The cross-entropy of the dispeller trains the dispeller alone: features are cut off from its gradient. The uniform
    loss trains the branch and the base net alone: the dispeller's weights are cut off. The paper says so in section
    2.3; its section 1 has the uniform loss train the dispeller too. That is left out, because a dispeller that is
    trained to guess nothing makes the loss small whatever the features say.

    Args:
        features: (N, D).
        label: (N,) 0 to C - 1.
        dispeller: linear, D -> C.

    Returns:
        Two scalars, means over rows. The uniform loss is ln C where the guess is uniform, which is its least value.
    """
    adversarial = F.cross_entropy(dispeller(features.detach()).float(), label)
    bias = None if dispeller.bias is None else dispeller.bias.detach()
    guess = F.linear(features, dispeller.weight.detach(), bias).float()
    return Dispelling(adversarial, -F.log_softmax(guess, dim=1).mean())
