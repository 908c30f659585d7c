"""Triplets from vote distributions, inside a batch: the open stand-in for annotated triplets of faces."""

import torch
from torch import Tensor, nn

from fevertools.train.losses.fec_triplet import ONE_CLASS, THREE_CLASS, TWO_CLASS, hinge

GAP = 0.1
"""Least difference, in nats of Jensen-Shannon divergence, between the most similar pair and the runner-up."""


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence of distributions along the last axis: nats, 0 to ln 2."""
    m = (p + q) / 2
    terms = [torch.special.xlogy(x, x) - torch.special.xlogy(x, m) for x in (p, q)]
    return torch.stack(terms).sum(dim=(0, -1)) / 2


def triplet_kind(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Type of each triplet from the three class labels, int of any one shape."""
    same = (a == b).int() + (b == c).int() + (a == c).int()  # 3, 1 or 0
    return torch.where(same == 3, ONE_CLASS, torch.where(same == 1, TWO_CLASS, THREE_CLASS))


class VoteTriplets(nn.Module):
    """FEC triplet loss over every clear triplet of a batch.

    Every three faces of the batch are a triplet whose similar pair is the one with the closest vote distributions
    (Jensen-Shannon), kept when the runner-up is at least `gap` nats further. The three types weigh the same, as they
    are equally frequent in FEC; a batch of labelled faces serves both tasks, where the paper draws a second batch.
    """

    triples: Tensor

    def __init__(self, batch_size: int, gap: float = GAP) -> None:
        super().__init__()
        self.gap = gap
        self.register_buffer("triples", torch.combinations(torch.arange(batch_size), 3), persistent=False)

    def forward(self, outputs: Tensor, votes: Tensor) -> Tensor:
        """Mean over the types present of the mean loss of their triplets.

        Args:
            outputs: (N, D) of the triplet head, any norm; N is `batch_size`.
            votes: (N, C) distributions.
        """
        i, j, k = self.triples.unbind(dim=1)
        divergence = jensen_shannon(votes[:, None], votes[None, :])
        sides = torch.stack([divergence[i, j], divergence[i, k], divergence[j, k]], dim=1)  # (T, 3)
        ordered, order = sides.sort(dim=1)
        label = votes.argmax(dim=1)
        kind = triplet_kind(label[i], label[j], label[k])
        unit = nn.functional.normalize(outputs.float(), dim=1)
        squared = 2 - 2 * unit @ unit.T
        distances = torch.stack([squared[i, j], squared[i, k], squared[j, k]], dim=1).gather(1, order)
        loss = hinge(distances[:, 0], distances[:, 1], distances[:, 2], kind)
        clear = ordered[:, 1] - ordered[:, 0] >= self.gap
        means = [
            loss[chosen].mean() for t in (ONE_CLASS, TWO_CLASS, THREE_CLASS) if (chosen := clear & (kind == t)).any()
        ]
        return torch.stack(means).mean() if means else loss.sum() * 0
