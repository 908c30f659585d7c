"""Center loss: features of one class are drawn to a center that follows them."""

import torch
from torch import Tensor, nn

from fevertools.errors import OptionError


class CenterLoss(nn.Module):
    """Center loss (Wen et al. 2016) as "Discriminative Deep Feature Learning", Eq. 2-4 and 6, has it.

    Inputs: features (N, D), label (N,) 0 to C - 1 -> scalar, half the sum of squared distances to the center of the own
    class (Eq. 2). Its gradient is x_i - c_{l_i} (Eq. 3); centers get none, they are moved by `update`.

    Args:
        classes: C.
        dimension: D.
        alpha: how far a center moves towards its class (Eq. 6), 0-1.
    """

    centers: Tensor

    def __init__(self, classes: int, dimension: int, alpha: float = 0.5) -> None:
        super().__init__()
        if not 0 < alpha <= 1:
            raise OptionError(f"alpha of the center loss must be above 0 and at most 1, not {alpha}")
        self.alpha = alpha
        # A buffer: checkpoints hold the centers, and no optimiser touches them.
        self.register_buffer("centers", torch.zeros(classes, dimension))

    def forward(self, features: Tensor, label: Tensor) -> Tensor:
        """Eq. 2, in float32."""
        return 0.5 * (features.float() - self.centers[label]).square().sum()

    @torch.no_grad()
    def update(self, features: Tensor, label: Tensor) -> None:
        """Move the centers of the classes in a batch by -alpha times Eq. 4; the others stay."""
        own = torch.nn.functional.one_hot(label, len(self.centers)).to(self.centers.dtype)  # (N, C)
        count = own.sum(dim=0)[:, None]
        change = (count * self.centers - own.T @ features.detach().to(self.centers.dtype)) / (1 + count)
        self.centers.sub_(self.alpha * change)
