"""The two phases of DeepFEVER as the paper has them: teachers on two tasks, a student that also copies the teachers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fevertools.errors import DataError
from fevertools.labels import EMOTIONS
from fevertools.train import checkpoint
from fevertools.train.datasets.ferplus import FerPlus, read_ferplus
from fevertools.train.datasets.sources import Sources
from fevertools.train.evaluate.metrics import classification
from fevertools.train.evaluate.triplet import triplet_accuracy
from fevertools.train.losses import Losses
from fevertools.train.losses.fec_triplet import FecTriplet
from fevertools.train.losses.rkd import RelationalAngle, RelationalDistance, relation_target
from fevertools.train.losses.soft_cross_entropy import soft_cross_entropy
from fevertools.train.methods.classify import heads, weighted
from fevertools.train.methods.sources import Place, read_sources
from fevertools.train.methods.streams import Batch, Sizes, Streams, collate
from fevertools.train.models import build
from fevertools.train.models.fecnet import build_rgb
from fevertools.train.models.gray import GrayTeacher
from fevertools.train.models.student import TRIPLET_DIMENSION, Output
from fevertools.train.recipe import Recipe, from_table
from fevertools.train.transforms import plain
from fevertools.types import Float32, UInt8Image

CHUNK = 64  # faces at a time in validation


class DeepFeverTeacher:
    """Both tasks at once: FEC's triplet loss and the cross-entropy of the eight classes. Schoneveld & Othmani, Alg. 1.

    All faces of a step go through the network together, so that batch norms see the mixture that they will serve.

    Args:
        recipe: `optim.batch_size` triplets, `sources.labelled_batch` labelled faces a step; `losses.votes` is alpha.
        training, validation: the faces.
        network: as its training begins: uint8 (N, S, S, 3) -> `Output` with logits and triplet.

    Raises:
        DataError: too few faces for one step.
    """

    def __init__(self, recipe: Recipe, training: Sources, validation: Sources, network: nn.Module) -> None:
        self.recipe, self.validation, self.network = recipe, validation, network
        self.learning_rate = recipe.optim.learning_rate
        sizes = Sizes(recipe.optim.batch_size, recipe.sources.labelled_batch, recipe.distill.unlabeled)
        self.streams = Streams(training, sizes, recipe.model.resolution, recipe.augment, recipe.seed)
        self.triplet_loss = FecTriplet()

    @property
    def steps_per_epoch(self) -> int:
        """An epoch is a pass over the triplets."""
        return self.streams.steps_per_epoch

    def batches(self, epoch: int, start: int, workers: int) -> DataLoader[Any]:
        """Batches of one epoch, from batch `start` on."""
        keys = self.streams.epoch(epoch, start)
        # A generator of its own: drawing from the global one at every start would make resumed runs differ.
        return DataLoader(
            self.streams, batch_sampler=keys, num_workers=workers, collate_fn=collate, generator=torch.Generator()
        )

    def losses(self, network: nn.Module, batch: Batch) -> Losses:
        """Losses of one batch."""
        return weighted(self.task_terms(network(batch.faces), batch), self.recipe.losses)

    def task_terms(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The triplet loss of the triplets and the cross-entropy of the labelled faces, unweighted."""
        assert output.triplet is not None
        triplets, labelled = len(batch.kind), len(batch.target)
        first, second, odd = output.triplet[: 3 * triplets].chunk(3)
        logits = output.logits[3 * triplets : 3 * triplets + labelled]
        return {
            "triplet": self.triplet_loss(first, second, odd, batch.kind),
            "votes": soft_cross_entropy(logits, batch.target),
        }

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Figures on the validation faces: of the class head, and the accuracy of the triplet head in percent."""
        labelled, triplets = self.validation.labelled, self.validation.triplets
        logits = self._run(network, labelled.image, np.arange(len(labelled)), lambda output: output.logits)
        figures = classification(logits, np.stack([labelled.target(i) for i in range(len(labelled))]))
        members = np.array([triplets.triplet(i) for i in range(len(triplets))], np.int64)
        faces, rows = np.unique(members[:, :3], return_inverse=True)
        vectors = self._run(network, triplets.image, faces, lambda output: output.triplet)
        accuracy = triplet_accuracy(vectors, rows.reshape(-1, 3), members[:, 3])
        chosen = {name: figures[name] for name in ("accuracy", "mean_recall", "ece", "cross_entropy")}
        return chosen | {"triplet_accuracy": accuracy["all"]}

    @torch.no_grad()
    def _run(
        self,
        network: nn.Module,
        image: Callable[[int], UInt8Image],
        indices: npt.NDArray[np.int64],
        part: Callable[[Output], Any],
    ) -> Float32:
        """One output of the faces at `indices`, without augmentation: (N, ...)."""
        device, size = next(network.parameters()).device, self.recipe.model.resolution
        network.eval()
        parts = []
        for chunk in np.split(indices, range(CHUNK, len(indices), CHUNK)):
            faces = np.stack([plain(image(int(i)), size) for i in chunk])
            parts.append(part(network(torch.from_numpy(faces).to(device))).float().cpu())
        return np.asarray(torch.cat(parts).numpy())


class DeepFeverStudent(DeepFeverTeacher):
    """The same tasks, and relational distillation from frozen teachers over all faces of a step, unlabeled ones too.

    Relations are those of the whole step, not of each kind of faces by itself: the paper passes all sampled faces
    through the teachers and speaks of one loss, and a student is to lay all of them out in one space. Teachers see
    exactly the student's augmented faces.

    Args:
        recipe, training, validation, network: as for a teacher; the network has a third head, `Output.relation`.
        teachers: uint8 (N, S, S, 3) -> `Output` with logits and triplet. None of them: training without distillation.
    """

    def __init__(
        self,
        recipe: Recipe,
        training: Sources,
        validation: Sources,
        network: nn.Module,
        teachers: Sequence[nn.Module],
    ) -> None:
        if recipe.distill.unlabeled > 0 and not teachers:
            raise DataError("unlabeled faces teach nothing without distillation: set distill.unlabeled=0")
        super().__init__(recipe, training, validation, network)
        self.teachers = nn.ModuleList(teachers).eval().requires_grad_(False)
        self.distance, self.angle = RelationalDistance(), RelationalAngle()

    def losses(self, network: nn.Module, batch: Batch) -> Losses:
        """Losses of one batch."""
        output: Output = network(batch.faces)
        terms = self.task_terms(output, batch)
        if output.relation is not None:
            target = self.relations(batch.faces)
            terms["rkd_distance"] = self.distance(output.relation, target)
            terms["rkd_angle"] = self.angle(output.relation, target)
        return weighted(terms, self.recipe.losses)

    @torch.no_grad()
    def relations(self, faces: Tensor) -> Tensor:
        """What the student's third head is compared with: (N, 40 per teacher)."""
        outputs: list[Tensor] = []
        for teacher in self.teachers.to(faces.device):
            output: Output = teacher(faces)
            assert output.triplet is not None
            outputs += [output.triplet, output.logits]
        return relation_target(outputs)


