"""EmoXNet on the seven emotions of FER+: single extractors, and their ensemble."""

from pathlib import Path

import numpy as np
import torch
from lightning_fabric import seed_everything
from torch import Tensor, nn

from fevertools.errors import DataError
from fevertools.labels import EMOTIONS, EMOTIONS_7
from fevertools.train import checkpoint
from fevertools.train.datasets.ferplus import FerPlus, Protocol, select, without_evaluated_twins
from fevertools.train.evaluate.metrics import classification
from fevertools.train.losses import Losses
from fevertools.train.losses.soft_cross_entropy import soft_cross_entropy
from fevertools.train.methods.classify import weighted
from fevertools.train.methods.frames import Frames, Passes
from fevertools.train.methods.targets import read_targets
from fevertools.train.models.emoxnet import EmoXNet, Output
from fevertools.train.models.face_seresnet import load_start
from fevertools.train.recipe import Recipe
from fevertools.types import Float32

PROTOCOL = "ferplus7"
STARTED = (("face-api", "seresnet34"),)
"""Starts, and the single member that each fits."""


class EnsembleLearning(Passes):
    """Cross-entropy (Eq. 1) of one extractor, or of several with the meta-classifier.

    Where the recipe names a teacher, they also learn what it says of the very view, in the place of a pretrained start.

    Args:
        recipe: system "emoxnet", protocol "ferplus7".
        data: FER-2013 with FER+. Training rows with a twin in an evaluated split are left out.
        runs: folder of the runs, in which those of `recipe.emoxnet.runs` and a teacher's outputs are looked for.

    Raises:
        DataError: another protocol, not enough images for a batch, an earlier run is missing or of another member, more
            than one teacher, or its outputs have not been made.
    """

    def __init__(self, recipe: Recipe, data: FerPlus, runs: Path) -> None:
        if recipe.data.protocol != PROTOCOL:
            raise DataError(f"EmoXNet has seven classes: data.protocol must be {PROTOCOL}, not {recipe.data.protocol}")
        self.recipe = recipe
        self.learning_rate = recipe.optim.learning_rate
        given = select(data, PROTOCOL, "train")
        keep = without_evaluated_twins(data, given.rows)
        if keep.sum() < recipe.optim.batch_size:
            raise DataError(f"{keep.sum()} training images do not fill one batch of {recipe.optim.batch_size}")
        target = torch.from_numpy(target_of(recipe, given)[keep])
        images = data.images[given.rows[keep]]
        said = []
        if recipe.distill.teachers:
            if len(recipe.distill.teachers) != 1:
                raise DataError("a network of EmoXNet learns from one teacher or none: set distill.teachers to one")
            self.views = recipe.distill.views
            said = [read_targets(recipe, recipe.distill.teachers[0], len(images), len(EMOTIONS), runs)]
        self.frames = Frames(images, recipe.model.resolution, recipe.augment, recipe.seed, (target,), said)
        chosen = select(data, PROTOCOL, "validation")
        self.crops, self.target = torch.from_numpy(data.images[chosen.rows][:, :, :, None]), chosen.target
        seed_everything(recipe.seed, verbose=False)
        self.network = start(recipe, runs, torch.from_numpy(images[:: max(1, len(images) // 256)][:256]))

    def losses(self, network: nn.Module, batch: tuple[Tensor, ...]) -> Losses:
        """Losses of one batch."""
        crops, target, *said = batch
        output: Output = network(crops)
        terms = {"votes": soft_cross_entropy(output.logits, target)}
        for teacher in said:
            soft = teacher[:, : len(EMOTIONS_7)].float().softmax(dim=1)
            terms["soft_votes"] = soft_cross_entropy(output.logits, soft)
        return weighted(terms, self.recipe.losses)

    @torch.no_grad()
    def validate(self, network: EmoXNet) -> dict[str, float]:
        """Figures on PublicTest, from which everything is chosen."""
        network.eval()
        device = network.resize.device
        logits = torch.cat([network(chunk.to(device)).logits for chunk in torch.split(self.crops, 256)])
        figures = classification(logits.float().cpu().numpy(), self.target)
        return {name: figures[name] for name in ("accuracy", "mean_recall", "ece", "cross_entropy")}


def target_of(recipe: Recipe, given: Protocol) -> Float32:
    """What is learned: the distribution of the votes, or one-hot the most frequent one: float32 (N, 7)."""
    if recipe.data.target == "votes":
        return given.target
    return np.asarray(np.eye(len(EMOTIONS_7))[given.target.argmax(axis=1)], np.float32)


def start(recipe: Recipe, runs: Path, images: Tensor) -> EmoXNet:
    """The network as its training begins: extractors of earlier runs where the recipe names them, or a pretrained one.

    Args:
        recipe: of the run.
        runs: folder of the earlier runs.
        images: uint8 (N, 48, 48), from which a pretrained start takes its batch-norm statistics.
    """
    network = make_emoxnet(recipe)
    if recipe.model.start != "random":
        if (recipe.model.start, *recipe.emoxnet.members) not in STARTED:
            known = " or ".join(f"{name} from {start}" for start, name in STARTED)
            raise DataError(f"only {known} has a pretrained start; set model.start to random")
        network.eval()
        load_start(network.backbone[recipe.emoxnet.members[0]], recipe.model.start, network.seen(images[..., None])[0])
    if not recipe.emoxnet.runs:
        return network
    if len(recipe.emoxnet.runs) != len(recipe.emoxnet.members):
        raise DataError("emoxnet.runs names one run for every member, in their order, or none")
    for name, run in zip(recipe.emoxnet.members, recipe.emoxnet.runs, strict=True):
        path = runs / run / "checkpoint.safetensors"
        checkpoint.load_weights(network.backbone[name], checkpoint.read(path)[0], f"average.backbone.{name}.", path)
    return network


def make_emoxnet(recipe: Recipe) -> EmoXNet:
    """The network of a recipe, random."""
    options, model = recipe.emoxnet, recipe.model
    network = EmoXNet(
        options.members,
        options.hidden,
        model.crop,
        model.resolution,
        model.dropout,
        options.upsample,
        options.frozen,
        options.width,
    )
    return network.to(memory_format=torch.channels_last)
