"""Networks: the start conversion against a naive TensorFlow-style computation, and the pieces of the student."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fevertools.errors import DataError
from fevertools.train.models import build, faceres
from fevertools.train.models.mobilenet import BLOCKS, MobileNetV1, same_padding
from fevertools.train.models.student import MEAN, STD, Heads, resize_matrix
from fevertools.train.recipe import ModelOptions


def write_start(folder: Path, name: str = "faceres") -> dict[str, np.ndarray]:
    """A made-up start in the package's own format: float16 tensors in manifest order, a scalar among them."""
    rng = np.random.default_rng(0)
    tensors: dict[str, np.ndarray] = {
        "feats/kernel": rng.normal(size=(4, 2)),
        "conv1_relu/Cast": np.array(6.0),
        "conv1/convolution/merged_input": rng.normal(size=(3, 3, 3, 32)) * 0.003,
        "conv1_bn/batchnorm_1/sub": rng.normal(size=32),
    }
    inputs = 32
    for block, (outputs, _) in enumerate(BLOCKS, start=1):
        tensors[f"conv_dw_{block}/depthwise_kernel"] = rng.normal(size=(3, 3, inputs, 1)) * 0.4
        tensors[f"conv_dw_{block}_bn/batchnorm_1/mul"] = rng.uniform(0.5, 1.5, inputs)
        tensors[f"conv_dw_{block}_bn/batchnorm_1/sub"] = rng.normal(size=inputs) * 0.3
        tensors[f"conv_pw_{block}/convolution/merged_input"] = rng.normal(size=(1, 1, inputs, outputs)) / inputs**0.5
        tensors[f"conv_pw_{block}_bn/batchnorm_1/sub"] = rng.normal(size=outputs) * 0.3
        inputs = outputs
    half = {name: values.astype(np.float16) for name, values in tensors.items()}
    entries = [
        {"name": n, "shape": list(v.shape), "dtype": "float32", "quantization": {"dtype": "float16"}}
        for n, v in half.items()
    ]
    (folder / f"{name}.json").write_text(json.dumps({"weightsManifest": [{"weights": entries}]}))
    (folder / f"{name}.bin").write_bytes(b"".join(v.tobytes() for v in half.values()))
    return {name: values.astype(np.float32) for name, values in half.items()}


def folded_forward(tensors: dict[str, np.ndarray], bgr: torch.Tensor) -> torch.Tensor:
    """The graph as TensorFlow runs it: biases, no batch norm, SAME padding, ReLU6. (N, 3, H, W) -> (N, 1024)."""
    t = {name: torch.from_numpy(values) for name, values in tensors.items()}

    def unit(x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor, stride: int, groups: int = 1) -> torch.Tensor:
        x = F.conv2d(same_padding(x, kernel.shape[-1], stride), kernel, bias, stride, groups=groups)
        return x.clamp(0, 6)

    x = unit(bgr, t["conv1/convolution/merged_input"].permute(3, 2, 0, 1), t["conv1_bn/batchnorm_1/sub"], 2)
    for block, (_, stride) in enumerate(BLOCKS, start=1):
        depthwise = t[f"conv_dw_{block}/depthwise_kernel"].permute(2, 3, 0, 1)
        depthwise = depthwise * t[f"conv_dw_{block}_bn/batchnorm_1/mul"][:, None, None, None]
        x = unit(x, depthwise, t[f"conv_dw_{block}_bn/batchnorm_1/sub"], stride, len(depthwise))
        pointwise = t[f"conv_pw_{block}/convolution/merged_input"].permute(3, 2, 0, 1)
        x = unit(x, pointwise, t[f"conv_pw_{block}_bn/batchnorm_1/sub"], 1)
    return x.mean(dim=(2, 3))


