"""The paper's omni-supervised learner on data sets it was not trained on, beside its own test split."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fevertools.errors import DataError
from fevertools.labels import EMOTIONS, EMOTIONS_7
from fevertools.train.datasets.cropped import Crops
from fevertools.train.datasets.ferplus import FerPlus
from fevertools.train.datasets.framing import served_geometry
from fevertools.train.datasets.open_sources import fer2013_faces
from fevertools.train.datasets.patches import crop_posed
from fevertools.train.datasets.posed import READERS
from fevertools.train.datasets.rafdb import read_rafdb
from fevertools.train.datasets.sources import LabelledSource
from fevertools.train.evaluate.metrics import confusion
from fevertools.train.evaluate.protocols import by_class, counted
from fevertools.train.methods.omni_paper import judged, load_photos, place_of
from fevertools.train.methods.sources import Place
from fevertools.types import Float32, UInt8Image


@dataclass(frozen=True, slots=True, eq=False)
class Framed:
    """Labelled faces cut out of photographs. A `LabelledSource`."""

    crops: Crops  # RGB
    label: np.ndarray  # (N,) index into `labels.EMOTIONS` of every photograph

    def __len__(self) -> int:
        return len(self.crops.rows)

    def image(self, index: int) -> UInt8Image:
        """uint8 RGB (H, W, 3)."""
        return np.asarray(self.crops.images[index])

    def target(self, index: int) -> Float32:
        """float32 (8,) one-hot."""
        return np.asarray(np.eye(len(EMOTIONS))[self.label[self.crops.rows[index]]], np.float32)


def _rafdb(place: Place) -> LabelledSource:
    return read_rafdb(place.root, "test")


def _fer2013(place: Place) -> LabelledSource:
    return fer2013_faces(place.ferplus(), "test")


def _posed(name: str) -> Callable[[Place], LabelledSource]:
    """The seven emotions of a posed set: a face that shows contempt is none of them."""

    def read(place: Place) -> LabelledSource:
        faces = READERS[name](place.root / name)
        geometry = served_geometry(place.recipe.model.resolution)
        crops = crop_posed(faces, name, geometry, place.runs / "posed")
        seven = faces.label[crops.rows] < len(EMOTIONS_7)
        kept = dataclasses.replace(crops, images=crops.images[seven], rows=crops.rows[seven])
        return Framed(kept, faces.label)

    return read


SETS: dict[str, Callable[[Place], LabelledSource]] = {
    "rafdb": _rafdb,
    "fer2013": _fer2013,
    **{name: _posed(name) for name in READERS},
}
"""Name -> the faces that are judged: test splits, and all of a posed set."""


def cross_figures(path: Path, data: FerPlus | None, root: Path, runs: Path) -> dict[str, Any]:
    """Figures of a checkpoint on every set that is there.

    Args:
        path: checkpoint of an "omni-paper".
        data: FER-2013 with FER+; None reads it from `root` where it is.
        root: data folder; posed sets lie in folders of their names, such as `ck+`.
        runs: folder of the runs, in which crops are kept.

    Returns:
        {"trained on": name, set: {"all": figures of `protocols.counted`, "recall", "f1", "confusion"}}; a set that is
        not there is {"skipped": reason}.
    """
    network, recipe = load_photos(path)
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    place = place_of(recipe, root, runs, data)
    result: dict[str, Any] = {"trained on": recipe.sources.labelled}
    for name, read in SETS.items():
        try:
            logits, target = judged(network, read(place), recipe.model.resolution)
        except DataError as error:
            result[name] = {"skipped": str(error)}
            continue
        figures = {"all": counted(logits, target), **by_class(logits, target, EMOTIONS_7)}
        result[name] = {**figures, "confusion": confusion(logits, target).tolist()}
    return result
