"""DeepFEVER's two phases on made-up faces and tiny networks: what a step holds, who is taught, and exact resumption."""

import dataclasses
import json
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fevertools.errors import DataError
from fevertools.train import checkpoint
from fevertools.train.datasets.open_sources import DrawnTriplets, GrayFaces, VotedFaces
from fevertools.train.datasets.sources import Sources
from fevertools.train.loop import RunOptions, fit
from fevertools.train.losses.fec_triplet import TWO_CLASS, FecTriplet
from fevertools.train.losses.rkd import RelationalAngle, RelationalDistance, relation_target
from fevertools.train.methods import SYSTEMS, build_method
from fevertools.train.methods.deepfever import DeepFeverStudent, DeepFeverTeacher, load_teacher
from fevertools.train.methods.streams import Batch, Sizes, Streams
from fevertools.train.models.fecnet import RgbNetwork
from fevertools.train.models.gray import GrayTeacher
from fevertools.train.models.student import Heads, Student
from fevertools.train.recipe import (
    AugmentOptions,
    DistillOptions,
    LossOptions,
    ModelOptions,
    OptimOptions,
    Recipe,
    SourceOptions,
    load_recipe,
    recipe_names,
)
from tests.train.conftest import made_images

SIZE = 24
STILL = AugmentOptions(**{f.name: 0.0 for f in dataclasses.fields(AugmentOptions)})
OPTIM = OptimOptions(
    optimizer="sgd", schedule="constant", learning_rate=0.05, weight_decay=0.0, batch_size=4, epochs=2,
    warmup_epochs=0.0, ema_decay=0.0, gradient_clip=0.0, precision="32-true",
)  # fmt: skip
RECIPE = Recipe(
    "tiny", "deepfever-paper-student", "open", "made up", seed=5, augment=STILL,
    sources=SourceOptions(labelled_batch=3),
    distill=DistillOptions(unlabeled=2),
    losses=LossOptions(triplet=1.0, votes=0.1, rkd_distance=25.0, rkd_angle=50.0),
    model=ModelOptions(resolution=SIZE, dimension=6, dropout=0.2),
    optim=OPTIM,
)  # fmt: skip


def made_sources(seed: int, triplets: int = 22) -> Sources:
    """Four patterns: two of one and one of another make a triplet; the votes of a face are all for its pattern."""
    images, pattern = made_images(40, seed)
    rng = np.random.default_rng(seed)
    rows = np.array([[a, a + 4, (a + 1 + 4 * b) % 40] for a, b in rng.integers(0, 9, (triplets, 2))])
    return Sources(
        DrawnTriplets(images, rows, np.full(triplets, TWO_CLASS)),
        VotedFaces(images[:10], np.eye(8, dtype=np.float32)[pattern[:10]]),
        GrayFaces(images[10:17]),
    )


def tiny(relation: int = 0, seed: int = 0, dimension: int = 6) -> RgbNetwork:
    torch.manual_seed(seed)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 5, stride=3), nn.BatchNorm2d(8), nn.ReLU())
    embed = nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, dimension))
    return RgbNetwork(backbone, embed, dimension, 0.2, [127.5], [128.0], relation)


def made_student(recipe: Recipe = RECIPE) -> DeepFeverStudent:
    torch.manual_seed(recipe.seed)
    teachers = [tiny(seed=seed, dimension=dimension) for seed, dimension in ((1, 6), (2, 4))]
    return DeepFeverStudent(recipe, made_sources(0), made_sources(1), tiny(80, seed=3), teachers)


def keys_of(method: DeepFeverTeacher, epoch: int, start: int = 0) -> list[list[tuple[int, int, int]]]:
    return method.streams.epoch(epoch, start)


def test_a_step_holds_what_the_recipe_says() -> None:
    method = made_student()
    batch: Batch = next(iter(method.batches(0, 0, 0)))
    assert batch.faces.shape == (3 * 4 + 3 + 2, SIZE, SIZE, 3)
    assert (batch.faces.dtype, batch.kind.shape, batch.target.shape) == (torch.uint8, (4,), (3, 8))
    triplets, labelled, unlabeled = keys_of(method, 0)[0][:4], keys_of(method, 0)[0][4:7], keys_of(method, 0)[0][7:]
    source = method.streams.sources
    for place in range(3):
        for number, (_, _, index) in enumerate(triplets):
            expected = source.triplets.image(source.triplets.triplet(index)[place])[::2, ::2]
            face = batch.faces[place * 4 + number]
            # Halved by averaging; noise of the patterns apart, the same picture.
            assert np.corrcoef(face.flatten(), np.ascontiguousarray(expected).flatten())[0, 1] > 0.9
    assert batch.kind.tolist() == [TWO_CLASS] * 4
    for number, (_, _, index) in enumerate(labelled):
        np.testing.assert_array_equal(batch.target[number], source.labelled.target(index))
    assert [key[0] for key in unlabeled] == [2, 2]