def test_start_keeps_the_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = write_start(tmp_path)
    monkeypatch.setenv("FEVERTOOLS_STARTS", str(tmp_path))
    gray = torch.rand(8, 1, 64, 64) * 255
    backbone = MobileNetV1()
    faceres.load_start(backbone, "faceres", (gray - MEAN) / STD)
    # A border of the BGR mean makes the zero padding of both routes the same gray.
    other = torch.rand(4, 1, 64, 64) * 255
    means = torch.tensor(faceres.BGR_MEAN)[:, None, None]
    expected = folded_forward(tensors, other.expand(-1, 3, -1, -1) - means)
    with torch.no_grad():
        got = backbone.eval()((other - MEAN) / STD)
    # The routes pad with slightly different grays (0 after each one's own normalisation), hence the tolerance.
    assert F.cosine_similarity(got, expected).min() > 0.999
    assert (got - expected).abs().mean() < 0.02 * expected.abs().mean()


def test_restored_norm_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The statistics come from the calibration batch, so training mode gives on it what evaluation mode gives."""
    write_start(tmp_path)
    monkeypatch.setenv("FEVERTOOLS_STARTS", str(tmp_path))
    frames = torch.randn(16, 1, 64, 64)
    backbone = MobileNetV1()
    faceres.load_start(backbone, "faceres", frames)
    with torch.no_grad():
        evaluated, trained = backbone.eval()(frames), backbone.train()(frames)
    assert (evaluated - trained).abs().max() < 0.02


def test_a_short_one_begins_with_the_same_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_start(tmp_path)
    monkeypatch.setenv("FEVERTOOLS_STARTS", str(tmp_path))
    frames = torch.randn(4, 1, 64, 64)
    whole, short = MobileNetV1(), MobileNetV1(blocks=9)
    for backbone in (whole, short):
        faceres.load_start(backbone, "faceres", frames)
    assert short.features == 512
    with torch.no_grad():
        expected = whole.eval().units[: len(short.units)](frames)
        assert torch.equal(short.eval().maps(frames), expected)


@pytest.mark.parametrize("spoil", ["json", "bin", "short"])
def test_broken_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: str) -> None:
    write_start(tmp_path)
    monkeypatch.setenv("FEVERTOOLS_STARTS", str(tmp_path))
    if spoil == "json":
        (tmp_path / "faceres.json").write_text("{}")
    elif spoil == "bin":
        (tmp_path / "faceres.bin").unlink()
    else:
        (tmp_path / "faceres.bin").write_bytes((tmp_path / "faceres.bin").read_bytes()[:1000])
    with pytest.raises(DataError, match="faceres"):
        faceres.load_start(MobileNetV1(), "faceres", torch.zeros(1, 1, 32, 32))


@pytest.mark.parametrize(("size", "stride"), [(96, 2), (48, 2), (7, 2), (6, 1), (3, 1)])
def test_same_padding_sizes(size: int, stride: int) -> None:
    x = same_padding(torch.zeros(1, 1, size, size), 3, stride)
    assert F.conv2d(x, torch.zeros(1, 1, 3, 3), stride=stride).shape[-1] == -(-size // stride)


def test_same_padding_puts_the_odd_pixel_last() -> None:
    padded = same_padding(torch.ones(1, 1, 4, 4), 3, 2)
    assert padded[0, 0, 0].tolist() == [1, 1, 1, 1, 0]


@pytest.mark.parametrize("size", [(48, 96), (48, 64), (48, 48)])
def test_resize_matrix_is_bicubic_interpolation(size: tuple[int, int]) -> None:
    source, target = size
    image = torch.rand(2, 1, source, source)
    a = resize_matrix(source, target)
    expected = F.interpolate(image, (target, target), mode="bicubic", align_corners=False)
    torch.testing.assert_close((a @ image[:, 0] @ a.T)[:, None], expected, atol=1e-5, rtol=0)


def test_student_shapes_and_parameter_budget() -> None:
    student = build(ModelOptions(start="random"), Heads(fer2013=True)).eval()
    with torch.no_grad():
        output = student(torch.zeros(3, 48, 48, 1, dtype=torch.uint8))
    assert output.fer2013 is not None
    assert (output.embedding.shape, output.logits.shape, output.fer2013.shape) == ((3, 256), (3, 8), (3, 7))
    assert sum(p.numel() for p in student.parameters()) < 4_500_000


def test_unknown_backbone() -> None:
    with pytest.raises(DataError, match="mobilenet_v1"):
        build(ModelOptions(name="resnet_9000"))
