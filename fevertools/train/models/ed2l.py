"""ED2L: a base net, a branch for the expression, one for all else ("Adversarial Feature Distillation")."""

from typing import NamedTuple

from torch import Tensor, nn

from fevertools.train.losses.am_softmax import AmSoftmax

DIMENSION = 256


class Output(NamedTuple):
    """What the network says of N faces."""

    embedding: Tensor  # (N, 256) f_t, from which the expression is read
    dispelled: Tensor | None  # (N, 256) f_p, from which it should not be readable; None in the baseline
    fer2013: Tensor  # (N, C) logits of the expression


class Residual(nn.Module):
    """Two 3x3 convolutions added to their input: (N, F, H, W) -> (N, F, H, W)."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.units = nn.Sequential(*unit(filters, filters), *unit(filters, filters))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.units(x)  # type: ignore[no-any-return]


def unit(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, nn.Module, nn.Module]:
    """3x3 convolution, batch norm, PReLU."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.PReLU(outputs)


def block(inputs: int, outputs: int, residuals: int) -> nn.Sequential:
    """A line of Table 1: one convolution with stride 2, then residual units."""
    return nn.Sequential(*unit(inputs, outputs, stride=2), *(Residual(outputs) for _ in range(residuals)))


class Branch(nn.Module):
    """B_theta of Table 1: (N, 128, H, W) -> features (N, 256)."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.block = block(128, 256, 1)
        self.project = nn.Linear(256 * height * width, DIMENSION)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.block(x).flatten(1))  # type: ignore[no-any-return]


class Ed2l(nn.Module):
    """Base net and branches of Table 1, with their classifiers.

    Args:
        classes: C.
        height, width: of the crops, pixels.
        dispelling: whether there is a dispelling branch; without it, this is the paper's baseline.
        margin, scale: of the additive margin softmax.
        mean, std: of luminance 0-255.
    """

    def __init__(
        self,
        classes: int,
        height: int,
        width: int,
        dispelling: bool,
        margin: float,
        scale: float,
        mean: float,
        std: float,
    ) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        self.base = nn.Sequential(block(1, 32, 1), block(32, 64, 2), block(64, 128, 4))
        last = tuple(-(-size // 16) for size in (height, width))  # four strides of 2, each rounding up
        self.distil = Branch(*last)
        self.classify = AmSoftmax(DIMENSION, classes, margin, scale)
        self.dispel = Branch(*last) if dispelling else None
        self.dispeller = nn.Linear(DIMENSION, classes) if dispelling else None

    def forward(self, crops: Tensor) -> Output:
        """Crops uint8 or float (N, H, W, 1) of luminance 0-255."""
        shared = self.base(((crops[..., 0].float() - self.mean) / self.std)[:, None])
        embedding = self.distil(shared)
        dispelled = None if self.dispel is None else self.dispel(shared)
        return Output(embedding, dispelled, self.classify.logits(embedding))
