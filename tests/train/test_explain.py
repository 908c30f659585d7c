"""Heat-maps: of networks whose evidence is known, of every system's checkpoints, and the command."""

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as pictures
from torch import nn

from fevertools.errors import OptionError
from fevertools.labels import FER2013
from fevertools.train import checkpoint
from fevertools.train.__main__ import main
from fevertools.train.branches import Branch, Explained, read_explained
from fevertools.train.datasets.framing import served_geometry
from fevertools.train.evaluate.networks import MAKERS
from fevertools.train.explain import METHODS, ExplainOptions, contact_sheet, deepest, explain
from fevertools.train.methods.classify import heads
from fevertools.train.methods.ed2l_paper import make_network
from fevertools.train.models import build, emoxnet
from fevertools.train.recipe import Recipe, load_recipe
from tests.train.conftest import made_images


class Corners(nn.Module):
    """Two maps of 6 x 6: brightness of the upper left and of the lower right quarter. Class k reads map k."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.mask = nn.AvgPool2d(8), nn.Conv2d(1, 2, 1, bias=False)
        nn.init.ones_(self.mask.weight)
        self.coarse = nn.AvgPool2d(6)
        quarter = torch.zeros(2, 6, 6)
        quarter[0, :3, :3], quarter[1, 3:, 3:] = 1, 1
        self.register_buffer("quarter", quarter)
        self.keep = nn.Identity()

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        x = self.keep(self.mask(self.pool(crops[..., 0][:, None])) * self.quarter)
        return self.coarse(x).flatten(1)


def corners() -> Explained:
    network = Corners().eval()
    branch = Branch("network", lambda output: output, (network,), ("a", "b"))
    return Explained(network, (branch,), served_geometry(48), 48, 48)


@pytest.mark.parametrize("method", METHODS[:4])
def test_evidence_lies_where_the_class_looks(method: str) -> None:
    faces = torch.full((2, 48, 48, 1), 100, dtype=torch.uint8)
    for label, inside in (("a", np.s_[:, :20, :20]), ("b", np.s_[:, 28:, 28:])):
        heat = explain(corners(), faces, ExplainOptions(method, label, places=3)).maps["network"]
        assert heat.shape == (2, 48, 48)
        outside = np.ones_like(heat, bool)
        outside[:, :28, :28] = outside[:, 20:, 20:] = False
        assert heat[inside].min() > 0.9
        assert heat[outside].max() < 0.1


def test_features_are_summed_whatever_they_speak_for() -> None:
    faces = torch.full((1, 48, 48, 1), 100, dtype=torch.uint8)
    faces[:, 24:] = 50
    heat = explain(corners(), faces, ExplainOptions("features", "a")).maps["network"][0]
    # Upper left 100, lower right 50, elsewhere 0: from the least to the largest.
    assert heat[:20, :20].min() == pytest.approx(1, abs=0.01)
    assert heat[28:, 28:] == pytest.approx(0.5, abs=0.02)
    assert heat[:20, 28:].max() == pytest.approx(0, abs=0.01)


def test_the_deepest_layer_with_enough_places() -> None:
    network = Corners()
    x = torch.zeros(1, 48, 48, 1)
    assert deepest(network, network, x, 1) is network.coarse
    assert deepest(network, network, x, 2) is network.keep
    with pytest.raises(OptionError, match="7 x 7"):
        deepest(network, network, x, 7)


def test_probability_is_that_of_the_label() -> None:
    faces = torch.full((1, 48, 48, 1), 0, dtype=torch.uint8)
    faces[:, :24, :24] = 40
    explanation = explain(corners(), faces, ExplainOptions())
    logits = torch.tensor([40 / 4, 0.0])
    assert explanation.label == ("a",)
    assert explanation.probability[0] == pytest.approx(logits.softmax(dim=0)[0].item(), rel=1e-5)
    with pytest.raises(OptionError, match="label"):
        explain(corners(), faces, ExplainOptions(label="c"))
    with pytest.raises(OptionError, match="method"):
        explain(corners(), faces, ExplainOptions("cam"))


def keep(folder: Path, recipe: Recipe, network: nn.Module) -> Path:
    checkpoint.keep(folder, 1, 1, network, {"recipe": dataclasses.asdict(recipe)})
    return folder / "epoch-0001.safetensors"


class Tiny(nn.Module):
    """An extractor for tests."""

    def __init__(self, width: float) -> None:
        super().__init__()
        self.conv, self.num_features = nn.Conv2d(1, 2, 5, stride=4), 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(x)).mean(dim=(2, 3))


CASES: dict[str, tuple[str, dict[str, str], list[str], tuple[int, int]]] = {
    "emoxnet": ("emoxnet_open", {"emoxnet.members": '["a", "b"]', "emoxnet.upsample": "[1, 2]",
                                 "emoxnet.runs": "[]"}, ["EmoXNet", "a", "b"], (48, 48)),
    "member": ("emoxnet_open", {"emoxnet.members": '["a"]', "emoxnet.upsample": "[2]", "emoxnet.runs": "[]"},
               ["a"], (48, 48)),
    "densenet-center": ("densenet_bc_open", {"densenet.layers": "2"}, ["network"], (42, 42)),
    "ed2l": ("ed2l_open", {"ed2l.dispeller": "gradient"}, ["distilling", "dispelling"], (48, 48)),
    "ed2l, baseline": ("ed2l_baseline_open", {}, ["distilling"], (48, 48)),
    "ed2l-paper": ("ed2l", {"model.resolution": "56"}, ["distilling", "dispelling"], (56, 48)),
    "emoxnet-lite": ("emoxnet_lite", {"model.start": "random", "model.resolution": "96"}, ["network"], (48, 48)),
}  # fmt: skip


def make(recipe: Recipe) -> nn.Module:
    if recipe.system == "ed2l-paper":
        return make_network(recipe)
    return MAKERS[recipe.system](recipe) if recipe.system in MAKERS else build(recipe.model, heads(recipe))


@pytest.mark.parametrize("case", CASES)
def test_every_system_shows_its_branches(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emoxnet, "MEMBERS", {"a": Tiny, "b": Tiny})
    name, options, branches, size = CASES[case]
    recipe = load_recipe(name, options)
    torch.manual_seed(0)
    subject = read_explained(keep(tmp_path, recipe, make(recipe)))
    file = tmp_path / "face.png"
    Image.fromarray(made_images(1, seed=0)[0][0]).save(file)
    face = subject.face_of(file, cropped=True)
    assert face is not None
    assert face.shape[:2] == (subject.height, subject.width) == size
    faces = torch.from_numpy(np.stack([subject.shown(face)] * 2))
    found = [explain(subject, faces, ExplainOptions("gradcam", label)) for label in subject.branches[0].classes[:4]]
    for title in branches:
        heat = np.stack([explanation.maps[title] for explanation in found])
        assert heat.shape == (4, 2, *size)
        np.testing.assert_array_equal(heat[:, 0], heat[:, 1])
        assert heat.min() == 0 < heat.max() <= 1  # gradients flow, also through extractors that were frozen
    assert list(found[0].maps) == branches
    sheet = contact_sheet([face, face], found[0])
    assert sheet.shape[1] == (1 + len(branches)) * round(192 * subject.width / subject.height)


@pytest.mark.parametrize("dispeller", ["gradient", "least-squares"])
def test_the_dispelling_branch_is_read_by_its_dispeller(dispeller: str, tmp_path: Path) -> None:
    recipe = load_recipe("ed2l_open", {"ed2l.dispeller": dispeller})
    network: Any = make(recipe)
    if dispeller == "gradient":
        nn.init.zeros_(network.dispeller.weight)  # the other has no weights before it has seen features
    subject = read_explained(keep(tmp_path, recipe, network))
    faces = torch.from_numpy(made_images(2, seed=0)[0][..., None])
    maps = explain(subject, faces, ExplainOptions("gradcam")).maps
    assert maps["dispelling"].max() == 0  # a dispeller that reads nothing has no evidence anywhere
    one = read_explained(tmp_path / "epoch-0001.safetensors", "dispelling")
    assert [branch.title for branch in one.branches] == ["dispelling"]
    assert one.branches[0].classes == FER2013
    with pytest.raises(OptionError, match="distilling, dispelling"):
        read_explained(tmp_path / "epoch-0001.safetensors", "base")
    if dispeller == "least-squares":
        network.dispeller.see(torch.randn(64, 256), torch.arange(64) % 7)
        one = read_explained(keep(tmp_path, recipe, network), "dispelling")
        assert explain(one, faces, ExplainOptions("gradcam")).maps["dispelling"].max() > 0


def test_command_on_a_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(emoxnet, "MEMBERS", {"a": Tiny, "b": Tiny})
    recipe = load_recipe("emoxnet_open", CASES["emoxnet"][1])
    file = keep(tmp_path, recipe, make(recipe))
    photo, empty, sheet = tmp_path / "photo.png", tmp_path / "empty.png", tmp_path / "out" / "sheet.png"
    Image.fromarray(pictures.astronaut()).save(photo)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(empty)
    assert main(["explain", str(file), str(photo), str(empty), "-o", str(sheet), "--label", "happiness"]) == 0
    assert "1 faces, EmoXNet, a, b" in capsys.readouterr().out
    assert cv2.imread(str(sheet)).shape == (22 + 192 + 22, 4 * 192, 3)
    assert main(["explain", str(file), str(empty), "-o", str(sheet)]) == 2
    assert "--cropped" in capsys.readouterr().err
    assert main(["explain", str(file), str(photo), "-o", str(sheet), "--branch", "c"]) == 2
    assert "EmoXNet, a, b" in capsys.readouterr().err
