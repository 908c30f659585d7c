"""Training methods: what a batch is and which losses it gives. The loop knows nothing of either."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fevertools.train.datasets.ferplus import FerPlus
    from fevertools.train.loop import Method
    from fevertools.train.recipe import Recipe


def build_method(recipe: "Recipe", root: Path, runs: Path, data: "FerPlus | None" = None) -> "Method":
    """The method of a recipe, ready for the loop.

    Args:
        recipe: its `system` decides.
        root: data folder.
        runs: folder of the runs, in which earlier ones that the recipe names are looked for.
        data: FER-2013 with FER+, where it is read already; None reads it from `root` if the method needs it.

    Raises:
        DataError: data or an earlier run is missing, or the recipe asks for what its system does not have.
    """
    return SYSTEMS[recipe.system](recipe, root, runs, data)


# Each method is imported when it is asked for: a plain classifier needs none of the paper's networks.


def _classify(recipe: "Recipe", root: Path, runs: Path, data: "FerPlus | None") -> "Method":
    from fevertools.train.datasets.ferplus import read_ferplus
    from fevertools.train.methods.classify import Classify

    return Classify(recipe, read_ferplus(root) if data is None else data, runs)


def _student(recipe: "Recipe", root: Path, runs: Path, data: "FerPlus | None") -> "Method":
    from fevertools.train.datasets.ferplus import read_ferplus
    from fevertools.train.methods.distill import Distill, unlabeled_faces

    return Distill(recipe, read_ferplus(root) if data is None else data, unlabeled_faces(recipe, root, runs), runs)


def _paper_teacher(recipe: "Recipe", root: Path, runs: Path, data: "FerPlus | None") -> "Method":
    from fevertools.train.methods.deepfever import make_teacher

    return make_teacher(recipe, root, runs, data)


def _paper_student(recipe: "Recipe", root: Path, runs: Path, data: "FerPlus | None") -> "Method":
    from fevertools.train.methods.deepfever import make_student

    return make_student(recipe, root, runs, data)


def _discriminative(recipe: "Recipe", root: Path, runs: Path, data: "FerPlus | None") -> "Method":
    from fevertools.train.datasets.ferplus import read_ferplus
    from fevertools.train.methods.discriminative import DiscriminativeLearning

    return DiscriminativeLearning(recipe, read_ferplus(root) if data is None else data, runs)


def _ed2l(recipe: "Recipe", root: Path, runs: Path, data: "FerPlus | None") -> "Method":
    from fevertools.train.datasets.ferplus import read_ferplus
    from fevertools.train.methods.ed2l import DistillingAndDispelling

    return DistillingAndDispelling(recipe, read_ferplus(root) if data is None else data)


def _ed2l_paper(recipe: "Recipe", root: Path, runs: Path, data: "FerPlus | None") -> "Method":
    from fevertools.train.methods.ed2l_paper import make_patch_learning

    return make_patch_learning(recipe, root, runs, data)


def _emoxnet(recipe: "Recipe", root: Path, runs: Path, data: "FerPlus | None") -> "Method":
    from fevertools.train.datasets.ferplus import read_ferplus
    from fevertools.train.methods.emoxnet import EnsembleLearning

    return EnsembleLearning(recipe, read_ferplus(root) if data is None else data, runs)


def _emoxnet_lite(recipe: "Recipe", root: Path, runs: Path, data: "FerPlus | None") -> "Method":
    from fevertools.train.datasets.ferplus import read_ferplus
    from fevertools.train.methods.emoxnet_lite import LiteLearning

    return LiteLearning(recipe, read_ferplus(root) if data is None else data, runs)


def _omni(recipe: "Recipe", root: Path, runs: Path, data: "FerPlus | None") -> "Method":
    from fevertools.train.datasets.ferplus import read_ferplus
    from fevertools.train.methods.omni import OmniLearning
    from fevertools.train.mine import pool_faces

    pool = pool_faces(root, runs)[0] if recipe.omni.mined else np.empty((0, 48, 48), np.uint8)
    return OmniLearning(recipe, read_ferplus(root) if data is None else data, pool, runs)


def _omni_paper(recipe: "Recipe", root: Path, runs: Path, data: "FerPlus | None") -> "Method":
    from fevertools.train.methods.omni_paper import make_photo_learning

    return make_photo_learning(recipe, root, runs, data)


SYSTEMS: dict[str, Callable[["Recipe", Path, Path, "FerPlus | None"], "Method"]] = {
    "classifier": _classify,
    "deepfever-teacher": _classify,
    "deepfever-student": _student,
    "deepfever-paper-teacher": _paper_teacher,
    "deepfever-paper-student": _paper_student,
    "densenet-center": _discriminative,
    "ed2l": _ed2l,
    "ed2l-paper": _ed2l_paper,
    "emoxnet": _emoxnet,
    "emoxnet-lite": _emoxnet_lite,
    "omni": _omni,
    "omni-paper": _omni_paper,
}
"""`Recipe.system` -> the function that makes its method."""
