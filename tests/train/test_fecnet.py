"""The paper's networks with random weights: which layer is the cut, widths, parameter counts, normalisation, errors."""

import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision.models import DenseNet201_Weights
from torchvision.transforms.functional import normalize

from fevertools.errors import DataError, MissingExtraError
from fevertools.train.models import build
from fevertools.train.models.fecnet import DenseNetStudent, FecNetTeacher, RgbNetwork, build_rgb
from fevertools.train.recipe import ModelOptions

facenet = pytest.importorskip("facenet_pytorch", reason="the teacher is built on facenet-pytorch")


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def teacher() -> FecNetTeacher:
    torch.manual_seed(0)
    return FecNetTeacher(dimension=128).eval()


@pytest.fixture(scope="module")
def student() -> DenseNetStudent:
    torch.manual_seed(0)
    return DenseNetStudent().eval()


def faces(count: int, size: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8)


@torch.no_grad()
def test_teacher_is_cut_at_the_last_layer_of_stride_16(teacher: FecNetTeacher) -> None:
    x = torch.randn(1, 3, 140, 140)
    assert teacher.backbone(x).shape == (1, 896, 7, 7)
    assert [name for name, _ in teacher.backbone.named_children()][-2:] == ["mixed_6a", "repeat_2"]
    network = facenet.InceptionResnetV1().eval()
    seen = {}
    network.mixed_7a.register_forward_hook(lambda _module, inputs, output: seen.update(inputs=inputs[0], output=output))
    state = teacher.backbone.state_dict()
    network.load_state_dict({**network.state_dict(), **state})
    network(x)
    torch.testing.assert_close(teacher.backbone(x), seen["inputs"])  # the layers stand in the order of `forward`
    assert seen["output"].shape == (1, 1792, 3, 3)


@torch.no_grad()
def test_shapes(teacher: FecNetTeacher, student: DenseNetStudent) -> None:
    output = teacher(faces(2, 140))
    assert (output.embedding.shape, output.logits.shape, output.triplet.shape) == ((2, 128), (2, 8), (2, 32))
    assert output.relation is None
    output = student(faces(2, 64))
    assert (output.embedding.shape, output.logits.shape, output.triplet.shape) == ((2, 256), (2, 8), (2, 32))
    assert output.relation.shape == (2, 80)
    assert (teacher.dropout.p, student.dropout.p) == (0.1, 0.2)


def test_the_dense_block_is_that_of_fecnet(teacher: FecNetTeacher) -> None:
    kernels = [m.weight for m in teacher.embed.modules() if isinstance(m, nn.Conv2d)]
    dense = [shape for i in range(5) for shape in ((256, 512 + 64 * i, 1, 1), (64, 256, 3, 3))]
    assert [tuple(k.shape) for k in kernels] == [(512, 896, 1, 1), *dense, (128, 832, 1, 1)]


def test_parameter_counts(teacher: FecNetTeacher, student: DenseNetStudent) -> None:
    # Each dense layer: norm of its inputs, 1x1 to 256, norm of 256, 3x3 to 64.
    dense = sum(2 * n + 256 * n + 2 * 256 + 9 * 256 * 64 for n in (512, 576, 640, 704, 768))
    assert parameters(teacher.embed) == 896 * 512 + 2 * 512 + dense + 832 * 128 + 2 * 128
    assert parameters(teacher.compare) + parameters(teacher.classify) == (128 + 1) * (32 + 8)
    # torchvision's own count of DenseNet-201 is 20,013,928, of which 1000 x (1920 + 1) are its classifier's.
    assert parameters(student.backbone) == 20_013_928 - 1000 * 1921
    assert parameters(student) - parameters(student.backbone) == 256 * 1921 + 257 * (32 + 8 + 80)


class Flat(nn.Module):
    """Passes its input on, flattened."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


@torch.no_grad()
def test_normalisation_is_that_of_the_starts(teacher: FecNetTeacher, student: DenseNetStudent) -> None:
    pixels = faces(1, 2)
    seen = RgbNetwork(nn.Identity(), Flat(), 12, 0.0, teacher.mean.flatten().tolist(), teacher.std.flatten().tolist())
    expected = facenet.fixed_image_standardization(pixels.permute(0, 3, 1, 2).float())
    torch.testing.assert_close(seen(pixels).embedding, expected.flatten(1))
    seen = RgbNetwork(nn.Identity(), Flat(), 12, 0.0, student.mean.flatten().tolist(), student.std.flatten().tolist())
    published = DenseNet201_Weights.IMAGENET1K_V1.transforms()
    expected = normalize(pixels.permute(0, 3, 1, 2).float() / 255, published.mean, published.std)
    torch.testing.assert_close(seen(pixels).embedding, expected.flatten(1))


def test_unreachable_weights_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_arguments: object, **_options: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("facenet_pytorch.models.inception_resnet_v1.download_url_to_file", unreachable)
    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    for name, start, file in (("fecnet", "vggface2", "vggface2.pt"), ("densenet201", "imagenet", "densenet201-")):
        with pytest.raises(DataError, match=rf"{file}.*model.start=random"):
            build_rgb(ModelOptions(name, start))
    with pytest.raises(DataError, match="'vggface2' or 'random', not 'imagenet'"):
        build_rgb(ModelOptions("fecnet", "imagenet"))
    with pytest.raises(DataError, match="known: fecnet, densenet201"):
        build_rgb(ModelOptions("resnet"))
    with pytest.raises(DataError, match=r"mobilenet_v1 starts from .*, not 'imagenet'"):
        build(ModelOptions(start="imagenet"), calibration=torch.zeros(2, 48, 48))


def test_missing_facenet_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "facenet_pytorch", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*facenet-pytorch"):
        FecNetTeacher()
