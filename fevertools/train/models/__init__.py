"""Networks. `build` makes the one a recipe asks for."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fevertools.errors import DataError
from fevertools.train.models import face_resnet, faceres
from fevertools.train.models.face_resnet import FaceResNet
from fevertools.train.models.mobilenet import MobileNetV1
from fevertools.train.models.student import MEAN, NO_HEADS, STD, Heads, Student
from fevertools.train.models.vgg import Vgg
from fevertools.train.recipe import ModelOptions

BACKBONES: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v1": MobileNetV1,
    "mobilenet_v1_medium": partial(MobileNetV1, blocks=11),  # half of the weights
    "mobilenet_v1_short": partial(MobileNetV1, blocks=9),  # a third of them
    "face_resnet": FaceResNet,
    "vgg": Vgg,
}
STARTS: dict[str, tuple[type[nn.Module], Callable[[Any, str, Tensor], None]]] = {
    "faceres": (MobileNetV1, faceres.load_start),
    "faceres-deep": (MobileNetV1, faceres.load_start),
    "face-api": (FaceResNet, face_resnet.load_start),
}
"""Name -> the backbone it fits, and the function that loads it."""


def build(options: ModelOptions, heads: Heads = NO_HEADS, calibration: Tensor | None = None) -> Student:
    """The network of a recipe.

    Args:
        options: what to build.
        heads: which heads it has beside the eight classes.
        calibration: uint8 (N, H, W) frames for a pretrained start; without them the network is random, as it is
            before a checkpoint is loaded.

    Raises:
        DataError: unknown backbone, or a start that this backbone does not have.
    """
    if options.name not in BACKBONES:
        raise DataError(f"unknown backbone {options.name!r}; known: {', '.join(BACKBONES)}")
    backbone = BACKBONES[options.name]()
    if options.start != "random" and calibration is not None:
        if options.start not in STARTS:
            raise DataError(f"{options.name} starts from {', '.join(STARTS)} or random, not {options.start!r}")
        fits, load_start = STARTS[options.start]
        if not isinstance(backbone, fits):
            raise DataError(f"the start {options.start!r} fits {fits.__name__}, not {options.name!r}")
        frames = (calibration[:, None].float() - MEAN) / STD
        size = (options.resolution, options.resolution)
        load_start(backbone, options.start, F.interpolate(frames, size, mode="bicubic", align_corners=False))
    student = Student(backbone, options.dimension, options.crop, options.resolution, options.dropout, heads)
    return student.to(memory_format=torch.channels_last)
