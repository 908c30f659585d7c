"""EmoXNet: feature extractors side by side, average pooled and concatenated, and an MLP on top (its figure 1)."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from fevertools.errors import DataError
from fevertools.labels import EMOTIONS_7
from fevertools.train.models.student import MEAN, STD, resize_matrix


class Output(NamedTuple):
    """What the network says of N faces."""

    embedding: Tensor  # (N, D) pooled features of all members
    logits: Tensor  # (N, 7) in the order of `labels.EMOTIONS_7`


class Vgg16(nn.Module):
    """The convolutions of VGG-16 with batch norm, pooled: its fully connected layers have most of its weights.

    Args:
        width: by which the number of every layer's channels is multiplied.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        layers: list[str | int] = [c if isinstance(c, str) else int(width * c) for c in cfgs["D"]]
        self.features = make_layers(layers, batch_norm=True)
        self.num_features = int(width * 512)
        self.features[0] = nn.Conv2d(1, int(width * 64), 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(self.features(x), 1).flatten(1)


def _pooled(name: str, argument: str, *values: int) -> Callable[[float], nn.Module]:
    """A network of timm that ends with its pooled features; `argument` sets its widths, which are `values` at 1."""

    def make(width: float) -> nn.Module:
        scaled = [max(8, int(width * value)) for value in values]
        options: dict[str, Any] = {argument: tuple(scaled) if len(scaled) > 1 else scaled[0]}
        return timm.create_model(name, in_chans=1, num_classes=0, **options)

    return make


def _efficientnet(width: float) -> nn.Module:
    if width != 1:
        raise DataError(f"efficientnet_b0 has one width: set emoxnet.width to 1, not {width}, or leave it out")
    return timm.create_model("efficientnet_b0", in_chans=1, num_classes=0)


RESNET = (64, 128, 256, 512)

MEMBERS: dict[str, Callable[[float], nn.Module]] = {
    "vgg16": Vgg16,
    "densenet121": _pooled("densenet121", "growth_rate", 32),
    "resnet34": _pooled("resnet34", "channels", *RESNET),
    "seresnet34": _pooled("seresnet34", "channels", *RESNET),
    "resnext50": _pooled("resnext50_32x4d", "channels", *RESNET),
    "seresnext50": _pooled("seresnext50_32x4d", "channels", *RESNET),
    "efficientnet_b0": _efficientnet,
}
"""The extractors of table 1, without pretrained weights, of a certain width; EmoXNet is those in
`EmoxnetOptions.members`, 1 wide."""


class EmoXNet(nn.Module):
    """Several extractors with the meta-classifier; or one, a row of table 1 "with the same classification head".

    Args:
        members: names in `MEMBERS`.
        hidden: units of the hidden layer.
        crop: height and width of the crops served.
        resolution: height and width at which the extractors work; crops are upsampled to it.
        dropout: probability, before both layers of the classifier.
        upsample: how many times larger each member sees the face; () is once, for all.
        frozen: whether the extractors stay as they are.
        width: by which the channels of the extractors' layers are multiplied; DenseNet's growth rate.

    Raises:
        DataError: no such member, or not one factor for each.
    """

    resize: Tensor

    def __init__(
        self,
        members: Sequence[str],
        hidden: int,
        crop: int,
        resolution: int,
        dropout: float,
        upsample: Sequence[float] = (),
        frozen: bool = False,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        unknown = [name for name in members if name not in MEMBERS]
        if unknown or not members:
            raise DataError(f"members of EmoXNet must be some of {', '.join(MEMBERS)}, not {', '.join(members)!r}")
        self.resolution, self.frozen = resolution, frozen
        self.upsample = tuple(upsample) or (1,) * len(members)
        if len(self.upsample) != len(members):
            raise DataError(f"emoxnet.upsample names {len(self.upsample)} factors for {len(members)} members")
        self.backbone = nn.ModuleDict({name: MEMBERS[name](width) for name in members})
        features = sum(member.num_features for member in self.backbone.values())  # type: ignore[misc]
        self.classify = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(hidden, len(EMOTIONS_7)),
        )  # fmt: skip
        self.backbone.requires_grad_(not frozen)
        self.register_buffer("resize", resize_matrix(crop, resolution), persistent=False)

    def train(self, mode: bool = True) -> "EmoXNet":
        """Frozen extractors keep their batch-norm statistics as well."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, crops: Tensor) -> Output:
        """Crops (N, S, S, 1) of luminance 0-255, where S is `crop`, or `resolution` when already warped to it."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            pairs = zip(self.backbone.values(), self.seen(crops), strict=True)
            embedding = torch.cat([member(seen) for member, seen in pairs], dim=1)
        return Output(embedding, self.classify(embedding))

    def seen(self, crops: Tensor) -> list[Tensor]:
        """What each member sees of crops (N, S, S, 1): normalised float (N, 1, H, H)."""
        x = (crops[..., 0].float() - MEAN) / STD
        if x.shape[1] != self.resolution:
            x = self.resize @ x @ self.resize.T
        return [
            x[:, None] if k == 1 else F.interpolate(x[:, None], size=[round(k * self.resolution)] * 2, mode="bilinear")
            for k in self.upsample
        ]
