"""Triplet loss of the Facial Expression Comparison data, and the accuracy that is reported with it."""

import torch
from torch import Tensor, nn

ONE_CLASS, TWO_CLASS, THREE_CLASS = 1, 2, 3
"""Triplet types: how many of the three faces share an expression class. One-class: all three; three-class: none."""

MARGINS = {ONE_CLASS: 0.1, TWO_CLASS: 0.2, THREE_CLASS: 0.2}


class FecTriplet(nn.Module):
    """The similar pair against both others. Vemulapalli & Agarwala 2019, Eq. 1 and section 5 (margins).

    For a triplet whose first two members are the similar pair, with squared distances d between outputs of length 1:
    max(0, d12 - d13 + m) + max(0, d12 - d23 + m), m = .1 for one-class triplets and .2 for the others.
    """

    def forward(self, first: Tensor, second: Tensor, odd: Tensor, kind: Tensor) -> Tensor:
        """Mean loss of a batch.

        Args:
            first, second: (N, D) the similar pair, any norm.
            odd: (N, D) the third face.
            kind: int (N,) `ONE_CLASS`, `TWO_CLASS` or `THREE_CLASS`.

        Returns:
            scalar >= 0.
        """
        a, b, c = (nn.functional.normalize(x.float(), dim=1) for x in (first, second, odd))
        near, far1, far2 = ((x - y).square().sum(dim=1) for x, y in ((a, b), (a, c), (b, c)))
        return hinge(near, far1, far2, kind).mean()


def hinge(near: Tensor, far1: Tensor, far2: Tensor, kind: Tensor) -> Tensor:
    """Loss of each triplet from its three squared distances: (N,)."""
    margin = torch.where(kind == ONE_CLASS, MARGINS[ONE_CLASS], MARGINS[TWO_CLASS])
    return (near - far1 + margin).clamp(min=0) + (near - far2 + margin).clamp(min=0)