def test_an_epoch_is_a_pass_over_the_triplets() -> None:
    """22 triplets in steps of 4: 5 steps. The 10 labelled faces last 3 1/3 of them, the 7 unlabeled ones 3 1/2."""
    method = made_student()
    assert method.steps_per_epoch == 5
    epochs = [keys_of(method, epoch) for epoch in (0, 1, 2)]
    for number, steps in enumerate(epochs):
        triplets = [key for step in steps for key in step if key[0] == 0]
        assert len(triplets) == len(set(triplets)) == 20
        assert {key[1] for key in triplets} == {number}
    for stream, count, size in ((1, 10, 3), (2, 7, 2)):
        shown = [key for steps in epochs for step in steps for key in step if key[0] == stream]
        assert len(shown) == len(set(shown)) == 3 * 5 * size  # no view twice
        rounds = [key[1] for key in shown]
        assert rounds == sorted(rounds)
        full = [sorted(key[2] for key in shown if key[1] == r) for r in range(max(rounds))]
        assert full == [list(range(count))] * max(rounds)  # each round shows every face once
        orders = [[key[2] for key in shown if key[1] == r] for r in range(2)]
        assert orders[0] != orders[1]  # reshuffled
    assert keys_of(method, 1, start=3) == epochs[1][3:]


def test_augmentation_is_keyed_by_round_and_face() -> None:
    streams = Streams(made_sources(0), Sizes(4, 3, 2), SIZE, AugmentOptions(), seed=1)
    again = Streams(made_sources(0), Sizes(4, 3, 2), SIZE, AugmentOptions(), seed=1)
    torch.testing.assert_close(streams[1, 0, 5][1], again[1, 0, 5][1], rtol=0, atol=0)
    assert not torch.equal(streams[1, 0, 5][1], streams[1, 1, 5][1])
    one_image = DrawnTriplets(np.full((1, 48, 48), 90, np.uint8), np.zeros((1, 3), np.int64), np.ones(1, np.int64))
    sources = dataclasses.replace(made_sources(0), triplets=one_image)
    brighter = dataclasses.replace(STILL, brightness=0.5)
    first, second, _ = Streams(sources, Sizes(1, 1, 0), SIZE, brighter, seed=1)[0, 0, 0][1]
    assert not torch.equal(first, second)  # one image in two places: two views


def test_the_losses_are_those_of_the_paper() -> None:
    """Recomputed part by part from the outputs of one pass over the whole step."""
    method = made_student()
    network = method.network.eval()
    batch = next(iter(method.batches(0, 0, 0)))
    losses = method.losses(network, batch)
    output = network(batch.faces)
    parts = output.triplet[:4], output.triplet[4:8], output.triplet[8:12]
    torch.testing.assert_close(losses.terms["triplet"], FecTriplet()(*parts, batch.kind))
    probabilities = output.logits[12:15].softmax(dim=1)
    expected = -(batch.target * probabilities.log()).sum(dim=1).mean()
    torch.testing.assert_close(losses.terms["votes"], expected)
    teachers = [teacher(batch.faces) for teacher in method.teachers]
    target = relation_target([o for t in teachers for o in (t.triplet, t.logits)])
    assert target.shape == (17, 80)
    distance, angle = RelationalDistance()(output.relation, target), RelationalAngle()(output.relation, target)
    torch.testing.assert_close(losses.terms["rkd_distance"], distance)
    torch.testing.assert_close(losses.terms["rkd_angle"], angle)
    total = losses.terms["triplet"] + 0.1 * losses.terms["votes"] + 25 * distance + 50 * angle
    torch.testing.assert_close(losses.total, total)


