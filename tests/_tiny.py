"""A tiny student and its manifest, made in a temporary folder, and its outputs computed without ONNX."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fevertools.labels import EMOTIONS

DIMENSION = 16
LANDMARKS = [[0.319, 0.395], [0.693, 0.390], [0.504, 0.603], [0.350, 0.790], [0.657, 0.792]]

_rng = np.random.default_rng(20)
TO_EMBEDDING = _rng.normal(size=(36, DIMENSION)).astype(np.float32)
TO_LOGITS = _rng.normal(size=(DIMENSION, len(EMOTIONS))).astype(np.float32)
HEAD = _rng.normal(size=(32, DIMENSION + 1)).astype(np.float32)  # the triplet head of tiny weights that have one


def reference(crops):
    """Embeddings and logits of uint8 (N, 48, 48, 1): means of 8 x 8 blocks about 0, two matrices."""
    pooled = (crops[..., 0].astype(np.float64) / 255 - 0.5).reshape(-1, 6, 8, 6, 8).mean((2, 4)).reshape(-1, 36)
    embeddings = pooled @ TO_EMBEDDING
    return embeddings, embeddings @ TO_LOGITS


def reference_similarity(a, b):
    """Of two embeddings by HEAD: 1 - d^2 / 2 for the distance d of the outputs scaled to length 1."""
    first, second = (HEAD[:, :-1].astype(np.float64) @ vector + HEAD[:, -1] for vector in (a, b))
    return 1 - ((first / np.linalg.norm(first) - second / np.linalg.norm(second)) ** 2).sum() / 2


def reference_maps(crops):
    """What each 8 x 8 block adds to each logit, times the 36 blocks: (N, 8, 6, 6)."""
    pooled = (crops[..., 0].astype(np.float64) / 255 - 0.5).reshape(-1, 6, 8, 6, 8).mean((2, 4)).reshape(-1, 36)
    return np.einsum("np,pc->ncp", pooled, 36 * TO_EMBEDDING @ TO_LOGITS).reshape(-1, len(EMOTIONS), 6, 6)


def write_student(
    path, *, size=48, dimension=DIMENSION, input_name="crops", input_type=TensorProto.UINT8, maps=False, factor=1
):
    """The ONNX graph. The keywords make graphs that differ from what the manifest says; `maps` adds that output.

    Embeddings and logits are multiplied by `factor`.
    """
    constants = {
        "half": np.float32(0.5),
        "scale": np.float32(1 / 255),
        "to_embedding": np.float32(factor) * TO_EMBEDDING[:, :dimension],
        "to_logits": TO_LOGITS[:dimension],
        "planes": np.array([-1, 1, size, size], np.int64),
        "flat": np.array([-1, 36], np.int64),
    }
    nodes = [
        helper.make_node("Cast", [input_name], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["numbers", "scale"], ["fractions"]),
        helper.make_node("Sub", ["fractions", "half"], ["centred"]),
        helper.make_node("Reshape", ["centred", "planes"], ["grid"]),
        helper.make_node("AveragePool", ["grid"], ["means"], kernel_shape=[size // 6] * 2, strides=[size // 6] * 2),
        helper.make_node("Reshape", ["means", "flat"], ["pooled"]),
        helper.make_node("MatMul", ["pooled", "to_embedding"], ["embedding"]),
        helper.make_node("MatMul", ["embedding", "to_logits"], ["logits"]),
    ]
    outputs = [
        helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", dimension]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(EMOTIONS)]),
    ]
    if maps:
        constants |= {
            "evidence": 36 * TO_EMBEDDING @ TO_LOGITS,
            "places": np.array([-1, 36, 1], np.int64),
            "rows": np.array([-1, len(EMOTIONS), 6, 6], np.int64),
        }
        nodes += [
            helper.make_node("Reshape", ["pooled", "places"], ["column"]),
            helper.make_node("Mul", ["column", "evidence"], ["added"]),
            helper.make_node("Transpose", ["added"], ["turned"], perm=[0, 2, 1]),
            helper.make_node("Reshape", ["turned", "rows"], ["maps"]),
        ]
        outputs.append(helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["N", len(EMOTIONS), 6, 6]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(input_name, input_type, ["N", size, size, 1])],
        outputs,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def file_entry(path: Path) -> dict:
    data = path.read_bytes()
    return {"path": path.name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def manifest_value(file: dict, head: dict | None = None, *, maps: bool = False) -> dict:
    """A manifest with one encoder, as the export command writes it, and with a triplet head where its file is given."""
    return {
        "manifest_version": 1,
        "default": {"encoder": "tiny"},
        "weights": {
            "tiny": {
                "kind": "encoder",
                "title": "Tiny student for tests",
                "version": "1",
                "files": {"onnx": file} | ({} if head is None else {"triplet": head}),
                "bundled": True,
                "hub": None,
                "input": {
                    "name": "crops",
                    "height": 48,
                    "width": 48,
                    "channels": "luminance",
                    "layout": "NHWC",
                    "dtype": "uint8",
                    "landmarks": [list(point) for point in LANDMARKS],
                    "mean": 0.5,
                    "std": 1.0,
                    "normalisation": "in the graph",
                },
                "outputs": {"embedding": DIMENSION, "logits": len(EMOTIONS)}
                | ({} if head is None else {"triplet": len(HEAD)})
                | ({"maps": len(EMOTIONS)} if maps else {}),
                "dimension": DIMENSION,
                "labels": list(EMOTIONS),
                "licence": "Apache-2.0",
                "data": [{"name": "none", "terms": "random numbers"}],
                "start": "random",
                "recipe": "tiny",
                "metrics": {"ferplus8": {"accuracy": 0.125, "protocol": "ferplus8"}},
            }
        },
    }


def write_weights(folder: Path, *, head: np.ndarray | None = None, int8: bool = False, **graph) -> Path:
    """Student, its triplet head where one is given, and manifest in `folder`; the path of the manifest.

    With `int8` there is a graph of that name, which is float32 and gives twice the numbers.
    """
    write_student(folder / "tiny.onnx", **graph)
    if head is not None:
        np.save(folder / "tiny-triplet.npy", head)
    files = [file_entry(file) for file in (folder / "tiny.onnx", folder / "tiny-triplet.npy") if file.is_file()]
    path, value = folder / "weights_manifest.json", manifest_value(*files, maps=graph.get("maps", False))
    if int8:
        write_student(folder / "tiny-int8.onnx", factor=2, **graph)
        value["weights"]["tiny"]["files"]["int8"] = file_entry(folder / "tiny-int8.onnx")
    path.write_text(json.dumps(value), "utf-8")
    return path
