"""Teachers' outputs, computed once for some views of every face; a student and its ablations share them."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from safetensors.torch import save_file
from torch import Tensor, nn

from fevertools.errors import DataError
from fevertools.train import checkpoint
from fevertools.train.datasets.ferplus import SIZE, FerPlus
from fevertools.train.loop import precision
from fevertools.train.methods.classify import training_rows
from fevertools.train.methods.fer2013 import clean_rows
from fevertools.train.methods.frames import Frames
from fevertools.train.models.student import Output
from fevertools.train.recipe import AugmentOptions, Recipe, from_table

Images = npt.NDArray[np.uint8]


PUBLISHED = "published:"
"""In front of a teacher's name: weights of the manifest, not a run."""

FER2013_ONLY = "densenet-center"
"""The system that learns FER-2013's labels on all its faces. No weights of the manifest have a head for these: it gets
their embeddings, and reads its soft labels out of them."""


def taught_faces(recipe: Recipe, data: FerPlus, unlabeled: Images) -> Images:
    """The faces of a student's recipe in the order of the stored outputs, labelled ones first: uint8 (N, 48, 48)."""
    rows = clean_rows(data) if recipe.system == FER2013_ONLY else training_rows(recipe, data).rows
    return np.concatenate([data.images[rows], unlabeled])


def targets_path(recipe: Recipe, teacher: str, runs: Path) -> Path:
    """Where the outputs of one teacher for the views of a student's recipe lie; ablations of one seed share them."""
    return runs / teacher.replace(":", "-") / f"targets-{recipe.seed}-{recipe.distill.views}.safetensors"


@torch.no_grad()
def teach(recipe: Recipe, teacher: str, images: Images, runs: Path, device: str = "auto", workers: int = 1) -> Path:
    """Compute one teacher's outputs for every view of every face that the student will see.

    Args:
        recipe: of the student.
        teacher: name of the teacher's run, or `PUBLISHED` and that of weights in the manifest.
        images: uint8 (N, 48, 48), see `taught_faces`.
        runs: folder of the runs.
        device: accelerator for Lightning Fabric.
        workers: processes that prepare batches.

    Returns:
        The safetensors file: "outputs" float16 (V, N, W). One that is there already is kept.
    """
    path = targets_path(recipe, teacher, runs)
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    answer, resolution = find_teacher(teacher, runs, embedding=recipe.system == FER2013_ONLY)
    fabric = Fabric(accelerator=device, devices=1, precision=precision(recipe.optim))  # type: ignore[arg-type]
    network = fabric.setup_module(answer)
    frames = Frames(images, resolution, recipe.augment, recipe.seed)
    order = np.arange(len(images))
    views = []
    for view in range(recipe.distill.views):
        keys = [[(view, int(i)) for i in order[first : first + 128]] for first in range(0, len(order), 128)]
        loader = frames.loader(keys, workers)
        views.append(torch.cat([network(fabric.to_device(crops)).half().cpu() for (crops,) in loader]))
        print(json.dumps({"teacher": teacher, "view": view + 1, "of": recipe.distill.views}), flush=True)
    partial = path.with_suffix(".partial")
    save_file({"outputs": torch.stack(views)}, partial, metadata={"fevertools": json.dumps(_made_with(recipe))})
    os.replace(partial, path)
    return path


class Teacher(nn.Module):
    """A network as a function of frames alone: (N, S, S, 1) -> what is stored of it, (N, W)."""

    def __init__(self, network: nn.Module, path: Path) -> None:
        super().__init__()
        self.network, self.path = network, path

    def forward(self, crops: Tensor) -> Tensor:
        output = self.network(crops)
        if not isinstance(output, Output):
            return output.logits  # type: ignore[no-any-return]
        if output.fer2013 is None or output.triplet is None:
            raise DataError(f"{self.path} is no teacher: it has no heads for FER-2013 and triplets")
        return torch.cat([output.logits, output.fer2013, output.triplet], dim=1)


class Published(nn.Module):
    """Weights of the manifest as a function of frames: uint8 (N, 48, 48, 1) -> float32 (N, 8) logits, or embeddings."""

    def __init__(self, name: str, embedding: bool) -> None:
        from fevertools.train.evaluate.networks import shipped

        super().__init__()
        self.predict, self.embedding = shipped(name), embedding

    def forward(self, crops: Tensor) -> Tensor:
        output = self.predict(crops.cpu().numpy())
        said = output.embedding if self.embedding else output.logits
        assert said is not None
        return torch.from_numpy(said)


def find_teacher(teacher: str, runs: Path, embedding: bool = False) -> tuple[nn.Module, int]:
    """A teacher by its name, as `load_teacher` returns it.

    Args:
        teacher: of a run, or `PUBLISHED` and the name of weights in the manifest.
        runs: folder of the runs.
        embedding: it is asked for its embeddings, which only published weights are.

    Raises:
        DataError: embeddings of a run.
    """
    if teacher.startswith(PUBLISHED):
        return Published(teacher.removeprefix(PUBLISHED), embedding), SIZE
    if embedding:
        raise DataError(f"{teacher!r} is a run: for FER-2013's labels name a teacher as {PUBLISHED}NAME")
    return load_teacher(runs / teacher / "checkpoint.safetensors")


def load_teacher(path: Path) -> tuple[Teacher, int]:
    """A teacher, and the resolution of the frames it reads.

    Returns:
        frames (N, S, S, 1) -> (N, W), and S. W is 7 logits of an EmoXNet; of a DeepFEVER teacher, 8 logits, 7 logits
        and 32 triplet outputs, side by side.
    """
    from fevertools.train.export import load_student
    from fevertools.train.methods.emoxnet import make_emoxnet

    tensors, state = checkpoint.read(path)
    recipe = from_table(Recipe, state["recipe"], str(path))
    if recipe.system == "emoxnet":
        network: nn.Module = make_emoxnet(recipe)
        checkpoint.load_weights(network, tensors, "average.", path)
    else:
        network, _ = load_student(path)
    return Teacher(network, path).eval(), recipe.model.resolution


def read_targets(recipe: Recipe, teacher: str, count: int, width: int, runs: Path) -> Tensor:
    """Outputs of one teacher: float16 (V, N, W).

    Raises:
        DataError: they have not been made, or were made for other faces, views or augmentation.
    """
    path = targets_path(recipe, teacher, runs)
    if not path.exists():
        raise DataError(f"{path} is missing: run `python -m fevertools.train teach` for this recipe first")
    tensors, made_with = checkpoint.read(path)
    outputs = tensors["outputs"]
    # Through the reader: options of the augmentation that came later had no part in it, and have neutral defaults.
    made_with["augment"] = dataclasses.asdict(from_table(AugmentOptions, made_with["augment"], str(path)))
    fits = outputs.shape[0] == recipe.distill.views and outputs.shape[1] >= count and outputs.shape[2] == width
    if made_with != _made_with(recipe) or not fits:
        raise DataError(f"{path} was made for other faces, views or augmentation: delete it and run `teach` again")
    return outputs[:, :count]  # labelled faces come first: an ablation without the others shares the file


def _made_with(recipe: Recipe) -> dict[str, object]:
    """What the views depend on besides the faces."""
    return {"seed": recipe.seed, "views": recipe.distill.views, "augment": dataclasses.asdict(recipe.augment)}
