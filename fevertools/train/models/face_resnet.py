"""dlib's face-recognition ResNet (King 2017), in the layout of face-api.js, whose weights it starts from.

29 convolutions, 5.6 M parameters, dense: on processors with matrix units it trains faster than depthwise networks a
third of its size. The start was trained on 3 M faces, another set and another loss than the MobileNet starts, which
makes it a good second teacher.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fevertools.train.models.faceres import restore_norm
from fevertools.train.models.starts import read_tensors
from fevertools.train.models.student import MEAN, STD

RGB_MEAN = (122.782, 117.001, 104.298)  # subtracted from a 0-255 RGB image, which is then divided by 256
# (name, blocks, whether it begins with a downsampling block), 32 to 256 channels.
STAGES = (("conv32", 3, False), ("conv64", 3, True), ("conv128", 2, True), ("conv256", 2, True))


class ConvNorm(nn.Module):
    """Convolution and batch norm; what face-api.js calls a convolution with its scale layer."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        # Strided convolutions are unpadded ("valid"), as in dlib.
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2 if stride == 1 else 0, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """Two convolutions and a shortcut; downsampling, the shortcut is 2x2 average pooling padded with zero channels."""

    def __init__(self, inputs: int, outputs: int, down: bool = False) -> None:
        super().__init__()
        self.down = down
        self.conv1 = ConvNorm(inputs, outputs, stride=2 if down else 1)
        self.conv2 = ConvNorm(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x)))
        if self.down:
            x = F.avg_pool2d(x, 2)
            # The unpadded convolution may come out one pixel smaller than the pooled shortcut.
            y = F.pad(y, (0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2]))
            x = F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
        return F.relu(x + y)


class FaceResNet(nn.Module):
    """Backbone: float (N, 1, H, W), H and W at least 112, -> pooled features (N, 256)."""

    features = 256

    def __init__(self) -> None:
        super().__init__()
        self.conv32_down = ConvNorm(1, 32, kernel=7, stride=2)
        self.blocks = nn.ModuleDict()
        inputs = 32
        for name, count, down in STAGES:
            outputs = int(name.removeprefix("conv"))
            if down:
                self.blocks[f"{name}_down"] = Residual(inputs, outputs, down=True)
                inputs = outputs
            for number in range(1, count + 1):
                self.blocks[f"{name}_{number}"] = Residual(outputs, outputs)
        self.blocks["conv256_down_out"] = Residual(256, 256, down=True)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv32_down(x)), 3, 2)
        for block in self.blocks.values():
            x = block(x)
        return x.mean(dim=(2, 3))


def load_start(backbone: FaceResNet, name: str, calibration: Tensor) -> None:
    """Fill a backbone with the start, in place.

    Args:
        backbone: as built, one input channel.
        name: "face-api".
        calibration: normalised float (N, 1, H, W) frames from which the batch-norm statistics are taken.
    """
    tensors = read_tensors(name)
    hooks = []
    for path, unit in backbone.named_modules():
        if not isinstance(unit, ConvNorm):
            continue
        key = path.removeprefix("blocks.").replace(".", "/")
        kernel = tensors[f"{key}/conv/filters"].permute(3, 2, 0, 1)  # (kh, kw, I, O) -> (O, I, kh, kw)
        bias, scale = tensors[f"{key}/conv/bias"], tensors[f"{key}/scale/weights"]
        if path == "conv32_down":
            kernel, bias = luminance_kernel(kernel, bias)
        shift = bias * scale + tensors[f"{key}/scale/biases"]
        with torch.no_grad():
            unit.conv.weight.copy_(kernel * scale[:, None, None, None])
        hooks.append(unit.conv.register_forward_hook(_restore(unit, shift)))
    backbone.eval()
    with torch.no_grad():
        backbone(calibration)
    for hook in hooks:
        hook.remove()
    backbone.train()


def _restore(unit: ConvNorm, shift: Tensor):  # type: ignore[no-untyped-def]
    """A hook that sets the unit's batch norm from the response of its convolution, before the norm runs."""

    def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], response: Tensor) -> None:
        assert isinstance(unit.norm, nn.BatchNorm2d)
        restore_norm(unit.norm, response, shift)

    return hook


def luminance_kernel(kernel: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Rewrite the RGB convolution for one normalised gray channel; equal on gray pictures, its padding is none."""
    shift = torch.tensor([MEAN - mean for mean in RGB_MEAN]) / 256
    return kernel.sum(dim=1, keepdim=True) * STD / 256, bias + (kernel.sum(dim=(2, 3)) * shift).sum(dim=1)
