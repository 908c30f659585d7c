"""Training on the labels of FER+ and FER-2013: the plain classifier and, with all three heads, a DeepFEVER teacher."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import seed_everything
from torch import Tensor, nn

from fevertools.errors import DataError
from fevertools.labels import EMOTIONS, FER2013
from fevertools.train import checkpoint
from fevertools.train.datasets.ferplus import SPLITS, FerPlus, Protocol, select, without_evaluated_twins
from fevertools.train.evaluate.metrics import classification
from fevertools.train.losses import Losses
from fevertools.train.losses.soft_cross_entropy import soft_cross_entropy
from fevertools.train.losses.vote_triplets import VoteTriplets
from fevertools.train.methods.frames import Frames, Passes
from fevertools.train.models import build
from fevertools.train.models.student import TRIPLET_DIMENSION, Heads, Output, Student
from fevertools.train.recipe import LossOptions, Recipe


class Classify(Passes):
    """Soft-label cross-entropy on FER+ votes, with heads for the FER-2013 labels and for triplets where they weigh.

    Args:
        recipe: system "classifier" or "deepfever-teacher".
        data: FER-2013 with FER+.
        runs: folder of the runs, in which `recipe.model.initial` is looked for.
    """

    def __init__(self, recipe: Recipe, data: FerPlus, runs: Path = Path("runs")) -> None:
        self.recipe = recipe
        self.learning_rate = recipe.optim.learning_rate
        protocol = training_rows(recipe, data)
        if protocol.target.shape[1] != len(EMOTIONS):
            raise DataError(f"the {len(EMOTIONS)}-class head cannot be trained on {recipe.data.protocol}")
        rows = (torch.from_numpy(protocol.target), torch.from_numpy(data.label[protocol.rows].astype(np.int64)))
        images = data.images[protocol.rows]
        self.frames = Frames(images, recipe.model.resolution, recipe.augment, recipe.seed, rows)
        self.validation = Validation(data, recipe.data.protocol)
        self.triplets = VoteTriplets(recipe.optim.batch_size)
        self.network: Student = prepare(recipe, images, runs)

    def losses(self, network: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Losses:
        """Losses of one batch."""
        crops, target, label = batch
        label_target = nn.functional.one_hot(label, len(FER2013)).float()
        if self.recipe.optim.mixup > 0:
            weight = float(np.random.beta(self.recipe.optim.mixup, self.recipe.optim.mixup))  # noqa: NPY002 - state is in the checkpoint
            crops = (weight * crops + (1 - weight) * crops.flip(0)).to(torch.float32)
            target, label_target = (weight * t + (1 - weight) * t.flip(0) for t in (target, label_target))
        output: Output = network(crops)
        terms = {"votes": soft_cross_entropy(output.logits, target)}
        if output.fer2013 is not None:
            terms["fer2013"] = soft_cross_entropy(output.fer2013, label_target)
        if output.triplet is not None:
            terms["triplet"] = self.triplets.to(target.device)(output.triplet, target)
        return weighted(terms, self.recipe.losses)

    def validate(self, network: Student) -> dict[str, float]:
        """Figures on the validation split, from which everything is chosen."""
        return self.validation(network)


def training_rows(recipe: Recipe, data: FerPlus) -> Protocol:
    """The labelled rows that a recipe trains on: none has a twin in an evaluated split."""
    protocol = select(data, recipe.data.protocol, "train")
    keep = without_evaluated_twins(data, protocol.rows)
    protocol = Protocol(protocol.rows[keep], protocol.target[keep])
    if len(protocol.rows) < recipe.optim.batch_size:
        raise DataError(f"{len(protocol.rows)} training images do not fill one batch of {recipe.optim.batch_size}")
    return protocol


def prepare(recipe: Recipe, images: npt.NDArray[np.uint8], runs: Path) -> Student:
    """The network as its training begins; seeds every random draw from here on (heads, dropout, mixup)."""
    seed_everything(recipe.seed, verbose=False)
    network = build(recipe.model, heads(recipe), torch.from_numpy(images[:: max(1, len(images) // 256)][:256]))
    if recipe.model.initial:
        path = runs / recipe.model.initial / "checkpoint.safetensors"
        checkpoint.load_weights(network.backbone, checkpoint.read(path)[0], "average.backbone.", path)
    return network


def heads(recipe: Recipe) -> Heads:
    """The heads that the losses of a recipe train; that of relations is as wide as the teachers' outputs together."""
    relations = recipe.losses.rkd_distance > 0 or recipe.losses.rkd_angle > 0
    relation = len(recipe.distill.teachers) * (TRIPLET_DIMENSION + len(EMOTIONS)) if relations else 0
    return Heads(recipe.losses.fer2013 > 0, recipe.losses.triplet > 0, relation)


def weighted(terms: dict[str, Tensor], weights: LossOptions) -> Losses:
    """Sum of the terms, each with its weight in the recipe."""
    total = sum((getattr(weights, name) * term for name, term in terms.items()), start=torch.zeros(()))
    return Losses(total, terms)


class Validation:
    """PublicTest, prepared once: figures of a network by its class heads."""

    def __init__(self, data: FerPlus, protocol: str) -> None:
        rows = np.flatnonzero(data.split == SPLITS["validation"])
        chosen = select(data, protocol, "validation")
        self.crops = torch.from_numpy(data.images[rows][:, :, :, None])
        self.voted = np.searchsorted(rows, chosen.rows)
        self.target, self.label = chosen.target, data.label[rows]

    @torch.no_grad()
    def __call__(self, network: Student) -> dict[str, float]:
        network.eval()
        device = network.embed.weight.device
        outputs: list[Output] = [network(chunk.to(device)) for chunk in torch.split(self.crops, 256)]
        logits = torch.cat([o.logits for o in outputs]).float().cpu().numpy()[self.voted][:, : self.target.shape[1]]
        figures = classification(logits, self.target)
        chosen = {name: figures[name] for name in ("accuracy", "mean_recall", "ece", "cross_entropy")}
        own = [o.fer2013.float() for o in outputs if o.fer2013 is not None]
        if own:
            chosen["fer2013_accuracy"] = 100 * float((torch.cat(own).argmax(dim=1).cpu().numpy() == self.label).mean())
        return chosen
