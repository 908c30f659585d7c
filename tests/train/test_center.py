"""Center loss: Eq. 2-4 and 6 by hand and by a loop, the gradient, and that centers are moved by nothing else."""

import pytest
import torch

from fevertools.errors import OptionError
from fevertools.train.losses.center import CenterLoss


@pytest.fixture
def loss() -> CenterLoss:
    loss = CenterLoss(classes=3, dimension=2, alpha=0.5)
    loss.centers.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0], [5.0, 5.0]]))
    return loss


FEATURES = torch.tensor([[3.0, 4.0], [1.0, 3.0], [1.0, 1.0]])
LABEL = torch.tensor([0, 1, 1])


def test_by_hand(loss: CenterLoss) -> None:
    assert loss(FEATURES, LABEL).item() == pytest.approx(0.5 * (25 + 4 + 0))


def test_gradient_is_the_offset_from_the_center(loss: CenterLoss) -> None:
    """Eq. 3, and none for the centers."""
    features = FEATURES.clone().requires_grad_()
    loss(features, LABEL).backward()
    torch.testing.assert_close(features.grad, FEATURES - loss.centers[LABEL])
    assert not loss.centers.requires_grad
    assert list(loss.parameters()) == []


def test_update_by_hand(loss: CenterLoss) -> None:
    """One feature moves its center by alpha / 2 of the way, two by alpha * 2 / 3; a class without one stays."""
    loss.update(FEATURES, LABEL)
    torch.testing.assert_close(loss.centers, torch.tensor([[0.75, 1.0], [1.0, 1 + 0.5 * 2 / 3], [5.0, 5.0]]))


def test_update_equals_the_equation_as_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    loss = CenterLoss(4, 3, alpha=0.3)
    loss.centers.copy_(torch.randn(4, 3, generator=generator))
    features, label = torch.randn(9, 3, generator=generator), torch.tensor([0, 0, 1, 3, 3, 3, 3, 1, 0])
    expected = loss.centers.clone()
    for j in range(4):
        mine = [features[i] for i in range(9) if label[i] == j]
        delta = sum((expected[j] - x for x in mine), start=torch.zeros(3)) / (1 + len(mine))
        expected[j] = expected[j] - 0.3 * delta
    loss.update(features, label)
    torch.testing.assert_close(loss.centers, expected)


def test_centers_come_to_the_class_means() -> None:
    loss = CenterLoss(2, 2)
    features = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    for _ in range(60):
        loss.update(features, torch.tensor([0, 0, 1]))
    torch.testing.assert_close(loss.centers, torch.tensor([[2.0, 0.0], [0.0, 4.0]]))


def test_centers_are_in_checkpoints() -> None:
    assert "centers" in CenterLoss(2, 2).state_dict()


@pytest.mark.parametrize("alpha", [0.0, -1.0, 1.5])
def test_refuses_alpha(alpha: float) -> None:
    with pytest.raises(OptionError, match="alpha"):
        CenterLoss(2, 2, alpha)
