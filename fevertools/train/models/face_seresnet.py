"""A face-recognition start for SE-ResNet-34: dlib's ResNet, whose blocks are its blocks at half of its width.

dlib's has three blocks less in the third stage: those begin as identities; and half of the maps in front, since timm
narrows the stages alone: the others begin unseen. Its shortcuts average where SE-ResNet's
take every second pixel, and its strided convolutions are not padded, so that the start is near, not the same function.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fevertools.errors import DataError
from fevertools.train.models.face_resnet import luminance_kernel
from fevertools.train.models.faceres import restore_norm
from fevertools.train.models.starts import read_tensors

WIDTH = 0.5
STAGES = (
    ("conv32_1", "conv32_2", "conv32_3"),
    ("conv64_down", "conv64_1", "conv64_2", "conv64_3"),
    ("conv128_down", "conv128_1", "conv128_2", None, None, None),
    ("conv256_down", "conv256_1", "conv256_2"),
)
"""Blocks of SE-ResNet-34, stage by stage -> dlib's; its last, another halving, has no counterpart."""
OPEN = 4.0  # logit of the gates: squeeze and excitation begins by letting everything through


def load_start(network: Any, name: str, calibration: Tensor) -> None:
    """Fill timm's `seresnet34` with the start, in place.

    Args:
        network: as built, `WIDTH` wide, one input channel.
        name: "face-api".
        calibration: normalised float (N, 1, H, W) frames from which the batch-norm statistics are taken.

    Raises:
        DataError: another width.
    """
    if network.num_features != 512 * WIDTH:
        raise DataError(f"the start {name!r} fits SE-ResNet-34 of half its width: set emoxnet.width to {WIDTH}")
    tensors = read_tensors(name)
    hooks = []

    def take(key: str, convolution: nn.Conv2d, norm: nn.BatchNorm2d, *, first: bool = False) -> None:
        kernel, bias = tensors[f"{key}/conv/filters"].permute(3, 2, 0, 1), tensors[f"{key}/conv/bias"]
        if first:
            kernel, bias = luminance_kernel(kernel, bias)
        scale = tensors[f"{key}/scale/weights"]
        outputs, inputs = kernel.shape[:2]
        convolution.weight[:outputs].zero_()  # what the start does not have is not seen
        convolution.weight[:outputs, :inputs] = kernel * scale[:, None, None, None]
        shift = torch.zeros(convolution.out_channels)
        shift[:outputs] = bias * scale + tensors[f"{key}/scale/biases"]
        hooks.append(_restored(convolution, norm, shift))

    with torch.no_grad():
        take("conv32_down", network.conv1, network.bn1, first=True)
        for number, names in enumerate(STAGES, start=1):
            for block, own in zip(getattr(network, f"layer{number}"), names, strict=True):
                if own is None:
                    nn.init.zeros_(block.bn2.weight)
                    nn.init.zeros_(block.bn2.bias)
                    continue
                take(f"{own}/conv1", block.conv1, block.bn1)
                take(f"{own}/conv2", block.conv2, block.bn2)
                nn.init.zeros_(block.se.fc2.weight)
                nn.init.constant_(block.se.fc2.bias, OPEN)
                if block.downsample is not None:  # as dlib's: the maps as they are, and zeros for the new ones
                    nn.init.eye_(block.downsample[0].weight[:, :, 0, 0])
                    none = torch.zeros(block.downsample[0].out_channels)
                    hooks.append(_restored(block.downsample[0], block.downsample[1], none))
        network.eval()
        network(calibration)
    for hook in hooks:
        hook.remove()
    network.train()


def _restored(convolution: nn.Conv2d, norm: nn.BatchNorm2d, shift: Tensor) -> Any:
    """A hook that sets the batch norm behind a convolution from its response, before the norm runs."""

    def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], response: Tensor) -> None:
        restore_norm(norm, response, shift)

    return convolution.register_forward_hook(hook)
