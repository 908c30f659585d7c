"""The int8 graph: rewrites that keep the function, weights rounded for what they read, and one chain of integers."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fevertools.encoder import Encoder
from fevertools.errors import DataError
from fevertools.manifest import load_manifest
from fevertools.train.__main__ import main
from fevertools.train.export import save
from fevertools.train.quantize import block_stem, round_weights, to_int8, widen
from fevertools.weights import resolve
from tests._tiny import file_entry, manifest_value

RNG = np.random.default_rng(3)
CROPS = RNG.integers(0, 256, (40, 48, 48, 1)).astype(np.uint8)
LAYERS = {  # (outputs, inputs a group, kernel), stride, pads: a MobileNet-v1 in small
    "stem": ((8, 1, 3), 2, (0, 0, 1, 1)),
    "deep1": ((8, 1, 3), 1, (1, 1, 1, 1)),
    "point1": ((16, 8, 1), 1, (0, 0, 0, 0)),
    "deep2": ((16, 1, 3), 2, (0, 0, 1, 1)),
    "point2": ((64, 16, 1), 1, (0, 0, 0, 0)),
}


def student(stem: tuple[int, ...] = (0, 0, 1, 1)) -> onnx.ModelProto:
    """A float32 graph laid out as `export.to_onnx` lays it out; every weight is a float16 number."""
    tensors: dict[str, np.ndarray] = {
        "planes": np.array([-1, 1, 48, 48]), "mean": np.float32(128), "std": np.float32(64), "low": np.float32(0),
        "high": np.float32(6), "axes": np.array([2, 3]),
        "embed": RNG.normal(0, 1, (16, 64)), "embed_bias": RNG.normal(size=16), "classify": RNG.normal(0, 1, (8, 16)),
        "classify_bias": RNG.normal(size=8), "evidence": RNG.normal(size=(8, 64, 1, 1)),
    }  # fmt: skip
    nodes = [
        helper.make_node("Reshape", ["crops", "planes"], ["view"]),
        helper.make_node("Cast", ["view"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["numbers", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["x0"]),
    ]
    for i, (name, ((outputs, inputs, kernel), stride, pads)) in enumerate(LAYERS.items()):
        tensors[name] = RNG.normal(0, 1.5 / np.sqrt(inputs * kernel), (outputs, inputs, kernel, kernel))
        tensors[f"{name}_bias"] = RNG.normal(1, 0.3, outputs)
        conv = helper.make_node(
            "Conv", [f"x{i}", name, f"{name}_bias"], [f"c{i}"], kernel_shape=[kernel] * 2, strides=[stride] * 2,
            pads=stem if name == "stem" else pads, group=outputs if name.startswith("deep") else 1,
        )  # fmt: skip
        nodes += [conv, helper.make_node("Clip", [f"c{i}", "low", "high"], [f"x{i + 1}"])]
    nodes += [
        helper.make_node("ReduceMean", ["x5", "axes"], ["pooled"], keepdims=0),
        helper.make_node("Gemm", ["pooled", "embed", "embed_bias"], ["embedding"], transB=1),
        helper.make_node("Gemm", ["embedding", "classify", "classify_bias"], ["logits"], transB=1),
        helper.make_node("Conv", ["x5", "evidence"], ["maps"], name="maps"),
    ]
    shapes = {"embedding": ["N", 16], "logits": ["N", 8], "maps": ["N", 8, 12, 12]}
    graph = helper.make_graph(
        nodes,
        "student",
        [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["N", 48, 48, 1])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [
            numpy_helper.from_array(a.astype(np.float16).astype(np.float32) if a.dtype == float else a, name)
            for name, a in ((name, np.asarray(array)) for name, array in tensors.items())
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return student()


def copy(model: onnx.ModelProto) -> onnx.ModelProto:
    same = onnx.ModelProto()
    same.CopyFrom(model)
    return same


def run(model: onnx.ModelProto | Path, crops: np.ndarray = CROPS) -> list[np.ndarray]:
    source = model if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    return list(session.run(["embedding", "logits", "maps"], {"crops": crops}))


def test_widening_undoes_the_float16_storage(model: onnx.ModelProto, tmp_path: Path) -> None:
    stored = copy(model)
    save(stored, tmp_path / "stored.onnx")
    assert any(node.op_type == "Cast" and node.input[0].endswith("_half") for node in stored.graph.node)
    widen(stored)
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert [node.op_type for node in stored.graph.node] == [node.op_type for node in model.graph.node]
    for tensor in stored.graph.initializer:
        assert np.array_equal(numpy_helper.to_array(tensor), kept[tensor.name])


def test_the_blocked_stem_is_the_same_function(model: onnx.ModelProto) -> None:
    """At the right and bottom border too, where the padding is."""
    blocked = copy(model)
    assert block_stem(blocked) == "stem"
    onnx.checker.check_model(blocked, full_check=True)
    first = next(node for node in blocked.graph.node if node.op_type == "Conv")
    weight = next(t for t in blocked.graph.initializer if t.name == first.input[1])
    assert list(weight.dims) == [4 * 8, 8, 3, 2]
    assert np.count_nonzero(numpy_helper.to_array(weight)) == 4 * 8 * 9
    assert "stem" not in {tensor.name for tensor in blocked.graph.initializer}
    # In the last map each place shows: none of them is lost in a mean.
    for before, after in zip(run(model), run(blocked), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-6 * np.abs(before).max(), rtol=0)


def test_another_stem_is_refused() -> None:
    with pytest.raises(DataError, match="MobileNet"):
        block_stem(student(stem=(1, 1, 0, 0)))


def test_weights_of_every_layer_are_rounded_for_what_it_reads(model: onnx.ModelProto) -> None:
    """Its outputs change by less than those of weights that are rounded to the nearest number."""
    rounded = copy(model)
    told = round_weights(rounded, CROPS)
    assert {name: len(channels) for name, channels in told.items()} == {
        name: shape[0] for name, (shape, _, _) in LAYERS.items()
    }
    for number, (layer, ((outputs, _, _), _, _)) in enumerate(LAYERS.items()):
        exact, ours = (array_of(m, layer) for m in (model, rounded))
        steps = ours.reshape(outputs, -1) / np.array([[channel["scale"]] for channel in told[layer]])
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
        assert np.abs(steps).max() < 127.01
        scale = np.abs(exact).reshape(outputs, -1).max(1)[:, None, None, None] / 127
        nearest = (np.round(exact / scale) * scale).astype(np.float32)
        made, changed, usual = (outputs_of(model, layer, weight, f"c{number}") for weight in (exact, ours, nearest))
        assert np.square(changed - made).mean() < 0.6 * np.square(usual - made).mean()


def array_of(model: onnx.ModelProto, name: str) -> np.ndarray:
    return np.asarray(numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name)))


def outputs_of(model: onnx.ModelProto, layer: str, weight: np.ndarray, output: str) -> np.ndarray:
    """What a layer gives, before ReLU6, with other weights and the inputs of the exact network."""
    probed = copy(model)
    next(t for t in probed.graph.initializer if t.name == layer).CopyFrom(numpy_helper.from_array(weight, layer))
    probed.graph.output.append(helper.make_empty_tensor_value_info(output))
    session = onnxruntime.InferenceSession(probed.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run([output], {"crops": CROPS})[0])


@pytest.fixture(scope="module")
def int8(model: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "student-int8.onnx"
    to_int8(copy(model), CROPS, path)
    return path


def test_int8_is_near_float32(model: onnx.ModelProto, int8: Path) -> None:
    for before, after in zip(run(model), run(int8), strict=True):
        assert after.shape == before.shape
        a, b = (x.reshape(len(x), -1) for x in (before, after))
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert 0.995 < cosine.min() < 1
        assert not np.array_equal(before, after)


def test_the_graph_is_one_chain_of_integers(int8: Path, tmp_path: Path) -> None:
    """As ONNX Runtime makes it: convolutions of integers with nothing between them but moves of bytes."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(int8, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    chain = kinds[kinds.index("QuantizeLinear") + 1 : kinds.index("ReduceMean")]
    assert chain.count("QLinearConv") == len(LAYERS)
    assert set(chain) <= {"QLinearConv", "Reshape", "Transpose", "DequantizeLinear", "Conv"}
    assert chain.index("DequantizeLinear") > len(chain) - 3  # behind the chain: for the mean, and for the maps
    assert "Clip" not in kinds


