"""What the systems trained on the seven labels of FER-2013 have in common: rows, batches and validation."""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import seed_everything
from torch import Tensor, nn

from fevertools.errors import DataError
from fevertools.labels import FER2013
from fevertools.train.datasets.ferplus import SPLITS, FerPlus, without_evaluated_twins
from fevertools.train.evaluate.metrics import classification
from fevertools.train.losses import Losses
from fevertools.train.methods.frames import Frames, Passes
from fevertools.train.recipe import Recipe


class OnFer2013(Passes, ABC):
    """A method whose network gives logits `fer2013` (N, 7).

    Args:
        recipe: of a system on FER-2013.
        data: FER-2013. Training rows with a twin in an evaluated split are left out.
        runs: folder of the runs, in which a teacher's outputs are looked for.

    Raises:
        DataError: not enough images for a batch.
    """

    def __init__(self, recipe: Recipe, data: FerPlus, runs: Path = Path("runs")) -> None:
        self.recipe, self.runs = recipe, runs
        self.learning_rate = recipe.optim.learning_rate
        rows = clean_rows(data)
        if len(rows) < recipe.optim.batch_size:
            raise DataError(f"{len(rows)} training images do not fill one batch of {recipe.optim.batch_size}")
        images, label = data.images[rows], torch.from_numpy(data.label[rows].astype(np.int64))
        self.frames = Frames(images, recipe.model.resolution, recipe.augment, recipe.seed, (label,), self.said(label))
        validation = np.flatnonzero(data.split == SPLITS["validation"])
        self.crops = torch.from_numpy(data.images[validation][:, :, :, None])
        self.target = np.eye(len(FER2013), dtype=np.float32)[data.label[validation]]
        seed_everything(recipe.seed, verbose=False)
        self.network = self.start(images)

    def said(self, label: Tensor) -> list[Tensor]:
        """What comes with every view of the training images beside their labels (N,): (V, N, W) each."""
        return []

    @abstractmethod
    def start(self, images: npt.NDArray[np.uint8]) -> nn.Module:
        """The network as its training begins, on uint8 (N, 48, 48)."""

    @abstractmethod
    def losses(self, network: nn.Module, batch: tuple[Tensor, ...]) -> Losses:
        """Losses of one batch: crops (N, S, S, 1), labels (N,), and what is `said` of them."""

    @torch.no_grad()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Figures on PublicTest, from which everything is chosen."""
        network.eval()
        device = next(network.parameters()).device
        logits = torch.cat([network(chunk.to(device)).fer2013 for chunk in torch.split(self.crops, 256)])
        figures = classification(logits.float().cpu().numpy(), self.target)
        return {name: figures[name] for name in ("accuracy", "mean_recall", "ece", "cross_entropy")}


def clean_rows(data: FerPlus) -> npt.NDArray[np.intp]:
    """The training rows of FER-2013 without a twin in an evaluated split."""
    rows = np.flatnonzero(data.split == SPLITS["train"])
    return rows[without_evaluated_twins(data, rows)]
