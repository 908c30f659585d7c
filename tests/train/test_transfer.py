"""Transfer to LFW, on hand-made logits and embeddings."""

import numpy as np
import pytest

from fevertools.labels import EMOTIONS
from fevertools.train.evaluate.probe import ProbeOptions
from fevertools.train.evaluate.transfer import CLASSES, FOLDS, folds, transfer_probe, zero_shot

NEUTRAL, HAPPINESS, SURPRISE, SADNESS, ANGER, DISGUST, FEAR, CONTEMPT = range(8)


def test_zero_shot_by_hand() -> None:
    label = np.array([NEUTRAL, NEUTRAL, HAPPINESS, SURPRISE, SADNESS, ANGER, FEAR])
    first = np.array([NEUTRAL, CONTEMPT, HAPPINESS, FEAR, NEUTRAL, ANGER, FEAR])
    second = np.array([ANGER, NEUTRAL, ANGER, SURPRISE, FEAR, NEUTRAL, ANGER])
    logits = 2 * np.eye(8, dtype=np.float32)[first] + np.eye(8, dtype=np.float32)[second]
    figures = zero_shot(logits, label)
    # The face of fear is left out; the five classes alone decide between the first and the second choice.
    assert figures["restricted"]["n"] == figures["unrestricted"]["n"] == 6
    assert figures["restricted"]["recall"] == {
        "neutral": 100.0, "happiness": 100.0, "surprise": 100.0, "sadness": 0.0, "anger": 100.0
    }  # fmt: skip
    assert figures["restricted"]["mean_recall"] == pytest.approx(80)
    assert figures["unrestricted"]["recall"] == {
        "neutral": 50.0, "happiness": 100.0, "surprise": 0.0, "sadness": 0.0, "anger": 100.0
    }  # fmt: skip
    assert figures["unrestricted"]["mean_recall"] == pytest.approx(50)


def test_the_five_are_in_the_order_of_the_labels() -> None:
    assert list(CLASSES) == [name for name in EMOTIONS if name in CLASSES]


def people(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Labels and persons: two thirds of the faces of a person have that person's favourite label."""
    rng = np.random.default_rng(3)
    person = np.sort(rng.integers(0, count // 5, count))
    favourite = rng.integers(0, 5, person.max() + 1)[person]
    return np.where(rng.random(count) < 2 / 3, favourite, rng.integers(0, 5, count)), person


def test_folds_share_no_person_and_judge_every_face_once() -> None:
    label, person = people()
    split = folds(label, person)
    assert len(split) == FOLDS
    assert sorted(np.concatenate([judged for _, judged in split]).tolist()) == list(range(len(label)))
    for fitted, judged in split:
        assert not set(person[fitted]) & set(person[judged])
        assert len(fitted) + len(judged) == len(label)
        assert len(np.unique(label[judged])) == 5
    assert all(
        np.array_equal(a, b)
        for x, y in zip(split, folds(label, person), strict=True)
        for a, b in zip(x, y, strict=True)
    )


def test_a_probe_gains_nothing_from_knowing_people() -> None:
    """The embedding is the person alone: in folds that mixed people, favourites would give away two thirds."""
    label, person = people()
    embedding = np.eye(person.max() + 1, dtype=np.float32)[person]
    figures = transfer_probe(embedding, label, person, ProbeOptions())
    assert figures["C=1"]["n"] == 400
    assert figures["C=1"]["mean_recall"] < 30


def test_a_probe_reads_what_is_there() -> None:
    label, person = people()
    label = np.concatenate([label, [DISGUST, FEAR]])  # not among the five: left out
    embedding = np.eye(8, dtype=np.float32)[label]
    figures = transfer_probe(embedding, label, np.concatenate([person, [0, 1]]), ProbeOptions())
    for c in ("C=10000", "C=1"):
        assert (figures[c]["n"], figures[c]["mean_recall"]) == (400, 100)
        assert list(figures[c]["recall"]) == list(CLASSES)


def test_rare_classes_weigh_as_much_as_frequent_ones() -> None:
    """One coordinate that is 1 for half the rare class and a tenth of the frequent one: odds favour the rare class only
    when classes are balanced (.5 against .1, where counts say 10 against 38)."""
    label = np.repeat([NEUTRAL, ANGER], [380, 20])
    given = np.concatenate([np.arange(380) % 10 == 0, np.arange(20) % 2 == 0])
    person = np.arange(400)
    figures = transfer_probe(given[:, None].astype(np.float32), label, person, ProbeOptions())
    assert figures["C=10000"]["recall"] == {"neutral": 90.0, "anger": 50.0}