def test_int8_is_deterministic_and_names_nothing_of_the_machine(
    model: onnx.ModelProto, int8: Path, tmp_path: Path
) -> None:
    again = tmp_path / int8.name
    to_int8(copy(model), CROPS, again)
    assert again.read_bytes() == int8.read_bytes()
    written = onnx.load(int8)
    assert (written.producer_name, list(written.metadata_props)) == ("fevertools", [])
    assert [(item.domain, item.version) for item in written.opset_import] == [("", 18)]
    kinds = {t.name: t.data_type for t in written.graph.initializer}
    assert {kinds[f"{name}_quantized"] for name in ("stem.weight", *list(LAYERS)[1:])} == {TensorProto.INT8}
    assert tmp_path.name.encode() not in again.read_bytes()


def test_the_command_adds_the_file_to_the_entry(
    model: onnx.ModelProto, made_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(copy(model), tmp_path / "tiny.onnx")
    manifest = tmp_path / "weights_manifest.json"
    manifest.write_text(json.dumps(manifest_value(file_entry(tmp_path / "tiny.onnx"), maps=True)))
    assert main(["quantize", "tiny", "--data", str(made_data), "--manifest", str(manifest)]) == 0
    assert "tiny-int8.onnx" in capsys.readouterr().out
    entry = load_manifest(manifest).named("tiny")
    assert list(entry.files) == ["onnx", "int8"]
    files = resolve(entry)
    found = Encoder(entry, files, precision="int8", device="cpu").encode(CROPS)
    np.testing.assert_allclose(found.embeddings, run(tmp_path / "tiny-int8.onnx")[0], atol=1e-5)
    assert main(["quantize", "tinier", "--data", str(made_data), "--manifest", str(manifest)]) == 2
    assert "no encoder weights named 'tinier'" in capsys.readouterr().err
