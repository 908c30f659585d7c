"""ED2L: a base net, a branch for the expression, one for all else ("Adversarial Feature Distillation")."""

from typing import NamedTuple

from torch import Tensor, nn

from fevertools.train.losses.am_softmax import AmSoftmax
from fevertools.train.losses.dispelling import LeastSquaresDispeller
from fevertools.train.recipe import Ed2lOptions

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
    """B_theta of Table 1: (N, 128, H, W) -> features (N, 256), each of mean 0 and variance 1 if `standardised`."""

    def __init__(self, height: int, width: int, standardised: bool = False) -> None:
        super().__init__()
        self.block = block(128, 256, 1)
        self.project = nn.Linear(256 * height * width, DIMENSION)
        self.standardise = nn.BatchNorm1d(DIMENSION, affine=False) if standardised else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.standardise(self.project(self.block(x).flatten(1)))  # type: ignore[no-any-return]


class Ed2l(nn.Module):
    """Base net and branches of Table 1, with their classifiers.

    Args:
        classes: C.
        height, width: of the crops, pixels.
        options: of the losses; without a dispelling branch, this is the paper's baseline.
        mean, std: of luminance 0-255.
    """

    def __init__(
        self,
        classes: int,
        height: int,
        width: int,
        options: Ed2lOptions,
        mean: float,
        std: float,
    ) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        self.base = nn.Sequential(block(1, 32, 1), block(32, 64, 2), block(64, 128, 4))
        last = (-(-height // 16), -(-width // 16))  # four strides of 2, each rounding up
        self.distil = Branch(*last)
        self.classify = AmSoftmax(DIMENSION, classes, options.margin, options.scale)
        self.dispel: Branch | None = None
        self.dispeller: nn.Linear | LeastSquaresDispeller | None = None
        if options.dispelling > 0:
            solved = options.dispeller == "least-squares"
            self.dispel = Branch(*last, standardised=solved)
            self.dispeller = LeastSquaresDispeller(DIMENSION, classes) if solved else nn.Linear(DIMENSION, classes)

    def forward(self, crops: Tensor) -> Output:
        """Crops uint8 or float (N, H, W, 1) of luminance 0-255."""
        shared = self.base(((crops[..., 0].float() - self.mean) / self.std)[:, None])
        embedding = self.distil(shared)
        dispelled = None if self.dispel is None else self.dispel(shared)
        return Output(embedding, dispelled, self.classify.logits(embedding))
