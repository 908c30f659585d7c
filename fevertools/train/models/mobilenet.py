"""MobileNet-v1 (Howard et al. 2017, Table 1, width 1.0), laid out like the face-recognition start it is loaded from."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# (output channels, stride) of the thirteen depthwise-separable blocks.
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


class ConvUnit(nn.Module):
    """Convolution with TensorFlow's SAME padding, batch norm, ReLU6: (N, I, H, W) -> (N, O, H / stride, W / stride)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        # At stride 1 SAME is symmetric; at stride 2 it depends on the input size, see `same_padding`.
        padding = kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(self.norm(self.convolve(x)))

    def convolve(self, x: Tensor) -> Tensor:
        """The convolution alone."""
        if self.conv.stride[0] > 1:
            x = same_padding(x, self.conv.kernel_size[0], self.conv.stride[0])
        # The CPU has no fast kernel for the gradient of a strided depthwise convolution in bfloat16: 80 ms against 2.
        if self.training and self.conv.groups > 1 and self.conv.stride[0] > 1 and x.device.type == "cpu":
            with torch.autocast("cpu", enabled=False):
                return self.conv(x.float())  # type: ignore[no-any-return]
        return self.conv(x)  # type: ignore[no-any-return]


def same_padding(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Pad so that the output is ceil(size / stride), the odd pixel right and bottom, as TensorFlow does."""
    pads: list[int] = []
    for size in (x.shape[3], x.shape[2]):  # F.pad counts from the last axis
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


class MobileNetV1(nn.Module):
    """Backbone: float (N, 1, H, W) -> pooled features (N, F), F = 1024 behind all blocks.

    Args:
        blocks: how many of the depthwise-separable blocks it has. The last two hold half of its weights.
    """

    def __init__(self, blocks: int = len(BLOCKS)) -> None:
        super().__init__()
        self.features = BLOCKS[blocks - 1][0]
        units = [ConvUnit(1, 32, 3, stride=2)]
        inputs = 32
        for outputs, stride in BLOCKS[:blocks]:
            units += [ConvUnit(inputs, inputs, 3, stride, groups=inputs), ConvUnit(inputs, outputs, 1)]
            inputs = outputs
        self.units = nn.Sequential(*units)

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x).mean(dim=(2, 3))

    def maps(self, x: Tensor) -> Tensor:
        """Features before pooling: (N, F, H / 32, W / 32) behind all blocks, rounded up."""
        return self.units(x)  # type: ignore[no-any-return]
