"""The two networks of "Omni-supervised Facial Expression Recognition": VGG-Face and ResNet-34, which read RGB faces."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import ResNet34_Weights, VGG16_Weights, resnet34, vgg16

from fevertools.errors import DataError
from fevertools.labels import EMOTIONS_7
from fevertools.train.models.fecnet import fetched
from fevertools.train.models.starts import starts_folder
from fevertools.train.recipe import ModelOptions

VGG_FACE = "vgg_face.safetensors"
"""File of the start "vggface": VGG-Face (Parkhi et al. 2015), float32, by the names of its authors (`conv1_1.weight` to
`fc7.bias`) or by those of torchvision's VGG-16. From the PyTorch copy that is in use, once:

    save_file(torch.load("vgg_face_dag.pth", weights_only=True), "vgg_face.safetensors")
"""


class Output(NamedTuple):
    """What the network says of N faces."""

    embedding: Tensor  # (N, D) what is before the last layer, in which auxiliary samples are mined
    logits: Tensor  # (N, 7) in the order of `labels.EMOTIONS_7`


class PhotoClassifier(nn.Module):
    """RGB faces -> embedding -> seven emotions.

    Args:
        backbone: float (N, 3, H, W) -> (N, D).
        dimension: D.
        mean, std: of each channel, on the scale 0-255; what the start was trained with.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, dimension: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.backbone = backbone
        self.classify = nn.Linear(dimension, len(EMOTIONS_7))
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1), persistent=False)

    def forward(self, faces: Tensor) -> Output:
        """Faces (N, H, W, 3), RGB 0-255 of any dtype."""
        embedding = self.backbone((faces.permute(0, 3, 1, 2).float() - self.mean) / self.std)
        return Output(embedding, self.classify(embedding))


def _vgg16(start: str) -> nn.Module:
    """VGG-16 without its last layer: 4096 features behind its two hidden ones."""
    weights = VGG16_Weights.IMAGENET1K_V1 if start == "imagenet" else None
    network = fetched(lambda: vgg16(weights=weights), "torchvision's VGG-16 weights", "vgg16-*.pth")
    network.classifier = network.classifier[:-1]
    if start == "vggface":
        load_vgg_face(network)
    return network  # type: ignore[no-any-return]


def _resnet34(start: str) -> nn.Module:
    """ResNet-34 without its last layer: 512 averaged features."""
    weights = ResNet34_Weights.IMAGENET1K_V1 if start == "imagenet" else None
    network = fetched(lambda: resnet34(weights=weights), "torchvision's ResNet-34 weights", "resnet34-*.pth")
    network.fc = nn.Identity()
    return network  # type: ignore[no-any-return]


def load_vgg_face(network: nn.Module) -> None:
    """Fill a VGG-16 without its last layer with VGG-Face, in place.

    Raises:
        DataError: no `VGG_FACE` among the starts, or it holds another network.
    """
    path = starts_folder() / VGG_FACE
    if not path.is_file():
        raise DataError(
            f"no {path}: put the weights of VGG-Face there as fevertools.train.models.photos.VGG_FACE says, name their "
            "folder in FEVERTOOLS_STARTS, or pass --set model.start=imagenet"
        )
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise DataError(f"{path} is not a safetensors file: {error}") from error
    own = [name for name in network.state_dict() if name.endswith(".weight")]
    blocks = [(1, 2), (2, 2), (3, 3), (4, 3), (5, 3)]
    theirs = [f"conv{block}_{k + 1}" for block, count in blocks for k in range(count)] + ["fc6", "fc7"]
    names = {a: b.removesuffix(".weight") for a, b in zip(theirs, own, strict=True)}
    renamed = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.rpartition(".")
        renamed[f"{names.get(layer, layer)}.{kind}"] = tensor
    wanted = {name: renamed[name] for name in network.state_dict() if name in renamed}  # without the 2622 people
    try:
        network.load_state_dict(wanted)
    except RuntimeError as error:
        raise DataError(f"{path} is not VGG-Face: {error}") from error


@dataclass(frozen=True, slots=True)
class Backbone:
    """How a network is made, and what its starts were trained with."""

    make: Callable[[str], nn.Module]  # by the name of a start
    starts: tuple[str, ...]
    dimension: int


BACKBONES = {
    "vgg16": Backbone(_vgg16, ("vggface", "imagenet", "random"), 4096),
    "resnet34": Backbone(_resnet34, ("imagenet", "random"), 512),
}
IMAGENET = ([255 * x for x in (0.485, 0.456, 0.406)], [255 * x for x in (0.229, 0.224, 0.225)])
VGGFACE = ([129.1863, 104.7624, 93.5940], [1.0, 1.0, 1.0])  # subtracted from 0-255, no division


def build_photos(options: ModelOptions, pretrained: bool = True) -> PhotoClassifier:
    """The network of a recipe, in channels-last memory.

    Args:
        options: `name` is one of `BACKBONES`.
        pretrained: load the start; False where a checkpoint is loaded next.

    Raises:
        DataError: unknown network, a start that it does not have, or one that cannot be found.
    """
    if options.name not in BACKBONES:
        raise DataError(f"unknown network {options.name!r}; known: {', '.join(BACKBONES)}")
    backbone = BACKBONES[options.name]
    if options.start not in backbone.starts:
        raise DataError(f"{options.name} starts from {', '.join(backbone.starts)}, not {options.start!r}")
    network = backbone.make(options.start if pretrained else "random")
    mean, std = VGGFACE if options.start == "vggface" else IMAGENET
    return PhotoClassifier(network, backbone.dimension, mean, std).to(memory_format=torch.channels_last)
