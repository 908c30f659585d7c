"""Omni-supervised FER as published: its two networks and their starts, and every stage on small trees."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import vgg16

from fevertools.errors import DataError
from fevertools.labels import EMOTIONS, EMOTIONS_7
from fevertools.train import omni_stages
from fevertools.train.datasets.ferplus import read_ferplus
from fevertools.train.datasets.open_sources import fer2013_faces
from fevertools.train.datasets.rafdb import CODES
from fevertools.train.distil_dataset import Distilled, read_distilled, write_distilled
from fevertools.train.evaluate import photos as evaluation
from fevertools.train.methods import build_method
from fevertools.train.methods.omni_paper import PhotoLearning, as_faces, load_photos
from fevertools.train.mine import Mined, read_list, write_list
from fevertools.train.models import photos
from fevertools.train.models.photos import BACKBONES, VGG_FACE, build_photos, load_vgg_face
from fevertools.train.models.student import MEAN, STD
from fevertools.train.recipe import ModelOptions, Recipe, load_recipe, recipe_names
from fevertools.train.reproduce import plan
from fevertools.train.stages import Setup, run_stages

SMALL = {
    "model.name": "tiny", "model.start": "random", "model.resolution": "32", "optim.batch_size": "16",
    "optim.precision": "32-true", "optim.epochs": "2", "optim.learning_rate": "0.05", "omni.iterations": "1",
    "omni.margin": "0.0",
}  # fmt: skip
COUNT = 84


class Tiny(torch.nn.Module):
    """Means of 4 x 4 blocks and a layer: (N, 3, H, W) -> (N, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.AdaptiveAvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(192, 16), torch.nn.ReLU()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "tiny", photos.Backbone(lambda start: Tiny(), ("random",), 16))


def picture(kind: int, seed: int) -> np.ndarray:
    """A pattern in a colour of its own for each of seven emotions: uint8 (60, 60, 3)."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((60, 60, 3))
    pixels[10 * (kind % 4) : 10 * (kind % 4) + 20, :, kind % 3] = 220
    pixels[:, 8 * kind : 8 * kind + 8] += 90
    return np.clip(pixels + rng.normal(0, 10, pixels.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with RAF-DB and a pool of faces, all seven emotions alike."""
    root, lines = tmp_path / "data", []
    codes = {EMOTIONS.index(emotion): code for code, emotion in CODES.items()}
    (root / "rafdb" / "EmoLabel").mkdir(parents=True)
    for number in range(COUNT + 28):
        split = "train" if number < COUNT else "test"
        name, kind = f"{split}_{number:05}", number % 7
        lines.append(f"{name}.jpg {codes[kind]}")
        path = root / "rafdb" / "Image" / "aligned" / f"{name}_aligned.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(kind, number)).save(path)
    (root / "rafdb" / "EmoLabel" / "list_patition_label.txt").write_text("\n".join(lines))
    for number in range(42):
        path = root / "ms1m" / f"p{number % 5}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number % 7, 1000 + number)).save(path)
    return root


PAPER = [name for name in recipe_names() if load_recipe(name).system == "omni-paper"]


@pytest.mark.parametrize("name", PAPER)
def test_recipes_are_those_of_the_paper(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.model.name in BACKBONES
    assert recipe.model.start in BACKBONES[recipe.model.name].starts
    assert (recipe.model.resolution, recipe.optim.epochs, recipe.optim.learning_rate) == (224, 25, 0.001)
    assert (recipe.optim.schedule, recipe.optim.step_epochs, recipe.augment.flip) == ("step", 10, 0.5)
    assert bool(recipe.omni.mined) == name.endswith("_vas")
    assert bool(recipe.omni.distilled) == name.endswith("_das")


def test_two_networks_and_three_additions() -> None:
    assert len(PAPER) == 6


@pytest.mark.parametrize(("name", "dimension"), [("vgg16", 4096), ("resnet34", 512)])
def test_networks_read_rgb_faces(name: str, dimension: int) -> None:
    network = build_photos(ModelOptions(name, "random")).eval()
    with torch.no_grad():
        output = network(torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8))
    assert (output.embedding.shape, output.logits.shape) == ((1, dimension), (1, 7))
    with pytest.raises(DataError, match="vgg16, resnet34"):
        build_photos(ModelOptions("vgg", "random"))
    with pytest.raises(DataError, match="imagenet, random"):
        build_photos(ModelOptions("resnet34", "vggface"))


