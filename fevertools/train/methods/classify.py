"""Plain classification of vote distributions, the baseline that distillation has to beat."""

from collections.abc import Iterator

import numpy as np
import torch
from lightning_fabric import seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fevertools.errors import DataError
from fevertools.labels import EMOTIONS
from fevertools.train.datasets.ferplus import FerPlus, Protocol, select, without_evaluated_twins
from fevertools.train.evaluate.metrics import classification
from fevertools.train.losses import Losses
from fevertools.train.losses.soft_cross_entropy import soft_cross_entropy
from fevertools.train.models import build
from fevertools.train.models.student import Output, Student
from fevertools.train.recipe import AugmentOptions, Recipe
from fevertools.train.transforms import augment


class Frames(Dataset[tuple[Tensor, Tensor, int]]):
    """Augmented training frames: uint8 (size, size, 1), target (C,), FER-2013 label.

    Every sample has a generator of its own, keyed by seed, epoch and index, so that a resumed run sees what an
    undisturbed one would, whatever the number of workers.
    """

    def __init__(self, data: FerPlus, protocol: Protocol, size: int, options: AugmentOptions, seed: int) -> None:
        self.images = data.images[protocol.rows]
        self.label = data.label[protocol.rows].astype(np.int64)
        self.target = torch.from_numpy(protocol.target)
        self.size, self.options, self.seed = size, options, seed

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, int]:
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        frame = augment(self.images[index], self.size, self.options, rng)
        return torch.from_numpy(frame[:, :, None]), self.target[index], int(self.label[index])


class EpochBatches:
    """Batches of one epoch: a permutation keyed by seed and epoch, from batch `start` on; the ragged end is dropped."""

    def __init__(self, count: int, batch_size: int, seed: int, epoch: int, start: int) -> None:
        order = np.random.default_rng((seed, epoch)).permutation(count)
        whole = order[: count // batch_size * batch_size].reshape(-1, batch_size)
        self.batches = [[(epoch, int(i)) for i in row] for row in whole[start:]]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class Classify:
    """Soft-label cross-entropy on FER+ votes, optionally with a second head on the FER-2013 labels of the images."""

    def __init__(self, recipe: Recipe, data: FerPlus) -> None:
        self.recipe = recipe
        protocol = select(data, recipe.data.protocol, "train")
        keep = without_evaluated_twins(data, protocol.rows)
        protocol = Protocol(protocol.rows[keep], protocol.target[keep])
        if len(protocol.rows) < recipe.optim.batch_size:
            raise DataError(f"{len(protocol.rows)} training images do not fill one batch of {recipe.optim.batch_size}")
        if protocol.target.shape[1] != len(EMOTIONS):
            raise DataError(f"the {len(EMOTIONS)}-class head cannot be trained on {recipe.data.protocol}")
        self.frames = Frames(data, protocol, recipe.model.resolution, recipe.augment, recipe.seed)
        validation = select(data, recipe.data.protocol, "validation")
        self.validation = (torch.from_numpy(data.images[validation.rows][:, :, :, None]), validation.target)
        calibration = torch.from_numpy(self.frames.images[:: max(1, len(self.frames.images) // 256)][:256])
        seed_everything(recipe.seed, verbose=False)  # the random part of the network, dropout and mixup
        self.network: Student = build(recipe.model, recipe.data.fer2013_weight > 0, calibration)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.frames.images) // self.recipe.optim.batch_size

    def batches(self, epoch: int, start: int, workers: int) -> DataLoader[tuple[Tensor, Tensor, int]]:
        """Batches of one epoch, from batch `start` on."""
        sampler = EpochBatches(len(self.frames.images), self.recipe.optim.batch_size, self.recipe.seed, epoch, start)
        # A generator of its own: drawing from the global one at every start would make resumed runs differ.
        return DataLoader(self.frames, batch_sampler=sampler, num_workers=workers, generator=torch.Generator())

    def losses(self, network: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Losses:
        """Losses of one batch."""
        crops, target, label = batch
        label_target = nn.functional.one_hot(label, 7).float()
        if self.recipe.optim.mixup > 0:
            weight = float(np.random.beta(self.recipe.optim.mixup, self.recipe.optim.mixup))  # noqa: NPY002 - state is in the checkpoint
            crops = (weight * crops + (1 - weight) * crops.flip(0)).to(torch.float32)
            target, label_target = (weight * t + (1 - weight) * t.flip(0) for t in (target, label_target))
        output: Output = network(crops)
        votes = soft_cross_entropy(output.logits, target)
        if output.fer2013 is None:
            return Losses(votes, {"votes": votes})
        fer2013 = soft_cross_entropy(output.fer2013, label_target)
        return Losses(votes + self.recipe.data.fer2013_weight * fer2013, {"votes": votes, "fer2013": fer2013})

    @torch.no_grad()
    def validate(self, network: Student) -> dict[str, float]:
        """Figures on the validation split, from which everything is chosen."""
        network.eval()
        crops, target = self.validation
        logits = torch.cat([network(chunk).logits.float() for chunk in torch.split(crops, 256)])
        figures = classification(logits.numpy(), target)
        return {name: figures[name] for name in ("accuracy", "mean_recall", "ece", "cross_entropy")}
