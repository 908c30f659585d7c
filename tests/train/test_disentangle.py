"""Probes for expression and identity on features of which it is known what they carry; t-SNE panels."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from fevertools.train.datasets.ferplus import read_ferplus
from fevertools.train.evaluate import command
from fevertools.train.evaluate.disentangle import disentanglement, expression_probe, identity_probe
from fevertools.train.evaluate.networks import Outputs
from fevertools.train.evaluate.tsne import draw

RNG = np.random.default_rng(0)
LABEL, PERSON = RNG.integers(0, 3, 300), np.repeat(np.arange(24), 12)


def features(kind: np.ndarray, noise: float = 0.1) -> np.ndarray:
    """A direction for each kind, and noise."""
    directions = np.random.default_rng(1).normal(size=(int(kind.max()) + 1, 32))
    return (directions[kind] + noise * RNG.normal(size=(len(kind), 32))).astype(np.float32)


def noise(count: int) -> np.ndarray:
    return RNG.normal(size=(count, 32)).astype(np.float32)


def test_each_probe_finds_what_is_there_and_nothing_else() -> None:
    distilled = features(LABEL)
    figures = disentanglement(
        {
            "distilled": (distilled[:200], distilled[200:], noise(288)),
            "dispelled": (noise(200), noise(100), features(PERSON)),
        },
        LABEL[:200],
        LABEL[200:],
        PERSON,
    )
    assert figures["distilled"]["expression"] == 100
    assert figures["dispelled"]["identity"]["accuracy"] == 100
    assert figures["dispelled"]["expression"] < 60
    assert figures["distilled"]["identity"]["accuracy"] < 15
    assert figures["distilled"]["identity"]["chance"] == pytest.approx(100 / 24, abs=0.01)


def test_only_people_with_ten_images_are_looked_at() -> None:
    person = np.concatenate([PERSON, np.full(9, 99)])
    figures = identity_probe(np.concatenate([features(PERSON), noise(9)]), person)
    assert (figures["people"], figures["images"]) == (24, 288)


def test_expression_probe_is_judged_on_other_faces() -> None:
    assert expression_probe(noise(200), LABEL[:200], noise(100), LABEL[200:]) < 60


def test_part_of_the_evaluation(made_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One feature of weights without a dispelling branch is measured; with one, both."""
    data = read_ferplus(made_data)

    class Faces:
        def __init__(self, root: Path, cache: Path) -> None:
            self.crops = type("Crops", (), {"images": RNG.integers(0, 256, (288, 48, 48)).astype(np.uint8)})

        def crop_person(self) -> np.ndarray:
            return PERSON

    def plain(crops: np.ndarray) -> Outputs:
        return Outputs(crops.reshape(len(crops), -1)[:, ::64].astype(np.float32))

    monkeypatch.setattr(command, "LfwFaces", Faces)
    options = command.EvaluateOptions(("disentangle",))
    monkeypatch.setattr(command, "load_network", lambda *_: plain)
    assert set(command.evaluate("x", data, "validation", None, None, options)["disentangle"]) == {"split", "distilled"}
    monkeypatch.setattr(command, "load_network", lambda *_: lambda c: plain(c)._replace(dispelled=noise(len(c))))
    found = command.evaluate("x", data, "validation", None, None, options)["disentangle"]
    assert found["distilled"]["expression"] > found["dispelled"]["expression"]
    assert set(found) == {"split", "distilled", "dispelled"}


def test_tsne_draws_a_panel_for_each_network(tmp_path: Path) -> None:
    apart = features(LABEL)
    points = draw({"apart": apart, "noise": noise(300)}, LABEL, ("a", "b", "c"), tmp_path / "a" / "t.png")
    picture = cv2.imread(str(tmp_path / "a" / "t.png"))
    assert picture.shape[1] > 1.8 * picture.shape[0]
    place = points["apart"]
    assert place.shape == (300, 2)
    centers = np.stack([place[k == LABEL].mean(axis=0) for k in range(3)])
    within = np.mean([np.linalg.norm(place[k == LABEL] - centers[k], axis=1).mean() for k in range(3)])
    between = np.linalg.norm(centers - centers.mean(axis=0), axis=1).mean()
    assert between > 2 * within
