"""Augmented frames and the order in which an epoch shows them, keyed so that a resumed run repeats them exactly."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fevertools.train.recipe import AugmentOptions, Recipe
from fevertools.train.transforms import augment

Key = tuple[int, int]  # (view, index)


class Frames(Dataset[tuple[Tensor, ...]]):
    """Augmented frames, each with the rows of some arrays that belong to it: uint8 (size, size, 1), rows.

    Every sample has a generator of its own, keyed by seed, view and index, so that a resumed run sees what an
    undisturbed one would, whatever the number of workers.

    Args:
        images: uint8 (N, H, W).
        size: height and width of the frames.
        options: strength of the augmentation.
        seed: of every draw.
        rows: tensors of N rows each, for every image.
        view_rows: tensors of (V, N) rows each, for every image in a certain view.
    """

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        size: int,
        options: AugmentOptions,
        seed: int,
        rows: Sequence[Tensor] = (),
        view_rows: Sequence[Tensor] = (),
    ) -> None:
        self.images, self.size, self.options, self.seed = images, size, options, seed
        self.rows, self.view_rows = rows, view_rows

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: Key) -> tuple[Tensor, ...]:
        return tuple(column[0] for column in self.__getitems__([key]))

    def __getitems__(self, keys: Sequence[Key]) -> tuple[Tensor, ...]:
        """A whole batch, which costs a third less than its samples one by one."""
        views, indices = torch.tensor(keys).unbind(dim=1)
        frames = np.stack(
            [
                augment(self.images[i], self.size, self.options, np.random.default_rng((self.seed, v, i)))
                for v, i in keys
            ]
        )
        rows = (*(row[indices] for row in self.rows), *(row[views, indices] for row in self.view_rows))
        return (torch.from_numpy(frames[..., None]), *rows)

    def loader(self, batches: Iterable[Sequence[Key]], workers: int) -> DataLoader[tuple[Tensor, ...]]:
        """Batches of these keys, in this order."""
        # OpenCV would start a thread for every core in each worker. To be said here, in the parent: in a forked worker
        # it would wait for ever for its parent's threads.
        cv2.setNumThreads(1)
        # A generator of its own: drawing from the global one at every start would make resumed runs differ.
        return DataLoader(
            self,
            batch_sampler=batches,  # type: ignore[arg-type]
            num_workers=workers,
            collate_fn=_whole,
            generator=torch.Generator(),
        )


def _whole(batch: Any) -> Any:
    """What `Frames.__getitems__` gives is a batch already."""
    return batch


def epoch_order(count: int, batch_size: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Batches of one epoch, a permutation keyed by seed and epoch; the ragged end is dropped: (count // B, B)."""
    order = np.random.default_rng((seed, epoch)).permutation(count)
    return order[: count // batch_size * batch_size].reshape(-1, batch_size)


def endless(count: int, start: int, length: int, seed: int) -> npt.NDArray[np.int64]:
    """Positions `start` to `start + length` of an endless run of permutations of `count`, keyed by seed and round."""
    rounds = range(start // count, (start + length - 1) // count + 1)
    orders = np.concatenate([np.random.default_rng((seed, 1, r)).permutation(count) for r in rounds])
    first = start - rounds[0] * count
    return orders[first : first + length]


class Batches:
    """What a DataLoader wants of a sampler: the keys of each batch, from batch `start` on."""

    def __init__(self, indices: npt.NDArray[np.int64], view: int, start: int) -> None:
        self.keys = [[(view, int(i)) for i in row] for row in indices[start:]]

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


class Passes:
    """What methods share whose epoch is one pass over their frames, in batches of `optim.batch_size`."""

    recipe: Recipe
    frames: Frames
    views: int | None = None  # how many there are of each frame; None is a new one in every epoch

    @property
    def steps_per_epoch(self) -> int:
        return len(self.frames) // self.recipe.optim.batch_size

    def batches(self, epoch: int, start: int, workers: int) -> DataLoader[tuple[Tensor, ...]]:
        """Batches of one epoch, from batch `start` on."""
        order = epoch_order(len(self.frames), self.recipe.optim.batch_size, self.recipe.seed, epoch)
        sampler = Batches(order, epoch if self.views is None else epoch % self.views, start)
        return self.frames.loader(sampler, workers)
