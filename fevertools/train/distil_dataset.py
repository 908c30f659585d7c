"""Dataset distillation: one synthetic image a class that teaches what thousands do. "Omni-supervised FER", Algorithm 1.

Wang et al. 2018, "Dataset Distillation": images and step sizes are learned through unrolled steps of gradient descent,
from initial weights that are drawn anew, so that the images teach networks which were not there when they were made.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from sklearn.metrics import accuracy_score, recall_score
from torch import Tensor, nn
from torch.func import functional_call

from fevertools.errors import DataError, OptionError
from fevertools.labels import EMOTIONS
from fevertools.train.datasets.ferplus import FerPlus, select
from fevertools.train.mine import Mined, pool_faces, read_list
from fevertools.train.models.student import MEAN, STD

Int64 = npt.NDArray[np.int64]
Weights = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class DistilOptions:
    """Algorithm 1's parameters."""

    iterations: int = 1000  # T
    batch_size: int = 128  # M, faces that judge the images in every iteration
    initialisations: int = 1  # initial weights that are drawn in every iteration
    steps: int = 4  # of gradient descent on the images; Algorithm 1 has one, Wang et al. several
    step_size: float = 0.03  # eta_0, where the learned step sizes begin
    learning_rate: float = 0.1  # alpha, of Adam on the images and the logarithms of the step sizes; falls by a cosine
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Distilled:
    """What is left of a data set."""

    images: Tensor  # float (C, 1, H, W) luminance or (C, 3, H, W) RGB, normalised as the faces were
    label: Tensor  # (C,) 0 to C - 1
    step_sizes: Tensor  # (S,) of the steps that they are to be learned from with


class SmallNet(nn.Module):
    """Three convolutions with group norm, fit for unrolling: float (N, channels, H, W) -> logits (N, C).

    Batch norm would make every step depend on what else is in the batch, and a distilled batch is all there is.
    """

    def __init__(self, classes: int, width: int = 32, channels: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (channels, width, width):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.GroupNorm(4, width), nn.ReLU(), nn.AvgPool2d(2)]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(3), nn.Flatten())
        self.classify = nn.Linear(9 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.features(x))  # type: ignore[no-any-return]


def distil(
    make: Callable[[], nn.Module],
    images: Tensor,
    label: Tensor,
    classes: int,
    options: DistilOptions,
    report: Callable[[int, float], None] = lambda iteration, loss: None,
    device: str = "cpu",
) -> Distilled:
    """Learn one image a class.

    Args:
        make: a network with fresh random weights: p(theta_0).
        images: float (N, 1, H, W) or (N, 3, H, W), normalised.
        label: (N,) 0 to C - 1.
        classes: C.
        options: of Algorithm 1.
        report: called after every iteration with its number and its loss.
        device: where it is computed; what is drawn at random is the same everywhere.

    Raises:
        OptionError: no iteration, no step, or no initialisation.
    """
    if min(options.iterations, options.steps, options.initialisations) < 1:
        raise OptionError("dataset distillation needs at least one iteration, one step and one initialisation")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        synthetic = torch.randn(classes, *images.shape[1:]).to(device).requires_grad_()
        logarithms = torch.full((options.steps,), options.step_size, device=device).log().requires_grad_()
        images, label, own = images.to(device), label.to(device), torch.arange(classes, device=device)
        optimiser = torch.optim.Adam([synthetic, logarithms], lr=options.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, options.iterations)
        for iteration in range(options.iterations):
            rows = torch.randint(len(images), (options.batch_size,)).to(device)
            total = 0.0
            for _ in range(options.initialisations):
                network = make().to(device)
                weights = unroll(network, synthetic, own, logarithms.exp(), keep_graph=True)
                loss = F.cross_entropy(functional_call(network, weights, (images[rows],)), label[rows])
                torch.autograd.backward(loss / options.initialisations)
                total += float(loss.detach()) / options.initialisations
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            schedule.step()
            report(iteration + 1, total)
    return Distilled(synthetic.detach().cpu(), own.cpu(), logarithms.detach().exp().cpu())


def unroll(network: nn.Module, images: Tensor, label: Tensor, step_sizes: Tensor, keep_graph: bool) -> Weights:
    """Weights after one step of gradient descent on the images for every step size. Algorithm 1, line 6.

    Args:
        network: its parameters are where the descent begins; they stay as they are.
        images, label: what is learned from in every step.
        step_sizes: (S,).
        keep_graph: whether gradients of the result reach images and step sizes.
    """
    weights: Weights = {name: p.detach().requires_grad_() for name, p in network.named_parameters()}
    for size in step_sizes:
        loss = F.cross_entropy(functional_call(network, weights, (images,)), label)
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=keep_graph)
        weights = {name: w - size * g for (name, w), g in zip(weights.items(), gradients, strict=True)}
    return weights


def train_on(network: nn.Module, distilled: Distilled) -> None:
    """Train a fresh network on the distilled images alone, in place, with the step sizes they were made for."""
    weights = unroll(network, distilled.images, distilled.label, distilled.step_sizes, keep_graph=False)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(weights[name])


