"""Omni-supervised learning on made data: the pool, mining to distilling by the commands, and what joins the batches."""

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from fevertools.errors import DataError
from fevertools.labels import EMOTIONS
from fevertools.train import mine as mining
from fevertools.train.__main__ import main
from fevertools.train.datasets.ferplus import FerPlus, read_ferplus
from fevertools.train.distil_dataset import Distilled, read_distilled, write_distilled
from fevertools.train.evaluate.networks import Outputs
from fevertools.train.methods.omni import OmniLearning, as_frames
from fevertools.train.mine import Mined, pool_faces, read_list, write_list
from fevertools.train.models.student import MEAN, STD
from fevertools.train.recipe import Recipe, load_recipe
from tests.train.conftest import made_images

SMALL = {
    "model.start": "random", "model.resolution": "48", "optim.batch_size": "16", "optim.precision": "32-true",
    "optim.warmup_epochs": "0", "optim.epochs": "1",
}  # fmt: skip
POOL, KIND = made_images(40, seed=5)


def small(name: str) -> Recipe:
    return load_recipe(name, SMALL)


@pytest.fixture
def data(made_data: Path) -> FerPlus:
    return read_ferplus(made_data)


@pytest.fixture
def lfw(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Eighty crops of eighty people; those with even numbers are the pool."""
    images = np.empty((80, 48, 48), np.uint8)
    images[::2], images[1::2] = POOL, 255 - POOL

    class Faces:
        crops = SimpleNamespace(images=images)

        def __init__(self, root: Path, cache: Path) -> None: ...

        def crop_person(self) -> np.ndarray:
            return np.arange(80)

    monkeypatch.setattr(mining, "LfwFaces", Faces)
    return images


@pytest.mark.usefixtures("lfw")
def test_the_pool_is_half_of_the_people(tmp_path: Path) -> None:
    images, rows = pool_faces(tmp_path, tmp_path)
    np.testing.assert_array_equal(images, POOL)
    assert (rows % 2 == 0).all()


@pytest.mark.usefixtures("lfw")
def test_from_mining_to_distilled_images(
    made_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a learner whose embedding is the picture itself, every mined face has the emotion of its pattern."""

    def pixels(crops: np.ndarray) -> Outputs:
        return Outputs(crops.reshape(len(crops), -1).astype(np.float32) - 128)

    monkeypatch.setattr(mining, "load_network", lambda weights, data: pixels)
    found = mining.centroids
    # The made data has four of the eight emotions and one contempt; an emotion without faces would be an error.
    monkeypatch.setattr(mining, "centroids", lambda e, y, n: np.stack([_center(e, y, k) for k in range(n)]))
    with pytest.raises(DataError, match="no centroid"):
        found(np.zeros((2, 3), np.float32), np.array([0, 1]), 8)
    output = tmp_path / "omni" / "mined.parquet"
    arguments = ["mine", "anything", "--data", str(made_data), "--runs", str(tmp_path), "--output", str(output)]
    assert main([*arguments, "--margin", "0.2", "--sheets", str(tmp_path / "sheets")]) == 0
    counts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert counts["pool"] == 40
    assert counts["mined"] == 40
    mined = read_list(output, EMOTIONS)
    np.testing.assert_array_equal(mined.label, np.array([0, 1, 2, 4])[KIND])
    assert cv2.imread(str(tmp_path / "sheets" / "neutral.png")) is not None
    arguments = ["distil-dataset", "omni_das_open", str(output), "--data", str(made_data), "--runs", str(tmp_path)]
    arguments += ["--set", "model.start=random"]
    assert main([*arguments, "--output", str(tmp_path / "omni" / "distilled.safetensors")]) == 2
    assert "no mined sample of sadness" in capsys.readouterr().err


def _center(embedding: np.ndarray, label: np.ndarray, k: int) -> np.ndarray:
    own = embedding[label == k]
    return own.mean(axis=0) if len(own) > 1 else np.full(embedding.shape[1], 1e-6, np.float32)


@pytest.mark.usefixtures("lfw")
def test_distils_by_command(made_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    similarity = np.ones(16, np.float32)
    mined = Mined(np.arange(16), np.arange(16) % 8, similarity, similarity)
    write_list(mined, EMOTIONS, tmp_path / "mined.parquet", {})
    output = tmp_path / "omni" / "distilled.safetensors"
    arguments = ["distil-dataset", "omni_das_open", str(tmp_path / "mined.parquet"), "--data", str(made_data)]
    arguments += ["--runs", str(tmp_path), "--set", "model.start=random", "--set", "omni.iterations=2"]
    assert main([*arguments, "--split", "test", "--output", str(output)]) == 0
    assert read_distilled(output).images.shape == (8, 1, 48, 48)
    assert cv2.imread(str(output.with_suffix(".png"))).shape == (4 * 48, 4 * 8 * 48, 3)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures == json.loads(output.with_suffix(".json").read_text())
    assert (len(figures["accuracy"]), figures["images"], figures["split"]) == (5, 8, "PrivateTest")
    assert figures["chance"] == 25  # four patterns of ten faces each


def test_baseline_adds_nothing(data: FerPlus, tmp_path: Path) -> None:
    method = OmniLearning(small("omni_open"), data, np.empty((0, 48, 48), np.uint8), tmp_path)
    assert len(method.frames) == 158
    crops, _, _ = next(iter(method.batches(0, 0, workers=0)))
    assert len(crops) == 16


def test_mined_faces_join_the_labelled_ones(data: FerPlus, tmp_path: Path) -> None:
    similarity = np.ones(3, np.float32)
    write_list(Mined(np.array([4, 7, 39]), np.array([0, 5, 7]), similarity, similarity), EMOTIONS,
               tmp_path / "omni" / "mined.parquet", {})  # fmt: skip
    method = OmniLearning(small("omni_vas_open"), data, POOL, tmp_path)
    assert len(method.frames) == 161
    np.testing.assert_array_equal(method.frames.images[-2], POOL[7])
    np.testing.assert_array_equal(method.frames.rows[0][-2], np.eye(8)[5])
    with pytest.raises(DataError, match="row 39"):
        OmniLearning(small("omni_vas_open"), data, POOL[:20], tmp_path)


def test_distilled_images_join_every_batch(data: FerPlus, tmp_path: Path) -> None:
    distilled = Distilled(torch.randn(8, 1, 48, 48), torch.arange(8), torch.tensor([0.1]))
    (tmp_path / "omni").mkdir()
    write_distilled(distilled, tmp_path / "omni" / "distilled.safetensors", {})
    method = OmniLearning(small("omni_das_open"), data, np.empty((0, 48, 48), np.uint8), tmp_path)
    torch.testing.assert_close(as_frames(distilled.images, 48)[..., 0], distilled.images[:, 0] * STD + MEAN)
    seen: list[torch.Tensor] = []
    method.network.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    batch = next(iter(method.batches(0, 0, workers=0)))
    method.losses(method.network, batch)  # type: ignore[arg-type]
    assert seen[0].shape == (24, 48, 48, 1)
    torch.testing.assert_close(seen[0][16:], as_frames(distilled.images, 48))
    write_distilled(Distilled(distilled.images[:3], torch.arange(3), torch.tensor([0.1])),
                    tmp_path / "omni" / "distilled.safetensors", {})  # fmt: skip
    with pytest.raises(DataError, match="3 images"):
        OmniLearning(small("omni_das_open"), data, np.empty((0, 48, 48), np.uint8), tmp_path)


@pytest.mark.parametrize("text", ["", "junk"])
def test_files_that_are_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.safetensors"
    if text:
        path.write_text(text)
    with pytest.raises(DataError, match="distilled"):
        read_distilled(path)
