"""The linear probe against closed forms and hand-made data."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import logit

from fevertools.errors import DataError
from fevertools.labels import FER2013
from fevertools.train.datasets.ferplus import FerPlus, read_ferplus, without_evaluated_twins
from fevertools.train.evaluate.command import probe_options
from fevertools.train.evaluate.probe import ProbeOptions, evaluate_probe, fit_probe, probe_scores


def test_it_finds_the_maximum_of_the_likelihood() -> None:
    """One binary coordinate: the fitted probability of each class is its share among the rows of that value."""
    x = np.repeat([0.0, 1.0], [10, 20])[:, None].astype(np.float32)
    label = np.array([1] * 3 + [0] * 7 + [1] * 16 + [0] * 4)
    scores = probe_scores(fit_probe(x, label, ProbeOptions(c=1e9)), np.array([[0], [1]], np.float32), 2)
    np.testing.assert_allclose(np.exp(scores[:, 1]), [0.3, 0.8], atol=1e-4)


def test_balanced_classes_weigh_the_same() -> None:
    """Weights n / (2 n_class) turn the odds p1 / p0 of each value into odds times n0 / n1."""
    x = np.repeat([0.0, 1.0], [10, 20])[:, None].astype(np.float32)
    label = np.array([1] * 3 + [0] * 7 + [1] * 16 + [0] * 4)
    probe = fit_probe(x, label, ProbeOptions(c=1e9, balanced=True))
    odds = logit(np.exp(probe_scores(probe, np.array([[0], [1]], np.float32), 2)[:, 1]))
    np.testing.assert_allclose(odds, np.log([3 / 7 * 11 / 19, 16 / 4 * 11 / 19]), atol=1e-3)


def test_standardising_takes_scale_and_offset_away() -> None:
    """Coordinates of scales from 1e-3 to 1e3, far from 0, in float32: the probe is that of well-scaled ones."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 4)).astype(np.float32)
    label = (x @ rng.normal(size=(4, 3)) + rng.gumbel(size=(400, 3))).argmax(axis=1)
    stretched = (x * np.array([1e-3, 1, 10, 1e3]) + np.array([0.01, -5, 100, 4e3])).astype(np.float32)
    plain, same = (probe_scores(fit_probe(v, label, ProbeOptions()), v, 3) for v in (x, stretched))
    np.testing.assert_allclose(np.exp(same), np.exp(plain), atol=1e-3)


def test_without_standardising_the_penalty_sees_the_scale() -> None:
    x = np.array([[0.0], [1.0]] * 20, np.float32)
    label = np.array([0, 1] * 20)
    raw = ProbeOptions(c=1.0, standardise=False)
    small, large = (fit_probe(x * scale, label, raw)[-1].coef_[0, 0] * scale for scale in (0.01, 100))
    assert small < 0.01
    assert large > 5


def test_classes_without_training_rows_get_no_probability() -> None:
    x = np.array([[0.0], [1.0]], np.float32)
    scores = probe_scores(fit_probe(x, np.array([1, 3]), ProbeOptions()), x, 5)
    assert np.isneginf(scores[:, [0, 2, 4]]).all()
    assert scores.argmax(axis=1).tolist() == [1, 3]


@pytest.fixture
def data(made_data: Path) -> FerPlus:
    return read_ferplus(made_data)


def embeddings(data: FerPlus, split: int) -> np.ndarray:
    """One-hot of the FER-2013 label: what a perfect embedding holds."""
    return np.eye(len(FER2013), dtype=np.float32)[data.label[data.split == split]]


def test_a_perfect_embedding_scores_full_marks(data: FerPlus) -> None:
    figures = evaluate_probe(embeddings(data, 0), embeddings(data, 1), data, "validation", ProbeOptions())
    assert figures["fer2013"]["all"]["accuracy"] == 100
    assert figures["fer2013"]["all"]["n"] == 40
    assert figures["fer2013"]["recall"] == dict.fromkeys(("angry", "disgust", "fear", "happy"), 100.0)
    assert figures["ferplus8"]["f1"] == dict.fromkeys(("neutral", "happiness", "surprise", "anger"), 100.0)


def test_rows_with_a_twin_in_an_evaluated_split_are_not_trained_on(data: FerPlus) -> None:
    """Row 3 is the twin of test row 200: what its embedding says makes no difference at all."""
    assert np.flatnonzero(~without_evaluated_twins(data, np.arange(160))).tolist() == [3]
    training, evaluated = embeddings(data, 0), embeddings(data, 2)
    figures = evaluate_probe(training, evaluated, data, "test", ProbeOptions())
    assert (figures["fer2013"]["training_rows"], figures["ferplus8"]["training_rows"]) == (159, 158)
    assert figures["fer2013"]["without earlier twins"]["n"] == 39
    training[3] = 1e3
    assert evaluate_probe(training, evaluated, data, "test", ProbeOptions()) == figures


def test_embeddings_follow_their_rows(data: FerPlus) -> None:
    """Labels go 0 1 2 3 0 1 2 3, so that training rows in reverse say 3 - label, and the probe is wrong everywhere."""
    training = np.ascontiguousarray(embeddings(data, 0)[::-1])
    figures = evaluate_probe(training, embeddings(data, 1), data, "validation", ProbeOptions())
    assert figures["fer2013"]["all"]["accuracy"] == 0


def test_options_are_read_strictly() -> None:
    assert probe_options(["balanced=true", "c=1"]) == ProbeOptions(c=1.0, balanced=True)
    for item, message in (("mirrors=true", "unknown key 'mirrors'"), ("mirror=yes", "neither"), ("mirror=1", "bool")):
        with pytest.raises(DataError, match=message):
            probe_options([item])
