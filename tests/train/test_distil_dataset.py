"""Dataset distillation: the unrolled step by hand, gradients by differences, and images that teach a fresh network."""

import pytest
import torch
from torch import nn

from fevertools.errors import OptionError
from fevertools.train.distil_dataset import (
    Distilled,
    DistilOptions,
    Learner,
    distil,
    fresh_guesses,
    linear_learner,
    train_on,
    unroll,
)
from tests.train.conftest import made_images


def test_one_step_by_hand() -> None:
    """Two classes, logits w x with w = 0: the gradient of the cross-entropy is (p - y) x."""
    network = nn.Linear(1, 2, bias=False)
    nn.init.zeros_(network.weight)
    weights = unroll(network, torch.tensor([[3.0]]), torch.tensor([0]), torch.tensor([0.1]), keep_graph=False)
    torch.testing.assert_close(weights["weight"], torch.tensor([[0.15], [-0.15]]))
    assert network.weight.abs().max() == 0


def test_gradients_reach_images_and_step_sizes() -> None:
    """Of the loss on other faces, through two steps, against differences."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    other, label = torch.randn(5, 3).double(), torch.tensor([0, 1, 0, 1, 1])

    def loss(images: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
        weights = unroll(network, images, torch.arange(2), sizes, keep_graph=True)
        return nn.functional.cross_entropy(torch.func.functional_call(network, weights, (other,)), label)

    images = torch.randn(2, 3).double().requires_grad_()
    sizes = torch.tensor([0.3, 0.1]).double().requires_grad_()
    assert torch.autograd.gradcheck(loss, (images, sizes))


def test_training_on_them_is_gradient_descent() -> None:
    torch.manual_seed(1)
    network, reference = nn.Linear(4, 3), nn.Linear(4, 3)
    reference.load_state_dict(network.state_dict())
    distilled = Distilled(torch.randn(3, 4), torch.arange(3), torch.tensor([0.2, 0.05]))
    train_on(network, distilled, distilled.images)
    for size in distilled.step_sizes:
        optimiser = torch.optim.SGD(reference.parameters(), lr=float(size))
        optimiser.zero_grad()
        nn.functional.cross_entropy(reference(distilled.images), distilled.label).backward()
        optimiser.step()
    torch.testing.assert_close(network.weight, reference.weight)
    torch.testing.assert_close(network.bias, reference.bias)


def small_net() -> nn.Module:
    """Everything is learned: (N, 1, 12, 12) -> (N, 4)."""
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(128, 4))


def quarters(images: torch.Tensor) -> torch.Tensor:
    """A fixed backbone: (N, 1, 12, 12) -> (N, 32)."""
    weights = torch.randn(144, 32, generator=torch.Generator().manual_seed(5))
    return (images.flatten(1) @ weights / 12).relu()


@pytest.mark.parametrize("fixed", [False, True], ids=["all weights", "a classifier"])
def test_distilled_images_teach_a_fresh_network(fixed: bool) -> None:
    """Four patterns, of which a quarter would be guessed right."""
    made, kind = made_images(200, seed=3)
    images = torch.from_numpy(made[:, None, ::4, ::4]).float().sub(128).div(70)
    label = torch.from_numpy(kind)
    learner = linear_learner(quarters, images[:100], 4) if fixed else Learner(lambda x: x, small_net)
    sizes: dict[str, float] = {"step_size": 5.0} if fixed else {"step_size": 0.03, "step_size_rate": 1.0}
    options = DistilOptions(
        iterations=60, batch_size=64, initialisations=2, steps=3, learning_rate=0.05, seed=1, **sizes
    )
    losses: list[float] = []
    distilled = distil(learner, images[:100], label[:100], 4, options, lambda _, loss: losses.append(loss))
    assert distilled.images.shape == (4, 1, 12, 12)
    assert losses[-1] < losses[0]
    guesses = fresh_guesses(learner, distilled, images[100:])  # of networks that were not there
    assert len(guesses) == 5
    assert sum(float((guess == label[100:]).float().mean()) for guess in guesses) / 5 > 0.5
    assert distil(learner, images[:100], label[:100], 4, options).images.equal(distilled.images)


def test_begins_from_the_mean_of_every_class() -> None:
    """Drawn away from the mean of all; one iteration of Adam moves no pixel by more than its rate."""
    images = torch.tensor([0.0, 2.0, 6.0, 8.0]).reshape(4, 1, 1, 1).expand(4, 1, 2, 2).clone()
    options = DistilOptions(iterations=1, steps=1, contrast=2.0, learning_rate=1e-3)
    learner = linear_learner(lambda x: x.flatten(1), images, 2)
    distilled = distil(learner, images, torch.tensor([0, 0, 1, 1]), 2, options)
    torch.testing.assert_close(distilled.images[:, 0, 0, 0], torch.tensor([-2.0, 10.0]), atol=1.1e-3, rtol=0)


def test_features_of_about_length_one() -> None:
    images = 3 + 2 * torch.randn(500, 1, 12, 12, generator=torch.Generator().manual_seed(2))
    features = linear_learner(lambda x: x.flatten(1), images, 4).features(images)
    torch.testing.assert_close(features.mean(dim=0), torch.zeros(144), atol=1e-5, rtol=0)
    torch.testing.assert_close(features.norm(dim=1).mean(), torch.tensor(1.0), atol=0.01, rtol=0)


@pytest.mark.parametrize("name", ["iterations", "steps", "initialisations"])
def test_refuses_none(name: str) -> None:
    learner = Learner(lambda x: x, lambda: nn.Linear(8, 2))
    with pytest.raises(OptionError, match="at least one"):
        distil(learner, torch.zeros(4, 8), torch.zeros(4).long(), 2, DistilOptions(**{name: 0}))
