"""Test-time augmentation and ensembles: means of probabilities, the same views every time."""

from pathlib import Path

import numpy as np
import pytest

from fevertools.encoder import softmax
from fevertools.errors import DataError
from fevertools.train import checkpoint
from fevertools.train.evaluate.networks import Outputs, load_network
from fevertools.train.evaluate.networks import checkpoint as predictor
from fevertools.train.evaluate.tta import with_tta
from fevertools.train.methods.discriminative import make_discriminative
from fevertools.train.recipe import load_recipe
from tests.train.conftest import made_images


def predict(crops: np.ndarray) -> Outputs:
    """Logits are the mean brightness of left and right half; the embedding is that of the whole."""
    halves = crops[..., 0].reshape(len(crops), 48, 2, 24).mean(axis=(1, 3)).astype(np.float32) / 50
    return Outputs(halves.mean(axis=1, keepdims=True), halves)


def test_one_step_is_the_face_itself() -> None:
    images = made_images(6, seed=0)[0][..., None]
    np.testing.assert_allclose(softmax(with_tta(predict, 1)(images).logits), softmax(predict(images).logits), rtol=1e-5)


def test_mean_over_views() -> None:
    images = made_images(6, seed=0)[0][..., None]
    seen: list[np.ndarray] = []

    def watched(crops: np.ndarray) -> Outputs:
        seen.append(crops)
        return predict(crops)

    outputs = with_tta(watched, 10)(images)
    assert len(seen) == 10
    np.testing.assert_array_equal(seen[0], images)
    assert len({view.tobytes() for view in seen}) == 10
    assert all(view.shape == images.shape and view.dtype == np.uint8 for view in seen)
    expected = np.mean([softmax(predict(view).logits) for view in seen], axis=0)
    np.testing.assert_allclose(softmax(outputs.logits), expected, rtol=1e-4)
    np.testing.assert_allclose(outputs.embedding, np.mean([predict(v).embedding for v in seen], axis=0), rtol=1e-5)
    np.testing.assert_array_equal(with_tta(predict, 10)(images).logits, outputs.logits)
    assert outputs.triplet is None


def test_a_folder_of_epochs_is_an_ensemble(tmp_path: Path) -> None:
    options = {"densenet.growth": "4", "densenet.layers": "1"}
    state = {"recipe": {"name": "x", "system": "densenet-center", "scale": "open", "description": ""}}
    state["recipe"] |= {"densenet": {"growth": 4, "layers": 1}, "model": {"resolution": 42}}  # type: ignore[operator]
    with pytest.raises(DataError, match="keep_epochs"):
        load_network(str(tmp_path), None)  # type: ignore[arg-type]
    for epoch in (3, 4):
        network = make_discriminative(load_recipe("densenet_bc_open", options))
        checkpoint.keep(tmp_path, epoch, 5, network, state)
    images = made_images(4, seed=0)[0][..., None]
    members = [predictor(path)(images) for path in sorted(tmp_path.glob("epoch-*"))]
    both = load_network(str(tmp_path), None)(images)  # type: ignore[arg-type]
    np.testing.assert_allclose(softmax(both.fer2013), np.mean([softmax(m.fer2013) for m in members], axis=0), atol=1e-6)
    assert both.logits is None
