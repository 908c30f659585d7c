"""ED2L as published: aligned faces, ten patches, and the ten folds of a small CK+, resumed where they stopped."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as pictures
from torchvision.transforms.functional import ten_crop

from fevertools.errors import DataError
from fevertools.labels import EMOTIONS
from fevertools.train import checkpoint, reproduce
from fevertools.train.__main__ import main
from fevertools.train.datasets import patches as module
from fevertools.train.datasets.cropped import Crops
from fevertools.train.datasets.ferplus import LANDMARKS, read_ferplus
from fevertools.train.datasets.patches import Patches, align_frames, aligned_geometry, crop_posed, gray, sizes
from fevertools.train.datasets.posed import PosedFaces, read_ck_plus
from fevertools.train.methods import build_method
from fevertools.train.methods.ed2l_paper import PatchLearning, load_body, make_network, mean_logits
from fevertools.train.recipe import load_recipe
from tests.train.conftest import fit_by_command, made_images

SMALL = {
    "model.resolution": "28", "optim.batch_size": "64", "optim.precision": "32-true", "optim.epochs": "1",
    "optim.learning_rate": "1e-3",
}  # fmt: skip
PATTERNS = {0: "anger", 1: "disgust", 2: "fear", 3: "happiness"}
CODES = {"anger": 1, "disgust": 3, "fear": 4, "happiness": 5}


def test_sizes_of_the_paper() -> None:
    assert sizes(112) == ((128, 110), (112, 96))
    assert sizes(28) == ((32, 28), (28, 24))


def test_patches_are_those_of_torchvision() -> None:
    aligned = np.random.default_rng(0).integers(0, 256, (3, 128, 110)).astype(np.uint8)
    faces = Patches(aligned, np.array([2, 0, 1]), 112)
    assert len(faces) == 30
    patch, label = faces[17]
    assert label == 0
    assert patch.equal(ten_crop(torch.from_numpy(aligned[1])[None], [112, 96])[7][0][..., None])
    np.testing.assert_array_equal(faces[13][0][..., 0], aligned[1, 16:, 14:])  # lower right
    np.testing.assert_array_equal(faces[14][0][..., 0], aligned[1, 8:120, 7:103])  # the middle
    np.testing.assert_array_equal(faces[19][0][..., 0], aligned[1, 8:120, 102:6:-1])  # and mirrored


def test_frames_and_photographs_are_framed_alike() -> None:
    """The landmarks of FER-2013's frames come to lie where those of posed faces are brought to."""
    template = aligned_geometry(112).template()
    frame = np.zeros((1, 48, 48), np.uint8)
    for x, y in LANDMARKS:
        frame[0, int(y * 48), int(x * 48)] = 255
    aligned = align_frames(frame, 112)[0].astype(float)
    assert aligned.shape == (128, 110)
    for x, y in template:
        top, left = int(y) - 3, int(x) - 3
        assert aligned[top : top + 7, left : left + 7].max() > 100
    np.testing.assert_allclose(template[:, 1], np.array(LANDMARKS)[:, 1] * 128, rtol=1e-5)


def test_mean_of_probabilities_over_patches() -> None:
    torch.manual_seed(0)
    recipe = load_recipe("ed2l", SMALL)
    network = make_network(recipe).eval()
    faces = Patches(np.random.default_rng(0).integers(0, 256, (3, 32, 28)).astype(np.uint8), np.zeros(3), 28)
    with torch.no_grad():
        expected = [network(faces.patches(i)).fer2013.softmax(dim=1).mean(dim=0).log().numpy() for i in range(3)]
    np.testing.assert_allclose(mean_logits(network, faces), np.stack(expected), rtol=1e-4, atol=1e-5)


@pytest.fixture
def head() -> np.ndarray:
    """A face and what is around it: uint8 (200, 200, 3)."""
    return pictures.astronaut()[20:220, 120:320]


