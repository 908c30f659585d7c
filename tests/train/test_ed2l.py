"""ED2L: the margin softmax and the uniform loss by hand, and gradients that must be zero."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, Ridge
from torch import nn

from fevertools.train import checkpoint
from fevertools.train.evaluate.networks import checkpoint as evaluate_checkpoint
from fevertools.train.losses.am_softmax import AmSoftmax
from fevertools.train.losses.dispelling import LeastSquaresDispeller, dispelling_losses
from fevertools.train.methods.ed2l import ed2l_losses
from fevertools.train.models.ed2l import Ed2l
from fevertools.train.recipe import Ed2lOptions, load_recipe, recipe_names
from tests.train.conftest import fit_by_command


def test_margin_softmax_by_hand() -> None:
    """Two classes on the axes, a feature at 60 degrees to the own one: cosines .5 and sqrt(3) / 2."""
    loss = AmSoftmax(2, 2, margin=0.35, scale=30)
    loss.weight.data = torch.tensor([[2.0, 0.0], [0.0, 0.1]])  # lengths do not matter
    feature = 7 * torch.tensor([[0.5, math.sqrt(3) / 2]])
    own, other = 30 * (0.5 - 0.35), 30 * math.sqrt(3) / 2
    assert loss(feature, torch.tensor([0])).item() == pytest.approx(math.log(1 + math.exp(other - own)), rel=1e-5)
    torch.testing.assert_close(loss.logits(feature), torch.tensor([[15.0, other]]))


def test_margin_of_zero_is_softmax_of_cosines() -> None:
    torch.manual_seed(0)
    loss, features, label = AmSoftmax(8, 5, margin=0.0), torch.randn(6, 8), torch.arange(6) % 5
    torch.testing.assert_close(loss(features, label), F.cross_entropy(loss.logits(features), label))
    assert AmSoftmax(8, 5).margin == 0.35


def test_uniform_loss_by_hand() -> None:
    dispeller = nn.Linear(2, 3)
    dispeller.weight.data.zero_()
    dispeller.bias.data = torch.tensor([math.log(0.5), math.log(0.25), math.log(0.25)])
    losses = dispelling_losses(torch.randn(4, 2), torch.tensor([0, 1, 2, 0]), dispeller)
    assert losses.uniform.item() == pytest.approx(-(math.log(0.5) + 2 * math.log(0.25)) / 3, rel=1e-5)
    assert losses.adversarial.item() == pytest.approx(-(2 * math.log(0.5) + 2 * math.log(0.25)) / 4, rel=1e-5)
    dispeller.bias.data.zero_()
    assert dispelling_losses(torch.randn(4, 2), torch.zeros(4).long(), dispeller).uniform.item() == pytest.approx(
        math.log(3)
    )


@pytest.fixture(scope="module")
def network() -> Ed2l:
    torch.manual_seed(0)
    return Ed2l(7, 32, 32, Ed2lOptions(), mean=128.0, std=64.0)


PARTS = ("base", "distil", "classify", "dispel", "dispeller")
ROUTES = {
    "distilling": {"base", "distil", "classify"},  # section 2.2, the red arrow of figure 2
    "adversarial": {"dispeller"},
    "uniform": {"base", "dispel"},
}


@pytest.mark.parametrize("loss", ROUTES)
def test_every_loss_trains_its_own_parts_only(network: Ed2l, loss: str) -> None:
    network.zero_grad(set_to_none=True)
    label = torch.tensor([0, 3, 6, 1])
    output = network(torch.randint(0, 256, (4, 32, 32, 1), dtype=torch.uint8))
    assert output.dispelled is not None
    assert network.dispeller is not None
    sides = dispelling_losses(output.dispelled, label, network.dispeller)
    losses = {
        "distilling": network.classify(output.embedding, label),
        "adversarial": sides.adversarial,
        "uniform": sides.uniform,
    }
    losses[loss].backward()
    touched = {
        part
        for part in PARTS
        if any(p.grad is not None and p.grad.abs().max() > 0 for p in getattr(network, part).parameters())
    }
    assert touched == ROUTES[loss]


def test_least_squares_weights_are_those_of_the_regression() -> None:
    torch.manual_seed(0)
    features, label = torch.randn(200, 5) * torch.tensor([1.0, 2, 3, 4, 5]) + 7, torch.randint(0, 3, (200,))
    dispeller = LeastSquaresDispeller(5, 3, ridge=0.01)
    losses = dispeller.losses(features, label)
    own = np.eye(3)[label.numpy()]
    penalty = 0.01 * features.numpy().var(axis=0).mean() * len(features)
    expected = Ridge(alpha=penalty).fit(features.double().numpy(), own)
    np.testing.assert_allclose(dispeller.solve().numpy(), expected.coef_.T, atol=1e-5)
    guess = torch.from_numpy(10 * (expected.predict(features.double().numpy()) - own.mean(axis=0)))
    assert losses.adversarial.item() == pytest.approx(F.cross_entropy(guess, label).item(), rel=1e-3)
    assert losses.uniform.item() == pytest.approx(-guess.log_softmax(dim=1).mean().item(), rel=1e-3)


def test_least_squares_trains_branch_and_base_only() -> None:
    torch.manual_seed(0)
    options = Ed2lOptions(distilling=0.0, dispeller="least-squares")
    network = Ed2l(7, 32, 32, options, mean=128.0, std=64.0)
    output = network(torch.randint(0, 256, (4, 32, 32, 1), dtype=torch.uint8))
    losses = ed2l_losses(network, output, torch.tensor([0, 3, 6, 1]), options)
    losses.total.backward()
    touched = {name.partition(".")[0] for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert touched == ROUTES["uniform"]
    assert not losses.terms["adversarial"].requires_grad


def test_what_least_squares_hides_no_other_linear_probe_finds() -> None:
    """Features hold the label in several places; the dispeller is solved for, only the branch follows gradients."""
    torch.manual_seed(0)
    label = torch.randint(0, 3, (600,))
    inputs = torch.randn(600, 12) + F.one_hot(label, 3).float().repeat(1, 4)
    branch = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8, affine=False))
    dispeller = LeastSquaresDispeller(8, 3, decay=0.0)  # every step sees all rows
    optimizer = torch.optim.Adam(branch.parameters(), lr=1e-2)

    def probe() -> float:
        features = branch(inputs).detach().numpy()
        return float(LogisticRegression(C=1e4, max_iter=1000).fit(features, label).score(features, label))

    assert probe() > 0.7
    for _ in range(300):
        optimizer.zero_grad()
        dispeller.losses(branch(inputs), label).uniform.backward()
        optimizer.step()
    assert probe() < 0.5


def test_solved_for_dispeller_has_features_of_one_scale() -> None:
    network = Ed2l(7, 32, 32, Ed2lOptions(dispeller="least-squares"), mean=128.0, std=64.0)
    dispelled = network(torch.randint(0, 256, (16, 32, 32, 1), dtype=torch.uint8)).dispelled
    assert dispelled is not None
    torch.testing.assert_close(dispelled.mean(dim=0), torch.zeros(256), atol=1e-4, rtol=0)
    torch.testing.assert_close(dispelled.var(dim=0, correction=0), torch.ones(256), atol=1e-2, rtol=0)


def test_shapes_of_table_1() -> None:
    network = Ed2l(7, 112, 96, Ed2lOptions(), mean=128.0, std=64.0).eval()
    output = network(torch.zeros(1, 112, 96, 1, dtype=torch.uint8))
    assert output.embedding.shape == (1, 256)
    assert output.fer2013.shape == (1, 7)
    assert network.distil.project.in_features == 256 * 7 * 6
    convolutions = [m for m in network.base.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [32] * 3 + [64] * 5 + [128] * 9
    assert sum(c.stride == (2, 2) for c in convolutions) == 3
    # 17 convolutions, 3 of a branch: the 20 layers of SphereFace-20.
    assert len([m for m in network.distil.modules() if isinstance(m, nn.Conv2d)]) == 3


def test_baseline_has_no_dispelling_branch() -> None:
    network = Ed2l(7, 32, 32, Ed2lOptions(dispelling=0.0), mean=128.0, std=64.0)
    assert network(torch.zeros(2, 32, 32, 1)).dispelled is None
    assert not any(name.startswith("dispel") for name, _ in network.named_parameters())


RECIPES = [name for name in recipe_names() if load_recipe(name).system == "ed2l"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_learns_and_resumes(made_data: Path, tmp_path: Path, recipe: str) -> None:
    options = {"optim.batch_size": "16", "optim.precision": "32-true", "optim.warmup_epochs": "0", "optim.epochs": "3"}

    def fit(folder: str, *extra: str) -> Path:
        return fit_by_command(recipe, made_data, tmp_path / folder, options, *extra)

    whole = fit("whole")
    fit("broken", "--max-steps", "13")
    first, second = (
        checkpoint.read(folder / "checkpoint.safetensors") for folder in (whole, fit("broken", "--resume"))
    )
    for name, tensor in first[0].items():
        torch.testing.assert_close(tensor, second[0][name], rtol=0, atol=0, msg=name)
    log = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    distilling = [line["distilling"] for line in log if "distilling" in line]
    assert distilling[-1] < 0.8 * distilling[0]
    figures = evaluate_checkpoint(whole / "checkpoint.safetensors")(np.zeros((3, 48, 48, 1), np.uint8))
    assert figures.fer2013 is not None
    assert figures.fer2013.shape == (3, 7)
    assert figures.logits is None
