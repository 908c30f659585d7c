"""DenseNet for 48-pixel faces ("Discriminative Deep Feature Learning for Facial Emotion Recognition", Table I).

torchvision's DenseNet always has bottlenecks, halves the maps at transitions and begins for 224 pixels; Table I has
neither in its plain variant, and a single 3x3 convolution in front.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fevertools.labels import FER2013
from fevertools.train.losses.center import CenterLoss
from fevertools.train.recipe import DenseNetOptions


class Layer(nn.Module):
    """Batch norm, ReLU, 3x3 convolution, behind a 1x1 one to 4k maps where there is a bottleneck.

    (N, I, H, W) -> (N, I + k, H, W), its input among the output.
    """

    def __init__(self, inputs: int, growth: int, bottleneck: bool) -> None:
        super().__init__()
        inner = 4 * growth
        units = [(inputs, inner, 1), (inner, growth, 3)] if bottleneck else [(inputs, growth, 3)]
        self.units = nn.Sequential(*(module for unit in units for module in _unit(*unit)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.units(x)], dim=1)


class DenseNet(nn.Module):
    """Three dense blocks: float (N, 1, H, W) -> features (N, D), the global average that center loss acts on.

    A network of L layers a block has the depth 3 L + 4. Weights are initialised by He et al. 2015.

    Args:
        options: growth rate k, layers L, bottleneck and compression theta.
    """

    def __init__(self, options: DenseNetOptions) -> None:
        super().__init__()
        maps = 2 * options.growth
        modules: list[nn.Module] = [nn.Conv2d(1, maps, 3, stride=2, padding=1, bias=False)]
        for block in range(3):
            for _ in range(options.layers):
                modules.append(Layer(maps, options.growth, options.bottleneck))
                maps += options.growth
            if block < 2:
                kept = int(options.compression * maps)
                modules += [*_unit(maps, kept, 1), nn.AvgPool2d(2)]
                maps = kept
        self.blocks = nn.Sequential(*modules, nn.BatchNorm2d(maps), nn.ReLU())
        self.features = maps
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(self.blocks(x), 1).flatten(1)


def _unit(inputs: int, outputs: int, kernel: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Batch norm, ReLU, convolution: the order of DenseNet."""
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.BatchNorm2d(inputs), nn.ReLU(), convolution  # in place it is a tenth slower on a CPU


class Output(NamedTuple):
    """What the network says of N faces."""

    embedding: Tensor  # (N, D) the features that center loss acts on
    fer2013: Tensor  # (N, 7) logits in the order of `labels.FER2013`


class Discriminative(nn.Module):
    """Per-pixel normalisation, DenseNet, seven classes, and the centers of their features.

    Args:
        options: of the DenseNet.
        alpha: of the center loss.
        size: height and width at which the backbone works; larger crops are cut down to their middle.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, options: DenseNetOptions, alpha: float, size: int) -> None:
        super().__init__()
        self.size = size
        self.backbone = DenseNet(options)
        self.classify = nn.Linear(self.backbone.features, len(FER2013))
        self.center = CenterLoss(len(FER2013), self.backbone.features, alpha)
        self.register_buffer("mean", torch.zeros(size, size))
        self.register_buffer("std", torch.ones(size, size))

    def normalise_by(self, images: Tensor) -> None:
        """Take mean and standard deviation of every pixel from training images: uint8 (N, H, W)."""
        pixels = self._middle(images).float()
        self.mean.copy_(pixels.mean(dim=0))
        self.std.copy_(pixels.std(dim=0).clamp(min=1))

    def forward(self, crops: Tensor) -> Output:
        """Crops uint8 or float (N, S, S, 1) of luminance 0-255."""
        x = (self._middle(crops[..., 0]).float() - self.mean) / self.std
        features = self.backbone(x[:, None])
        return Output(features, self.classify(features))

    def _middle(self, images: Tensor) -> Tensor:
        """The middle (N, size, size) of (N, H, W)."""
        top, left = ((images.shape[axis] - self.size) // 2 for axis in (1, 2))
        return images[:, top : top + self.size, left : left + self.size]
