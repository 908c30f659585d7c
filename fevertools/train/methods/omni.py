"""Omni-supervised FER: labelled faces with mined ones (VAS), or with one distilled image a class (DAS)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fevertools.errors import DataError
from fevertools.labels import EMOTIONS
from fevertools.train.datasets.ferplus import FerPlus
from fevertools.train.distil_dataset import read_distilled
from fevertools.train.losses import Losses
from fevertools.train.methods.classify import Classify, prepare, training_rows
from fevertools.train.methods.frames import Frames
from fevertools.train.mine import Mined, read_list
from fevertools.train.models.student import MEAN, STD, resize_matrix
from fevertools.train.recipe import Recipe


class OmniLearning(Classify):
    """The plain classifier on labelled faces and what knowledge of unlabeled ones was added to them (section 3).

    Vanilla auxiliary samples join the labelled faces, one-hot with their pseudo label; an epoch is a pass over both.
    Distilled ones, a handful, join every batch.

    Args:
        recipe: system "omni"; `omni.mined` and `omni.distilled` say what is added; with neither this is the baseline.
        data: FER-2013 with FER+.
        pool: uint8 (U, 48, 48) luminance crops, of which `omni.mined` names rows.
        runs: folder of the runs, in which both are looked for.
    """

    def __init__(self, recipe: Recipe, data: FerPlus, pool: npt.NDArray[np.uint8], runs: Path) -> None:
        super().__init__(recipe, data, runs)
        if recipe.omni.mined:
            self.frames = _joined(self.frames, pool, read_list(runs / recipe.omni.mined, EMOTIONS))
        distilled = read_distilled(runs / recipe.omni.distilled) if recipe.omni.distilled else None
        self.distilled = None if distilled is None else as_frames(distilled.images, recipe.model.resolution)
        if self.distilled is not None and len(self.distilled) != len(EMOTIONS):
            raise DataError(f"{recipe.omni.distilled} has {len(self.distilled)} images, not one for every emotion")

    def losses(self, network: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Losses:
        """Losses of one batch, the distilled images among it."""
        if self.distilled is None:
            return super().losses(network, batch)
        crops, target, label = batch
        crops = torch.cat([crops.float(), self.distilled.to(crops.device)])
        target = torch.cat([target, torch.eye(len(EMOTIONS), device=target.device)])
        return super().losses(network, (crops, target, torch.cat([label, label.new_zeros(len(EMOTIONS))])))


def _joined(labelled: Frames, pool: npt.NDArray[np.uint8], mined: Mined) -> Frames:
    """Frames of the labelled faces and, behind them, of the mined ones."""
    if len(mined.rows) and mined.rows.max() >= len(pool):
        raise DataError(f"the mined samples name row {mined.rows.max()} of a pool of {len(pool)} faces: mine anew")
    target, label = labelled.rows
    own = torch.from_numpy(np.eye(len(EMOTIONS), dtype=np.float32)[mined.label])
    rows = (torch.cat([target, own]), torch.cat([label, label.new_zeros(len(own))]))
    images = np.concatenate([labelled.images, pool[mined.rows]])
    return Frames(images, labelled.size, labelled.options, labelled.seed, rows)


def as_frames(images: Tensor, size: int) -> Tensor:
    """Distilled images (C, 1, H, H) as the network takes frames: float (C, S, S, 1), luminance 0-255 and beyond."""
    matrix = resize_matrix(images.shape[-1], size).to(images.device)
    return (matrix @ images[:, 0] @ matrix.T * STD + MEAN)[..., None]


def backbone_as_it_begins(recipe: Recipe, data: FerPlus, runs: Path, device: str) -> Callable[[Tensor], Tensor]:
    """What the learner of a recipe makes of faces before its training: images (N, 1, H, H), normalised -> (N, D)."""
    network = prepare(recipe, data.images[training_rows(recipe, data).rows], runs).eval().requires_grad_(False)
    network.to(device)

    def features(images: Tensor) -> Tensor:
        return network.backbone(network.prepare(as_frames(images, recipe.model.resolution)))  # type: ignore[no-any-return]

    return features