def test_the_largest_face_of_a_photograph_is_aligned(tmp_path: Path, head: np.ndarray) -> None:
    for name, picture in (("a", head), ("b", np.zeros_like(head))):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    paths = (tmp_path / "a.png", tmp_path / "b.png", tmp_path / "a.png")
    faces = PosedFaces(paths, ("1", "2", "3"), np.array([1, 2, 3]), 0)
    crops = crop_posed(faces, "ck+", aligned_geometry(112), tmp_path)
    assert crops.images.shape == (2, 128, 110, 3)
    assert (crops.rows.tolist(), crops.missing) == ([0, 2], 1)
    (file,) = tmp_path.glob("ck+-128x110-*.npz")
    written = file.stat().st_mtime_ns
    np.testing.assert_array_equal(crop_posed(faces, "ck+", aligned_geometry(112), tmp_path).images, crops.images)
    assert file.stat().st_mtime_ns == written
    assert gray(crops).shape == (2, 128, 110)
    nothing = PosedFaces(paths[1:2], ("1",), np.array([1]), 0)
    with pytest.raises(DataError, match="no face"):
        crop_posed(nothing, "ck+", aligned_geometry(112), tmp_path / "other")


def write_ck_plus(root: Path) -> None:
    """Twelve subjects in the layout of CK+, each with two sequences of four frames; a pattern is an emotion."""
    images, _ = made_images(8, seed=3)
    for number in range(12):
        for sequence in (1, 2):
            subject, kind = f"S{number:03}", (number + sequence) % 4
            folder = root / "cohn-kanade-images" / subject / f"{sequence:03}"
            folder.mkdir(parents=True)
            for frame in range(1, 5):
                noise = np.random.default_rng((number, sequence, frame)).normal(0, 10, (48, 48))
                pixels = np.clip(images[kind] + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{subject}_{sequence:03}_{frame:08}.png")
            label = root / "Emotion" / subject / f"{sequence:03}" / f"{subject}_{sequence:03}_00000004_emotion.txt"
            label.parent.mkdir(parents=True)
            label.write_text(f"   {CODES[PATTERNS[kind]]}.0000000e+00\n")


@pytest.fixture
def data(tmp_path: Path, made_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with FER-2013 and CK+; its photographs are faces already, one of which is not found."""
    root = tmp_path / "data"
    root.mkdir()
    (root / "fer2013.npz").symlink_to(made_data / "fer2013.npz")
    write_ck_plus(root / "ck+")

    def crop(faces: PosedFaces, name: str, geometry: object) -> Crops:
        rows = np.arange(1, len(faces))
        whole = np.stack([faces.image(int(row))[:, :, 0] for row in rows])
        return Crops(np.repeat(align_frames(whole, 28)[..., None], 3, axis=3), rows, 1)

    monkeypatch.setattr(module, "_crop", crop)
    return root


def test_a_fold_judges_people_that_it_has_not_seen(data: Path, tmp_path: Path) -> None:
    recipe = load_recipe("ed2l_posed", {**SMALL, "posed.fold": "1", "model.initial": ""})
    method = build_method(recipe, data, tmp_path / "runs")
    assert isinstance(method, PatchLearning)
    split = method.split
    assert split.classes == EMOTIONS[1:]
    # S001 and S011, two sequences of three frames each; one of the 72 frames has no face.
    assert (len(split.judged.label), len(split.training.label)) == (12, 59)
    faces = read_ck_plus(data / "ck+")
    own = [i for i, subject in enumerate(faces.subject) if subject in ("S001", "S011")]
    np.testing.assert_array_equal(split.judged.label.numpy(), faces.label[own] - 1)
    assert method.steps_per_epoch == 590 // 64
    patch, label = next(iter(method.batches(0, 0, workers=0)))
    assert patch.shape == (64, 28, 24, 1)
    assert label.max() < 7
    with pytest.raises(DataError, match=r"posed\.fold"):
        build_method(load_recipe("ed2l_posed", {**SMALL, "posed.fold": "10"}), data, tmp_path)


def test_fine_tuning_takes_the_body_and_leaves_the_classifiers(data: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with pytest.raises(DataError, match="fine-tune"):
        build_method(load_recipe("ed2l_posed", SMALL), data, runs)
    fit_by_command("ed2l", data, runs / "ed2l", SMALL, "--max-steps", "2")
    tensors, _ = checkpoint.read(runs / "ed2l" / "checkpoint.safetensors")
    network = build_method(load_recipe("ed2l_posed", SMALL), data, runs).network
    state = network.state_dict()
    bodies = [name for name in state if name.split(".")[0] in ("base", "distil", "dispel")]
    assert len(bodies) > 100
    for name in bodies:
        assert state[name].equal(tensors[f"average.{name}"])
    assert not state["classify.weight"].equal(tensors["average.classify.weight"])
    baseline = make_network(load_recipe("ed2l_baseline", SMALL))
    load_body(baseline, runs / "ed2l" / "checkpoint.safetensors")  # a baseline takes what it has
    with pytest.raises(DataError, match="another network"):
        load_body(
            make_network(load_recipe("ed2l", {"model.resolution": "56"})), runs / "ed2l" / "checkpoint.safetensors"
        )


@pytest.mark.slow
def test_folds_by_command_resume_and_add_up(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, fitted = tmp_path / "runs", []
    small = load_recipe
    monkeypatch.setattr(reproduce, "load_recipe", lambda name: small(name, SMALL))  # of what the folds begin with
    fit = reproduce.fit

    def stopped(method: PatchLearning, options: object) -> object:
        fitted.append((method.recipe.name, method.recipe.posed.fold))
        if len(fitted) == 4:
            raise KeyboardInterrupt
        return fit(method, options)  # type: ignore[arg-type]

    monkeypatch.setattr(reproduce, "fit", stopped)
    settings = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    command = ["folds", "ed2l_posed", "--data", str(data), "--runs", str(runs), "--workers", "0", *settings]
    with pytest.raises(KeyboardInterrupt):
        main(command)
    assert fitted == [("ed2l", 0), ("ed2l-posed", 0), ("ed2l-posed", 1), ("ed2l-posed", 2)]
    assert main(command) == 0
    assert fitted[4:] == [("ed2l-posed", fold) for fold in range(2, 10)]
    out = capsys.readouterr().out
    assert out.count(": done") == 3
    figures = json.loads((runs / "ed2l-posed" / "ck+" / "folds.json").read_text())
    matrix = np.array(figures["confusion"])
    assert matrix.sum() == 71
    accuracies = [fold["accuracy"] for fold in figures["folds"]]
    assert figures["accuracy"] == pytest.approx(np.mean(accuracies), abs=0.01)
    assert figures["deviation"] == pytest.approx(np.std(accuracies, ddof=1), abs=0.01)
    assert figures["accuracy of all faces"] == pytest.approx(100 * matrix.trace() / 71, abs=0.01)
    assert figures["accuracy"] > 60  # four patterns, of which one would be right in a quarter
    # The log of a fold and its figure are of the same people and the same network.
    log = (runs / "ed2l-posed" / "ck+" / "fold-4" / "log.jsonl").read_text().splitlines()
    assert json.loads(log[-1])["validation"]["accuracy"] == pytest.approx(accuracies[4], abs=0.01)
    picture = tmp_path / "confusion.png"
    assert main(["confusion", str(runs / "ed2l-posed" / "ck+" / "folds.json"), "-o", str(picture)]) == 0
    assert picture.stat().st_size > 5000


def test_fer2013_comes_first(made_data: Path, tmp_path: Path) -> None:
    method = build_method(load_recipe("ed2l", SMALL), made_data, tmp_path, read_ferplus(made_data))
    assert isinstance(method, PatchLearning)
    assert len(method.split.training.label) == 159  # 160, one of which has a twin in the test split
    assert len(method.split.judged.label) == 40
    big = dataclasses.replace(method.recipe, optim=dataclasses.replace(method.recipe.optim, batch_size=2000))
    with pytest.raises(DataError, match="1590 patches"):
        PatchLearning(big, method.split, method.network)