def make_teacher(recipe: Recipe, root: Path, runs: Path, data: FerPlus | None) -> DeepFeverTeacher:
    """A "deepfever-paper-teacher": see `methods.build_method`."""
    sources = read_sources(_place(recipe, root, runs, data))
    seed_everything(recipe.seed, verbose=False)  # the random part of the network, and dropout
    return DeepFeverTeacher(recipe, *sources, build_rgb(recipe.model))


def make_student(recipe: Recipe, root: Path, runs: Path, data: FerPlus | None) -> DeepFeverStudent:
    """A "deepfever-paper-student": see `methods.build_method`. Without weight for relations it has no teachers."""
    distills = recipe.losses.rkd_distance > 0 or recipe.losses.rkd_angle > 0
    if distills and not recipe.distill.teachers:
        raise DataError("relations weigh in the losses, and distill.teachers names none to copy them from")
    names = recipe.distill.teachers if distills else ()
    teachers = [load_teacher(runs / name / "checkpoint.safetensors") for name in names]
    sources = read_sources(_place(recipe, root, runs, data))
    seed_everything(recipe.seed, verbose=False)
    network = build_rgb(recipe.model, len(teachers) * (TRIPLET_DIMENSION + len(EMOTIONS)))
    return DeepFeverStudent(recipe, *sources, network, teachers)


def _place(recipe: Recipe, root: Path, runs: Path, data: FerPlus | None) -> Place:
    return Place(recipe, root, runs, lambda: read_ferplus(root) if data is None else data)


def _paper_teacher(recipe: Recipe) -> tuple[nn.Module, nn.Module]:
    network = build_rgb(recipe.model, pretrained=False)
    return network, network


def _open_teacher(recipe: Recipe) -> tuple[nn.Module, nn.Module]:
    student = build(recipe.model, heads(recipe))
    return student, GrayTeacher(student, recipe.model.crop)


TEACHERS: dict[str, Callable[[Recipe], tuple[nn.Module, nn.Module]]] = {
    "deepfever-paper-teacher": _paper_teacher,
    "deepfever-teacher": _open_teacher,
}
"""System -> the network whose weights its checkpoints hold, and what reads RGB faces with it."""


def load_teacher(path: Path) -> nn.Module:
    """The averaged network of a teacher's checkpoint, as one that reads RGB faces.

    Raises:
        DataError: there is none, or it is not of a teacher with both heads.
    """
    if not path.exists():
        raise DataError(f"no teacher at {path}: fit the recipes that distill.teachers names first")
    tensors, state = checkpoint.read(path)
    recipe = from_table(Recipe, state["recipe"], str(path))
    if recipe.system not in TEACHERS or recipe.losses.triplet == 0:
        raise DataError(f"{path} is not of a teacher with a triplet head; teachers are {', '.join(TEACHERS)}")
    network, teacher = TEACHERS[recipe.system](recipe)
    checkpoint.load_weights(network, tensors, "average.", path)
    return teacher
