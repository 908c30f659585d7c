"""DenseNet with center loss on the seven labels of FER-2013 ("Discriminative Deep Feature Learning")."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fevertools.errors import DataError
from fevertools.labels import FER2013
from fevertools.train.datasets.ferplus import FerPlus
from fevertools.train.evaluate.probe import ProbeOptions, fit_probe, probe_scores
from fevertools.train.losses import Losses
from fevertools.train.losses.soft_cross_entropy import soft_cross_entropy
from fevertools.train.methods.fer2013 import OnFer2013
from fevertools.train.methods.targets import read_targets
from fevertools.train.models.densenet import Discriminative, Output
from fevertools.train.recipe import Recipe

EMBEDDED = 256
"""Width of what a teacher says: the embedding of published weights."""
PROBED_VIEWS = 2
"""Views of every face from which the logistic regression learns to name labels by a teacher's embedding."""


class DiscriminativeLearning(OnFer2013):
    """Cross-entropy (Eq. 1) plus lambda times center loss (Eq. 2): Eq. 5.

    The paper trains the two with learning rates of their own. One optimiser that takes steps of the cross-entropy's
    does so when the center loss weighs lambda times the ratio of the two.

    Where the recipe names a teacher, which the paper does not have, the cross-entropy is `losses.fer2013` parts of that
    with the label and `losses.soft_fer2013` parts of that with what a logistic regression on the teacher's embedding of
    the very view gives for probabilities: other people may have named the face otherwise.

    Raises:
        DataError: mixup and center loss together.
    """

    network: Discriminative

    def __init__(self, recipe: Recipe, data: FerPlus, runs: Path = Path("runs")) -> None:
        if recipe.optim.mixup > 0 and recipe.losses.center > 0:
            raise DataError("a mixture of two faces has no class center: set optim.mixup or losses.center to 0")
        super().__init__(recipe, data, runs)

    def start(self, images: npt.NDArray[np.uint8]) -> Discriminative:
        """He's initialisation, and the mean and deviation of every pixel."""
        network = make_discriminative(self.recipe)
        network.normalise_by(torch.from_numpy(images))
        return network

    def said(self, label: Tensor) -> list[Tensor]:
        """The soft labels of every view, (V, N, 7) where the recipe names a teacher."""
        distill = self.recipe.distill
        if not distill.teachers:
            return []
        if len(distill.teachers) != 1:
            raise DataError("DenseNet learns from one teacher or none: set distill.teachers to one")
        self.views = distill.views
        embedding = read_targets(self.recipe, distill.teachers[0], len(label), EMBEDDED, self.runs)
        return [soft_labels(embedding, label, distill.consensus)]

    def losses(self, network: nn.Module, batch: tuple[Tensor, ...]) -> Losses:
        """Losses of one batch; the centers move with it (Eq. 6)."""
        crops, label, *said = batch
        targets = [F.one_hot(label, len(FER2013)).float(), *(soft.float() for soft in said)]
        if self.recipe.optim.mixup > 0:
            weight = float(np.random.beta(self.recipe.optim.mixup, self.recipe.optim.mixup))  # noqa: NPY002 - state is in the checkpoint
            crops, *targets = (torch.lerp(x.flip(0).float(), x.float(), weight) for x in (crops, *targets))
        output: Output = network(crops)
        terms = {"cross_entropy": soft_cross_entropy(output.fer2013, targets[0])}
        total = self.recipe.losses.fer2013 * terms["cross_entropy"]
        for soft in targets[1:]:
            terms["soft_fer2013"] = soft_cross_entropy(output.fer2013, soft)
            total = total + self.recipe.losses.soft_fer2013 * terms["soft_fer2013"]
        center = self.network.center(output.embedding, label)
        self.network.center.update(output.embedding, label)
        ratio = self.recipe.center.learning_rate / max(self.learning_rate, 1e-8)
        terms["center"] = center / len(label)
        return Losses(total + self.recipe.losses.center * ratio * center, terms)


def soft_labels(embedding: Tensor, label: Tensor, consensus: float) -> Tensor:
    """Probabilities of the seven labels by a logistic regression on embeddings: float16 (V, N, 7).

    Args:
        embedding: (V, N, D) of every view.
        label: (N,) of every face; the regression is fitted to these, on the first views.
        consensus: share of the mean over a face's views; the rest is the view's own.
    """
    first = embedding[:PROBED_VIEWS]
    probe = fit_probe(first.flatten(0, 1).numpy(), label.repeat(len(first)).numpy(), ProbeOptions())
    scores = [probe_scores(probe, view.numpy(), len(FER2013)) for view in embedding]
    said = torch.from_numpy(np.exp(scores))
    return torch.lerp(said, said.mean(dim=0, keepdim=True).expand_as(said), consensus).half()


def make_discriminative(recipe: Recipe) -> Discriminative:
    """The network of a recipe, random."""
    network = Discriminative(recipe.densenet, recipe.center.alpha, recipe.model.resolution)
    return network.to(memory_format=torch.channels_last)
