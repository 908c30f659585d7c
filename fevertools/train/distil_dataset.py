"""Dataset distillation: one synthetic image a class that teaches what thousands do. "Omni-supervised FER", Algorithm 1.

Wang et al. 2018, "Dataset Distillation": images and step sizes are learned through unrolled steps of gradient descent,
from initial weights that are drawn anew, so that the images teach networks which were not there when they were made.

Those networks begin as the learner does that the images are to join: with its pretrained start and a random classifier.
The steps descend on the classifier. The start stays as it is, so that faces go through it once and not in every step.
"""

import json
import math
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
from fevertools.train.datasets.ferplus import FerPlus, Split, select
from fevertools.train.mine import Mined, pool_faces, read_list
from fevertools.train.models.student import MEAN, STD

Int64 = npt.NDArray[np.int64]
Weights = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class DistilOptions:
    """Algorithm 1's parameters."""

    iterations: int = 3000  # T
    batch_size: int = 256  # M, faces that judge the images in every iteration
    initialisations: int = 1  # initial weights that are drawn in every iteration
    steps: int = 10  # of gradient descent on the images; Algorithm 1 has one, Wang et al. several
    step_size: float = 5.0  # eta_0, where the learned step sizes begin
    learning_rate: float = 0.02  # alpha, of Adam on the images; falls by a cosine
    step_size_rate: float = 0.2  # times alpha: of Adam on the logarithms of the step sizes, which grow without end at 1
    gradient_clip: float = 1.0  # largest norm of the gradient
    contrast: float = 1.5  # of the images as they begin: how many times a class's mean is as far from that of all
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Distilled:
    """What is left of a data set."""

    images: Tensor  # float (C, 1, H, W) luminance or (C, 3, H, W) RGB, normalised as the faces were
    label: Tensor  # (C,) 0 to C - 1
    step_sizes: Tensor  # (S,) of the steps that they are to be learned from with


@dataclass(frozen=True, slots=True)
class Learner:
    """p(theta_0): networks that begin with the same features, and each with a classifier of its own."""

    features: Callable[[Tensor], Tensor]  # images (N, 1 or 3, H, W), normalised -> (N, D)
    make: Callable[[], nn.Module]  # a classifier with fresh random weights: (N, D) -> logits (N, C)


def linear_learner(backbone: Callable[[Tensor], Tensor], images: Tensor, classes: int) -> Learner:
    """A linear classifier on a backbone's features, brought to mean 0, one deviation, and vectors of about length 1.

    Args:
        backbone: images -> features (N, D).
        images: some of the pool, by whose features mean and deviation are taken.
        classes: C.
    """
    with torch.no_grad():
        found = _by_parts(backbone, images)
    mean, std, dimension = found.mean(dim=0), found.std(dim=0), found.shape[1]
    std = std + 1e-3 * std.mean()  # a feature that is never active must not explode on a learned image
    # Step sizes of about 1 suit vectors of length 1, whatever their dimension; longer ones make the descent unstable.
    scale = std * math.sqrt(dimension)
    return Learner(lambda x: (backbone(x) - mean) / scale, lambda: nn.Linear(dimension, classes).to(found.device))


