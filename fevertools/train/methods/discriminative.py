"""DenseNet with center loss on the seven labels of FER-2013 ("Discriminative Deep Feature Learning")."""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fevertools.train.losses import Losses
from fevertools.train.methods.fer2013 import OnFer2013
from fevertools.train.models.densenet import Discriminative, Output
from fevertools.train.recipe import Recipe


class DiscriminativeLearning(OnFer2013):
    """Cross-entropy (Eq. 1) plus lambda times center loss (Eq. 2): Eq. 5.

    The paper trains the two with learning rates of their own. One optimiser that takes steps of the cross-entropy's
    does so when the center loss weighs lambda times the ratio of the two.
    """

    network: Discriminative

    def start(self, images: npt.NDArray[np.uint8]) -> Discriminative:
        """He's initialisation, and the mean and deviation of every pixel."""
        network = make_discriminative(self.recipe)
        network.normalise_by(torch.from_numpy(images))
        return network

    def losses(self, network: nn.Module, batch: tuple[Tensor, Tensor]) -> Losses:
        """Losses of one batch; the centers move with it (Eq. 6)."""
        crops, label = batch
        output: Output = network(crops)
        cross_entropy = F.cross_entropy(output.fer2013.float(), label)
        center = self.network.center(output.embedding, label)
        self.network.center.update(output.embedding, label)
        ratio = self.recipe.center.learning_rate / max(self.learning_rate, 1e-8)
        total = cross_entropy + self.recipe.losses.center * ratio * center
        return Losses(total, {"cross_entropy": cross_entropy, "center": center / len(label)})


def make_discriminative(recipe: Recipe) -> Discriminative:
    """The network of a recipe, random."""
    network = Discriminative(recipe.densenet, recipe.center.alpha, recipe.model.resolution)
    return network.to(memory_format=torch.channels_last)
