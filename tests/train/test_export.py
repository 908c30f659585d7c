"""From a trained network to the graph that ships: every step keeps the function."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from fevertools.manifest import parse_manifest
from fevertools.similarity import similarity
from fevertools.train import export
from fevertools.train.datasets.ferplus import read_ferplus
from fevertools.train.models import build
from fevertools.train.models.student import Heads, Student
from fevertools.train.recipe import ModelOptions, load_recipe
from fevertools.weights import load_head

# FaceResNet wants 112 pixels.
MODELS = {
    "mobilenet_v1": ModelOptions(start="random"),
    "mobilenet_v1_short": ModelOptions(name="mobilenet_v1_short", start="random"),
    "face_resnet": ModelOptions(name="face_resnet", start="random", resolution=112, dimension=128),
}


@pytest.fixture(scope="module", params=MODELS)
def student(request: pytest.FixtureRequest) -> Student:
    """A network with every head whose batch norms have seen data, so that folding them is not a no-op."""
    torch.manual_seed(0)
    student = build(MODELS[request.param], Heads(fer2013=True, triplet=True, relation=80)).train()
    with torch.no_grad():
        for _ in range(3):
            student(torch.randint(0, 256, (16, 48, 48, 1), dtype=torch.uint8))
    return student.eval()


@pytest.fixture(scope="module")
def released(student: Student, made_data: Path) -> Student:
    return export.release(student, read_ferplus(made_data), "ferplus8")


@pytest.fixture(scope="module")
def files(released: Student, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return export.to_files(released, 48, tmp_path_factory.mktemp("exported"), "tiny")


@pytest.fixture(scope="module")
def graph(files: dict[str, Path]) -> Path:
    return files["onnx"]


CROPS = np.random.default_rng(1).integers(0, 256, (5, 48, 48, 1)).astype(np.uint8)


def test_release_keeps_the_function_up_to_float16(student: Student, released: Student) -> None:
    with torch.no_grad():
        before, after = student(torch.from_numpy(CROPS)), released(torch.from_numpy(CROPS))
    scale = before.embedding.abs().mean()
    assert (before.embedding - after.embedding).abs().max() < 0.02 * scale
    torch.testing.assert_close(after.logits * released.temperature, before.logits, atol=0.02, rtol=0)
    torch.testing.assert_close(after.triplet, before.triplet, atol=0.02, rtol=0)
    assert (after.fer2013, after.relation) == (None, None)
    assert before.relation is not None  # the network given is left as it was


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


def test_maps_add_up_to_the_logits(graph: Path, student: Student) -> None:
    """The mean over the places is the logit, up to a constant of the class."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert ("maps" in names) == export.has_maps(student)
    if "maps" not in names:
        return
    logits, maps = session.run(["logits", "maps"], {"crops": CROPS})
    side = (
        3 if student.backbone.features == 1024 else 6
    )  # 96 pixels, five strides of 2, or four without the last blocks
    assert maps.shape == (5, 8, side, side)
    constant = logits - maps.mean(axis=(2, 3))
    np.testing.assert_allclose(constant, np.broadcast_to(constant[:1], constant.shape), atol=1e-4)
    assert np.ptp(maps, axis=(2, 3)).min() > 0


def test_onnx_is_half_sized_and_deterministic(graph: Path, released: Student, tmp_path: Path) -> None:
    parameters = sum(p.numel() for p in released.parameters())
    assert graph.stat().st_size < 2.1 * parameters
    again = tmp_path / graph.name
    export.to_onnx(released, 48, again)
    assert again.read_bytes() == graph.read_bytes()


def test_stored_in_8_bits(student: Student, released: Student, made_data: Path, tmp_path: Path) -> None:
    small = export.release(student, read_ferplus(made_data), "ferplus8", "int8")
    export.to_onnx(small, 48, tmp_path / "int8.onnx")
    export.to_onnx(released, 48, tmp_path / "half.onnx")
    sizes = [(tmp_path / f"{name}.onnx").stat().st_size for name in ("int8", "half")]
    assert sizes[0] < 0.6 * sizes[1]
    session = onnxruntime.InferenceSession(tmp_path / "int8.onnx", providers=["CPUExecutionProvider"])
    embedding, logits = session.run(["embedding", "logits"], {"crops": CROPS})
    with torch.no_grad():
        expected, before = small(torch.from_numpy(CROPS)), student(torch.from_numpy(CROPS))
    np.testing.assert_allclose(embedding, expected.embedding, atol=1e-4)
    np.testing.assert_allclose(logits, expected.logits, atol=1e-4)
    cosine = torch.nn.functional.cosine_similarity(expected.embedding, before.embedding)
    assert cosine.min() > 0.99


