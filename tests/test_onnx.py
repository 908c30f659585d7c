"""What an ONNX file says of itself, compared with the package onnx, which wrote it."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from onnx import TensorProto, helper, numpy_helper

from fevertools._onnx import leans_on_other_files, opsets
from fevertools.errors import WeightsIntegrityError
from fevertools.session import OPSETS, make_session

BUNDLED = sorted((Path(__file__).resolve().parents[1] / "fevertools" / "bundled").glob("*.onnx"))
ONE = numpy_helper.from_array(np.ones(3, np.float32), "one")


def elsewhere(name: str = "one") -> TensorProto:
    """A tensor whose numbers are in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="other.bin")
    return tensor


def model(nodes=(), initializers=(ONE,), opset_imports=(("", 17),), **fields) -> onnx.ModelProto:
    nodes = [*nodes, helper.make_node("Add", ["x", "one"], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], list(initializers))
    imports = [helper.make_opsetid(domain, version) for domain, version in opset_imports]
    return helper.make_model(graph, opset_imports=imports, ir_version=8, **fields)


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.name)
def test_the_bundled_models_are_read_as_onnx_reads_them(path):
    data = path.read_bytes()
    imports = onnx.load_model_from_string(data).opset_import
    assert opsets(data) == {entry.domain: entry.version for entry in imports}
    assert not leans_on_other_files(data)


def test_domains_are_told_apart():
    written = model(opset_imports=[("ai.onnx", 21), ("ai.onnx.ml", 3), ("com.microsoft", 1)])
    assert opsets(written.SerializeToString()) == {"": 21, "ai.onnx.ml": 3, "com.microsoft": 1}


def constant(tensor):
    return helper.make_node("Constant", [], ["c"], value=tensor)


def branch(tensor):
    """A graph inside of a graph inside of a graph."""
    inner = helper.make_graph([constant(tensor)], "inner", [], [])
    middle = helper.make_graph([helper.make_node("If", ["x"], ["i"], then_branch=inner)], "middle", [], [])
    return helper.make_node("If", ["x"], ["o"], then_branch=middle, else_branch=middle)


def sparse(tensor):
    holder = model()
    holder.graph.sparse_initializer.add().values.CopyFrom(tensor)
    return holder


def function(tensor):
    imports = [helper.make_opsetid("", 17)]
    return model(functions=[helper.make_function("d", "f", [], ["c"], [constant(tensor)], imports)])


def training(tensor):
    holder = model()
    holder.training_info.add().algorithm.initializer.add().CopyFrom(tensor)
    return holder


PLACES = {
    "initializer": lambda tensor: model(initializers=[tensor]),
    "second initializer": lambda tensor: model(initializers=[ONE, tensor]),
    "constant": lambda tensor: model([constant(tensor)]),
    "list": lambda tensor: model([helper.make_node("Custom", [], ["c"], values=[ONE, tensor])]),
    "inner graph": lambda tensor: model([branch(tensor)]),
    "sparse": sparse,
    "function": function,
    "training": training,
}


@pytest.mark.parametrize("place", PLACES)
def test_a_tensor_in_another_file_is_found_wherever_it_stands(place):
    assert leans_on_other_files(PLACES[place](elsewhere()).SerializeToString())
    assert not leans_on_other_files(PLACES[place](ONE).SerializeToString())


def test_what_is_no_model_is_a_value_error_and_nothing_else():
    data = model().SerializeToString()
    for end in range(len(data)):
        read_or_refuse(data[:end])
    rng = np.random.default_rng(0)
    for _ in range(3000):
        read_or_refuse(rng.bytes(rng.integers(1, 40)))
        broken = bytearray(data)
        broken[rng.integers(len(data))] = rng.integers(256)
        read_or_refuse(bytes(broken))
    with pytest.raises(ValueError, match="ten bytes"):
        opsets(b"\xff" * 12)
    with pytest.raises(ValueError, match="past the end"):
        opsets(b"\x42\x7f\x00")


def read_or_refuse(data):
    for read in (opsets, leans_on_other_files):
        try:
            read(data)
        except ValueError:
            continue


@pytest.mark.parametrize("version", [OPSETS[0], 17, OPSETS[-1]])
def test_supported_operator_sets_run(version):
    session = make_session(model(opset_imports=[("", version)]).SerializeToString(), device="cpu", threads=1)
    assert session.run(None, {"x": np.arange(3, dtype=np.float32)})[0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("version", [1, OPSETS[0] - 1, OPSETS[-1] + 1, 2**40])
def test_other_operator_sets_are_refused(version, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(model(opset_imports=[("", version)]).SerializeToString())
    with pytest.raises(WeightsIntegrityError, match=rf"m\.onnx.*version {version} of .*one of 7 to 21"):
        make_session(path, device="cpu")


def test_a_model_without_an_operator_set_is_refused():
    with pytest.raises(WeightsIntegrityError, match="version None"):
        make_session(model(opset_imports=[("ai.onnx.ml", 3)]).SerializeToString(), device="cpu")


def test_a_model_that_reads_other_files_is_refused(tmp_path):
    (tmp_path / "other.bin").write_bytes(np.ones(3, np.float32).tobytes())
    path = tmp_path / "m.onnx"
    path.write_bytes(model(initializers=[elsewhere()]).SerializeToString())
    with pytest.raises(WeightsIntegrityError, match=r"tensors in other files.*export it as one file"):
        make_session(path, device="cpu")