def test_gradients_reach_the_student_and_no_teacher() -> None:
    method = made_student()
    before = {name: tensor.clone() for name, tensor in method.teachers.state_dict().items()}
    batch = next(iter(method.batches(0, 0, 0)))
    losses = method.losses(method.network.train(), batch)
    losses.total.backward()
    assert all(p.grad is None and not p.requires_grad for p in method.teachers.parameters())
    assert not any(module.training for module in method.teachers.modules())
    for name, tensor in method.teachers.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)  # running statistics too
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.network.parameters())
    # The heads are independent: relations teach theirs alone, and unlabeled faces nothing but relations.
    method.network.zero_grad()
    losses = method.losses(method.network, batch)
    losses.terms["rkd_angle"].backward()
    assert method.network.classify.weight.grad is None
    assert method.network.compare.weight.grad is None
    assert method.network.relate.weight.grad.abs().sum() > 0


def test_only_relations_see_the_unlabeled_faces() -> None:
    method = made_student()
    batch = next(iter(method.batches(0, 0, 0)))
    network = method.network.eval()
    changed = batch._replace(faces=torch.cat([batch.faces[:15], 255 - batch.faces[15:]]))
    before, after = (method.losses(network, b).terms for b in (batch, changed))
    assert (before["triplet"], before["votes"]) == (after["triplet"], after["votes"])
    assert before["rkd_distance"] != after["rkd_distance"]


def run(method: DeepFeverTeacher, output: Path, **options: object) -> list[dict[str, float]]:
    fit(method, RunOptions(output, "cpu", workers=0, log_every=1, **options))  # type: ignore[arg-type]
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def test_both_phases_learn(tmp_path: Path) -> None:
    """The teacher learns the patterns; a student of it alone, without labels' weight, comes to tell them apart too."""
    longer = dataclasses.replace(OPTIM, epochs=8)
    recipe = dataclasses.replace(
        RECIPE, system="deepfever-paper-teacher", distill=DistillOptions(), optim=longer,
        losses=LossOptions(triplet=1.0, votes=1.0), model=dataclasses.replace(RECIPE.model, dropout=0.0),
    )  # fmt: skip
    teacher = DeepFeverTeacher(recipe, made_sources(0), made_sources(1), tiny(seed=3))
    log = run(teacher, tmp_path / "teacher")
    assert log[-1]["validation"]["accuracy"] > 90  # type: ignore[index]
    assert log[-1]["validation"]["triplet_accuracy"] > 90  # type: ignore[index]
    assert set(log[0]) >= {"triplet", "votes", "loss"}
    student = dataclasses.replace(RECIPE, optim=dataclasses.replace(longer, learning_rate=0.01))
    networks = [teacher.network, teacher.network]
    method = DeepFeverStudent(student, made_sources(0), made_sources(1), tiny(80, seed=4), networks)
    losses = [line["loss"] for line in run(method, tmp_path / "student") if "loss" in line]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


def test_resumed_run_equals_undisturbed_one(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, augment=AugmentOptions())
    run(made_student(recipe), tmp_path / "whole")
    run(made_student(recipe), tmp_path / "broken", max_steps=7)  # the second step of the second epoch
    run(made_student(recipe), tmp_path / "broken", resume=True)
    first, second = (checkpoint.read(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "broken"))
    assert first[1]["step"] == second[1]["step"] == 10
    assert any(".momentum_buffer" in name for name in first[0])
    for name, tensor in first[0].items():
        torch.testing.assert_close(tensor, second[0][name], rtol=0, atol=0, msg=name)
    averages = {name: t for name, t in first[0].items() if name.startswith("average.")}
    for name, tensor in averages.items():  # ema_decay = 0: the network itself
        torch.testing.assert_close(tensor, first[0][name.replace("average.", "network.", 1)], rtol=0, atol=0)


def test_without_distillation_nothing_but_the_tasks() -> None:
    recipe = dataclasses.replace(RECIPE, distill=DistillOptions())
    method = DeepFeverStudent(recipe, made_sources(0), made_sources(1), tiny(), [])
    batch = next(iter(method.batches(0, 0, 0)))
    assert batch.faces.shape[0] == 15
    assert set(method.losses(method.network, batch).terms) == {"triplet", "votes"}
    with pytest.raises(DataError, match="unlabeled=0"):
        DeepFeverStudent(RECIPE, made_sources(0), made_sources(1), tiny(), [])


def test_too_little_data() -> None:
    with pytest.raises(DataError, match="3 triplets do not fill one step of 4"):
        DeepFeverTeacher(RECIPE, made_sources(0, triplets=3), made_sources(1), tiny())
    sources = made_sources(0)
    with pytest.raises(DataError, match="draws 2 unlabeled"):
        DeepFeverTeacher(RECIPE, Sources(sources.triplets, sources.labelled), made_sources(1), tiny())


