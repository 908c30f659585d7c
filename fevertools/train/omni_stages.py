"""The stages of omni-supervised learning between two trainings: mining, distilling, and figures on other data sets."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fevertools.errors import DataError
from fevertools.labels import EMOTIONS_7
from fevertools.train.datasets.ferplus import FerPlus, Split
from fevertools.train.distil_dataset import DistilOptions, Int64, distil_mined, distil_pool, normalised
from fevertools.train.evaluate.photos import cross_figures
from fevertools.train.methods import omni, omni_paper
from fevertools.train.methods.omni_paper import answers, load_photos, place_of
from fevertools.train.methods.sources import LABELLED, UNLABELED
from fevertools.train.mine import Mined, centroids, mine, mine_pool, read_list, similarities, write_list
from fevertools.train.recipe import Recipe
from fevertools.train.stages import Setup, Stage
from fevertools.train.transforms import plain

DISTILLED_SIZE = 64  # pixels, side of the distilled images of photographs; networks see them enlarged
DISTILLED_FROM = 10_000  # faces of each emotion; all 137,769 of the paper would not fit into memory


def needed(setup: Setup) -> FerPlus:
    """FER-2013 with FER+, where a stage cannot do without.

    Raises:
        DataError: there is none.
    """
    if setup.data is None:
        raise DataError(f"no FER-2013 in {setup.root}: put it there, and pass --data or set FEVERTOOLS_DATA")
    return setup.data


def omni_stages(recipe: Recipe, setup: Setup) -> Iterator[Stage]:
    """Mining, and distilling, where the recipe asks for what they make."""
    options, runs = recipe.omni, setup.runs
    if not options.mined and not options.distilled:
        return
    mine_faces, distil_faces = MAKERS[recipe.system]
    mined = runs / options.mined if options.mined else (runs / options.distilled).with_name("mined.parquet")
    yield Stage(f"mine, into {mined}", 0, mined.exists, partial(mine_faces, recipe, setup, mined))
    if options.distilled:
        distilled = runs / options.distilled
        yield Stage(
            f"distil, into {distilled}", 0, distilled.exists, partial(distil_faces, recipe, setup, mined, distilled)
        )


def photo_figures_stage(recipe: Recipe, setup: Setup) -> Stage:
    """Figures on the test split and on other data sets."""
    figures = setup.runs / recipe.name / "release" / "figures.json"

    def run() -> None:
        path = setup.runs / recipe.name / "checkpoint.safetensors"
        result = cross_figures(path, setup.data, setup.root, setup.runs)
        figures.parent.mkdir(parents=True, exist_ok=True)
        figures.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")

    return Stage(f"evaluation on the test split and on other sets, into {figures}", 0, figures.exists, run)


def _learner(recipe: Recipe, setup: Setup) -> Path:
    return setup.runs / recipe.omni.learner / "checkpoint.safetensors"


def _mine_open(recipe: Recipe, setup: Setup, output: Path) -> None:
    learner = str(_learner(recipe, setup))
    mine_pool(learner, needed(setup), setup.root, setup.runs, recipe.omni.margin, output, None)


def _distil_open(recipe: Recipe, setup: Setup, mined: Path, output: Path) -> None:
    distil_open(recipe, needed(setup), setup.root, setup.runs, mined, output)


def distil_open(
    recipe: Recipe,
    data: FerPlus,
    root: Path,
    runs: Path,
    mined: Path,
    output: Path,
    split: Split = "validation",
    device: str = "cpu",
) -> None:
    """Distil the open pool for the learner of a recipe, and print the figures. See `distil_pool`."""
    options = DistilOptions(iterations=recipe.omni.iterations, seed=recipe.seed)
    backbone = omni.backbone_as_it_begins(recipe, data, runs, device)
    print(json.dumps(distil_pool(mined, backbone, data, root, runs, options, output, split, device)))


def _mine_photos(recipe: Recipe, setup: Setup, output: Path) -> Mined:
    """Eq. 3-5 on photographs; of millions of them only the cosines are kept."""
    network, learned = load_photos(_learner(recipe, setup))
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    place, size = place_of(recipe, setup.root, setup.runs, setup.data), learned.model.resolution
    anchor, _ = LABELLED[recipe.sources.labelled](place)
    pool = UNLABELED[recipe.sources.unlabeled](place)
    label = np.array([anchor.target(i).argmax() for i in range(len(anchor))], np.int64)
    embedding = torch.cat([o.embedding for o in answers(network, anchor, size, setup.workers)]).numpy()
    centers = centroids(embedding, label, len(EMOTIONS_7))
    rows = [similarities(o.embedding.numpy(), centers) for o in answers(network, pool, size, setup.workers)]
    mined = mine(np.concatenate(rows), recipe.omni.margin)
    origin: dict[str, object] = {
        "weights": recipe.omni.learner, "anchor": recipe.sources.labelled, "pool": recipe.sources.unlabeled,
        "delta": recipe.omni.margin,
    }  # fmt: skip
    write_list(mined, EMOTIONS_7, output, origin)
    print(json.dumps({"pool": len(pool), "mined": len(mined.rows)}))
    return mined


def _distil_photos(recipe: Recipe, setup: Setup, mined: Path, output: Path) -> None:
    pool = UNLABELED[recipe.sources.unlabeled](place_of(recipe, setup.root, setup.runs, setup.data))

    def faces(rows: Int64) -> Tensor:
        images = np.stack([plain(pool.image(int(row)), DISTILLED_SIZE) for row in rows])
        return normalised(torch.from_numpy(images).permute(0, 3, 1, 2)).to(device)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    options = DistilOptions(iterations=recipe.omni.iterations, seed=recipe.seed)
    backbone = omni_paper.backbone_as_it_begins(recipe, device)
    distil_mined(read_list(mined, EMOTIONS_7), faces, backbone, len(EMOTIONS_7), options, output, DISTILLED_FROM)


MAKERS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "omni": (_mine_open, _distil_open),
    "omni-paper": (_mine_photos, _distil_photos),
}
"""System -> what mines and what distils for it."""
