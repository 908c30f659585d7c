"""What training methods ask of data sets. Readers satisfy these protocols by shape; they inherit from nothing.

Every image is uint8 RGB (H, W, 3), one face filling the frame as its data set frames it; sizes may differ. Sources are
read by several processes at once, so reading an item changes nothing in them.
"""

from dataclasses import dataclass
from typing import Protocol

from fevertools.types import Float32, UInt8Image


class UnlabeledSource(Protocol):
    """Faces."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> UInt8Image:
        """uint8 RGB (H, W, 3) of face `index`, 0 <= index < len."""
        ...


class LabelledSource(UnlabeledSource, Protocol):
    """Faces with an emotion."""

    def target(self, index: int) -> Float32:
        """float32 (8,) distribution over `labels.EMOTIONS`, sum 1; one-hot where the data set has one label a face."""
        ...


class TripletSource(Protocol):
    """Triplets of faces, of which two look more alike than either does the third."""

    def __len__(self) -> int:
        """Number of triplets."""
        ...

    def triplet(self, index: int) -> tuple[int, int, int, int]:
        """Image indices of the similar pair and of the odd face, and the type, as in `FecTriplet`."""
        ...

    def image(self, index: int) -> UInt8Image:
        """uint8 RGB (H, W, 3) of one image index out of `triplet`."""
        ...


@dataclass(frozen=True, slots=True)
class Sources:
    """What a training draws from side by side, or is validated on."""

    triplets: TripletSource
    labelled: LabelledSource
    unlabeled: UnlabeledSource | None = None
