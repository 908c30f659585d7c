"""A DeepFEVER student of the open recipes: labels, teachers' outputs and unlabeled faces in every step.

The teachers' outputs are computed once, for a fixed number of augmented views of every face (`teach`), and shared by
the student and its ablations: on two cores they would otherwise cost as much as the student itself. Teacher and student
see the same view (Beyer et al. 2022, "consistent teaching"), at their own resolutions.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fevertools.labels import EMOTIONS, FER2013
from fevertools.train.datasets.ferplus import SIZE, FerPlus
from fevertools.train.datasets.framing import served_geometry
from fevertools.train.datasets.lfw import crop_lfw
from fevertools.train.losses import Losses
from fevertools.train.losses.rkd import RelationalAngle, RelationalDistance, relation_target
from fevertools.train.losses.soft_cross_entropy import soft_cross_entropy
from fevertools.train.losses.vote_triplets import VoteTriplets
from fevertools.train.methods.classify import Validation, prepare, training_rows, weighted
from fevertools.train.methods.frames import Batches, Frames, endless, epoch_order
from fevertools.train.methods.targets import read_targets, taught_faces
from fevertools.train.models.student import TRIPLET_DIMENSION, Output, Student
from fevertools.train.recipe import Recipe

SPLITS = (len(EMOTIONS), len(FER2013), TRIPLET_DIMENSION)
"""Widths of the teacher outputs stored side by side: eight-class logits, seven-label logits, triplet output."""


class Distill:
    """Both task losses on the labelled faces; soft labels and relational distillation on those and unlabeled faces.

    Args:
        recipe: system "deepfever-student".
        data: FER-2013 with FER+.
        unlabeled: uint8 (U, 48, 48) luminance crops.
        runs: folder of the runs: of the teachers, their targets and `recipe.model.initial`.

    Raises:
        DataError: the targets have not been made, or were made with other teachers, views or faces.
    """

    def __init__(self, recipe: Recipe, data: FerPlus, unlabeled: npt.NDArray[np.uint8], runs: Path) -> None:
        self.recipe = recipe
        self.learning_rate = recipe.optim.learning_rate
        protocol = training_rows(recipe, data)
        self.labelled, self.unlabeled = len(protocol.rows), len(unlabeled)
        images = taught_faces(recipe, data, unlabeled)
        none = torch.zeros(self.unlabeled, dtype=torch.long)
        target = torch.from_numpy(protocol.target)
        label = torch.from_numpy(data.label[protocol.rows].astype(np.int64))
        targets = [read_targets(recipe, teacher, len(images), sum(SPLITS), runs) for teacher in recipe.distill.teachers]
        rows = (
            torch.cat([target, target.new_zeros(self.unlabeled, target.shape[1])]),
            torch.cat([label, none]),
            consensus(targets),
        )
        self.frames = Frames(images, recipe.model.resolution, recipe.augment, recipe.seed, rows, targets)
        self.validation = Validation(data, recipe.data.protocol)
        self.triplets = VoteTriplets(recipe.optim.batch_size)
        self.distance, self.angle = RelationalDistance(), RelationalAngle()
        self.network: Student = prepare(recipe, data.images[protocol.rows], runs)

    @property
    def steps_per_epoch(self) -> int:
        return self.labelled // self.recipe.optim.batch_size

    def batches(self, epoch: int, start: int, workers: int) -> DataLoader[tuple[Tensor, ...]]:
        """Batches of one epoch, labelled faces first. An epoch is a pass over those; the others loop behind them."""
        seed, count, steps = self.recipe.seed, self.recipe.distill.unlabeled, self.steps_per_epoch
        order = epoch_order(self.labelled, self.recipe.optim.batch_size, seed, epoch)
        if count > 0:
            others = endless(self.unlabeled, epoch * steps * count, steps * count, seed) + self.labelled
            order = np.concatenate([order, others.reshape(steps, count)], axis=1)
        sampler = Batches(order, epoch % self.recipe.distill.views, start)
        return self.frames.loader(sampler, workers)

    def losses(self, network: nn.Module, batch: tuple[Tensor, ...]) -> Losses:
        """Losses of one batch."""
        crops, target, label, agreed, *teachers = batch
        output: Output = network(crops)
        assert output.fer2013 is not None
        assert output.triplet is not None
        assert output.relation is not None
        n = self.recipe.optim.batch_size
        label_target = nn.functional.one_hot(label[:n], len(FER2013)).float()
        votes, fer2013, relation = combine(teachers)
        share = self.recipe.distill.consensus
        votes, fer2013 = (torch.lerp(*pair, share) for pair in zip((votes, fer2013), split(agreed), strict=True))
        terms = {
            "votes": soft_cross_entropy(output.logits[:n], target[:n]),
            "fer2013": soft_cross_entropy(output.fer2013[:n], label_target),
            "triplet": self.triplets.to(crops.device)(output.triplet[:n], target[:n]),
            "soft_votes": soft_cross_entropy(output.logits, votes),
            "soft_fer2013": soft_cross_entropy(output.fer2013, fer2013),
            "rkd_distance": self.distance(output.relation, relation),
            "rkd_angle": self.angle(output.relation, relation),
        }
        return weighted(terms, self.recipe.losses)

    def validate(self, network: Student) -> dict[str, float]:
        """Figures on the validation split, from which everything is chosen."""
        return self.validation(network)


def consensus(targets: list[Tensor]) -> Tensor:
    """Mean probabilities over all views and teachers: (N, 15), the eight classes and then the seven labels.

    What many views of one face have in common is a better label than one view's, as test-time augmentation shows and
    data distillation uses (Radosavovic et al. 2018).

    Args:
        targets: (V, N, 47) of each teacher.
    """
    sums = torch.zeros(targets[0].shape[1], sum(SPLITS[:2]))
    for teacher in targets:
        for view in teacher:  # one at a time: they are stored in half precision to be small
            logits = torch.split(view.float(), list(SPLITS), dim=1)[:2]
            sums += torch.cat([part.softmax(dim=1) for part in logits], dim=1)
    return sums / sum(len(teacher) for teacher in targets)


def split(agreed: Tensor) -> tuple[Tensor, Tensor]:
    """The two parts of a consensus: (N, 8) and (N, 7)."""
    votes, fer2013 = torch.split(agreed, list(SPLITS[:2]), dim=1)
    return votes, fer2013


def combine(teachers: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean probabilities (N, 8) and (N, 7) of the teachers, and the relation target (N, 40 per teacher).

    Args:
        teachers: (N, 47) each, as `teach` stores them.
    """
    parts = [torch.split(t.float(), list(SPLITS), dim=1) for t in teachers]
    votes, fer2013 = (torch.stack([p[i].softmax(dim=1) for p in parts]).mean(dim=0) for i in (0, 1))
    return votes, fer2013, relation_target([output for p in parts for output in (p[2], p[0])])


def unlabeled_faces(recipe: Recipe, root: Path, runs: Path) -> npt.NDArray[np.uint8]:
    """The unlabeled crops of a recipe: those of LFW, uint8 (U, 48, 48), or none (0, 48, 48) where it asks for none.

    The first call takes a quarter of an hour: our detector goes through all of LFW.
    """
    if recipe.distill.unlabeled == 0:
        return np.empty((0, SIZE, SIZE), np.uint8)
    return crop_lfw(root, served_geometry(SIZE), runs / "lfw").images
