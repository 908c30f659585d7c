"""The data sets that a recipe names, read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fevertools.train.datasets.affectnet import read_affectnet
from fevertools.train.datasets.faces import read_faces
from fevertools.train.datasets.fec import read_fec
from fevertools.train.datasets.ferplus import SIZE, FerPlus
from fevertools.train.datasets.framing import served_geometry
from fevertools.train.datasets.lfw import crop_lfw
from fevertools.train.datasets.open_sources import GrayFaces, drawn_triplets, fer2013_faces, voted_faces
from fevertools.train.datasets.rafdb import read_rafdb
from fevertools.train.datasets.sources import LabelledSource, Sources, TripletSource, UnlabeledSource
from fevertools.train.evaluate.triplet import COUNT, SEED
from fevertools.train.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Place:
    """Where a recipe's data are."""

    recipe: Recipe
    root: Path  # data folder
    runs: Path  # folder of the runs; what is computed from data once is kept there
    ferplus: Callable[[], FerPlus]


def _fec(place: Place) -> tuple[TripletSource, TripletSource]:
    # FEC has no validation split; its figure is logged, and no checkpoint is chosen by it.
    folder = place.root / place.recipe.sources.triplet_folder
    return read_fec(folder, "train"), read_fec(folder, "test")


def _drawn(place: Place) -> tuple[TripletSource, TripletSource]:
    data, count = place.ferplus(), place.recipe.sources.triplet_count
    return (
        drawn_triplets(data, "train", count, place.recipe.seed),
        drawn_triplets(data, "validation", COUNT, SEED),  # the list on which every network is measured
    )


def _affectnet(place: Place) -> tuple[LabelledSource, LabelledSource]:
    folder, geometry = place.root / place.recipe.sources.labelled_folder, served_geometry(place.recipe.model.resolution)
    return read_affectnet(folder, "train", geometry), read_affectnet(folder, "validation", geometry)


def _ferplus(place: Place) -> tuple[LabelledSource, LabelledSource]:
    data, protocol = place.ferplus(), place.recipe.data.protocol
    return voted_faces(data, protocol, "train"), voted_faces(data, protocol, "validation")


def _fer2013(place: Place) -> tuple[LabelledSource, LabelledSource]:
    return fer2013_faces(place.ferplus(), "train"), fer2013_faces(place.ferplus(), "validation")


def _rafdb(place: Place) -> tuple[LabelledSource, LabelledSource]:
    # RAF-DB has no validation split; the figure of its test split is logged, and no checkpoint is chosen by it.
    folder = place.root / place.recipe.sources.labelled_folder
    return read_rafdb(folder, "train"), read_rafdb(folder, "test")


def _faces(place: Place) -> UnlabeledSource:
    return read_faces(place.root / place.recipe.sources.unlabeled_folder)


def _lfw(place: Place) -> UnlabeledSource:
    folder = place.root / place.recipe.sources.unlabeled_folder
    return GrayFaces(crop_lfw(folder, served_geometry(SIZE), place.runs / "lfw").images)


TRIPLETS: dict[str, Callable[[Place], tuple[TripletSource, TripletSource]]] = {"fec": _fec, "ferplus-votes": _drawn}
LABELLED: dict[str, Callable[[Place], tuple[LabelledSource, LabelledSource]]] = {
    "affectnet": _affectnet,
    "ferplus": _ferplus,
    "fer2013": _fer2013,
    "rafdb": _rafdb,
}
UNLABELED: dict[str, Callable[[Place], UnlabeledSource]] = {"faces": _faces, "lfw": _lfw}
"""Name in a recipe -> reader: for training and for validation, where it has both."""


def read_sources(place: Place) -> tuple[Sources, Sources]:
    """What a recipe trains on, and what it is validated on. Unlabeled faces are read only where a step draws some.

    Raises:
        DataError: a data set is not where the recipe says.
    """
    options = place.recipe.sources
    triplets, labelled = TRIPLETS[options.triplets](place), LABELLED[options.labelled](place)
    unlabeled = UNLABELED[options.unlabeled](place) if place.recipe.distill.unlabeled > 0 else None
    return Sources(triplets[0], labelled[0], unlabeled), Sources(triplets[1], labelled[1])
