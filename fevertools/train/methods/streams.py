"""Steps that draw from three streams of faces at once: triplets, labelled faces and unlabeled ones.

A pass over the triplets is an epoch; the other two loop in the background, reshuffled at every round.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fevertools.errors import DataError
from fevertools.train.datasets.sources import Sources
from fevertools.train.methods.frames import endless, epoch_order
from fevertools.train.recipe import AugmentOptions
from fevertools.train.transforms import augment, square
from fevertools.types import UInt8Image

TRIPLETS, LABELLED, UNLABELED = range(3)

Key = tuple[int, int, int]  # stream, round (the epoch, for triplets), index
Item = tuple[int, Tensor, Tensor]  # stream, faces uint8 (n, S, S, 3), what is known of them


class Batch(NamedTuple):
    """One step: T triplets, L labelled and U unlabeled faces of S pixels."""

    faces: Tensor  # uint8 (3 T + L + U, S, S, 3): T first faces, T second, T odd, then L, then U
    kind: Tensor  # int64 (T,) types of the triplets
    target: Tensor  # float32 (L, 8) distributions over `labels.EMOTIONS`


class Sizes(NamedTuple):
    """How many of each stream make a step."""

    triplets: int
    labelled: int
    unlabeled: int


class Streams(Dataset[Item]):
    """Augmented faces by key.

    Every face has a generator of its own, keyed by seed, stream, round and index, so that a resumed run sees what an
    undisturbed one would, whatever the number of workers.

    Args:
        sources: the three sets.
        sizes: of a step.
        size: height and width of the faces, pixels.
        options: strength of the augmentation.
        seed: of every draw.

    Raises:
        DataError: a set that is empty or absent where faces are drawn from it, or triplets that do not fill one step.
    """

    def __init__(self, sources: Sources, sizes: Sizes, size: int, options: AugmentOptions, seed: int) -> None:
        self.sources, self.sizes, self.size, self.options, self.seed = sources, sizes, size, options, seed
        self.counts = tuple(0 if s is None else len(s) for s in (sources.triplets, sources.labelled, sources.unlabeled))
        self.steps_per_epoch = self.counts[TRIPLETS] // sizes.triplets
        if self.steps_per_epoch == 0:
            raise DataError(f"{self.counts[TRIPLETS]} triplets do not fill one step of {sizes.triplets}")
        for name, count, drawn in zip(Sizes._fields, self.counts, sizes, strict=True):
            if drawn > 0 and count == 0:
                raise DataError(f"a step draws {drawn} {name} faces, and there are none")

    def __getitem__(self, key: Key) -> Item:
        stream, _, index = key
        source = self.sources
        if stream == TRIPLETS:
            *faces, kind = source.triplets.triplet(index)
            return stream, self._augmented([source.triplets.image(face) for face in faces], key), torch.tensor(kind)
        if stream == LABELLED:
            target = torch.from_numpy(source.labelled.target(index))
            return stream, self._augmented([source.labelled.image(index)], key), target
        assert source.unlabeled is not None
        return stream, self._augmented([source.unlabeled.image(index)], key), torch.empty(0)

    def _augmented(self, images: Sequence[UInt8Image], key: Key) -> Tensor:
        frames = [
            augment(square(image, self.size), self.size, self.options, np.random.default_rng((self.seed, *key, place)))
            for place, image in enumerate(images)
        ]
        return torch.from_numpy(np.stack(frames))

    def epoch(self, epoch: int, start: int) -> list[list[Key]]:
        """Keys of every step of one epoch, from step `start` on. The ragged end of the triplets is dropped."""
        order = epoch_order(self.counts[TRIPLETS], self.sizes.triplets, self.seed, epoch)[start:]
        steps: list[list[Key]] = [[(TRIPLETS, epoch, int(i)) for i in row] for row in order]
        for stream in (LABELLED, UNLABELED):
            count, size = self.counts[stream], self.sizes[stream]
            if size == 0:
                continue
            first, length = (epoch * self.steps_per_epoch + start) * size, len(order) * size
            indices = endless(count, first, length, seed_of_stream(self.seed, stream))
            rounds = np.arange(first, first + length) // count
            keys = [(stream, int(r), int(i)) for r, i in zip(rounds, indices, strict=True)]
            for number, step in enumerate(steps):
                step += keys[number * size : (number + 1) * size]
        return steps


def seed_of_stream(seed: int, stream: int) -> int:
    """A seed for each stream: sets of one size are not to be shuffled alike."""
    return int(np.random.SeedSequence((seed, stream)).generate_state(1)[0])


def collate(items: Sequence[Item]) -> Batch:
    """One step from its faces."""
    triplets, labelled, unlabeled = ([item for item in items if item[0] == stream] for stream in range(3))
    by_place = torch.stack([faces for _, faces, _ in triplets], dim=1)  # (3, T, S, S, 3)
    others = [faces for _, faces, _ in (*labelled, *unlabeled)]
    return Batch(
        torch.cat([by_place.flatten(0, 1), *others]),
        torch.stack([kind for _, _, kind in triplets]),
        torch.stack([target for _, _, target in labelled]),
    )