def write_distilled(distilled: Distilled, path: Path, origin: dict[str, object]) -> None:
    """Write images and step sizes as safetensors; `origin` goes into the metadata as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(asdict(distilled), path, metadata={"fevertools": json.dumps(origin)})


def read_distilled(path: Path) -> Distilled:
    """Read what `write_distilled` wrote.

    Raises:
        DataError: not such a file.
    """
    try:
        return Distilled(**load_file(path))
    except (SafetensorError, OSError, TypeError) as error:
        raise DataError(f"{path} holds no distilled images: {error}") from error


def write_pictures(distilled: Distilled, path: Path) -> None:
    """The images side by side as one PNG, four times enlarged, cut off at black and white."""
    pixels = (distilled.images * STD + MEAN).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    row = np.concatenate(list(pixels), axis=1)[:, :, ::-1]  # OpenCV writes BGR
    cv2.imwrite(str(path), np.repeat(np.repeat(row, 4, axis=0), 4, axis=1))


def distil_mined(
    mined: Mined,
    faces: Callable[[Int64], Tensor],
    classes: int,
    options: DistilOptions,
    output: Path,
    most: int = 0,
    device: str = "cpu",
) -> Distilled:
    """From mined samples to one image an emotion, and its picture beside it.

    Args:
        mined: the samples; every emotion needs one.
        faces: the faces at some rows of the pool: float (N, 1, H, W) or (N, 3, H, W), normalised.
        classes: how many of `labels.EMOTIONS` there are.
        options: of Algorithm 1.
        output: safetensors file; the picture has the same name and ends in .png.
        most: samples of an emotion that are looked at; 0 is as many as the most frequent one has.
        device: where it is computed, a device of PyTorch.

    Raises:
        DataError: an emotion has no sample.
    """
    counts = np.bincount(mined.label, minlength=classes)
    if (counts == 0).any():
        raise DataError(f"no mined sample of {EMOTIONS[int(counts.argmin())]}: mine with a smaller margin")
    # Every emotion as often as the others, however rare it is among the samples.
    order, each = np.random.default_rng(options.seed), min(counts.max(), most or counts.max())
    rows = np.concatenate([order.choice(np.flatnonzero(mined.label == k), each) for k in range(classes)])
    images, label = faces(mined.rows[rows]), torch.from_numpy(mined.label[rows])

    def report(iteration: int, loss: float) -> None:
        if iteration % 50 == 0:
            print(json.dumps({"iteration": iteration, "loss": loss}), flush=True)

    channels = images.shape[1]
    distilled = distil(lambda: SmallNet(classes, channels=channels), images, label, classes, options, report, device)
    write_distilled(distilled, output, asdict(options))
    write_pictures(distilled, output.with_suffix(".png"))
    return distilled


def distil_pool(
    mined: Path, data: FerPlus, root: Path, runs: Path, options: DistilOptions, output: Path, device: str = "cpu"
) -> dict[str, Any]:
    """Distil the open pool, and measure what the images teach alone, on PublicTest.

    Args:
        mined: Parquet list that `mine` wrote.
        data: FER-2013 with FER+, to judge by.
        root, runs: data folder and folder of the runs, in which the pool lies.
        options: of Algorithm 1.
        output: safetensors file. Beside it: a picture, .png, and the figures, .json.
        device: where it is computed, a device of PyTorch.

    Returns:
        {"split", "images": how many, "accuracy", "mean_recall": [percent of each fresh network], "chance": percent of
        the most frequent emotion}; the mean recall of chance is 100 divided by the images.
    """
    pool, _ = pool_faces(root, runs)

    def faces(rows: Int64) -> Tensor:
        return normalised(torch.from_numpy(pool[rows])[:, None])

    distilled = distil_mined(read_list(mined, EMOTIONS), faces, len(EMOTIONS), options, output, device=device)
    chosen = select(data, "ferplus8", "validation")
    label = chosen.target.argmax(axis=1)
    images = normalised(torch.from_numpy(data.images[chosen.rows])[:, None])
    guesses = [np.asarray(guess) for guess in fresh_guesses(distilled, images)]
    figures = {
        "split": "PublicTest",
        "images": len(distilled.label),
        "accuracy": [round(100 * float(accuracy_score(label, guess)), 2) for guess in guesses],
        "mean_recall": [
            round(100 * float(recall_score(label, guess, labels=np.unique(label), average="macro")), 2)
            for guess in guesses
        ],
        "chance": round(100 * float(np.bincount(label).max() / len(label)), 2),
    }
    output.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return figures


def normalised(pixels: Tensor) -> Tensor:
    """Pixels 0-255 as the distilled images are: float, mean and deviation of luminance."""
    return (pixels.float() - MEAN) / STD


def fresh_guesses(distilled: Distilled, images: Tensor, networks: int = 5, seed: int = 1) -> list[Tensor]:
    """What networks say that were trained on the distilled images alone, each from weights of its own: (N,) each.

    Args:
        images: float (N, 1, H, W) or (N, 3, H, W), normalised.
    """
    guesses = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(networks):
            network = SmallNet(len(distilled.label), channels=images.shape[1])
            train_on(network, distilled)
            with torch.no_grad():
                guesses.append(torch.cat([network(chunk).argmax(dim=1) for chunk in torch.split(images, 512)]))
    return guesses
