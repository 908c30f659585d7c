"""Relational knowledge distillation: the student copies how outputs lie to each other, in a space of its own."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

COINCIDENT = 1e-10
"""Squared distances below this share of the batch mean count as none: the direction between two such rows is noise."""


class RelationalDistance(nn.Module):
    """Distance-wise relational distillation. Park et al. 2019, Eq. 4-6.

    Inputs: student (B, S), teacher (B, T), any norm -> scalar. Distances are divided by their batch mean over i != j.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Mean Huber loss (delta 1) over all B^2 pairs, as in the authors' code; i = j gives 0, and so does B < 2."""
        if len(student) < 2:
            return student.sum() * 0
        with torch.autocast(student.device.type, enabled=False):
            pairs, targets = relative_distances(student), relative_distances(teacher.detach())
            return 2 * F.smooth_l1_loss(pairs, targets, reduction="sum") / len(student) ** 2


class RelationalAngle(nn.Module):
    """Angle-wise relational distillation. Park et al. 2019, Eq. 7-8.

    Inputs: student (B, S), teacher (B, T), any norm -> scalar. The relation of three rows is the cosine of the angle at
    the middle one; where two of them coincide it is 0. Memory grows as B^3: 140 rows take about 50 MB.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Mean Huber loss (delta 1) over all B^3 triples, as in the authors' code. B < 3 gives 0."""
        if len(student) < 3:
            return student.sum() * 0
        with torch.autocast(student.device.type, enabled=False):
            return F.smooth_l1_loss(cosines(student), cosines(teacher.detach()))


def relative_distances(rows: Tensor) -> Tensor:
    """Distances of the pairs i < j, divided by their mean: (B (B - 1) / 2,)."""
    distances = F.pdist(at_least_float32(rows))
    return distances / distances.mean().clamp(min=1e-12)


def cosines(rows: Tensor) -> Tensor:
    """Cosine of the angle at row j between rows i and k: (j, i, k), each 0 to B - 1."""
    rows = at_least_float32(rows)
    differences = rows[None, :] - rows[:, None]  # (j, i, D)
    squared = differences.square().sum(dim=2, keepdim=True)
    apart = squared > COINCIDENT * squared.mean()
    # The inner `where` keeps the root away from 0, whose gradient is infinite even where the outer one discards it.
    units = torch.where(apart, differences * torch.where(apart, squared, 1).rsqrt(), 0)
    return units @ units.transpose(1, 2)


def relation_target(outputs: Sequence[Tensor]) -> Tensor:
    """What relations are copied from: teachers' outputs, each scaled to length 1, side by side.

    Args:
        outputs: (B, D) each, any norm; 32-d and 8-d outputs of two teachers in DeepFEVER.

    Returns:
        (B, sum of the D): 80 for two such teachers.
    """
    return torch.cat([F.normalize(at_least_float32(output), dim=1) for output in outputs], dim=1)


def at_least_float32(rows: Tensor) -> Tensor:
    """Half precision becomes float32; float64 stays."""
    return rows.to(torch.promote_types(rows.dtype, torch.float32))
