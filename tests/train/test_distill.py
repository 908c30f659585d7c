"""The open student on made data: cached teacher outputs, the batch of both kinds, and what the losses compare."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fevertools.errors import DataError
from fevertools.train import checkpoint
from fevertools.train.datasets.ferplus import FerPlus, read_ferplus
from fevertools.train.loop import RunOptions, fit
from fevertools.train.methods.classify import Classify
from fevertools.train.methods.distill import SPLITS, Distill, combine, consensus, split
from fevertools.train.methods.targets import targets_path, taught_faces, teach
from fevertools.train.recipe import Recipe, load_recipe

SMALL = {
    "model.start": "random", "model.initial": "''", "model.resolution": "48", "optim.batch_size": "16",
    "optim.precision": "32-true", "optim.warmup_epochs": "0", "optim.epochs": "2",
    # The fourth needs frames of 112 pixels.
    "distill.teachers": '["deepfever-s-teacher-256", "deepfever-s-teacher-128", "deepfever-s-teacher-vgg"]',
}  # fmt: skip


def small(name: str, **more: str) -> Recipe:
    return load_recipe(name, SMALL | {key.replace("__", "."): value for key, value in more.items()})


@pytest.fixture(scope="module")
def data(made_data: Path) -> FerPlus:
    return read_ferplus(made_data)


@pytest.fixture(scope="module")
def runs(data: FerPlus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of three teachers, two steps old."""
    folder = tmp_path_factory.mktemp("runs")
    for teacher in ("256", "128", "vgg"):
        recipe = small(f"deepfever_s_teacher_{teacher}")
        fit(Classify(recipe, data, folder), RunOptions(folder / recipe.name, "cpu", workers=0, max_steps=2))
    return folder


def faces(count: int) -> np.ndarray:
    return np.random.default_rng(9).integers(0, 256, (count, 48, 48)).astype(np.uint8)


@pytest.fixture(scope="module")
def taught(data: FerPlus, runs: Path) -> Distill:
    recipe = small("deepfever_s", distill__views="2", distill__unlabeled="8")
    for teacher in recipe.distill.teachers:
        shown = taught_faces(recipe, data, faces(20))
        path = teach(recipe, teacher, shown, runs)
        assert teach(recipe, teacher, shown, runs) == path  # kept, not made again
    return Distill(recipe, data, faces(20), runs)


def test_stored_outputs_are_what_the_teacher_says_of_the_view(taught: Distill, runs: Path) -> None:
    from fevertools.train.export import load_student

    teacher, own = load_student(runs / "deepfever-s-teacher-256" / "checkpoint.safetensors")
    assert own.model.resolution == taught.recipe.model.resolution  # so that the student's frames are the teacher's
    keys = [(1, 0), (0, 7), (1, taught.labelled + 3)]
    items = [taught.frames[key] for key in keys]
    with torch.no_grad():
        output = teacher(torch.stack([item[0] for item in items]))
    assert output.fer2013 is not None
    assert output.triplet is not None
    said = torch.cat([output.logits, output.fer2013, output.triplet], dim=1)
    torch.testing.assert_close(torch.stack([item[4] for item in items]).float(), said, rtol=2e-3, atol=2e-3)


def test_batches_are_labelled_faces_then_unlabeled_ones(taught: Distill) -> None:
    crops, target, _, agreed, *teachers = next(iter(taught.batches(0, 0, workers=0)))
    assert crops.shape == (24, 48, 48, 1)
    assert [t.shape for t in teachers] == [(24, sum(SPLITS))] * 3
    for part in split(agreed):
        np.testing.assert_allclose(part.sum(dim=1), 1, rtol=1e-5)
    np.testing.assert_allclose(target.sum(dim=1)[:16], 1)
    assert target[16:].abs().max() == 0
    seen = [key for batch in taught.batches(1, 0, workers=0).batch_sampler for key in batch]  # type: ignore[union-attr]
    assert {view for view, _ in seen} == {1}
    unlabeled = {index for _, index in seen if index >= taught.labelled}
    assert unlabeled <= set(range(taught.labelled, taught.labelled + 20))
    assert len(unlabeled) == 20  # 9 steps of 8 go through all 20 faces


