"""The images that the parts of an evaluation look at. Each set is encoded once, when a part first asks for it."""

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fevertools.train.datasets.cropped import Crops
from fevertools.train.datasets.ferplus import SIZE, SPLITS, FerPlus, Split
from fevertools.train.datasets.framing import served_geometry
from fevertools.train.datasets.lfw import Lfw, crop_lfw
from fevertools.train.evaluate.networks import Outputs, Predict
from fevertools.types import UInt8Image

Int64 = npt.NDArray[np.int64]


class Encoded:
    """What a network says of one set of images, and of their mirror images.

    Args:
        predict: the network.
        images: gives uint8 (N, 48, 48); called when it is first needed.
    """

    def __init__(self, predict: Predict, images: Callable[[], UInt8Image]) -> None:
        self._predict, self._images = predict, images

    @cached_property
    def single(self) -> Outputs:
        """Of the images as they are."""
        return self._predict(self._images()[:, :, :, None])

    @cached_property
    def flip(self) -> Outputs:
        """The mean of every output over an image and its mirror image."""
        mirrored = self._predict(np.ascontiguousarray(self._images()[:, :, ::-1, None]))
        pairs: Iterable[tuple[Any, Any]] = zip(self.single, mirrored, strict=True)
        return Outputs._make(None if a is None else (a + b) / 2 for a, b in pairs)


class LfwFaces:
    """LFW as an evaluation sees it: rows here count the crops, in the order of the cache.

    Args:
        root: data folder, in which LFW is looked for.
        cache: folder of the crops, see `datasets.lfw.crop_lfw`.

    Raises:
        DataError: no LFW in `root`.
    """

    def __init__(self, root: Path, cache: Path) -> None:
        self._source = Lfw(root)
        self._root, self._cache = root, cache

    @cached_property
    def crops(self) -> Crops:
        """The faces, 48 pixels high and wide, as users get them from a photo."""
        return crop_lfw(self._root, served_geometry(SIZE), self._cache)

    def labelled(self) -> tuple[Int64, Int64, Int64]:
        """Row, index into `labels.EMOTIONS` and anonymous number of the person, of every labelled face: (M,) each."""
        labels = self._source.labels()
        row = self._row(labels.rows)
        found = row >= 0
        return row[found], labels.label[found], self._source.person[labels.rows[found]]

    def crop_person(self) -> Int64:
        """Anonymous number of the person of every crop: (N,)."""
        return self._source.person[self.crops.rows]

    def pairs(self) -> tuple[Int64, npt.NDArray[np.bool_]]:
        """Rows (P, 2) of the View 2 pairs whose faces were both found, and whether each is one person twice: (P,)."""
        pairs = self._source.pairs()
        rows = self._row(pairs.index)
        found = (rows >= 0).all(axis=1)
        return rows[found], pairs.same[found]

    def _row(self, image: Int64) -> Int64:
        """Row of the crop of each image; -1 where no face was found."""
        place = np.full(len(self._source), -1)
        place[self.crops.rows] = np.arange(len(self.crops.rows))
        return place[image]


def split_rows(data: FerPlus, split: Split) -> Int64:
    """Rows of `FerPlus` in one split, ascending: (N,)."""
    return np.flatnonzero(data.split == SPLITS[split])