def test_the_grid_of_8_bits() -> None:
    weight = (
        torch.randn(6, 5, 1, 1, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1e-5, 1, 7]).repeat(2)[:, None, None, None]
    )
    rounded = export.on_grid(weight)
    steps = weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
    assert ((rounded - weight).abs() <= 0.51 * steps + 0.25 * steps).all()  # a scale is itself rounded to bfloat16
    assert export.on_grid(rounded).equal(rounded)
    assert export.on_grid(torch.zeros(2, 3)).equal(torch.zeros(2, 3))


def test_onnx_names_no_file_of_the_exporting_machine(graph: Path) -> None:
    assert not onnx.load(graph).graph.node[0].metadata_props
    assert b".py" not in graph.read_bytes()


def test_onnx_holds_no_other_head(graph: Path, released: Student) -> None:
    model = onnx.load(graph).graph
    assert [output.name for output in model.output][:2] == ["embedding", "logits"]
    dimension = released.embed.out_features
    shapes = [tuple(tensor.dims) for tensor in model.initializer]
    for width in (7, 32, 80):  # FER-2013, triplets, relations
        assert not {(width, dimension), (dimension, width)} & set(shapes)
    assert {(8, dimension), (dimension, 8)} & set(shapes)  # the head that ships is found so


def test_the_head_file_is_the_head(files: dict[str, Path], released: Student, tmp_path: Path) -> None:
    head = np.load(files["triplet"], allow_pickle=False)
    assert (head.dtype, head.shape) == (np.float32, (32, released.embed.out_features + 1))
    assert np.array_equal(head, head.astype(np.float16))
    with torch.no_grad():
        output = released(torch.from_numpy(CROPS))
        outputs = torch.nn.functional.normalize(output.triplet, dim=1)
    embeddings = output.embedding.numpy()
    np.testing.assert_allclose(similarity(embeddings, embeddings, head=head), outputs @ outputs.T, atol=1e-5)
    again = tmp_path / "again.npy"
    export.to_head(released, again)
    assert again.read_bytes() == files["triplet"].read_bytes()


def test_a_student_without_the_head_exports_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = build(ModelOptions(start="random"))
    monkeypatch.setattr(export, "to_onnx", lambda student, crop, path: path.write_bytes(b"graph"))
    files = export.to_files(plain, 48, tmp_path, "plain")
    assert [path.name for path in tmp_path.iterdir()] == ["plain.onnx"]
    entry = export.manifest_entry(plain, load_recipe("ferplus_mobilenet"), files)
    assert list(entry["files"]) == ["onnx"]
    assert entry["outputs"] == {"embedding": 256, "logits": 8, "maps": 8}


def test_safetensors_hold_the_same_weights(released: Student, tmp_path: Path) -> None:
    export.to_safetensors(released, tmp_path / "w.safetensors")
    loaded = load_file(tmp_path / "w.safetensors")
    assert loaded.keys() == dict(released.named_parameters()).keys()
    for name, parameter in released.named_parameters():
        assert torch.equal(loaded[name].float(), parameter)


def test_manifest_entry_is_valid(files: dict[str, Path], released: Student) -> None:
    recipe = load_recipe("ferplus_mobilenet")
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, dimension=released.embed.out_features))
    entry = export.manifest_entry(released, recipe, files)
    value = {"manifest_version": 1, "default": {"encoder": "x"}, "weights": {"x": entry}}
    parsed = parse_manifest(value, files["onnx"].parent).entry("x", "encoder")
    assert parsed.files["onnx"].size == files["onnx"].stat().st_size
    assert parsed.geometry.height == 48
    assert parsed.outputs["triplet"] == 32
    assert np.array_equal(load_head(parsed), np.load(files["triplet"]))
