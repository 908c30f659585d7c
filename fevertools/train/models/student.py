"""What is trained and exported: a backbone with its normalisation, an embedding and task heads."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fevertools.labels import EMOTIONS, FER2013

MEAN, STD = 129.45, 64.87  # luminance of the FER+ training frames, 0-255


class Output(NamedTuple):
    """What the network says of N faces."""

    embedding: Tensor  # (N, D)
    logits: Tensor  # (N, 8) in the order of `labels.EMOTIONS`
    fer2013: Tensor | None = None  # (N, 7) in the order of `labels.FER2013`, where that head is trained
    triplet: Tensor | None = None  # (N, 32), any norm, where that head is trained
    relation: Tensor | None = None  # (N, R) for relational distillation, in training only


TRIPLET_DIMENSION = 32


@dataclass(frozen=True, slots=True)
class Heads:
    """The linear heads beside the eight FER+ classes."""

    fer2013: bool = False
    triplet: bool = False
    relation: int = 0  # dimension of the head compared with teachers; 0 leaves it out


NO_HEADS = Heads()


class Student(nn.Module):
    """Backbone -> dropout -> linear -> batch norm = embedding -> dropout -> linear heads.

    The batch norm centres and scales each coordinate of the embedding, so that cosines between embeddings spread around
    0 instead of crowding near 1. Export folds it into the linear map before it.

    Args:
        backbone: float (N, 1, H, W) -> (N, backbone.features).
        dimension: D.
        crop: height and width of the crops served.
        resolution: height and width at which the backbone works.
        dropout: probability, before and after the embedding.
        heads: which heads to add.
    """

    temperature: Tensor

    resize: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        dimension: int,
        crop: int,
        resolution: int,
        dropout: float,
        heads: Heads = NO_HEADS,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.resolution = resolution
        self.dropout = nn.Dropout(dropout)
        self.embed = nn.Linear(backbone.features, dimension, bias=False)  # type: ignore[arg-type]
        self.norm: nn.Module = nn.BatchNorm1d(dimension)
        self.classify = nn.Linear(dimension, len(EMOTIONS))
        self.classify_fer2013 = nn.Linear(dimension, len(FER2013)) if heads.fer2013 else None
        self.compare = nn.Linear(dimension, TRIPLET_DIMENSION) if heads.triplet else None
        self.relate = nn.Linear(dimension, heads.relation) if heads.relation else None
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("resize", resize_matrix(crop, resolution), persistent=False)

    def forward(self, crops: Tensor) -> Output:
        """Crops (N, S, S, 1) of luminance 0-255, where S is `crop`, or `resolution` when already warped to it."""
        return self.answer(self.backbone(self.prepare(crops)))

    def prepare(self, crops: Tensor) -> Tensor:
        """Crops as for `forward` -> what the backbone takes: float (N, 1, resolution, resolution)."""
        n, height, width, _ = crops.shape
        x = (crops.reshape(n, height, width).float() - MEAN) / STD
        if height != self.resolution:
            x = self.resize @ x @ self.resize.T
        # One channel: (N, H, W) and (N, 1, H, W) are the same bytes.
        return x[:, None]

    def answer(self, pooled: Tensor) -> Output:
        """Pooled features (N, F) of the backbone -> what the network says."""
        embedding = self.norm(self.embed(self.dropout(pooled)))
        hidden = self.dropout(embedding)
        fer2013, triplet, relation = (
            None if head is None else head(hidden) for head in (self.classify_fer2013, self.compare, self.relate)
        )
        return Output(embedding, self.classify(hidden) / self.temperature, fer2013, triplet, relation)


def resize_matrix(source: int, target: int) -> Tensor:
    """Bicubic interpolation of one axis as a float (target, source) matrix; an image is resized by `A @ image @ A.T`.

    Two matrix products are exact, differentiable and, in ONNX Runtime, far faster than its Resize operator.
    """
    identity = torch.eye(source)[None, None]
    return F.interpolate(identity, (target, source), mode="bicubic", align_corners=False)[0, 0]
