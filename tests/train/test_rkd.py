"""Relational distillation: closed forms of three points, a naive loop, invariances and gradients at coinciding rows."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fevertools.train.losses.rkd import RelationalAngle, RelationalDistance, cosines, relation_target

LOSSES = [RelationalDistance(), RelationalAngle()]
Loss = Callable[[Tensor, Tensor], Tensor]


def huber(x: float) -> float:
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def naive_distance(student: Tensor, teacher: Tensor) -> float:
    """Eq. 4-6 as loops; the mean of the losses is over all pairs, i = j among them."""
    n = len(student)
    relative = []
    for rows in (student, teacher):
        d = [[math.dist(rows[i].tolist(), rows[j].tolist()) for j in range(n)] for i in range(n)]
        mean = sum(map(sum, d)) / (n * (n - 1))
        relative.append([value / mean for row in d for value in row])
    return sum(huber(a - b) for a, b in zip(*relative, strict=True)) / n**2


def naive_angle(student: Tensor, teacher: Tensor) -> float:
    """Eq. 7-8 as loops: the angle at j between i and k."""
    n, total = len(student), 0.0
    for i in range(n):
        for j in range(n):
            for k in range(n):
                cosine = []
                for rows in (student, teacher):
                    a, b = rows[i] - rows[j], rows[k] - rows[j]
                    norm = float(a.norm() * b.norm())
                    cosine.append(float(a @ b) / norm if norm > 0 else 0.0)
                total += huber(cosine[0] - cosine[1])
    return total / n**3


@pytest.mark.parametrize(("loss", "naive"), list(zip(LOSSES, (naive_distance, naive_angle), strict=True)))
def test_equals_the_naive_loops(loss: nn.Module, naive: Callable[[Tensor, Tensor], float]) -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    teacher = (
        torch.randn(7, 3, generator=generator, dtype=torch.float64) ** 3
    )  # uneven: both branches of the Huber loss
    teacher[4] = teacher[1]  # an image twice in the batch
    assert loss(student, teacher).item() == pytest.approx(naive(student, teacher), rel=1e-12)


def test_three_points_by_hand() -> None:
    """Teacher: sides 1, 1, 1. Student on a line: 1, 1, 2, mean 4/3."""
    teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(0.75)]])
    student = torch.tensor([[0.0], [1.0], [2.0]])
    # Ordered pairs: four of 3/4 against 1, two of 3/2 against 1; three of i = j are 0.
    expected = (4 * huber(0.25) + 2 * huber(0.5)) / 9
    assert LOSSES[0](student, teacher).item() == pytest.approx(expected, rel=1e-6)
    # The teacher's cosines are 1/2; the student's 1 at both ends and -1 in the middle, each for (i, k) and (k, i).
    expected = (4 * huber(0.5) + 2 * huber(-1.5)) / 27
    assert LOSSES[1](student, teacher).item() == pytest.approx(expected, rel=1e-6)


def test_right_angle() -> None:
    at_corner = cosines(torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]]))
    assert at_corner[0, 1, 2] == 0
    assert at_corner[1, 0, 2].item() == pytest.approx(3 / 5)
    assert at_corner[2, 0, 1].item() == pytest.approx(4 / 5)
    assert at_corner[0, 1, 1].item() == pytest.approx(1)
    assert at_corner[0, 0, 2] == 0  # i = j: no direction


@pytest.mark.parametrize("loss", LOSSES)
def test_rotation_scale_and_shift_of_either_do_not_matter(loss: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    student, teacher = (torch.randn(6, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    rotation, _ = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))
    before = loss(student, teacher).item()
    assert before > 1e-3
    assert loss(student @ rotation * 7 + 3, teacher).item() == pytest.approx(before)
    assert loss(student, teacher @ rotation * 0.01 - 1).item() == pytest.approx(before)
    # The same geometry, in more dimensions: nothing to learn.
    wide = torch.cat([teacher @ rotation * 5, torch.zeros(6, 3, dtype=torch.float64)], dim=1)
    assert loss(wide, teacher).item() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_right(loss: nn.Module) -> None:
    generator = torch.Generator().manual_seed(2)
    student, teacher = (torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), student.requires_grad_())
    teacher.requires_grad_()
    loss(student, teacher).backward()
    assert teacher.grad is None  # a teacher is never taught


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("same", [2, 6])
def test_coinciding_rows_have_finite_gradients(loss: nn.Module, same: int) -> None:
    generator = torch.Generator().manual_seed(3)
    student, teacher = (torch.randn(6, 4, generator=generator) for _ in range(2))
    student[:same] = student[0]  # where the teacher tells them apart
    student.requires_grad_()
    value = loss(student, teacher)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()  # type: ignore[arg-type]
    assert student.grad.abs().max() < 10  # type: ignore[union-attr]
    assert torch.isfinite(loss(teacher, student.detach()))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("count", [0, 1, 2])
def test_small_batches(loss: nn.Module, count: int) -> None:
    """Two rows have one distance, which is its own mean, and no angle between different directions."""
    student = torch.randn(count, 4, requires_grad=True)
    value = loss(student, torch.randn(count, 3))
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert torch.isfinite(student.grad).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", LOSSES)
def test_float32_under_autocast(loss: nn.Module) -> None:
    generator = torch.Generator().manual_seed(4)
    student, teacher = (torch.randn(8, 4, generator=generator) for _ in range(2))
    exact = loss(student, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(student, teacher).item() == exact.item()
        assert loss(student.bfloat16(), teacher).dtype == torch.float32


def test_relation_target() -> None:
    outputs = [torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.0, 2.0]])]
    torch.testing.assert_close(relation_target(outputs), torch.tensor([[0.6, 0.8, 0.0, 0.0, 1.0]]))
    four = [torch.randn(3, width) for width in (32, 8, 32, 8)]
    assert relation_target(four).shape == (3, 80)
    torch.testing.assert_close(relation_target(four).square().sum(dim=1), torch.full((3,), 4.0))