class Echo(nn.Module):
    """A backbone that says what it sees: the mean of four quarters."""

    features = 4

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


def test_gray_teacher_reads_rgb_faces_as_its_student_is_served() -> None:
    torch.manual_seed(0)
    student = Student(Echo(), 5, crop=12, resolution=24, dropout=0.1, heads=Heads(triplet=True)).eval()
    teacher = GrayTeacher(student, crop=12).eval()
    gray = torch.randint(0, 256, (3, 12, 12, 1), dtype=torch.uint8)
    torch.testing.assert_close(teacher(gray.expand(-1, -1, -1, 3)).logits, student(gray).logits, rtol=1e-4, atol=1e-4)
    red = torch.zeros(1, 40, 40, 3, dtype=torch.uint8)
    red[..., 0] = 200
    expected = student(torch.full((1, 12, 12, 1), 0.299 * 200)).logits
    torch.testing.assert_close(teacher(red).logits, expected, rtol=1e-4, atol=1e-4)  # other sizes are averaged down


def test_teachers_come_from_checkpoints(made_data: Path, tmp_path: Path) -> None:
    """An open teacher that was fitted to its last byte by the loop, and read again behind the RGB door."""
    small = {"model.start": "random", "model.resolution": "48", "optim.batch_size": "16", "optim.epochs": "1"}
    recipe = load_recipe("deepfever_s_teacher_128", small)
    method = build_method(recipe, made_data, tmp_path)
    fit(method, RunOptions(tmp_path / recipe.name, "cpu", workers=0, max_steps=1))
    path = tmp_path / recipe.name / "checkpoint.safetensors"
    teacher = load_teacher(path).eval()
    output = teacher(torch.zeros(2, 64, 64, 3, dtype=torch.uint8))
    assert (output.triplet.shape, output.logits.shape) == ((2, 32), (2, 8))
    tensors, _ = checkpoint.read(path)
    saved = {name.removeprefix("average."): t for name, t in tensors.items() if name.startswith("average.")}
    for name, tensor in saved.items():
        torch.testing.assert_close(teacher.student.state_dict()[name], tensor, rtol=0, atol=0)
    plain = load_recipe("ferplus_mobilenet", small)
    fit(build_method(plain, made_data, tmp_path), RunOptions(tmp_path / "plain", "cpu", workers=0, max_steps=1))
    with pytest.raises(DataError, match="not of a teacher"):
        load_teacher(tmp_path / "plain" / "checkpoint.safetensors")
    with pytest.raises(DataError, match=r"fit the recipes that distill\.teachers names"):
        load_teacher(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("name", [n for n in recipe_names() if "paper" in load_recipe(n).system])
def test_paper_recipes_say_what_is_missing(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=str(tmp_path)):
        build_method(load_recipe(name), tmp_path, tmp_path / "runs")


def test_every_system_has_a_method() -> None:
    assert set(SYSTEMS) == set(get_args(get_type_hints(Recipe)["system"]))


def test_the_published_setting() -> None:
    teachers = [load_recipe(f"deepfever_teacher_{d}") for d in (256, 128)]
    student = load_recipe("deepfever_densenet201")
    assert [t.model.dimension for t in teachers] == [256, 128]
    assert teachers[0].seed != teachers[1].seed
    for recipe, batch, labelled, unlabeled, epochs, dropout in (
        (teachers[0], 64, 64, 0, 13, 0.1), (teachers[1], 64, 64, 0, 13, 0.1), (student, 36, 16, 16, 18, 0.2)
    ):  # fmt: skip
        optim = recipe.optim
        assert (optim.optimizer, optim.schedule, optim.learning_rate) == ("sgd", "constant", 0.005)
        assert (optim.batch_size, recipe.sources.labelled_batch) == (batch, labelled)
        assert (recipe.distill.unlabeled, optim.epochs, recipe.model.dropout) == (unlabeled, epochs, dropout)
        assert (recipe.losses.triplet, recipe.losses.votes, recipe.model.resolution) == (1.0, 0.1, 140)
        assert recipe.system in SYSTEMS
    assert student.distill.teachers == tuple(t.name for t in teachers)
    assert (student.losses.rkd_distance, student.losses.rkd_angle) == (25.0, 50.0)
