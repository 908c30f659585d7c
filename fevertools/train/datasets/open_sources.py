"""Open data behind the protocols of `sources`: gray frames as RGB, with FER+ votes or triplets drawn from them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fevertools.labels import EMOTIONS, FER2013
from fevertools.train.datasets.ferplus import SPLITS, FerPlus, Split, select, without_evaluated_twins
from fevertools.train.datasets.triplets import vote_triplets
from fevertools.types import Float32, UInt8Image

Int64 = npt.NDArray[np.int64]

LABELS: Int64 = np.array(
    [EMOTIONS.index({"angry": "anger", "happy": "happiness", "sad": "sadness"}.get(name, name)) for name in FER2013]
)
"""(7,) the index into `labels.EMOTIONS` of every FER-2013 label."""


@dataclass(frozen=True, slots=True, eq=False)
class GrayFaces:
    """Faces in luminance, three equal channels. An `UnlabeledSource`."""

    frames: UInt8Image  # (N, H, W)

    def __len__(self) -> int:
        return len(self.frames)

    def image(self, index: int) -> UInt8Image:
        """uint8 RGB (H, W, 3)."""
        return np.repeat(self.frames[index][:, :, None], 3, axis=2)


@dataclass(frozen=True, slots=True, eq=False)
class VotedFaces(GrayFaces):
    """FER+ faces with their votes. A `LabelledSource`."""

    votes: Float32  # (N, 8) distributions over `labels.EMOTIONS`

    def target(self, index: int) -> Float32:
        """float32 (8,) vote distribution, sum 1."""
        return np.asarray(self.votes[index])


@dataclass(frozen=True, slots=True, eq=False)
class DrawnTriplets(GrayFaces):
    """Triplets of FER+ faces. A `TripletSource`."""

    rows: Int64  # (T, 3) of `frames`, the similar pair first
    kinds: Int64  # (T,) types, as in `FecTriplet`

    def __len__(self) -> int:
        return len(self.rows)

    def triplet(self, index: int) -> tuple[int, int, int, int]:
        """Rows of the similar pair and of the odd face, and the type."""
        first, second, odd = self.rows[index].tolist()
        return first, second, odd, int(self.kinds[index])


def voted_faces(data: FerPlus, protocol: str, split: Split) -> VotedFaces:
    """The faces of an eight-class protocol; for training, without those that have a twin in an evaluated split."""
    chosen = select(data, protocol, split)
    keep = without_evaluated_twins(data, chosen.rows) if split == "train" else np.ones(len(chosen.rows), np.bool_)
    return VotedFaces(data.images[chosen.rows[keep]], chosen.target[keep])


def fer2013_faces(data: FerPlus, split: Split) -> VotedFaces:
    """The faces of one split with their FER-2013 label, one-hot over `labels.EMOTIONS`.

    For training, without those that have a twin in an evaluated split.
    """
    rows = np.flatnonzero(data.split == SPLITS[split])
    if split == "train":
        rows = rows[without_evaluated_twins(data, rows)]
    return VotedFaces(data.images[rows], np.eye(len(EMOTIONS), dtype=np.float32)[LABELS[data.label[rows]]])


def drawn_triplets(data: FerPlus, split: Split, count: int, seed: int) -> DrawnTriplets:
    """Triplets of `vote_triplets`.

    Raises:
        DataError: too few clear ones.
    """
    return DrawnTriplets(data.images, *vote_triplets(data, split, count, seed))
