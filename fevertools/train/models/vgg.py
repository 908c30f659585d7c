"""A VGG for 48-pixel faces: dense 3x3 convolutions, no pretrained start."""

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.vgg import make_layers

LAYERS: list[str | int] = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512]
"""Output channels of the convolutions, and where maps are halved: VGG-16 without its last scale, for 48 pixels."""


class Vgg(nn.Module):
    """Backbone: float (N, 1, H, W) -> pooled features (N, 512)."""

    features = 512

    def __init__(self) -> None:
        super().__init__()
        self.layers = make_layers(LAYERS, batch_norm=True)
        self.layers[0] = nn.Conv2d(1, LAYERS[0], 3, padding=1)  # type: ignore[arg-type]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(self.layers(x), 1).flatten(1)
