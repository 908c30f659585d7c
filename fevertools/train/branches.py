"""What of a trained network can be looked at: its answers, the parts that come to each, and the faces it takes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from fevertools.align import crop_face
from fevertools.errors import OptionError
from fevertools.image import load
from fevertools.labels import EMOTIONS, EMOTIONS_7, FER2013
from fevertools.pipeline import Analyzer
from fevertools.preprocess import fit_crop, to_luminance
from fevertools.train import checkpoint
from fevertools.train.datasets.ferplus import SIZE
from fevertools.train.datasets.framing import served_geometry
from fevertools.train.datasets.patches import aligned_geometry, sizes
from fevertools.train.evaluate.networks import MAKERS
from fevertools.train.export import load_student
from fevertools.train.methods.ed2l_paper import CLASSES, make_network
from fevertools.train.methods.omni_paper import load_photos
from fevertools.train.models.densenet import Discriminative
from fevertools.train.models.ed2l import Ed2l
from fevertools.train.models.emoxnet import EmoXNet
from fevertools.train.recipe import Recipe, from_table
from fevertools.types import FaceGeometry, UInt8Image


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """One answer of a network."""

    title: str
    logits: Callable[[Any], Tensor]  # of the network's output: (N, C)
    parts: tuple[nn.Module, ...]  # in each of which one layer is looked at
    classes: tuple[str, ...]  # C


@dataclass(frozen=True, slots=True, eq=False)
class Explained:
    """A network in evaluation mode, what it answers, and how it is shown faces."""

    network: nn.Module
    branches: tuple[Branch, ...]
    geometry: FaceGeometry  # of the faces that are cut out
    height: int  # of the middle of such a face, which is what the network is shown
    width: int
    gray: bool = True

    def face_of(self, path: Path, cropped: bool) -> UInt8Image | None:
        """The largest face of a photo as the network sees it: uint8 RGB (height, width, 3); None where there is none.

        Args:
            path: of the photo.
            cropped: whether it is one face already, framed as `geometry` says.
        """
        picture = load(path)
        if cropped:
            face = fit_crop(picture, self.geometry)
        else:
            with Analyzer(device="cpu", largest=True) as analyzer:
                found = analyzer.detect(picture)
            if not found:
                return None
            face = crop_face(picture, found[0].landmarks, self.geometry)
        top, left = (face.shape[0] - self.height) // 2, (face.shape[1] - self.width) // 2
        middle = face[top : top + self.height, left : left + self.width]
        return np.repeat(to_luminance(middle)[:, :, None], 3, axis=2) if self.gray else middle

    def shown(self, face: UInt8Image) -> UInt8Image:
        """A face of `face_of` with the channels that the network takes: uint8 (height, width, 1 or 3)."""
        return face[:, :, :1] if self.gray else face


def read_explained(path: Path, branch: str | None = None) -> Explained:
    """The averaged network of a checkpoint and its branches.

    Args:
        path: of a checkpoint.
        branch: only the one of this title; None is all.

    Raises:
        DataError: not a checkpoint.
        OptionError: the network has no such branch.
    """
    tensors, state = checkpoint.read(path)
    recipe = from_table(Recipe, state["recipe"], str(path))
    subject = READERS.get(recipe.system, _student)(path, recipe, tensors)
    subject.network.requires_grad_(True).eval()  # maps need gradients, also of extractors that were frozen
    if branch is None:
        return subject
    titles = [b.title for b in subject.branches]
    if branch not in titles:
        raise OptionError(f"{path} has no branch {branch!r}; its branches: {', '.join(titles)}")
    return replace(subject, branches=(subject.branches[titles.index(branch)],))


def _filled(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> Any:
    checkpoint.load_weights(network, tensors, "average.", path)
    return network


def _served(network: nn.Module, branches: tuple[Branch, ...], size: int = SIZE) -> Explained:
    return Explained(network, branches, served_geometry(SIZE), size, size)


def _student(path: Path, recipe: Recipe, tensors: dict[str, Tensor]) -> Explained:
    """A classifier, a teacher, a student, EmoXNetLite, an omni-supervised learner."""
    network, _ = load_student(path)
    return _served(network, (Branch("network", lambda o: o.logits, (network.backbone,), EMOTIONS),))


def _emoxnet(path: Path, recipe: Recipe, tensors: dict[str, Tensor]) -> Explained:
    """The ensemble, and each member of it."""
    network: EmoXNet = _filled(MAKERS["emoxnet"](recipe), tensors, path)
    network.frozen = False
    members = tuple(network.backbone.items())
    parts = {"EmoXNet": tuple(member for _, member in members), **{name: (member,) for name, member in members}}
    if len(members) == 1:
        del parts["EmoXNet"]
    return _served(network, tuple(Branch(name, lambda o: o.logits, own, EMOTIONS_7) for name, own in parts.items()))


def _densenet(path: Path, recipe: Recipe, tensors: dict[str, Tensor]) -> Explained:
    network: Discriminative = _filled(MAKERS["densenet-center"](recipe), tensors, path)
    return _served(network, (Branch("network", lambda o: o.fer2013, (network.backbone,), FER2013),), network.size)


def _ed2l_branches(network: Ed2l, classes: tuple[str, ...]) -> tuple[Branch, ...]:
    """What says the expression, and what should not: both behind the base net, in their own layers."""
    distilling = Branch("distilling", lambda o: o.fer2013, (network.distil.block,), classes)
    if network.dispel is None or network.dispeller is None:
        return (distilling,)
    dispeller = network.dispeller
    return distilling, Branch("dispelling", lambda o: dispeller(o.dispelled), (network.dispel.block,), classes)


def _ed2l(path: Path, recipe: Recipe, tensors: dict[str, Tensor]) -> Explained:
    network: Ed2l = _filled(MAKERS["ed2l"](recipe), tensors, path)
    return _served(network, _ed2l_branches(network, FER2013))


def _ed2l_paper(path: Path, recipe: Recipe, tensors: dict[str, Tensor]) -> Explained:
    network: Ed2l = _filled(make_network(recipe), tensors, path)
    branches = _ed2l_branches(network, CLASSES[recipe.posed.dataset])
    resolution = recipe.model.resolution
    return Explained(network, branches, aligned_geometry(resolution), *sizes(resolution).patch)


def _photos(path: Path, recipe: Recipe, tensors: dict[str, Tensor]) -> Explained:
    network, _ = load_photos(path)
    size = recipe.model.resolution
    branch = Branch("network", lambda o: o.logits, (network.backbone,), EMOTIONS_7)
    return Explained(network, (branch,), served_geometry(size), size, size, gray=False)


READERS: dict[str, Callable[[Path, Recipe, dict[str, Tensor]], Explained]] = {
    "densenet-center": _densenet,
    "ed2l": _ed2l,
    "ed2l-paper": _ed2l_paper,
    "emoxnet": _emoxnet,
    "omni-paper": _photos,
}
"""System -> what reads its checkpoints; all others are students."""
