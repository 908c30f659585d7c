"""Metrics against hand-made cases and closed forms."""

import numpy as np
import pytest
import torch

from fevertools.train.evaluate import metrics
from fevertools.train.losses.soft_cross_entropy import soft_cross_entropy


def one_hot(labels: list[int], classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[labels]


def test_classification_by_hand() -> None:
    logits = np.array([[2.0, 0, 0], [2, 0, 0], [0, 3, 0], [0, 0, 1]], np.float32)
    figures = metrics.classification(logits, one_hot([0, 1, 1, 2], 3))
    assert figures["accuracy"] == pytest.approx(75)
    assert figures["mean_recall"] == pytest.approx(100 * (1 + 0.5 + 1) / 3)
    # F1: 2/3 for class 0 (precision 1/2), 2/3 for class 1 (recall 1/2), 1 for class 2.
    assert figures["mean_f1"] == pytest.approx(100 * (2 / 3 + 2 / 3 + 1) / 3)


def test_mean_recall_leaves_out_absent_classes() -> None:
    figures = metrics.classification(np.eye(3, dtype=np.float32)[[0, 0]], one_hot([0, 0], 3))
    assert figures["mean_recall"] == pytest.approx(100)


def test_recall_and_confusion() -> None:
    logits, target = np.eye(3, dtype=np.float32)[[0, 1, 0]], one_hot([0, 0, 0], 3)
    assert metrics.confusion(logits, target).tolist() == [[2, 1, 0], [0, 0, 0], [0, 0, 0]]
    recall = metrics.per_class_recall(logits, target)
    assert recall[0] == pytest.approx(200 / 3)
    assert np.isnan(recall[1:]).all()


def test_f1_of_classes_by_hand() -> None:
    # Class 0: precision 1/2, recall 1/2; class 1: precision 1, recall 1/2; class 2 is predicted once and has no rows.
    logits, target = np.eye(4, dtype=np.float32)[[0, 2, 1, 0]], one_hot([0, 0, 1, 1], 4)
    f1 = metrics.per_class_f1(logits, target)
    assert f1[:2] == pytest.approx([50, 200 / 3])
    assert np.isnan(f1[2:]).all()


def test_kl_is_zero_exactly_where_the_distributions_agree() -> None:
    target = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], np.float32)
    figures = metrics.classification(np.log(target), target)
    assert figures["kl"] == pytest.approx(0, abs=1e-6)
    assert figures["cross_entropy"] == pytest.approx(-(target * np.log(target)).sum(1).mean(), abs=1e-6)


def test_calibration_error_by_hand() -> None:
    # Four predictions at .9 of which two are right, and one at .6 that is right: .8 * .4 + .2 * .4.
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.4, 0.6]])
    assert metrics.expected_calibration_error(probabilities, np.array([0, 0, 1, 1, 1])) == pytest.approx(0.4)


def test_calibration_error_of_a_calibrated_predictor() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, 200_000)
    label = (rng.random(p.size) > p).astype(int)
    assert metrics.expected_calibration_error(np.stack([p, 1 - p], 1), label) < 0.01


def test_temperature_undoes_a_known_overconfidence() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), 20_000)
    label = (p.cumsum(1) > rng.random((len(p), 1))).argmax(1)
    assert metrics.fit_temperature(2.5 * np.log(p), one_hot(label.tolist(), 4)) == pytest.approx(2.5, rel=0.03)


def test_soft_cross_entropy_against_torch_and_closed_form() -> None:
    logits = torch.randn(6, 8)
    label = torch.tensor([0, 1, 2, 3, 4, 5])
    hard = soft_cross_entropy(logits, torch.nn.functional.one_hot(label, 8).float())
    assert hard.item() == pytest.approx(torch.nn.functional.cross_entropy(logits, label).item(), rel=1e-5)
    uniform = torch.full((6, 8), 1 / 8)
    assert soft_cross_entropy(torch.zeros(6, 8), uniform).item() == pytest.approx(np.log(8), rel=1e-6)


def test_soft_cross_entropy_gradient_vanishes_at_the_target() -> None:
    target = torch.tensor([[0.7, 0.2, 0.1]])
    logits = target.log().requires_grad_()
    soft_cross_entropy(logits, target).backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6
