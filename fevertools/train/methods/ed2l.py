"""ED2L on the seven labels of FER-2013 ("Adversarial Feature Distillation for Facial Expression Recognition")."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fevertools.labels import FER2013
from fevertools.train.losses import Losses
from fevertools.train.losses.dispelling import LeastSquaresDispeller, dispelling_losses
from fevertools.train.methods.fer2013 import OnFer2013
from fevertools.train.models.ed2l import Ed2l, Output
from fevertools.train.models.student import MEAN, STD
from fevertools.train.recipe import Ed2lOptions, Recipe


class DistillingAndDispelling(OnFer2013):
    """Eq. 6: lambda_t times the margin softmax, lambda_p times both losses of the dispelling branch."""

    network: Ed2l

    def start(self, images: npt.NDArray[np.uint8]) -> Ed2l:
        """A random network."""
        return make_ed2l(self.recipe)

    def losses(self, network: nn.Module, batch: tuple[Tensor, ...]) -> Losses:
        """Losses of one batch."""
        crops, label = batch
        return ed2l_losses(self.network, network(crops), label, self.recipe.ed2l)


def ed2l_losses(network: Ed2l, output: Output, label: Tensor, options: Ed2lOptions) -> Losses:
    """Eq. 6 for one batch.

    Args:
        network: whose classifiers are trained.
        output: of the batch.
        label: (N,) 0 to C - 1.
        options: lambda_t and lambda_p.
    """
    distilling = network.classify(output.embedding, label)
    if output.dispelled is None or network.dispeller is None:
        return Losses(options.distilling * distilling, {"distilling": distilling})
    if isinstance(network.dispeller, LeastSquaresDispeller):
        sides = network.dispeller.losses(output.dispelled, label)
    else:
        sides = dispelling_losses(output.dispelled, label, network.dispeller)
    total = options.distilling * distilling + options.dispelling * (sides.adversarial + sides.uniform)
    return Losses(total, {"distilling": distilling, "adversarial": sides.adversarial, "uniform": sides.uniform})


def make_ed2l(recipe: Recipe) -> Ed2l:
    """The network of a recipe, random."""
    size, options = recipe.model.resolution, recipe.ed2l
    network = Ed2l(len(FER2013), size, size, options, mean=MEAN, std=STD)
    return network.to(memory_format=torch.channels_last)
