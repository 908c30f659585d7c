"""DenseNet with center loss: sizes of Table I, the two learning rates, plateaus, kept epochs, and a run that learns."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fevertools.errors import DataError
from fevertools.train import checkpoint
from fevertools.train.__main__ import main
from fevertools.train.datasets.ferplus import read_ferplus
from fevertools.train.loop import Plateau
from fevertools.train.methods.discriminative import DiscriminativeLearning, make_discriminative, soft_labels
from fevertools.train.methods.targets import find_teacher
from fevertools.train.models.densenet import DenseNet, Discriminative
from fevertools.train.recipe import DenseNetOptions, Recipe, load_recipe, recipe_names
from tests.train.conftest import fit_by_command

RECIPES = [name for name in recipe_names() if load_recipe(name).system == "densenet-center"]
SMALL = {
    "densenet.growth": "4", "densenet.layers": "2", "optim.batch_size": "16", "optim.precision": "32-true",
    "optim.warmup_epochs": "0", "model.resolution": "42",
}  # fmt: skip


def small(name: str = "densenet_bc_center_open", **options: str) -> Recipe:
    return load_recipe(name, {**SMALL, **{key.replace("__", "."): value for key, value in options.items()}})


@pytest.mark.parametrize(
    ("options", "features"),
    [
        # 2k + 12k maps a block, halved behind the first two where compressed: by hand.
        (DenseNetOptions(12, 12, bottleneck=False, compression=1.0), 24 + 3 * 144),
        (DenseNetOptions(12, 12, bottleneck=True, compression=0.5), ((24 + 144) // 2 + 144) // 2 + 144),
        (DenseNetOptions(32, 12, bottleneck=True, compression=0.5), ((64 + 384) // 2 + 384) // 2 + 384),
    ],
)
def test_sizes_of_table_1(options: DenseNetOptions, features: int) -> None:
    network = DenseNet(options).eval()
    assert network.features == features
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    per_layer = 2 if options.bottleneck else 1
    assert len(convolutions) == 1 + 36 * per_layer + 2  # depth 40 = 3 L + 4 with the classifier, bottlenecks apart
    sizes: list[int] = []
    for module in network.blocks:
        module.register_forward_hook(lambda _m, _i, out: sizes.append(out.shape[-1]))
    assert network(torch.zeros(1, 1, 42, 42)).shape == (1, features)
    assert list(dict.fromkeys(sizes)) == [21, 10, 5]


def test_he_initialisation() -> None:
    weight = DenseNet(DenseNetOptions(32, 2)).blocks[0].weight
    assert weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.15)


def test_normalises_every_pixel() -> None:
    network = Discriminative(DenseNetOptions(4, 1), 0.5, size=12)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (50, 14, 14)).astype(np.uint8))
    network.normalise_by(images)
    inner = images[:, 1:13, 1:13].float()
    torch.testing.assert_close(network.mean, inner.mean(dim=0))
    torch.testing.assert_close(network.std, inner.std(dim=0))
    # Larger crops are cut down to the middle, frames of the size are taken as they are.
    network.eval()
    torch.testing.assert_close(network(images[:3, :, :, None]), network(images[:3, 1:13, 1:13, None]))


def test_learning_rates_of_their_own(made_data: Path) -> None:
    """A step of plain SGD moves a parameter as two optimisers with the two learning rates would."""
    method = DiscriminativeLearning(small(), read_ferplus(made_data))
    network = method.network.train()
    crops, label = next(iter(method.batches(0, 0, 0)))
    network.center.centers.normal_()
    method.learning_rate = 0.1
    centers = network.center.centers.clone()
    total = method.losses(network, (crops, label)).total
    parameter = network.backbone.blocks[0].weight
    (gradient,) = torch.autograd.grad(total, parameter)
    network.center.centers.copy_(centers)
    output = network(crops)
    (first,) = torch.autograd.grad(
        torch.nn.functional.cross_entropy(output.fer2013, label), parameter, retain_graph=True
    )
    (second,) = torch.autograd.grad(network.center(output.embedding, label), parameter)
    torch.testing.assert_close(0.1 * gradient, 0.1 * first + 1e-3 * 0.05 * second, rtol=1e-3, atol=1e-6)


def test_lambda_zero_is_no_center_loss(made_data: Path) -> None:
    method = DiscriminativeLearning(small("densenet_bc_open"), read_ferplus(made_data))
    losses = method.losses(method.network, next(iter(method.batches(0, 0, 0))))
    assert losses.total.item() == losses.terms["cross_entropy"].item()


def test_soft_labels_are_what_embeddings_tell() -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(7).repeat(40)
    embedding = torch.eye(7)[label] + torch.randn(3, 280, 7, generator=generator) / 2
    said = soft_labels(embedding.half(), label, consensus=0.0)
    assert said.dtype == torch.float16
    torch.testing.assert_close(said.float().sum(dim=2), torch.ones(3, 280), rtol=0, atol=5e-3)
    third = said[2]  # no regression has seen it
    assert (third.argmax(dim=1) == label).float().mean() > 0.6
    halved = soft_labels(embedding.half(), label, consensus=0.5)
    torch.testing.assert_close(halved.float(), (said.float() + said.float().mean(dim=0)) / 2, rtol=0, atol=2e-3)


def test_learns_what_a_teacher_makes_of_the_labels(made_data: Path, tmp_path: Path) -> None:
    recipe, data = small("densenet_bc_center_soft_open", distill__views="2"), read_ferplus(made_data)
    with pytest.raises(DataError, match="teach"):
        DiscriminativeLearning(recipe, data, tmp_path)
    options = ["--set", "distill.views=2", "--set", "model.resolution=42"]
    assert (
        main(["teach", recipe.name.replace("-", "_"), "--data", str(made_data), "--runs", str(tmp_path), *options]) == 0
    )
    method = DiscriminativeLearning(recipe, data, tmp_path)
    crops, label, soft = next(iter(method.batches(3, 0, workers=0)))
    assert method.views == 2
    method.learning_rate = 1e9  # at which the center loss, whose rate is its own, weighs nothing
    losses = method.losses(method.network.eval(), (crops, label, soft))
    log_probabilities = method.network(crops).fer2013.log_softmax(dim=1)
    hard = -log_probabilities[torch.arange(len(label)), label].mean().item()
    by_hand = 0.25 * hard - 0.75 * (soft.float() * log_probabilities).sum(dim=1).mean().item()
    assert losses.total.item() == pytest.approx(by_hand, rel=1e-4)
    with pytest.raises(DataError, match="one teacher or none"):
        DiscriminativeLearning(small("densenet_bc_soft_open", distill__teachers='["x", "y"]'), data, tmp_path)
    with pytest.raises(DataError, match="published:NAME"):
        find_teacher("a-run", tmp_path, embedding=True)


def test_plateau() -> None:
    plateau = Plateau(patience=2)
    factors = []
    for loss in (3.0, 2.0, 1.9999, 2.0, 1.5, 1.6, 1.0):
        plateau.add(loss + 1)
        plateau.add(loss - 1)
        plateau.end_epoch()
        factors.append(plateau.factor)
        plateau = Plateau(2, **plateau.state())  # as through a checkpoint
    assert factors == [1, 1, 1, 0.1, 0.1, 0.1, 0.1]


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_learns_and_resumes(made_data: Path, tmp_path: Path, recipe: str) -> None:
    options = {**SMALL, "optim.epochs": "4", "optim.learning_rate": "0.05", "optim.ema_decay": "0.0"}

    if load_recipe(recipe).distill.teachers:
        options["distill.views"] = "2"
        settings = [part for key, value in options.items() for part in ("--set", f"{key}={value}")]
        assert main(["teach", recipe, "--data", str(made_data), "--runs", str(tmp_path), *settings]) == 0
    if load_recipe(recipe).optim.restarts:
        options["optim.restarts"] = "[1, 2, 3]"

    def fit(folder: str, *extra: str) -> Path:
        return fit_by_command(recipe, made_data, tmp_path / folder, options, *extra)

    whole, broken = fit("whole"), fit("broken", "--max-steps", "13")
    fit("broken", "--resume")
    first, second = (checkpoint.read(folder / "checkpoint.safetensors") for folder in (whole, broken))
    assert first[1]["plateau"] == second[1]["plateau"]
    for name, tensor in first[0].items():
        torch.testing.assert_close(tensor, second[0][name], rtol=0, atol=0, msg=name)
    assert sorted(path.name for path in whole.glob("epoch-*")) == [f"epoch-{n:04d}.safetensors" for n in range(1, 5)]
    method = DiscriminativeLearning(load_recipe(recipe, options), read_ferplus(made_data), tmp_path)
    checkpoint.load_weights(method.network, first[0], "average.", whole)
    assert method.validate(method.network)["cross_entropy"] < 1.0  # a constant guess has ln 4 = 1.39


def test_ends_of_cosines_are_kept(made_data: Path, tmp_path: Path) -> None:
    options = {**SMALL, "optim.epochs": "4", "optim.restarts": "[1, 3]", "optim.schedule": "cosine"}
    run = fit_by_command("densenet_bc_open", made_data, tmp_path / "run", options)
    assert sorted(path.name for path in run.glob("epoch-*")) == [f"epoch-{n:04d}.safetensors" for n in (1, 3, 4)]


def test_mixes_faces_and_labels(made_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = read_ferplus(made_data)
    with pytest.raises(DataError, match="mixture"):
        DiscriminativeLearning(small("densenet_bc_center_open", optim__mixup="0.5"), data)
    method = DiscriminativeLearning(small("densenet_bc_open", optim__mixup="0.5"), data)
    crops, label = next(iter(method.batches(0, 0, workers=0)))
    weight = 0.7
    monkeypatch.setattr(np.random, "beta", lambda a, b: weight)
    losses = method.losses(method.network.eval(), (crops, label))
    mixed = weight * crops.float() + (1 - weight) * crops.flip(0).float()
    log_probabilities = method.network(mixed).fer2013.log_softmax(dim=1)
    own, other = (-log_probabilities[torch.arange(len(label)), named].mean() for named in (label, label.flip(0)))
    torch.testing.assert_close(losses.total, weight * own + (1 - weight) * other, rtol=1e-4, atol=1e-5)


def test_only_the_last_epochs_are_kept(tmp_path: Path) -> None:
    network = make_discriminative(small())
    for epoch in range(1, 8):
        checkpoint.keep(tmp_path, epoch, 5, network, {"recipe": {}})
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"epoch-{n:04d}.safetensors" for n in range(3, 8)]
    tensors, _ = checkpoint.read(tmp_path / "epoch-0007.safetensors")
    checkpoint.load_weights(make_discriminative(small(seed="5")), tensors, "average.", tmp_path)