def test_combine_by_hand() -> None:
    first, second = torch.zeros(1, sum(SPLITS)), torch.zeros(1, sum(SPLITS))
    first[0, 0], second[0, 1] = 20.0, 20.0  # each certain of another class
    first[0, 15:] = 2.0
    second[0, 15] = -3.0
    votes, fer2013, relation = combine([first, second])
    torch.testing.assert_close(votes[0, :2], torch.tensor([0.5, 0.5]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fer2013, torch.full((1, 7), 1 / 7))
    assert relation.shape == (1, 80)
    parts = relation[0].split([32, 8, 32, 8])
    assert [float(p.norm()) for p in parts] == pytest.approx([1, 1, 1, 1])
    assert float(parts[0][0]) == pytest.approx(32**-0.5)
    assert float(parts[2][0]) == pytest.approx(-1)
    assert float(parts[3][1]) == pytest.approx(1)


def test_consensus_by_hand() -> None:
    """Two teachers, two views, one face: certain of class 0, 0, 1 and 2 in turn."""
    first, second = torch.zeros(2, 1, sum(SPLITS)), torch.zeros(2, 1, sum(SPLITS))
    first[:, 0, 0] = 30.0
    second[0, 0, 1], second[1, 0, 2] = 30.0, 30.0
    votes, fer2013 = split(consensus([first.half(), second.half()]))
    torch.testing.assert_close(votes, torch.tensor([[0.5, 0.25, 0.25, 0, 0, 0, 0, 0]]))
    torch.testing.assert_close(fer2013, torch.full((1, 7), 1 / 7), rtol=1e-4, atol=1e-4)


def test_share_of_the_consensus(taught: Distill, data: FerPlus, runs: Path) -> None:
    """At 1 the view's own class outputs do not matter, at 0 the consensus does not."""
    batch = list(next(iter(taught.batches(0, 0, workers=0))))
    other_view, other_consensus = list(batch), list(batch)
    other_view[4] = batch[4].roll(1, dims=1)
    other_consensus[3] = batch[3].roll(1, dims=1)
    for share, same, different in (("1.0", other_view, other_consensus), ("0.0", other_consensus, other_view)):
        recipe = small("deepfever_s", distill__views="2", distill__unlabeled="8", distill__consensus=share)
        student = Distill(recipe, data, faces(20), runs)
        network = student.network.eval()
        network.classify.bias.data = torch.arange(8.0)  # an untrained network finds all classes alike
        of_batch, of_same, of_different = (
            student.losses(network, tuple(b)).terms["soft_votes"].item() for b in (batch, same, different)
        )
        assert of_batch == of_same
        assert of_batch != of_different


def test_ablation_without_unlabeled_faces_shares_the_outputs(taught: Distill, data: FerPlus, runs: Path) -> None:
    recipe = small("deepfever_s_no_unlabeled", distill__views="2")
    student = Distill(recipe, data, faces(0), runs)
    assert len(student.frames) == taught.labelled
    for mine, theirs in zip(student.frames[1, 3][4:], taught.frames[1, 3][4:], strict=True):
        torch.testing.assert_close(mine, theirs)


def test_unlabeled_faces_teach_only_through_teachers(taught: Distill) -> None:
    """Their labels, which do not exist, must not reach any loss."""
    batch = list(next(iter(taught.batches(0, 0, workers=0))))
    network = taught.network.eval()
    first = taught.losses(network, tuple(batch)).terms
    batch[1][16:], batch[2][16:] = 1 / 8, 5
    second = taught.losses(network, tuple(batch)).terms
    assert {name: t.item() for name, t in first.items()} == {name: t.item() for name, t in second.items()}
    batch[4][16:] += torch.arange(sum(SPLITS))
    third = taught.losses(network, tuple(batch)).terms
    changed = {name for name, term in third.items() if term.item() != first[name].item()}
    assert changed == {"soft_votes", "soft_fer2013", "rkd_distance", "rkd_angle"}


def test_student_learns_and_resumes(taught: Distill, data: FerPlus, runs: Path, tmp_path: Path) -> None:
    recipe = taught.recipe

    def run(folder: str, max_steps: int | None = None, resume: bool = False) -> dict[str, float]:
        options = RunOptions(tmp_path / folder, "cpu", workers=0, resume=resume, max_steps=max_steps, log_every=1)
        return fit(Distill(recipe, data, faces(20), runs), options)

    whole = run("whole")
    run("broken", max_steps=5)
    assert run("broken", resume=True) == whole
    tensors, _ = checkpoint.read(tmp_path / "whole" / "checkpoint.safetensors")
    other, _ = checkpoint.read(tmp_path / "broken" / "checkpoint.safetensors")
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=0, msg=name)


def test_targets_of_other_faces_are_refused(taught: Distill, data: FerPlus, runs: Path) -> None:
    with pytest.raises(DataError, match="made for other"):
        Distill(taught.recipe, data, faces(21), runs)
    missing = small("deepfever_s", distill__views="3", distill__unlabeled="8")
    assert not targets_path(missing, "deepfever-s-teacher-256", runs).exists()
    with pytest.raises(DataError, match="teach"):
        Distill(missing, data, faces(20), runs)
