"""ED2L as published: ten gray patches of every face, FER-2013 first, then the folds of a posed set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fevertools.errors import DataError
from fevertools.labels import EMOTIONS, FER2013
from fevertools.train import checkpoint
from fevertools.train.datasets.ferplus import SPLITS, FerPlus, read_ferplus, without_evaluated_twins
from fevertools.train.datasets.patches import (
    Patches,
    align_frames,
    aligned_geometry,
    crop_posed,
    gray,
    sizes,
)
from fevertools.train.datasets.posed import FOLDS, READERS, PosedFaces, folds
from fevertools.train.evaluate.metrics import classification
from fevertools.train.losses import Losses
from fevertools.train.methods.ed2l import ed2l_losses
from fevertools.train.methods.frames import epoch_order
from fevertools.train.models.ed2l import Ed2l
from fevertools.train.models.student import MEAN, STD
from fevertools.train.recipe import Recipe
from fevertools.types import Float32

Int64 = npt.NDArray[np.int64]

CLASSES: dict[str, tuple[str, ...]] = {
    "": FER2013,
    "ck+": EMOTIONS[1:],
    **dict.fromkeys(("mmi", "bu-3dfe", "oulu-casia"), EMOTIONS[1:7]),
}
"""Data set -> what its faces show."""

CHUNK = 32  # faces at a time in validation, ten patches each


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """What is trained on and what is judged."""

    training: Patches
    judged: Patches
    classes: tuple[str, ...]


class PatchLearning:
    """Eq. 6 on patches; an epoch is a pass over all of them.

    Args:
        recipe: system "ed2l-paper".
        split: the faces.
        network: as its training begins.

    Raises:
        DataError: not enough patches for a batch.
    """

    def __init__(self, recipe: Recipe, split: Split, network: Ed2l) -> None:
        if len(split.training) < recipe.optim.batch_size:
            raise DataError(f"{len(split.training)} patches do not fill one batch of {recipe.optim.batch_size}")
        self.recipe, self.split, self.network = recipe, split, network
        self.learning_rate = recipe.optim.learning_rate

    @property
    def steps_per_epoch(self) -> int:
        return len(self.split.training) // self.recipe.optim.batch_size

    def batches(self, epoch: int, start: int, workers: int) -> DataLoader[Any]:
        """Batches of one epoch, from batch `start` on."""
        order = epoch_order(len(self.split.training), self.recipe.optim.batch_size, self.recipe.seed, epoch)
        # A generator of its own: drawing from the global one at every start would make resumed runs differ.
        return DataLoader(
            self.split.training,
            batch_sampler=order[start:].tolist(),
            num_workers=workers,
            generator=torch.Generator(),
        )

    def losses(self, network: nn.Module, batch: tuple[Tensor, Tensor]) -> Losses:
        """Losses of one batch."""
        crops, label = batch
        return ed2l_losses(self.network, network(crops), label, self.recipe.ed2l)

    def validate(self, network: Ed2l) -> dict[str, float]:
        """Figures of the judged faces. Nothing is chosen by those of a fold: its last network counts."""
        target = np.eye(len(self.split.classes), dtype=np.float32)[self.split.judged.label.numpy()]
        figures = classification(mean_logits(network, self.split.judged), target)
        return {name: figures[name] for name in ("accuracy", "mean_recall", "ece", "cross_entropy")}


@torch.no_grad()
def mean_logits(network: Ed2l, faces: Patches) -> Float32:
    """Logarithms of the mean probabilities over the ten patches of every face: float32 (N, C)."""
    network.eval()
    device = network.classify.weight.device
    parts = []
    for rows in torch.split(torch.arange(len(faces.label)), CHUNK):
        patches = torch.stack([faces.patches(int(row)) for row in rows])  # (n, 10, H, W, 1)
        logits = network(patches.flatten(0, 1).to(device)).fer2013
        parts.append(logits.softmax(dim=1).reshape(len(rows), -1, logits.shape[1]).mean(dim=1).log())
    return np.asarray(torch.cat(parts).float().cpu().numpy())


def make_patch_learning(recipe: Recipe, root: Path, runs: Path, data: FerPlus | None) -> PatchLearning:
    """An "ed2l-paper": see `methods.build_method`."""
    posed = recipe.posed.dataset != ""
    split = (
        posed_split(recipe, root, runs)
        if posed
        else fer2013_split(recipe, read_ferplus(root) if data is None else data)
    )
    seed_everything(recipe.seed, verbose=False)
    network = make_network(recipe)
    if recipe.model.initial:
        load_body(network, runs / recipe.model.initial / "checkpoint.safetensors")
    return PatchLearning(recipe, split, network)


def make_network(recipe: Recipe) -> Ed2l:
    """The network of a recipe, random."""
    (height, width), options = sizes(recipe.model.resolution).patch, recipe.ed2l
    classes = len(CLASSES[recipe.posed.dataset])
    network = Ed2l(classes, height, width, options, mean=MEAN, std=STD)
    return network.to(memory_format=torch.channels_last)


def load_body(network: Ed2l, path: Path) -> None:
    """Take base net and branches of an earlier run; the classifiers are of other emotions and begin anew.

    Raises:
        DataError: no such run, or one of another network.
    """
    if not path.exists():
        raise DataError(f"no {path} to fine-tune: fit that recipe first, or pass --set model.initial= for none")
    tensors, _ = checkpoint.read(path)
    for name in ("base", "distil") + (("dispel",) if network.dispel is not None else ()):
        checkpoint.load_weights(getattr(network, name), tensors, f"average.{name}.", path)


def fer2013_split(recipe: Recipe, data: FerPlus) -> Split:
    """Training rows without a twin in an evaluated split, and PublicTest."""
    rows = np.flatnonzero(data.split == SPLITS["train"])
    rows = rows[without_evaluated_twins(data, rows)]

    def patches(chosen: Int64) -> Patches:
        aligned = align_frames(data.images[chosen], recipe.model.resolution)
        return Patches(aligned, data.label[chosen], recipe.model.resolution)

    return Split(patches(rows), patches(np.flatnonzero(data.split == SPLITS["validation"])), FER2013)


def posed_split(recipe: Recipe, root: Path, runs: Path) -> Split:
    """One fold of a posed set; photographs without a face are left out of both sides.

    Raises:
        DataError: the data set is not where the recipe says, or it has no such fold.
    """
    options = recipe.posed
    if not 0 <= options.fold < FOLDS:
        raise DataError(f"posed.fold must be 0 to {FOLDS - 1}, not {options.fold}")
    faces = read_posed(recipe, root)
    crops = crop_posed(faces, options.dataset, aligned_geometry(recipe.model.resolution), runs / "posed")
    classes = CLASSES[options.dataset]
    label = faces.label - 1  # neutral, the first emotion, is none of theirs
    if label.min() < 0 or label.max() >= len(classes):
        raise DataError(f"{options.dataset} has a sequence whose emotion is not one of {', '.join(classes)}")
    aligned = gray(crops)

    def patches(rows: Int64) -> Patches:
        own = np.isin(crops.rows, rows)
        if not own.any():
            raise DataError(f"no face was found in any photograph of one side of fold {options.fold}")
        return Patches(aligned[own], label[crops.rows[own]], recipe.model.resolution)

    training, judged = folds(faces.subject)[options.fold]
    return Split(patches(training), patches(judged), classes)


def read_posed(recipe: Recipe, root: Path) -> PosedFaces:
    """The posed set that a recipe names."""
    return READERS[recipe.posed.dataset](root / (recipe.posed.folder or recipe.posed.dataset))
