"""Heat-maps of trained networks, in PyTorch: which places of a face speak for an emotion, in which branch.

The maps say where a network looked, and nothing about why a person looks as they do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fevertools.errors import DataError, MissingExtraError, OptionError
from fevertools.options import choice
from fevertools.train.branches import Explained
from fevertools.types import Float32, UInt8Image

METHODS = ("gradcam", "gradcam++", "hirescam", "layercam", "features")
"""Selvaraju et al. 2017, Chattopadhay et al. 2018, Draelos & Carin 2020, Jiang et al. 2021; and the plain sum of the
features, whatever they speak for: figure 5 of "Adversarial Feature Distillation"."""

CELL = 192  # pixels, height of a face on the sheet
STRIP = 22  # of the titles and captions


@dataclass(frozen=True, slots=True)
class ExplainOptions:
    """What is looked at."""

    method: str = "gradcam++"  # of `METHODS`
    label: str | None = None  # the emotion whose evidence is shown; None is the most probable
    places: int = 3  # rows and columns that the map of a layer needs: the deepest such layer is looked at


class Explanation(NamedTuple):
    """Of N faces."""

    label: tuple[str, ...]  # N, whose evidence is shown
    probability: Float32  # (N,) of that label, by the first branch
    maps: dict[str, Float32]  # title of a branch -> (N, H, W), 0 (nothing) to 1 (most)


class _Answer(nn.Module):
    """One branch's logits, of images as grad-cam wants them: float (N, channels, H, W) -> (N, C)."""

    def __init__(self, network: nn.Module, logits: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.network, self.logits = network, logits

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.network(x.permute(0, 2, 3, 1)))


def explain(subject: Explained, faces: Tensor, options: ExplainOptions) -> Explanation:
    """The maps of every branch.

    Args:
        subject: a network and its branches.
        faces: uint8 or float (N, H, W, channels), as the network takes them.
        options: what is looked at.

    Raises:
        OptionError: an unknown method or label, or no layer has so many places.
        MissingExtraError: grad-cam is not installed.
    """
    choice(options.method, "method", METHODS)
    x = faces.float().permute(0, 3, 1, 2)
    first = subject.branches[0]
    if options.label is not None:
        choice(options.label, "label", first.classes)
    with torch.no_grad():
        probabilities = _Answer(subject.network, first.logits)(x).softmax(dim=1)
    named = None if options.label is None else first.classes.index(options.label)
    chosen = probabilities.argmax(dim=1).tolist() if named is None else [named] * len(faces)
    maps = {
        branch.title: _maps(_Answer(subject.network, branch.logits), branch.parts, x, chosen, options)
        for branch in subject.branches
    }
    probability = probabilities[torch.arange(len(faces)), torch.tensor(chosen)].numpy()
    return Explanation(tuple(first.classes[k] for k in chosen), np.asarray(probability, np.float32), maps)


def _maps(
    answer: _Answer, parts: Sequence[nn.Module], x: Tensor, chosen: Sequence[int], options: ExplainOptions
) -> Float32:
    """The mean map of one layer in each part: (N, H, W)."""
    make, target = _methods()
    layers = [deepest(answer, part, x[:1], options.places) for part in parts]
    with make[options.method](answer, layers) as cam:
        return np.asarray(cam(x, [target(k) for k in chosen]), np.float32)


def deepest(network: nn.Module, part: nn.Module, x: Tensor, places: int) -> nn.Module:
    """The last layer of a part whose map has at least so many rows and columns.

    The very last layer of a network for 48 pixels often has one place only, and its map says nothing.

    Args:
        network: takes `x`.
        part: of the network.
        x: what is shown.
        places: least height and width of the map.

    Raises:
        OptionError: no layer has so many.
    """
    found: list[nn.Module] = []

    def remember(module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) >= places:
            found.append(module)

    hooks = [module.register_forward_hook(remember) for module in part.modules()]
    try:
        with torch.no_grad():
            network(x)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise OptionError(f"no layer has a map of {places} x {places} places; ask for fewer")
    return found[-1]


