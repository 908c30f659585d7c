"""The two sides of expression dispelling: a dispeller that looks for the expression, features that hide it."""

from typing import NamedTuple

import torch
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


class LeastSquaresDispeller(nn.Module):
    """The linear dispeller that is best for the features of late, solved for in every step; not the paper's.

    A dispeller that follows gradients is always a little late: the branch turns the expression into directions that it
    does not look at, and another linear probe still reads it there. This one leaves no direction out. Its weights are
    those of the ridge regression of the one-hot label on the features, from moving averages of their moments. Features
    are to have mean 0 and variance 1, or else the branch swings between large and small ones.

    Args:
        dimension: D.
        classes: C.
        decay: of the moving averages, a step. They are to follow the features more closely than these move.
        sharpness: logits for each unit of the regression, whose outputs lie between 0 and 1.
        ridge: added to the variances, as a share of their mean.
    """

    seen: Tensor
    mean: Tensor
    prior: Tensor
    second: Tensor
    cross: Tensor

    def __init__(
        self, dimension: int, classes: int, decay: float = 0.93, sharpness: float = 10.0, ridge: float = 0.01
    ) -> None:
        super().__init__()
        self.decay, self.sharpness, self.ridge = decay, sharpness, ridge
        self.register_buffer("seen", torch.zeros(()))  # weight of all batches together; below 1 at the beginning
        self.register_buffer("mean", torch.zeros(dimension))
        self.register_buffer("prior", torch.zeros(classes))
        self.register_buffer("second", torch.zeros(dimension, dimension))
        self.register_buffer("cross", torch.zeros(dimension, classes))

    def forward(self, features: Tensor) -> Tensor:
        """Logits float32 (N, C) of features (N, D), less those of the prior; gradients go to the features."""
        with torch.autocast(features.device.type, enabled=False):
            return (features.float() - self._average(self.mean)) @ self.solve() * self.sharpness

    def losses(self, features: Tensor, label: Tensor) -> Dispelling:
        """As `dispelling_losses`; the adversarial loss trains nothing, and tells how much there still is to see."""
        self.see(features.detach().float(), label)
        guess = self(features)
        return Dispelling(F.cross_entropy(guess.detach(), label), -F.log_softmax(guess, dim=1).mean())

    @torch.no_grad()
    def see(self, features: Tensor, label: Tensor) -> None:
        """Take a batch into the moments: features float32 (N, D), label (N,)."""
        own = F.one_hot(label, len(self.prior)).float()
        moments = (
            (self.seen, torch.ones_like(self.seen)),
            (self.mean, features.mean(dim=0)),
            (self.prior, own.mean(dim=0)),
            (self.second, features.T @ features / len(features)),
            (self.cross, features.T @ own / len(features)),
        )
        for moment, batch in moments:
            moment.lerp_(batch, 1 - self.decay)

    @torch.no_grad()
    def solve(self) -> Tensor:
        """Weights (D, C) of the regression on what has been seen; zeros before that."""
        if not self.seen:
            return torch.zeros_like(self.cross)
        mean, prior = self._average(self.mean), self._average(self.prior)
        covariance = self._average(self.second) - torch.outer(mean, mean)
        covariance.diagonal().add_(self.ridge * covariance.diagonal().mean())
        weights: Tensor = torch.linalg.solve(covariance, self._average(self.cross) - torch.outer(mean, prior))
        return weights

    def _average(self, moment: Tensor) -> Tensor:
        return moment / self.seen.clamp_min(torch.finfo(torch.float32).tiny)