def narrow(classes: int | None) -> torch.nn.Module:
    """VGG-16 with hidden layers of four units, and a last layer or none."""
    network = vgg16()
    layers = [torch.nn.Linear(512 * 49, 4), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(4, 4)]
    network.classifier = torch.nn.Sequential(*layers, *([] if classes is None else [torch.nn.Linear(4, classes)]))
    return network  # type: ignore[no-any-return]


CONVOLUTIONS = (
    (0, "1_1"), (2, "1_2"), (5, "2_1"), (7, "2_2"), (10, "3_1"), (12, "3_2"), (14, "3_3"), (17, "4_1"), (19, "4_2"),
    (21, "4_3"), (24, "5_1"), (26, "5_2"), (28, "5_3"),
)  # fmt: skip


@pytest.mark.parametrize("theirs", [True, False])
def test_vgg_face_is_loaded_by_both_kinds_of_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: bool
) -> None:
    monkeypatch.setenv("FEVERTOOLS_STARTS", str(tmp_path))
    network, whole = narrow(None), narrow(11)
    with pytest.raises(DataError, match=r"vgg_face\.safetensors"):
        load_vgg_face(network)
    tensors = dict(whole.state_dict())
    if theirs:
        layers = {f"features.{place}": f"conv{name}" for place, name in CONVOLUTIONS}
        layers |= {"classifier.0": "fc6", "classifier.3": "fc7", "classifier.4": "fc8"}
        tensors = {f"{layers[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": t for name, t in tensors.items()}
    save_file(tensors, tmp_path / VGG_FACE)
    load_vgg_face(network)
    for name, tensor in network.state_dict().items():
        assert tensor.equal(whole.state_dict()[name])
    save_file({"fc6.weight": torch.zeros(3)}, tmp_path / VGG_FACE)
    with pytest.raises(DataError, match="not VGG-Face"):
        load_vgg_face(network)


