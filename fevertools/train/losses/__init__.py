"""One loss a file. A loss returns its parts; the loop logs them."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Losses:
    """The scalar to minimise, and the unweighted scalars it is made of."""

    total: Tensor
    terms: dict[str, Tensor]
