"""Multiply-adds counted by hand, and the table that is written from them."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks import limit
from fevertools.session import make_session

ROOT = Path(__file__).resolve().parents[2]


def save(path: Path, nodes: list, shape: list, output: list, **tensors: tuple[int, ...]) -> Path:
    graph = helper.make_graph(
        nodes,
        "hand-made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(np.zeros(size, np.float32), name) for name, size in tensors.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def test_multiply_adds_of_convolutions(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "depthwise"], ["y"], group=8),
    ]
    model = save(
        tmp_path / "m.onnx", nodes, ["N", 3, 10, 10], ["N", 8, 3, 3], first=(8, 3, 3, 3), depthwise=(8, 1, 3, 3)
    )
    # 5 x 5 places of 8 channels, each of 27; then 3 x 3 places of 8 channels, each of 9
    assert limit.multiply_adds(model, (2, 3, 10, 10)) == 2 * (25 * 8 * 27 + 9 * 8 * 9)


@pytest.mark.parametrize("transposed", [0, 1])
def test_multiply_adds_of_dense_layers(tmp_path: Path, transposed: int) -> None:
    shape = [7, 4] if transposed else [4, 7]
    nodes = [
        helper.make_node("Gemm", ["x", "weight"], ["a"], transA=transposed),
        helper.make_node("MatMul", ["a", "head"], ["y"]),
    ]
    model = save(tmp_path / "m.onnx", nodes, shape, [4, 2], weight=(7, 5), head=(5, 2))
    assert limit.multiply_adds(model, shape) == 4 * 7 * 5 + 4 * 5 * 2


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_product_is_a_product(precision: str) -> None:
    model = limit.product(precision, 8)
    (weight,) = (numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(model).graph.initializer)
    left = np.arange(64).reshape(8, 8).astype(np.float32 if precision == "float32" else np.uint8)
    (found,) = make_session(model, device="cpu", threads=1).run(None, {"a": left})
    np.testing.assert_allclose(found, left.astype(np.float64) @ weight, rtol=1e-5)


def test_every_network_that_ships_is_measured() -> None:
    manifest = json.loads((ROOT / "weights_manifest.json").read_text())
    works = limit.works(manifest)
    shipped = {file["path"] for entry in manifest["weights"].values() for file in entry["files"].values()}
    assert {work.model.name for work in works} == {name for name in shipped if name.endswith(".onnx")}
    encoder = limit.multiply_adds(works[0].model, works[0].inputs.shape) / works[0].units
    assert 50e6 < encoder < 200e6  # MobileNet-v1 at 96 x 96


def test_table(tmp_path: Path) -> None:
    rows = [
        {"network": "N", "threads": 1, "unit": "crop", "multiply_adds": 1e8, "least_seconds": 0.001, "seconds": 0.00125,
         "share": 0.8},
        {"network": "P", "threads": 1, "unit": "pixel", "multiply_adds": 2000, "least_seconds": 2e-8, "seconds": 5e-8,
         "share": 0.4},
    ]  # fmt: skip
    result = {"networks": rows, "machine": {"processor": "C"}, "multiply_adds_per_second": {"float32": {"1": 1e11}}}
    (tmp_path / "limit.json").write_text(json.dumps(result))
    told = limit.table(tmp_path)
    assert "| N | 1 | 100 M a crop | 1 ms | 1.25 ms | 80 |" in told
    assert "| P | 1 | 0.002 M a pixel | 20 ns | 50 ns | 40 |" in told
    assert "float32 100 on 1" in told