def test_every_start_has_its_own_normalisation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "vgg16", photos.Backbone(lambda start: Tiny(), ("vggface", "imagenet"), 16))
    faces = torch.full((1, 32, 32, 3), 100, dtype=torch.uint8)
    for start, mean, std in (
        ("vggface", (129.1863, 104.7624, 93.5940), (1.0, 1.0, 1.0)),  # subtracted from 0-255, no division
        ("imagenet", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    ):
        network = build_photos(ModelOptions("vgg16", start), pretrained=False)  # type: ignore[arg-type]
        seen: list[torch.Tensor] = []
        network.backbone.register_forward_pre_hook(lambda _m, args, seen=seen: seen.append(args[0]))
        network(faces)
        expected = (100 - torch.tensor(mean)) / torch.tensor(std)
        torch.testing.assert_close(seen[0][0, :, 0, 0], expected)


def small(name: str) -> Recipe:
    return load_recipe(name, SMALL)


@pytest.mark.usefixtures("tiny")
def test_mined_faces_stand_behind_the_labelled_ones(data: Path, tmp_path: Path) -> None:
    runs, similarity = tmp_path / "runs", np.ones(2, np.float32)
    write_list(Mined(np.array([3, 41]), np.array([5, 0]), similarity, similarity), EMOTIONS_7,
               runs / "omni-vgg" / "mined.parquet", {})  # fmt: skip
    method = build_method(small("omni_vgg_vas"), data, runs)
    assert isinstance(method, PhotoLearning)
    assert len(method.photos) == COUNT + 2
    pool = sorted((data / "ms1m").rglob("*.png"))
    np.testing.assert_array_equal(method.photos.source.image(COUNT + 1), np.asarray(Image.open(pool[41])))
    np.testing.assert_array_equal(method.photos.source.target(COUNT), np.eye(8)[5])
    face, target = method.photos[(0, COUNT)]
    assert (face.shape, target.tolist()) == ((32, 32, 3), np.eye(7)[5].tolist())
    write_list(Mined(np.array([42]), np.array([5]), similarity[:1], similarity[:1]), EMOTIONS_7,
               runs / "omni-vgg" / "mined.parquet", {})  # fmt: skip
    with pytest.raises(DataError, match="row 42"):
        build_method(small("omni_vgg_vas"), data, runs)


@pytest.mark.usefixtures("tiny")
def test_distilled_images_join_every_batch(data: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    distilled = Distilled(torch.randn(7, 3, 32, 32), torch.arange(7), torch.tensor([0.1]))
    write_distilled(distilled, runs / "omni-vgg" / "distilled.safetensors", {})
    method = build_method(small("omni_vgg_das"), data, runs)
    assert isinstance(method, PhotoLearning)
    torch.testing.assert_close(
        as_faces(distilled.images, 32), distilled.images.permute(0, 2, 3, 1) * STD + MEAN, rtol=1e-4, atol=1e-3
    )
    seen: list[torch.Tensor] = []
    method.network.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    faces, target = next(iter(method.batches(0, 0, workers=0)))
    loss = method.losses(method.network, (faces, target)).total
    assert seen[0].shape == (23, 32, 32, 3)
    logits = method.network(seen[0]).logits.log_softmax(dim=1)
    expected = -(torch.cat([target, torch.eye(7)]) * logits).sum(dim=1).mean()
    torch.testing.assert_close(loss, expected)
    write_distilled(Distilled(distilled.images[:3], torch.arange(3), torch.tensor([0.1])),
                    runs / "omni-vgg" / "distilled.safetensors", {})  # fmt: skip
    with pytest.raises(DataError, match="3 images"):
        build_method(small("omni_vgg_das"), data, runs)


@pytest.mark.usefixtures("tiny")
def test_every_stage_from_the_learner_to_other_data_sets(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fevertools.train.reproduce.load_recipe", small)
    monkeypatch.setattr(omni_stages, "DISTILLED_SIZE", 16)
    runs = tmp_path / "runs"
    setup = Setup(None, data, runs, "cpu", 0)
    stages = list(plan(small("omni_vgg_das"), setup))
    assert [stage.title.split(",")[0] for stage in stages] == [
        "fit omni-vgg", "mine", "distil", "fit omni-vgg-das", "evaluation on the test split and on other sets",
    ]  # fmt: skip
    run_stages(stages)
    mined = read_list(runs / "omni-vgg" / "mined.parquet", EMOTIONS_7)
    assert len(mined.rows) == 42  # a margin of 0 keeps all
    pool = [int(path.stem) % 7 for path in sorted((data / "ms1m").rglob("*.png"))]
    assert (mined.label == np.array(pool)).mean() > 0.8
    assert read_distilled(runs / "omni-vgg" / "distilled.safetensors").images.shape == (7, 3, 16, 16)
    figures = json.loads((runs / "omni-vgg-das" / "release" / "figures.json").read_text())
    assert figures["rafdb"]["all"]["n"] == 28
    assert figures["rafdb"]["all"]["accuracy"] > 80
    assert np.array(figures["rafdb"]["confusion"]).sum() == 28
    assert "no FER-2013" in figures["fer2013"]["skipped"]
    assert "CK+" in figures["ck+"]["skipped"]
    capsys.readouterr()
    run_stages(stages)
    assert capsys.readouterr().out.count(": done") == 5
    network, recipe = load_photos(runs / "omni-vgg" / "checkpoint.safetensors")
    assert (recipe.name, network.training) == ("omni-vgg", False)
    with pytest.raises(DataError, match="fit its recipe"):
        load_photos(runs / "omni-vgg" / "other.safetensors")


def test_labels_of_fer2013_as_emotions(made_data: Path) -> None:
    data = read_ferplus(made_data)
    faces = fer2013_faces(data, "validation")
    assert len(faces) == 40
    names = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
    assert [EMOTIONS[faces.target(i).argmax()] for i in range(4)] == [names[data.label[160 + i]] for i in range(4)]
    assert len(fer2013_faces(data, "train")) == 159  # one has a twin in the test split
    assert faces.image(0).shape == (48, 48, 3)


def test_contempt_is_none_of_the_seven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fevertools.train.datasets.cropped import Crops
    from fevertools.train.datasets.posed import PosedFaces
    from fevertools.train.methods.sources import Place

    label = np.array([1, 7, 4, 7])
    monkeypatch.setitem(evaluation.READERS, "ck+", lambda root: PosedFaces((root,) * 4, ("1",) * 4, label, 0))
    images = np.stack([np.full((8, 8, 3), k, np.uint8) for k in (0, 1, 2)])
    monkeypatch.setattr(evaluation, "crop_posed", lambda *arguments: Crops(images, np.array([0, 1, 2]), 1))
    place = Place(small("omni_vgg"), tmp_path, tmp_path, lambda: read_ferplus(tmp_path))
    faces = evaluation.SETS["ck+"](place)
    assert len(faces) == 2
    assert [int(faces.target(i).argmax()) for i in range(2)] == [1, 4]
    assert faces.image(1)[0, 0, 0] == 2