def _by_parts(features: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    return torch.cat([features(chunk) for chunk in torch.split(images, 256)])


def distil(
    learner: Learner,
    images: Tensor,
    label: Tensor,
    classes: int,
    options: DistilOptions,
    report: Callable[[int, float], None] = lambda iteration, loss: None,
) -> Distilled:
    """Learn one image a class.

    Args:
        learner: p(theta_0), on the device of the images.
        images: float (N, 1, H, W) or (N, 3, H, W), normalised.
        label: (N,) 0 to C - 1, every class among it.
        classes: C.
        options: of Algorithm 1.
        report: called after every iteration with its number and its loss.

    Raises:
        OptionError: no iteration, no step, or no initialisation.
    """
    if min(options.iterations, options.steps, options.initialisations) < 1:
        raise OptionError("dataset distillation needs at least one iteration, one step and one initialisation")
    device = images.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        synthetic = _class_means(images, label, classes, options.contrast).requires_grad_()
        logarithms = torch.full((options.steps,), options.step_size, device=device).log().requires_grad_()
        own = torch.arange(classes, device=device)
        with torch.no_grad():
            judges = _by_parts(learner.features, images)
        rate = options.learning_rate
        groups: list[dict[str, Any]] = [
            {"params": [synthetic]},
            {"params": [logarithms], "lr": rate * options.step_size_rate},
        ]
        optimiser = torch.optim.Adam(groups, lr=rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, options.iterations)
        for iteration in range(options.iterations):
            rows = torch.randint(len(images), (options.batch_size,)).to(device)
            taught, total = learner.features(synthetic), torch.zeros((), device=device)
            for _ in range(options.initialisations):
                network = learner.make()
                weights = unroll(network, taught, own, logarithms.exp(), keep_graph=True)
                loss = F.cross_entropy(functional_call(network, weights, (judges[rows],)), label[rows])
                total = total + loss / options.initialisations
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(total, inputs=[synthetic, logarithms])
            nn.utils.clip_grad_norm_([synthetic, logarithms], options.gradient_clip)
            optimiser.step()
            schedule.step()
            report(iteration + 1, float(total.detach()))
    return Distilled(synthetic.detach().cpu(), own.cpu(), logarithms.detach().exp().cpu())


def _class_means(images: Tensor, label: Tensor, classes: int, contrast: float) -> Tensor:
    """The mean face of every class, drawn away from that of all: (C, 1 or 3, H, W)."""
    means = torch.stack([images[label == k].mean(dim=0) for k in range(classes)])
    centre = means.mean(dim=0)
    return centre + contrast * (means - centre)


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


def train_on(network: nn.Module, distilled: Distilled, features: Tensor) -> None:
    """Train a fresh classifier on the distilled images alone, in place, with the step sizes they were made for.

    Args:
        network: the classifier.
        distilled: the images.
        features: (C, D) of them.
    """
    device = features.device
    label, sizes = distilled.label.to(device), distilled.step_sizes.to(device)
    weights = unroll(network, features, label, sizes, keep_graph=False)
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
    backbone: Callable[[Tensor], Tensor],
    classes: int,
    options: DistilOptions,
    output: Path,
    most: int = 0,
) -> tuple[Learner, Distilled]:
    """From mined samples to one image an emotion, and its picture beside it.

    Args:
        mined: the samples; every emotion needs one.
        faces: the faces at some rows of the pool: float (N, 1, H, W) or (N, 3, H, W), normalised.
        backbone: images -> features (N, D) of the learner as it begins.
        classes: how many of `labels.EMOTIONS` there are.
        options: of Algorithm 1.
        output: safetensors file; the picture has the same name and ends in .png.
        most: samples of an emotion that are looked at; 0 is as many as the most frequent one has.

    Returns:
        Whom the images were made for, and the images.

    Raises:
        DataError: an emotion has no sample.
    """
    counts = np.bincount(mined.label, minlength=classes)
    if (counts == 0).any():
        raise DataError(f"no mined sample of {EMOTIONS[int(counts.argmin())]}: mine with a smaller margin")
    # Every emotion as often as the others, however rare it is among the samples.
    order, each = np.random.default_rng(options.seed), min(counts.max(), most or counts.max())
    rows = np.concatenate([order.choice(np.flatnonzero(mined.label == k), each) for k in range(classes)])
    images = faces(mined.rows[rows])
    label = torch.from_numpy(mined.label[rows]).to(images.device)
    learner = linear_learner(backbone, images[:: max(1, len(images) // 2048)], classes)

    def report(iteration: int, loss: float) -> None:
        if iteration % 50 == 0:
            print(json.dumps({"iteration": iteration, "loss": loss}), flush=True)

    distilled = distil(learner, images, label, classes, options, report)
    write_distilled(distilled, output, asdict(options))
    write_pictures(distilled, output.with_suffix(".png"))
    return learner, distilled


def distil_pool(
    mined: Path,
    backbone: Callable[[Tensor], Tensor],
    data: FerPlus,
    root: Path,
    runs: Path,
    options: DistilOptions,
    output: Path,
    split: Split = "validation",
    device: str = "cpu",
) -> dict[str, Any]:
    """Distil the open pool, and measure what the images teach alone.

    Args:
        mined: Parquet list that `mine` wrote.
        backbone: images (N, 1, 48, 48), normalised -> features (N, D) of the learner as it begins.
        data: FER-2013 with FER+, to judge by.
        root, runs: data folder and folder of the runs, in which the pool lies.
        options: of Algorithm 1.
        output: safetensors file. Beside it: a picture, .png, and the figures, .json.
        split: which one judges. "test" is for the last time.
        device: of the backbone.

    Returns:
        {"split", "images": how many, "accuracy", "mean_recall": [percent of each fresh classifier], "chance": percent
        of the most frequent emotion}; the mean recall of chance is 100 divided by the images.
    """
    pool, _ = pool_faces(root, runs)

    def faces(rows: Int64) -> Tensor:
        return normalised(torch.from_numpy(pool[rows])[:, None]).to(device)

    learner, distilled = distil_mined(read_list(mined, EMOTIONS), faces, backbone, len(EMOTIONS), options, output)
    chosen = select(data, "ferplus8", split)
    label = chosen.target.argmax(axis=1)
    images = normalised(torch.from_numpy(data.images[chosen.rows])[:, None]).to(device)
    guesses = [np.asarray(guess) for guess in fresh_guesses(learner, distilled, images)]
    figures = {
        "split": "PrivateTest" if split == "test" else "PublicTest",
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


@torch.no_grad()
def fresh_guesses(
    learner: Learner, distilled: Distilled, images: Tensor, networks: int = 5, seed: int = 1
) -> list[Tensor]:
    """What classifiers say that were trained on the distilled images alone, each from weights of its own: (N,) each.

    Args:
        learner: whom the images were made for.
        distilled: the images.
        images: float (N, 1, H, W) or (N, 3, H, W), normalised; on the learner's device.
        networks: how many classifiers.
        seed: of their weights.
    """
    taught, judged = learner.features(distilled.images.to(images.device)), _by_parts(learner.features, images)
    guesses = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(networks):
            network = learner.make()
            with torch.enable_grad():
                train_on(network, distilled, taught)
            guesses.append(network(judged).argmax(dim=1).cpu())
    return guesses
