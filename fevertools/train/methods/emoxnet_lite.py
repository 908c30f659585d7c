"""EmoXNetLite: a light network that learns the label-smoothed soft labels of EmoXNet, and votes where they weigh."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fevertools.errors import DataError
from fevertools.labels import EMOTIONS, EMOTIONS_7
from fevertools.train.datasets.ferplus import FerPlus
from fevertools.train.losses import Losses
from fevertools.train.losses.label_smoothing import smoothed
from fevertools.train.losses.soft_cross_entropy import soft_cross_entropy
from fevertools.train.methods.classify import Validation, prepare, training_rows, weighted
from fevertools.train.methods.emoxnet import PROTOCOL
from fevertools.train.methods.frames import Frames, Passes
from fevertools.train.methods.targets import read_targets
from fevertools.train.models.student import Output, Student
from fevertools.train.recipe import Recipe


class LiteLearning(Passes):
    """Cross-entropy against the ensemble's probabilities for the very view, smoothed by Eq. 3, and against the votes.

    The student has the eight classes of all weights of this package; the ensemble knows seven, so that contempt is
    learned never to be right.

    Args:
        recipe: system "emoxnet-lite", protocol "ferplus7", one teacher.
        data: FER-2013 with FER+.
        runs: folder of the runs: of the teacher, its outputs and `recipe.model.initial`.

    Raises:
        DataError: another protocol, not one teacher, or its outputs have not been made.
    """

    def __init__(self, recipe: Recipe, data: FerPlus, runs: Path) -> None:
        if recipe.data.protocol != PROTOCOL or len(recipe.distill.teachers) != 1:
            raise DataError(
                f"EmoXNetLite learns from one ensemble: set data.protocol {PROTOCOL}, one of distill.teachers"
            )
        self.recipe = recipe
        self.learning_rate, self.views = recipe.optim.learning_rate, recipe.distill.views
        protocol = training_rows(recipe, data)
        images = data.images[protocol.rows]
        targets = read_targets(recipe, recipe.distill.teachers[0], len(images), len(EMOTIONS_7), runs)
        votes = torch.from_numpy(protocol.target)
        self.frames = Frames(images, recipe.model.resolution, recipe.augment, recipe.seed, (votes,), (targets,))
        self.validation = Validation(data, PROTOCOL)
        self.network: Student = prepare(recipe, images, runs)

    def losses(self, network: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Losses:
        """Losses of one batch."""
        crops, votes, teacher = batch
        output: Output = network(crops)
        said = smoothed(teacher.float().softmax(dim=1), self.recipe.emoxnet.smoothing)
        votes, said = (F.pad(target, (0, len(EMOTIONS) - len(EMOTIONS_7))) for target in (votes, said))
        terms = {
            "votes": soft_cross_entropy(output.logits, votes),
            "soft_votes": soft_cross_entropy(output.logits, said),
        }
        return weighted(terms, self.recipe.losses)

    def validate(self, network: Student) -> dict[str, float]:
        """Figures on PublicTest, from which everything is chosen."""
        return self.validation(network)
