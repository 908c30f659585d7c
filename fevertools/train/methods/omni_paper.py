"""Omni-supervised FER as published: VGG-Face or ResNet-34 on RGB faces, with mined or distilled ones."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fevertools.errors import DataError
from fevertools.labels import EMOTIONS_7
from fevertools.train import checkpoint
from fevertools.train.datasets.ferplus import FerPlus, read_ferplus
from fevertools.train.datasets.sources import LabelledSource, UnlabeledSource
from fevertools.train.distil_dataset import Distilled, read_distilled
from fevertools.train.evaluate.metrics import classification
from fevertools.train.losses import Losses
from fevertools.train.losses.soft_cross_entropy import soft_cross_entropy
from fevertools.train.methods.frames import Batches, Key, epoch_order
from fevertools.train.methods.sources import LABELLED, UNLABELED, Place
from fevertools.train.mine import Mined, read_list
from fevertools.train.models.photos import Output, PhotoClassifier, build_photos
from fevertools.train.models.student import MEAN, STD
from fevertools.train.recipe import AugmentOptions, Recipe, from_table
from fevertools.train.transforms import augment, plain, square
from fevertools.types import Float32, UInt8Image

CHUNK = 64  # faces at a time where nothing is learned


@dataclass(frozen=True, slots=True, eq=False)
class WithMined:
    """Labelled faces and, behind them, mined ones with their pseudo labels. A `LabelledSource`."""

    labelled: LabelledSource
    pool: UnlabeledSource
    mined: Mined

    def __len__(self) -> int:
        return len(self.labelled) + len(self.mined.rows)

    def image(self, index: int) -> UInt8Image:
        """uint8 RGB (H, W, 3)."""
        own = len(self.labelled)
        return self.labelled.image(index) if index < own else self.pool.image(int(self.mined.rows[index - own]))

    def target(self, index: int) -> Float32:
        """float32 (C,) of the labelled faces; one-hot for mined ones."""
        own = self.labelled.target(index if index < len(self.labelled) else 0)
        if index < len(self.labelled):
            return own
        return np.asarray(np.eye(len(own))[self.mined.label[index - len(self.labelled)]], np.float32)


class Photos(Dataset[tuple[Tensor, Tensor]]):
    """Augmented faces by key, uint8 (S, S, 3), and what they show, float32 (7,).

    Every face has a generator of its own, keyed by seed, view and index, so that a resumed run sees what an
    undisturbed one would, whatever the number of workers.
    """

    def __init__(self, source: LabelledSource, size: int, options: AugmentOptions, seed: int) -> None:
        self.source, self.size, self.options, self.seed = source, size, options, seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, *key))
        face = augment(square(self.source.image(key[1]), self.size), self.size, self.options, rng)
        return torch.from_numpy(face), torch.from_numpy(self.source.target(key[1])[: len(EMOTIONS_7)])


class PlainPhotos(Dataset[Tensor]):
    """Faces as they are, brought to one size: uint8 (S, S, 3)."""

    def __init__(self, source: UnlabeledSource, size: int) -> None:
        self.source, self.size = source, size

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(plain(self.source.image(index), self.size))


class PhotoLearning:
    """Cross-entropy on labelled RGB faces; the distilled images, where there are any, join every batch (section 3).

    Args:
        recipe: system "omni-paper".
        training, validation: labelled faces; contempt is not among what they show.
        distilled: one image of each emotion, or None.
        network: as its training begins.

    Raises:
        DataError: not enough faces for a batch, or not one distilled image for every emotion.
    """

    def __init__(
        self,
        recipe: Recipe,
        training: LabelledSource,
        validation: LabelledSource,
        distilled: Distilled | None,
        network: PhotoClassifier,
    ) -> None:
        if len(training) < recipe.optim.batch_size:
            raise DataError(f"{len(training)} training faces do not fill one batch of {recipe.optim.batch_size}")
        self.recipe, self.validation, self.network = recipe, validation, network
        self.learning_rate = recipe.optim.learning_rate
        self.photos = Photos(training, recipe.model.resolution, recipe.augment, recipe.seed)
        self.distilled = None if distilled is None else as_faces(distilled.images, recipe.model.resolution)
        if self.distilled is not None and len(self.distilled) != len(EMOTIONS_7):
            raise DataError(f"{recipe.omni.distilled} has {len(self.distilled)} images, not one of each emotion")

    @property
    def steps_per_epoch(self) -> int:
        return len(self.photos) // self.recipe.optim.batch_size

    def batches(self, epoch: int, start: int, workers: int) -> DataLoader[Any]:
        """Batches of one epoch, from batch `start` on."""
        order = epoch_order(len(self.photos), self.recipe.optim.batch_size, self.recipe.seed, epoch)
        # A generator of its own: drawing from the global one at every start would make resumed runs differ.
        return DataLoader(
            self.photos,
            batch_sampler=Batches(order, epoch, start),
            num_workers=workers,
            generator=torch.Generator(),
        )

    def losses(self, network: nn.Module, batch: tuple[Tensor, Tensor]) -> Losses:
        """Losses of one batch, the distilled images among it."""
        faces, target = batch
        if self.distilled is not None:
            faces = torch.cat([faces.float(), self.distilled.to(faces.device)])
            target = torch.cat([target, torch.eye(len(EMOTIONS_7), device=target.device)])
        loss = soft_cross_entropy(network(faces).logits, target)
        return Losses(loss, {"cross_entropy": loss})

    def validate(self, network: PhotoClassifier) -> dict[str, float]:
        """Figures of the validation faces. RAF-DB has no validation split: by its test split nothing is chosen."""
        figures = classification(*judged(network, self.validation, self.recipe.model.resolution))
        return {name: figures[name] for name in ("accuracy", "mean_recall", "ece", "cross_entropy")}


def as_faces(images: Tensor, size: int) -> Tensor:
    """Distilled images (C, 1 or 3, H, W) as the network takes faces: float (C, S, S, 3), 0-255 and beyond."""
    faces = F.interpolate(images, (size, size), mode="bicubic") * STD + MEAN
    return faces.expand(-1, 3, -1, -1).permute(0, 2, 3, 1)


def backbone_as_it_begins(recipe: Recipe, device: str) -> Callable[[Tensor], Tensor]:
    """What the learner of a recipe makes of faces before its training: images (N, 3, H, W), normalised -> (N, D)."""
    network = build_photos(recipe.model).eval().requires_grad_(False).to(device)

    def features(images: Tensor) -> Tensor:
        output: Output = network(as_faces(images, recipe.model.resolution))
        return output.embedding

    return features


@torch.no_grad()
def answers(network: PhotoClassifier, source: UnlabeledSource, size: int, workers: int = 0) -> Iterator[Output]:
    """What a network says of faces as they are, a chunk at a time and in their order, float32 on the CPU."""
    network.eval()
    for faces in DataLoader(PlainPhotos(source, size), CHUNK, num_workers=workers, generator=torch.Generator()):
        output: Output = network(faces.to(network.classify.weight.device))
        yield Output(output.embedding.float().cpu(), output.logits.float().cpu())


def judged(network: PhotoClassifier, source: LabelledSource, size: int) -> tuple[Float32, Float32]:
    """Logits and targets of labelled faces, (N, 7) each."""
    logits = torch.cat([output.logits for output in answers(network, source, size)]).numpy()
    return logits, np.stack([source.target(i)[: len(EMOTIONS_7)] for i in range(len(source))])


def make_photo_learning(recipe: Recipe, root: Path, runs: Path, data: FerPlus | None) -> PhotoLearning:
    """An "omni-paper": see `methods.build_method`."""
    place = place_of(recipe, root, runs, data)
    training, validation = LABELLED[recipe.sources.labelled](place)
    if recipe.omni.mined:
        pool = UNLABELED[recipe.sources.unlabeled](place)
        mined = read_list(runs / recipe.omni.mined, EMOTIONS_7)
        if len(mined.rows) and mined.rows.max() >= len(pool):
            raise DataError(f"the mined samples name row {mined.rows.max()} of a pool of {len(pool)} faces: mine anew")
        training = WithMined(training, pool, mined)
    distilled = read_distilled(runs / recipe.omni.distilled) if recipe.omni.distilled else None
    seed_everything(recipe.seed, verbose=False)
    return PhotoLearning(recipe, training, validation, distilled, build_photos(recipe.model))


def place_of(recipe: Recipe, root: Path, runs: Path, data: FerPlus | None) -> Place:
    """Where a recipe's data are; FER-2013 is read where it is asked for."""
    return Place(recipe, root, runs, lambda: read_ferplus(root) if data is None else data)


def load_photos(path: Path) -> tuple[PhotoClassifier, Recipe]:
    """The averaged network of a checkpoint, in evaluation mode, and its recipe.

    Raises:
        DataError: there is none, or it is of another system.
    """
    if not path.exists():
        raise DataError(f"no checkpoint at {path}: fit its recipe first")
    tensors, state = checkpoint.read(path)
    recipe = from_table(Recipe, state["recipe"], str(path))
    if recipe.system != "omni-paper":
        raise DataError(f"{path} is of a {recipe.system}, not of the paper's omni-supervised learner")
    network = build_photos(recipe.model, pretrained=False)
    checkpoint.load_weights(network, tensors, "average.", path)
    return network.eval(), recipe
