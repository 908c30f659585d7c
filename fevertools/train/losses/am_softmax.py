"""Additive margin softmax: classes on a sphere, each a margin of cosine apart."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AmSoftmax(nn.Module):
    """Additive margin softmax (Wang et al. 2018), as "Adversarial Feature Distillation", Eq. 2-3, has it.

    Inputs: features (N, D) any norm, label (N,) 0 to C - 1 -> scalar. Both features and class weights are scaled to
    length 1, as Wang et al. do; their product is the cosine that the margin is taken from.

    Args:
        dimension: D.
        classes: C.
        margin: m, subtracted from the cosine to the own class.
        scale: s, multiplies all cosines.
    """

    def __init__(self, dimension: int, classes: int, margin: float = 0.35, scale: float = 30.0) -> None:
        super().__init__()
        self.margin, self.scale = margin, scale
        self.weight = nn.Parameter(torch.empty(classes, dimension))
        nn.init.xavier_normal_(self.weight)

    def forward(self, features: Tensor, label: Tensor) -> Tensor:
        """Mean of -log y (Eq. 3)."""
        own = F.one_hot(label, len(self.weight))
        return F.cross_entropy(self.logits(features) - self.scale * self.margin * own, label)

    def logits(self, features: Tensor) -> Tensor:
        """What classifies: s times the cosine to every class, no margin: (N, C), in float32."""
        with torch.autocast(features.device.type, enabled=False):
            return self.scale * F.linear(F.normalize(features.float(), dim=1), F.normalize(self.weight.float(), dim=1))
