"""From a trained network to the graph that ships: every step keeps the function."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from fevertools.manifest import parse_manifest
from fevertools.train import export
from fevertools.train.datasets.ferplus import read_ferplus
from fevertools.train.models import build
from fevertools.train.models.student import Student
from fevertools.train.recipe import ModelOptions, load_recipe


@pytest.fixture(scope="module")
def student() -> Student:
    """A network whose batch norms have seen data, so that folding them is not a no-op."""
    torch.manual_seed(0)
    student = build(ModelOptions(start="random"), fer2013_head=True).train()
    with torch.no_grad():
        for _ in range(3):
            student(torch.randint(0, 256, (16, 48, 48, 1), dtype=torch.uint8))
    return student.eval()


@pytest.fixture(scope="module")
def released(student: Student, made_data: Path) -> Student:
    return export.release(student, read_ferplus(made_data), "ferplus8")


@pytest.fixture(scope="module")
def graph(released: Student, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    export.to_onnx(released, 48, path)
    return path


CROPS = np.random.default_rng(1).integers(0, 256, (5, 48, 48, 1)).astype(np.uint8)


def test_release_keeps_the_function_up_to_float16(student: Student, released: Student) -> None:
    with torch.no_grad():
        before, after = student(torch.from_numpy(CROPS)), released(torch.from_numpy(CROPS))
    scale = before.embedding.abs().mean()
    assert (before.embedding - after.embedding).abs().max() < 0.02 * scale
    torch.testing.assert_close(after.logits * released.temperature, before.logits, atol=0.02, rtol=0)


def test_released_weights_are_float16_numbers(released: Student) -> None:
    for parameter in released.parameters():
        assert torch.equal(parameter, parameter.half().float())


def test_onnx_equals_pytorch(graph: Path, released: Student) -> None:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    for n in (1, 5):  # the batch is dynamic
        embedding, logits = session.run(["embedding", "logits"], {"crops": CROPS[:n]})
        with torch.no_grad():
            expected = released(torch.from_numpy(CROPS[:n]))
        np.testing.assert_allclose(embedding, expected.embedding.numpy(), atol=1e-4, rtol=0)
        np.testing.assert_allclose(logits, expected.logits.numpy(), atol=1e-4, rtol=0)


def test_onnx_is_half_sized_and_deterministic(graph: Path, released: Student, tmp_path: Path) -> None:
    parameters = sum(p.numel() for p in released.parameters())
    assert graph.stat().st_size < 2.1 * parameters
    again = tmp_path / graph.name
    export.to_onnx(released, 48, again)
    assert again.read_bytes() == graph.read_bytes()


def test_onnx_names_no_file_of_the_exporting_machine(graph: Path) -> None:
    assert not onnx.load(graph).graph.node[0].metadata_props
    assert b".py" not in graph.read_bytes()


def test_safetensors_hold_the_same_weights(released: Student, tmp_path: Path) -> None:
    export.to_safetensors(released, tmp_path / "w.safetensors")
    loaded = load_file(tmp_path / "w.safetensors")
    assert loaded.keys() == dict(released.named_parameters()).keys()
    for name, parameter in released.named_parameters():
        assert torch.equal(loaded[name].float(), parameter)


def test_manifest_entry_is_valid(graph: Path, released: Student) -> None:
    entry = export.manifest_entry(released, load_recipe("ferplus_mobilenet"), graph)
    value = {"manifest_version": 1, "default": {"encoder": "x"}, "weights": {"x": entry}}
    parsed = parse_manifest(value, graph.parent).entry("x", "encoder")
    assert parsed.files["onnx"].size == graph.stat().st_size
    assert parsed.geometry.height == 48