def _methods() -> tuple[dict[str, Callable[..., Any]], Callable[[int], Any]]:
    """Name -> class of grad-cam, and its target for the logit of a class."""
    try:
        import pytorch_grad_cam as library
        from pytorch_grad_cam.base_cam import BaseCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ModuleNotFoundError as error:
        raise MissingExtraError('heat-maps need grad-cam: pip install "fevertools[train]"') from error

    class FeatureSum(BaseCAM):  # type: ignore[misc]
        """The sum of the maps, from its least value up."""

        def get_cam_image(
            self, _input: Tensor, _layer: nn.Module, _targets: object, activations: Float32, *_others: object
        ) -> npt.NDArray[np.floating]:
            total = activations.sum(axis=1)
            return np.asarray(total - total.min(axis=(1, 2), keepdims=True))

    classes = (library.GradCAM, library.GradCAMPlusPlus, library.HiResCAM, library.LayerCAM, FeatureSum)
    return dict(zip(METHODS, classes, strict=True)), ClassifierOutputTarget


def contact_sheet(faces: Sequence[UInt8Image], explanation: Explanation) -> UInt8Image:
    """A row for each face: the face, and the map of every branch over it.

    Args:
        faces: N of uint8 (H, W, 3) RGB.
        explanation: of these faces.

    Returns:
        uint8 (height, width, 3) RGB.
    """
    height, width = faces[0].shape[:2]
    size = (round(CELL * width / height), CELL)
    titles = ["face", *explanation.maps]
    rows = [np.concatenate([_strip(title, size[0]) for title in titles], axis=1)]
    for place, face in enumerate(faces):
        large = np.asarray(cv2.resize(face, size, interpolation=cv2.INTER_CUBIC), np.uint8)
        cells = [large, *(overlaid(large, maps[place]) for maps in explanation.maps.values())]
        caption = f"{explanation.label[place]} {explanation.probability[place]:.2f}"
        strip = np.concatenate([_strip(caption, size[0]), _strip("", size[0] * len(explanation.maps))], axis=1)
        rows += [np.concatenate(cells, axis=1), strip]
    return np.concatenate(rows)


def overlaid(face: UInt8Image, heat: Float32) -> UInt8Image:
    """A face with a map of 0-1 over it, brought to its size: uint8 RGB like the face."""
    from pytorch_grad_cam.utils.image import show_cam_on_image

    large = cv2.resize(heat, (face.shape[1], face.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(show_cam_on_image(face.astype(np.float32) / 255, large.clip(0, 1), use_rgb=True), np.uint8)


def _strip(text: str, width: int) -> UInt8Image:
    strip = np.full((STRIP, width, 3), 255, np.uint8)
    cv2.putText(strip, text, (4, STRIP - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return strip


def write_sheet(
    subject: Explained, images: Sequence[Path], cropped: bool, options: ExplainOptions, output: Path
) -> Explanation:
    """Explain the largest face of every photo, and write the contact sheet.

    Args:
        subject: a network and its branches.
        images: photos, or faces framed already.
        cropped: whether they are framed already, as the network expects.
        options: what is looked at.
        output: picture file.

    Raises:
        DataError: no face in any of them.
        ImageError: one of them cannot be read.
    """
    pictures = [face for path in images if (face := subject.face_of(path, cropped)) is not None]
    if not pictures:
        raise DataError(f"no face was found in {', '.join(map(str, images))}; pass --cropped if each is a face already")
    explanation = explain(subject, torch.from_numpy(np.stack([subject.shown(face) for face in pictures])), options)
    output.parent.mkdir(parents=True, exist_ok=True)
    sheet = contact_sheet(pictures, explanation)
    if not cv2.imwrite(str(output), sheet[:, :, ::-1]):  # OpenCV writes BGR
        raise DataError(f"cannot write {output}")
    return explanation
