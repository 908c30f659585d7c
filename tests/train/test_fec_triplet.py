"""Triplet losses: hand-made distances, margins by type, divergences in closed form, a naive loop over all triples."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from fevertools.train.losses.fec_triplet import ONE_CLASS, THREE_CLASS, TWO_CLASS, FecTriplet
from fevertools.train.losses.vote_triplets import GAP, VoteTriplets, jensen_shannon, triplet_kind

LN2 = math.log(2)


def on_circle(*degrees: float) -> Tensor:
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_hand_made_triplets() -> None:
    """On the unit circle the squared distance of two points is 2 - 2 cos of the angle between them."""
    first, second, odd = on_circle(0, 0, 0), on_circle(0, 90, 60), on_circle(180, 180, 60)
    kind = torch.tensor([TWO_CLASS] * 3)
    # 1: the pair coincides, both others are 4 away: satisfied.
    # 2: d12 = 2, d13 = 4, d23 = 2: only the second term, 2 - 2 + .2.
    # 3: d12 = 1, d13 = 1, d23 = 0: .2 and 1.2.
    expected = [0.0, 0.2, 1.4]
    for i, value in enumerate(expected):
        part = slice(i, i + 1)
        loss = FecTriplet()(first[part], second[part], odd[part], kind[part])
        assert loss.item() == pytest.approx(value, abs=1e-6)
    assert FecTriplet()(first, second, odd, kind).item() == pytest.approx(sum(expected) / 3, abs=1e-6)


@pytest.mark.parametrize(("kind", "margin"), [(ONE_CLASS, 0.1), (TWO_CLASS, 0.2), (THREE_CLASS, 0.2)])
def test_margin_of_each_type(kind: int, margin: float) -> None:
    """Three faces at one place cost their two margins, whatever the norm of the outputs."""
    rows = [torch.tensor([[norm, 0.0]]) for norm in (1.0, 5.0, 0.1)]
    assert FecTriplet()(*rows, torch.tensor([kind])).item() == pytest.approx(2 * margin, abs=1e-6)


def test_gradient_pulls_the_pair_together_and_stops_at_the_margin() -> None:
    first = on_circle(0).requires_grad_()
    FecTriplet()(first, on_circle(40), on_circle(-45), torch.tensor([TWO_CLASS])).backward()
    assert first.grad is not None
    assert first.grad[0, 1] < 0  # a step against the gradient turns it towards 40 degrees
    far = on_circle(0).requires_grad_()
    FecTriplet()(far, on_circle(10), on_circle(180), torch.tensor([TWO_CLASS])).backward()
    assert far.grad is not None
    assert far.grad.abs().max() == 0


def test_jensen_shannon_closed_forms() -> None:
    p = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    q = torch.tensor([0.0, 0.5, 0.5], dtype=torch.float64)
    assert jensen_shannon(p, p).item() == 0
    assert jensen_shannon(p, q).item() == pytest.approx(LN2)  # disjoint supports: the most there is
    # Half overlapping: m = (3/4, 1/4); (ln 4/3 + (1/2 ln 2/3 + 1/2 ln 2)) / 2.
    half = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    expected = (math.log(4 / 3) + 0.5 * math.log(2 / 3) + 0.5 * LN2) / 2
    assert jensen_shannon(p, half).item() == pytest.approx(expected)
    rows = torch.rand(6, 5, dtype=torch.float64)
    rows /= rows.sum(dim=1, keepdim=True)
    matrix = jensen_shannon(rows[:, None], rows[None, :])
    torch.testing.assert_close(matrix, matrix.T)
    assert (matrix >= 0).all()
    assert (matrix <= LN2).all()


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ((4, 4, 4), ONE_CLASS),
        ((4, 4, 1), TWO_CLASS),
        ((1, 4, 4), TWO_CLASS),
        ((4, 1, 4), TWO_CLASS),
        ((0, 1, 2), THREE_CLASS),
    ],
)
def test_kind_counts_classes(labels: tuple[int, int, int], kind: int) -> None:
    assert triplet_kind(*(torch.tensor(label) for label in labels)).item() == kind


def naive(outputs: Tensor, votes: Tensor) -> float:
    """Every three faces, one after the other."""
    unit = outputs / outputs.norm(dim=1, keepdim=True)
    losses: dict[int, list[float]] = {}
    for three in itertools.combinations(range(len(votes)), 3):
        sides = []
        for odd in three:
            i, j = (x for x in three if x != odd)
            sides.append((float(jensen_shannon(votes[i], votes[j])), i, j, odd))
        sides.sort()
        if sides[1][0] - sides[0][0] < GAP:
            continue
        _, i, j, odd = sides[0]
        classes = len({int(votes[x].argmax()) for x in three})
        margin = 0.1 if classes == 1 else 0.2
        near, far1, far2 = (float((unit[a] - unit[b]).square().sum()) for a, b in ((i, j), (i, odd), (j, odd)))
        losses.setdefault(classes, []).append(max(0, near - far1 + margin) + max(0, near - far2 + margin))
    assert len(losses) == 3  # the case covers all types
    return sum(sum(of) / len(of) for of in losses.values()) / len(losses)


def made_votes(count: int) -> Tensor:
    """Votes of ten, uneven enough that all three types have clear triplets."""
    counts = torch.distributions.Multinomial(10, torch.softmax(torch.randn(count, 3), dim=1)).sample()
    return counts / counts.sum(dim=1, keepdim=True)


def test_vote_triplets_equal_the_naive_loop() -> None:
    torch.manual_seed(5)
    votes, outputs = made_votes(16), torch.randn(16, 6)
    assert VoteTriplets(16)(outputs, votes).item() == pytest.approx(naive(outputs, votes), rel=1e-5)


def test_types_weigh_the_same() -> None:
    """One triplet of one class and three of two: the mean over types, not over triplets."""
    a, b, c = torch.eye(3)
    between = 0.5 * b + 0.5 * c
    leaning = 0.55 * b + 0.45 * c
    votes = torch.stack([a, leaning, between, b])
    torch.manual_seed(6)
    outputs = torch.randn(4, 3)
    loss = VoteTriplets(4, gap=0.05)
    kinds = triplet_kind(*(votes.argmax(dim=1)[column] for column in loss.triples.unbind(dim=1)))
    assert sorted(kinds.tolist()) == [ONE_CLASS, TWO_CLASS, TWO_CLASS, TWO_CLASS]
    parts = []
    for kind in (ONE_CLASS, TWO_CLASS):
        only = VoteTriplets(4, gap=0.05)
        only.triples = loss.triples[kinds == kind]
        parts.append(only(outputs, votes).item())
    assert abs(parts[0] - parts[1]) > 0.01
    assert loss(outputs, votes).item() == pytest.approx(sum(parts) / 2, rel=1e-6)


def test_no_clear_triplet_is_a_zero_that_can_be_differentiated() -> None:
    outputs = torch.randn(5, 3, requires_grad=True)
    loss = VoteTriplets(5)(outputs, torch.full((5, 4), 0.25))
    loss.backward()
    assert loss.item() == 0
    assert outputs.grad is not None
    assert outputs.grad.abs().max() == 0
