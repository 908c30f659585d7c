"""The networks of the DeepFEVER paper: its FECNet teacher and its DenseNet-201 student. Both read RGB faces."""

import itertools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torchvision.models import DenseNet201_Weights, densenet201
from torchvision.models.densenet import _DenseBlock

from fevertools.errors import DataError, MissingExtraError
from fevertools.labels import EMOTIONS
from fevertools.train.models.student import TRIPLET_DIMENSION, Output
from fevertools.train.recipe import ModelOptions

Network = TypeVar("Network", bound=nn.Module)

WIDTH, LAYERS, GROWTH, BOTTLENECK = 512, 5, 64, 4  # of FECNet's dense block


class RgbNetwork(nn.Module):
    """RGB faces -> backbone -> vector of D, the embedding -> dropout -> independent linear heads.

    Args:
        backbone: the layers that have a pretrained start, float (N, 3, H, W) -> (N, C, h, w).
        embed: the layers above them, -> (N, D).
        dimension: D.
        dropout: probability, before the heads.
        mean, std: of each channel or of all, on the scale 0-255; what the start was trained with.
        relation: width of the head that is compared with teachers; 0 leaves it out.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        embed: nn.Module,
        dimension: int,
        dropout: float,
        mean: Sequence[float],
        std: Sequence[float],
        relation: int = 0,
    ) -> None:
        super().__init__()
        self.backbone, self.embed = backbone, embed
        self.dropout = nn.Dropout(dropout)
        self.compare = nn.Linear(dimension, TRIPLET_DIMENSION)
        self.classify = nn.Linear(dimension, len(EMOTIONS))
        self.relate = nn.Linear(dimension, relation) if relation else None
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1), persistent=False)

    def forward(self, faces: Tensor) -> Output:
        """Faces (N, H, W, 3), RGB 0-255 of any dtype: embedding, logits, triplet and, where it is there, relation."""
        x = (faces.permute(0, 3, 1, 2).float() - self.mean) / self.std  # (N, 3, H, W), channels last in memory
        embedding = self.embed(self.backbone(x))
        hidden = self.dropout(embedding)
        relation = None if self.relate is None else self.relate(hidden)
        return Output(embedding, self.classify(hidden), triplet=self.compare(hidden), relation=relation)


class FecNetTeacher(RgbNetwork):
    """FaceNet's middle layers, one dense block, D channels averaged. Vemulapalli & Agarwala 2019, with a class head.

    FaceNet here is facenet-pytorch's InceptionResnetV1, which has no block named 4e. FECNet took the output of 4e of a
    GoogLeNet-like network: 7 x 7 x 1024 at 224 x 224 pixels (Schroff et al. 2015, Table 2). The layer that leaves the
    same grid at DeepFEVER's 140 x 140 is `repeat_2`, (N, 896, 7, 7), its last output of stride 16; the next layer,
    `mixed_7a`, leaves 3 x 3. All up to `repeat_2` is taken, and all of it is trained.

    DeepFEVER's "five DenseNet blocks" are read as FECNet's: the paper calls both networks almost identical, and public
    reimplementations of FECNet agree on a 1x1 convolution to 512 channels and one block of five dense layers of growth
    rate 64, each with the bottleneck of DenseNet-B, 4 x 64 channels (Huang et al. 2017, section 3): 512 -> 832.

    Args:
        dimension: D, 256 and 128 in the paper.
        dropout: probability, before the heads.
        relation: width of a third head, which a teacher does not have; 0 leaves it out.
        pretrained: load weights trained on VGGFace2, which facenet-pytorch fetches and caches.

    Raises:
        DataError: the weights cannot be fetched.
        MissingExtraError: facenet-pytorch is not installed.
    """

    def __init__(self, dimension: int = 256, dropout: float = 0.1, relation: int = 0, pretrained: bool = False) -> None:
        embed = nn.Sequential(
            *conv_norm(896, WIDTH),
            _DenseBlock(LAYERS, WIDTH, BOTTLENECK, GROWTH, drop_rate=0.0),
            *conv_norm(WIDTH + LAYERS * GROWTH, dimension),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        super().__init__(facenet_stem(pretrained), embed, dimension, dropout, [127.5], [128.0], relation)


class DenseNetStudent(RgbNetwork):
    """torchvision's DenseNet-201 whose classifier gives D numbers in place of ImageNet's 1000, the embedding.

    Args:
        dimension: D.
        dropout: probability, before the heads.
        relation: width of the third head, 80 for two teachers; 0 leaves it out.
        pretrained: load weights trained on ImageNet, which torchvision fetches and caches.

    Raises:
        DataError: the weights cannot be fetched.
    """

    def __init__(
        self, dimension: int = 256, dropout: float = 0.2, relation: int = 80, pretrained: bool = False
    ) -> None:
        weights = DenseNet201_Weights.IMAGENET1K_V1 if pretrained else None
        network = fetched(
            lambda: densenet201(weights=weights), "torchvision's DenseNet-201 weights", "densenet201-*.pth"
        )
        pool = (nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        embed = nn.Sequential(*pool, nn.Linear(network.classifier.in_features, dimension))
        mean, std = ([255 * x for x in values] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        super().__init__(network.features, embed, dimension, dropout, mean, std, relation)


def conv_norm(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """1x1 convolution, batch norm, ReLU."""
    return nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


def facenet_stem(pretrained: bool) -> nn.Sequential:
    """InceptionResnetV1 from its first layer to `repeat_2`: (N, 3, 140, 140) -> (N, 896, 7, 7)."""
    try:
        from facenet_pytorch import InceptionResnetV1
    except ModuleNotFoundError as error:
        mend = "pip install --no-deps facenet-pytorch==2.5.3"
        raise MissingExtraError(f"the FECNet teacher needs facenet-pytorch: {mend}") from error
    network = fetched(
        lambda: InceptionResnetV1(pretrained="vggface2" if pretrained else None),
        "facenet-pytorch's VGGFace2 weights",
        "20180402-114759-vggface2.pt",
    )
    # The children stand in the order in which `forward` calls them.
    return nn.Sequential(
        OrderedDict(itertools.takewhile(lambda child: child[0] != "mixed_7a", network.named_children()))
    )


def fetched(make: Callable[[], Network], weights: str, file: str) -> Network:
    """A network whose library downloads its weights.

    Raises:
        DataError: no connection, or a damaged file in the library's cache.
    """
    try:
        return make()
    except (OSError, RuntimeError, EOFError) as error:
        raise DataError(
            f"cannot load {weights}: {error}. Run this once where their host can be reached and copy {file} to the "
            "same place in torch's cache (TORCH_HOME, else ~/.cache/torch), or pass --set model.start=random"
        ) from error


NETWORKS: dict[str, tuple[type[FecNetTeacher] | type[DenseNetStudent], str]] = {
    "fecnet": (FecNetTeacher, "vggface2"),
    "densenet201": (DenseNetStudent, "imagenet"),
}
"""Name -> network, and its pretrained start."""


def build_rgb(options: ModelOptions, relation: int = 0, pretrained: bool = True) -> RgbNetwork:
    """The network of a paper recipe, in channels-last memory.

    Args:
        options: `name` is one of `NETWORKS`.
        relation: width of the head that is compared with teachers; only a student has one.
        pretrained: load the start; False where a checkpoint is loaded next.

    Raises:
        DataError: unknown network, a start that this network does not have, or one that cannot be fetched.
    """
    if options.name not in NETWORKS:
        raise DataError(f"unknown network {options.name!r}; known: {', '.join(NETWORKS)}")
    network, start = NETWORKS[options.name]
    if options.start not in (start, "random"):
        raise DataError(f"{options.name} starts from {start!r} or 'random', not {options.start!r}")
    fetch = pretrained and options.start != "random"
    built: RgbNetwork = network(options.dimension, options.dropout, relation, fetch)
    return built.to(memory_format=torch.channels_last)
