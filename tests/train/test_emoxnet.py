"""EmoXNet: concatenated features, an ensemble that begins with its members, frozen extractors, early stopping."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fevertools import Analyzer
from fevertools.errors import DataError
from fevertools.train import checkpoint
from fevertools.train.datasets.ferplus import FerPlus, read_ferplus
from fevertools.train.evaluate.networks import checkpoint as predictor
from fevertools.train.evaluate.protocols import evaluate_ferplus
from fevertools.train.loop import Plateau, RunOptions, fit
from fevertools.train.losses.label_smoothing import smoothed
from fevertools.train.methods.emoxnet import EnsembleLearning
from fevertools.train.methods.emoxnet_lite import LiteLearning
from fevertools.train.methods.targets import load_teacher, taught_faces, teach
from fevertools.train.models import emoxnet
from fevertools.train.models.emoxnet import MEMBERS, EmoXNet
from fevertools.train.recipe import Recipe, load_recipe
from fevertools.train.reproduce import requirements

SMALL = {
    "optim.batch_size": "16", "optim.precision": "32-true", "optim.epochs": "2", "optim.warmup_epochs": "0",
    "model.resolution": "48", "emoxnet.hidden": "16", "model.dropout": "0.0",
}  # fmt: skip


class Tiny(nn.Module):
    """An extractor for tests: two numbers a face."""

    def __init__(self, width: float) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 2, 5, stride=4), nn.BatchNorm2d(2)
        self.num_features = 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.conv(x))).mean(dim=(2, 3))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emoxnet, "MEMBERS", {"a": Tiny, "b": Tiny})


@pytest.fixture
def data(made_data: Path) -> FerPlus:
    return read_ferplus(made_data)


def small(**options: str) -> Recipe:
    given = {key.replace("__", "."): value for key, value in options.items()}
    return load_recipe("emoxnet", {**SMALL, "emoxnet.members": '["a"]', **given})


@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_every_extractor_gives_pooled_features(name: str) -> None:
    member = MEMBERS[name](1.0).eval()
    with torch.no_grad():
        features = member(torch.randn(2, 1, 48, 48))
    assert features.shape == (2, member.num_features)


@pytest.mark.parametrize("name", sorted(MEMBERS.keys() - {"efficientnet_b0"}))
def test_half_as_wide(name: str) -> None:
    whole, half = MEMBERS[name](1.0), MEMBERS[name](0.5)
    assert half.num_features == whole.num_features / 2
    assert sum(p.numel() for p in half.parameters()) < 0.3 * sum(p.numel() for p in whole.parameters())


def test_a_member_of_one_width() -> None:
    with pytest.raises(DataError, match="one width"):
        MEMBERS["efficientnet_b0"](0.5)


def test_the_four_of_the_paper() -> None:
    assert load_recipe("emoxnet").emoxnet.members == ("vgg16", "densenet121", "seresnet34", "seresnext50")


@pytest.mark.usefixtures("tiny")
def test_features_are_concatenated() -> None:
    network = EmoXNet(("a", "b"), 8, 48, 48, 0.0).eval()
    crops = torch.randint(0, 256, (3, 48, 48, 1), dtype=torch.uint8)
    output = network(crops)
    x = (crops.permute(0, 3, 1, 2).float() - 129.45) / 64.87
    torch.testing.assert_close(output.embedding[:, :2], network.backbone["a"](x))
    torch.testing.assert_close(output.embedding[:, 2:], network.backbone["b"](x))
    assert output.logits.shape == (3, 7)
    with pytest.raises(DataError, match="a, b"):
        EmoXNet(("c",), 8, 48, 48, 0.0)


@pytest.mark.usefixtures("tiny")
def test_an_ensemble_begins_with_its_members_and_can_leave_them(data: FerPlus, tmp_path: Path) -> None:
    for name in ("a", "b"):
        recipe = small(emoxnet__members=f'["{name}"]', name=f'"one-{name}"')
        fit(EnsembleLearning(recipe, data, tmp_path), RunOptions(tmp_path / f"one-{name}", "cpu", workers=0))
    recipe = small(emoxnet__members='["a", "b"]', emoxnet__runs='["one-a", "one-b"]', emoxnet__frozen="true")
    method = EnsembleLearning(recipe, data, tmp_path)
    tensors, _ = checkpoint.read(tmp_path / "one-b" / "checkpoint.safetensors")
    fit(method, RunOptions(tmp_path / "both", "cpu", workers=0))
    after, _ = checkpoint.read(tmp_path / "both" / "checkpoint.safetensors")
    for name in ("conv.weight", "norm.running_mean"):
        assert after[f"network.backbone.b.{name}"].equal(tensors[f"average.backbone.b.{name}"])
    assert not after["network.classify.4.weight"].equal(method.network.classify[4].weight * 0)
    outputs = predictor(tmp_path / "both" / "checkpoint.safetensors")
    figures = evaluate_ferplus(_encoded(outputs, data), data, "validation")
    assert list(figures["single"]) == ["ferplus7"]
    with pytest.raises(DataError, match="one run for every member"):
        EnsembleLearning(small(emoxnet__runs='["one-a", "one-b"]'), data, tmp_path)


def _encoded(predict, data):  # type: ignore[no-untyped-def]
    from fevertools.train.evaluate.image_sets import Encoded

    return Encoded(predict, lambda: data.images[data.split == 1])


@pytest.mark.usefixtures("tiny")
def test_one_hot_target_and_protocol(data: FerPlus, tmp_path: Path) -> None:
    votes = EnsembleLearning(small(data__target="votes"), data, tmp_path).frames.rows[0]
    label = EnsembleLearning(small(data__target="label"), data, tmp_path).frames.rows[0]
    assert set(label.unique().tolist()) == {0, 1}
    np.testing.assert_array_equal(label.argmax(dim=1), votes.argmax(dim=1))
    assert ((votes > 0) & (votes < 1)).any()
    with pytest.raises(DataError, match="only seresnet34 from face-api"):
        EnsembleLearning(small(model__start="face-api"), data, tmp_path)
    with pytest.raises(DataError, match="ferplus7"):
        EnsembleLearning(small(data__protocol="ferplus8"), data, tmp_path)


@pytest.mark.usefixtures("tiny")
def test_stops_early_and_stays_stopped(data: FerPlus, tmp_path: Path) -> None:
    recipe = small(optim__epochs="9", optim__learning_rate="1e-9", optim__stop_after="2", optim__watch="accuracy")
    options = RunOptions(tmp_path / "run", "cpu", workers=0)
    fit(EnsembleLearning(recipe, data, tmp_path), options)
    _, state = checkpoint.read(tmp_path / "run" / "checkpoint.safetensors")
    assert state["plateau"]["stale"] == 2
    assert state["step"] < 9 * 9
    fit(EnsembleLearning(recipe, data, tmp_path), RunOptions(tmp_path / "run", "cpu", workers=0, resume=True))
    assert checkpoint.read(tmp_path / "run" / "checkpoint.safetensors")[1]["step"] == state["step"]


@pytest.mark.usefixtures("tiny")
def test_learns_what_published_weights_say(data: FerPlus, tmp_path: Path) -> None:
    recipe = small(distill__teachers='["published:deepfever-s"]', distill__views="2", losses__soft_votes="2.0")
    with pytest.raises(DataError, match="teach"):
        EnsembleLearning(recipe, data, tmp_path)
    faces = taught_faces(recipe, data, np.empty((0, 48, 48), np.uint8))
    teach(recipe, recipe.distill.teachers[0], faces, tmp_path)
    method = EnsembleLearning(recipe, data, tmp_path)
    crops, votes, said = next(iter(method.batches(3, 0, workers=0)))
    again, *_ = next(iter(method.batches(5, 0, workers=0)))
    assert method.views == 2  # the fourth and the sixth epoch show the second view, in another order
    assert not crops.equal(again)
    with Analyzer("deepfever-s", device="cpu") as analyzer:
        found = [analyzer.classify(crop, cropped=True)[0] for crop in crops[:3, :, :, 0].numpy()]
    expected = torch.tensor([list(expression.probabilities.values()) for expression in found])
    torch.testing.assert_close(said[:3].float().softmax(dim=1), expected, rtol=0, atol=2e-3)
    network = method.network.eval()
    loss = method.losses(network, (crops, votes, said))
    log_probabilities = network(crops).logits.log_softmax(dim=1)
    soft = said[:, :7].float().softmax(dim=1)  # of the seven that it can answer: contempt is no answer here
    by_hand = [-(t * log_probabilities).sum(dim=1).mean().item() for t in (votes, soft)]
    assert loss.total.item() == pytest.approx(by_hand[0] + 2 * by_hand[1], rel=1e-5)
    fit(method, RunOptions(tmp_path / "run", "cpu", workers=0))
    with pytest.raises(DataError, match="one teacher or none"):
        EnsembleLearning(small(distill__teachers='["x", "y"]'), data, tmp_path)


def test_watches_a_figure_that_should_fall() -> None:
    plateau = Plateau(patience=2)
    for value in (-80.0, -79.0, -80.01):
        plateau.end_epoch(value)
    assert (plateau.factor, plateau.stale) == (0.1, 2)
    plateau.end_epoch(-81.0)
    assert (plateau.factor, plateau.stale, plateau.waited) == (0.1, 0, 0)


@pytest.mark.usefixtures("tiny")
def test_members_see_the_face_as_large_as_they_ask() -> None:
    network = EmoXNet(("a", "b"), 8, 48, 48, 0.0, upsample=(1, 1.5)).eval()
    sizes: list[int] = []
    for member in network.backbone.values():
        member.register_forward_hook(lambda _m, args, _o: sizes.append(args[0].shape[-1]))
    network(torch.zeros(1, 48, 48, 1))
    assert sizes == [48, 72]
    with pytest.raises(DataError, match="1 factors for 2"):
        EmoXNet(("a", "b"), 8, 48, 48, 0.0, upsample=(2,))


def test_smoothed_by_hand() -> None:
    """Eq. 3 with alpha = .1 and two classes."""
    torch.testing.assert_close(smoothed(torch.tensor([[0.9, 0.1]]), 0.1), torch.tensor([[0.86, 0.14]]))


@pytest.mark.usefixtures("tiny")
def test_lite_learns_what_the_ensemble_says(data: FerPlus, tmp_path: Path) -> None:
    recipe = small(name='"emoxnet-open"')
    fit(EnsembleLearning(recipe, data, tmp_path), RunOptions(tmp_path / "emoxnet-open", "cpu", workers=0))
    options = {"model.start": "random", "model.resolution": "48", "distill.views": "2", "model.dropout": "0.0"}
    options |= {"losses.votes": "0.0", "losses.soft_votes": "1.0"}
    options |= {"optim.batch_size": "16", "optim.precision": "32-true", "optim.epochs": "2", "optim.warmup_epochs": "0"}
    lite = load_recipe("emoxnet_lite", options)
    with pytest.raises(DataError, match="teach"):
        LiteLearning(lite, data, tmp_path)
    images = taught_faces(lite, data, np.empty((0, 48, 48), np.uint8))
    teach(lite, "emoxnet-open", images, tmp_path)
    method = LiteLearning(lite, data, tmp_path)
    crops, votes, said = next(iter(method.batches(1, 0, workers=0)))
    assert said.shape == (16, 7)
    ensemble, resolution = load_teacher(tmp_path / "emoxnet-open" / "checkpoint.safetensors")
    assert resolution == 48
    with torch.no_grad():
        torch.testing.assert_close(ensemble(crops), said.float(), rtol=2e-3, atol=2e-3)
    network = method.network.eval()
    output = network(crops)
    target = smoothed(said.float().softmax(dim=1), 0.1)
    expected = -(target * output.logits.log_softmax(dim=1)[:, :7]).sum(dim=1).mean()
    losses = method.losses(network, (crops, votes, said))
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-5)
    by_votes = -(votes * output.logits.log_softmax(dim=1)[:, :7]).sum(dim=1).mean()
    assert losses.terms["votes"].item() == pytest.approx(by_votes.item(), rel=1e-5)
    fit(method, RunOptions(tmp_path / "emoxnet-lite", "cpu", workers=0))
    assert set(method.validate(method.network)) >= {"accuracy", "cross_entropy"}


def test_plan_of_the_open_runs() -> None:
    names = [recipe.name for recipe in requirements(load_recipe("emoxnet_lite"))]
    tuned = [
        f"emoxnet-{name}-{stage}" for name in ("vgg16", "densenet121", "seresnet34") for stage in ("open", "tuned-open")
    ]
    assert names == [*tuned, "emoxnet-seresnext50-open", "emoxnet-open"]
