"""Dataset distillation: the unrolled step by hand, gradients by differences, and images that teach a fresh network."""

import pytest
import torch
from torch import nn

from fevertools.errors import OptionError
from fevertools.train.distil_dataset import Distilled, DistilOptions, SmallNet, distil, train_on, unroll
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
    train_on(network, distilled)
    for size in distilled.step_sizes:
        optimiser = torch.optim.SGD(reference.parameters(), lr=float(size))
        optimiser.zero_grad()
        nn.functional.cross_entropy(reference(distilled.images), distilled.label).backward()
        optimiser.step()
    torch.testing.assert_close(network.weight, reference.weight)
    torch.testing.assert_close(network.bias, reference.bias)


def test_distilled_images_teach_a_fresh_network() -> None:
    """Four patterns, of which a quarter would be guessed right."""
    made, kind = made_images(200, seed=3)
    images = torch.from_numpy(made[:, None, ::4, ::4]).float().sub(128).div(70)
    label = torch.from_numpy(kind)
    options = DistilOptions(iterations=60, batch_size=64, initialisations=2, steps=3, learning_rate=0.05, seed=1)
    losses: list[float] = []
    distilled = distil(
        lambda: SmallNet(4, width=8), images[:100], label[:100], 4, options, lambda _, loss: losses.append(loss)
    )
    assert distilled.images.shape == (4, 1, 12, 12)
    assert losses[-1] < losses[0]
    torch.manual_seed(99)  # a network that was not there
    accuracies = []
    for _ in range(5):
        network = SmallNet(4, width=8)
        train_on(network, distilled)
        accuracies.append(float((network(images[100:]).argmax(dim=1) == label[100:]).float().mean()))
    assert sum(accuracies) / 5 > 0.5
    assert distil(lambda: SmallNet(4, width=8), images[:100], label[:100], 4, options).images.equal(distilled.images)


@pytest.mark.parametrize("name", ["iterations", "steps", "initialisations"])
def test_refuses_none(name: str) -> None:
    with pytest.raises(OptionError, match="at least one"):
        distil(lambda: SmallNet(2), torch.zeros(4, 1, 8, 8), torch.zeros(4).long(), 2, DistilOptions(**{name: 0}))
