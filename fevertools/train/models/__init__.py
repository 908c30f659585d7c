"""Networks. `build` makes the one a recipe asks for."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fevertools.errors import DataError
from fevertools.train.models.faceres import load_start
from fevertools.train.models.mobilenet import MobileNetV1
from fevertools.train.models.student import MEAN, STD, Student
from fevertools.train.recipe import ModelOptions

BACKBONES: dict[str, Callable[[], nn.Module]] = {"mobilenet_v1": MobileNetV1}


def build(options: ModelOptions, fer2013_head: bool = False, calibration: Tensor | None = None) -> Student:
    """The network of a recipe.

    Args:
        options: what to build.
        fer2013_head: adds the head for the seven FER-2013 labels.
        calibration: uint8 (N, H, W) frames for a pretrained start; without them the network is random, as it is
            before a checkpoint is loaded.

    Raises:
        DataError: unknown backbone, or a start that this backbone does not have.
    """
    if options.name not in BACKBONES:
        raise DataError(f"unknown backbone {options.name!r}; known: {', '.join(BACKBONES)}")
    backbone = BACKBONES[options.name]()
    if options.start != "random" and calibration is not None:
        if not isinstance(backbone, MobileNetV1):
            raise DataError(f"the start {options.start!r} fits mobilenet_v1 only, not {options.name!r}")
        frames = (calibration[:, None].float() - MEAN) / STD
        size = (options.resolution, options.resolution)
        load_start(backbone, options.start, F.interpolate(frames, size, mode="bicubic", align_corners=False))
    student = Student(backbone, options.dimension, options.crop, options.resolution, options.dropout, fer2013_head)
    return student.to(memory_format=torch.channels_last)
