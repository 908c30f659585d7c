"""From the float32 graph of a student to its int8 graph: the same weights, 8-bit arithmetic, calibrated on PublicTest.

Static quantisation by ONNX Runtime: int8 weights with a scale for each output channel, uint8 activations with one for
each tensor. ReLU6 becomes the saturation of its scale, so that all convolutions are one chain of integers. Before it,
two steps of our own: `round_weights` chooses the roundings, and `block_stem` rewrites the first layer.
"""

import itertools
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from fevertools.errors import DataError
from fevertools.manifest import ROLES, load_manifest, manifest_path
from fevertools.session import make_session, runtime
from fevertools.train.datasets.ferplus import FerPlus
from fevertools.train.evaluate.image_sets import split_rows
from fevertools.train.export import describe_file, read_manifest, save, update_manifest
from fevertools.train.rounding import Float64, round_nine, round_rows
from fevertools.types import Float32, UInt8Image
from fevertools.weights import resolve

CALIBRATION: Final = 512
"""Faces of PublicTest, the first ones, from which the ranges of activations are taken."""

STATISTICS: Final = 256
"""Faces of those from which `round_weights` takes its moments."""

BATCH: Final = 16
QUANTISED: Final = ("Conv", "Clip", "Reshape", "Transpose")
"""Operators in integers. The embedding and the logits, behind the pooling, stay in float32, and so do the maps."""

_BLOCK: Final = 4  # neighbours in a row that `block_stem` makes at once


def quantize(name: str, data: FerPlus, manifest: Path | None = None) -> Path:
    """Write the int8 graph of an encoder, and put it into its entry of the manifest.

    Args:
        name: of the encoder.
        data: FER-2013, on whose PublicTest faces it is calibrated.
        manifest: the file with the entry, beside which its graph lies; None is the package's own.

    Returns:
        The file, of deterministic bytes.

    Raises:
        UnknownWeightsError: no encoder of this name.
        WeightsError: its float32 graph is missing or broken.
        DataError: the graph is none that this can quantise.
    """
    path = manifest or manifest_path()
    own = path.resolve() == manifest_path().resolve()
    entry = load_manifest(None if own else path).entry(name, "encoder")
    graph = resolve(entry, roles=("onnx",))["onnx"]
    output = graph.with_name(f"{name}-int8.onnx")
    crops = data.images[split_rows(data, "validation")[:CALIBRATION]][..., None]
    to_int8(onnx.load(graph), crops, output)
    value = read_manifest(path)["weights"][name]
    files = value["files"] | {"int8": describe_file(output)}
    value["files"] = {role: files[role] for role in (*ROLES["encoder"][0], *ROLES["encoder"][1]) if role in files}
    update_manifest(path, name, value)
    print(f"wrote {output} ({output.stat().st_size / 1e6:.2f} MB), and its size and SHA-256 to {path}")
    return output


def to_int8(model: onnx.ModelProto, crops: UInt8Image, path: Path) -> None:
    """Write the int8 graph of a float32 one, which is changed in place.

    Args:
        model: as `export.to_onnx` writes it, with a MobileNet-v1.
        crops: uint8 (N, H, W, 1), on which it is calibrated.
        path: where it is written.

    Raises:
        DataError: a graph with another kind of stem.
    """
    runtime()  # which turns off the telemetry of ONNX Runtime before its first import
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    widen(model)
    roundings = round_weights(model, crops[:STATISTICS])
    roundings["stem.weight"] = roundings.pop(block_stem(model)) * _BLOCK
    add_pre_process_metadata(model)  # done above: without it there is a warning
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "int8.onnx"
        quantize_static(
            model,
            file,
            _Crops(model.graph.input[0].name, crops),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTISED,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[node.name for node in model.graph.node if "maps" in node.output],
            extra_options={"TensorQuantOverrides": roundings},
        )
        save(onnx.load(file), path)


class _Crops:
    """What ONNX Runtime calls a CalibrationDataReader."""

    def __init__(self, name: str, crops: UInt8Image) -> None:
        self._batches = iter({name: batch} for batch in _batches(crops))

    def get_next(self) -> dict[str, UInt8Image] | None:
        return next(self._batches, None)


def _batches(crops: UInt8Image) -> list[UInt8Image]:
    return [crops[start : start + BATCH] for start in range(0, len(crops), BATCH)]


def widen(model: onnx.ModelProto) -> None:
    """Undo `export.save`: tensors that are stored as float16 become the float32 ones that their Casts give."""
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Cast" and node.input[0] in tensors]:
        half = tensors[node.input[0]]
        half.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(half).astype(np.float32), node.output[0]))
        graph.node.remove(node)


def block_stem(model: onnx.ModelProto) -> str:
    """Make the first convolution one with many input channels, the same function to the last product.

    Kernels for integers read runs of channels, and the stem has one. So blocks of 8 neighbours in a row of the picture
    become its channels, and blocks of 4 neighbours in a row of what it gives are made at once: 3 x 3 with stride 2 and
    one channel is 3 x 2 with strides 2 and 1 and eight, most of whose weights are 0.

    Returns:
        The name of the weights that `stem.weight` now holds _BLOCK times.

    Raises:
        DataError: the first convolution is none of 3 x 3 with stride 2, one channel and padding right and bottom.
    """
    graph = model.graph
    place, stem = next((i, node) for i, node in enumerate(graph.node) if node.op_type == "Conv")
    clip = graph.node[place + 1]
    weight, bias = (_array(graph, name) for name in stem.input[1:])
    found = _attributes(stem)
    size = _shapes(model)[stem.input[0]][-1]
    if (weight.shape[1:], found["strides"], found["pads"]) != ((1, 3, 3), [2, 2], [0, 0, 1, 1]) or size % 8:
        raise DataError("only a student with a MobileNet-v1 at a multiple of 8 pixels can be quantised")
    read = 2 * _BLOCK
    blocked = np.zeros((_BLOCK, len(weight), read, 3, 2), np.float32)
    for made, column in itertools.product(range(_BLOCK), range(3)):
        group, channel = divmod(2 * made + column, read)
        blocked[made, :, channel, :, group] = weight[:, 0, :, column]
    tensors = {
        "stem.weight": blocked.reshape(-1, read, 3, 2),
        "stem.bias": np.tile(bias, _BLOCK),
        "stem.blocks": np.array([-1, size, size // read, read]),
        "stem.rows": np.array([-1, size // 2, size // 2, len(weight)]),
    }
    nodes = [
        helper.make_node("Reshape", [stem.input[0], "stem.blocks"], ["stem.a"]),
        helper.make_node("Transpose", ["stem.a"], ["stem.b"], perm=[0, 3, 1, 2]),  # (N, 8, 96, 12)
        helper.make_node(
            "Conv", ["stem.b", "stem.weight", "stem.bias"], ["stem.c"], kernel_shape=[3, 2], strides=[2, 1],
            pads=[0, 0, 1, 1],
        ),
        helper.make_node("Clip", ["stem.c", *clip.input[1:]], ["stem.d"]),  # (N, 4 * 32, 48, 12)
        helper.make_node("Transpose", ["stem.d"], ["stem.e"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["stem.e", "stem.rows"], ["stem.f"]),  # (N, 48, 48, 32)
        helper.make_node("Transpose", ["stem.f"], [clip.output[0]], perm=[0, 3, 1, 2]),
    ]  # fmt: skip
    for node in nodes:
        node.name = node.output[0]
    for name in stem.input[1:]:
        graph.initializer.remove(next(tensor for tensor in graph.initializer if tensor.name == name))
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in tensors.items())
    rest = [*graph.node[:place], *nodes, *graph.node[place + 2 :]]
    del graph.node[:]
    graph.node.extend(rest)
    return str(stem.input[1])


def round_weights(model: onnx.ModelProto, crops: UInt8Image) -> dict[str, list[dict[str, Any]]]:
    """Put the weights of all convolutions but that of the maps, in place, on the grids of integers.

    Returns:
        weight -> what `quantize_static` is told of each of its output channels: the scale.
    """
    graph = model.graph
    layers = [node for node in graph.node if node.op_type == "Conv" and "maps" not in node.output]
    told = {}
    for node, moments in zip(layers, _moments(model, layers, crops), strict=True):
        tensor = next(tensor for tensor in graph.initializer if tensor.name == node.input[1])
        weight = numpy_helper.to_array(tensor)
        flat = weight.reshape(len(weight), -1).astype(np.float64)
        if weight.shape[1:] == (1, 3, 3):
            rounded, scale = round_nine(flat, np.broadcast_to(moments, (len(flat), 9, 9)))
        else:
            rounded, scale = round_rows(flat, moments[0])
        tensor.CopyFrom(numpy_helper.from_array(rounded.reshape(weight.shape).astype(np.float32), tensor.name))
        told[tensor.name] = [{"axis": 0, "scale": np.float32(s), "zero_point": np.int8(0)} for s in scale]
    return told


def _moments(model: onnx.ModelProto, layers: list[onnx.NodeProto], crops: UInt8Image) -> list[Float64]:
    """Of each layer (groups, T, T), T the weights of an output channel, see `rounding`."""
    names = [node.input[0] for node in layers]
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    probed.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session = make_session(probed.SerializeToString(), device="cpu")
    sums: list[Float64] = [np.zeros(())] * len(layers)
    for batch in _batches(crops):
        inputs = session.run(names, {model.graph.input[0].name: batch})
        sums = [total + _products(node, array) for total, node, array in zip(sums, layers, inputs, strict=True)]
    return [total / len(crops) for total in sums]


def _products(node: onnx.NodeProto, inputs: Float32) -> Float64:
    """Sums over all places of one batch (N, C, H, W) -> (groups, T, T)."""
    found = _attributes(node)
    top, left, bottom, right = found["pads"]
    down, across = found["strides"]
    padded = np.pad(inputs, ((0, 0), (0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, tuple(found["kernel_shape"]), axis=(2, 3))
    windows = windows[:, :, ::down, ::across]  # (N, C, rows, columns, kernel, kernel)
    groups, places = found.get("group", 1), windows[:, 0, :, :, 0, 0].size
    rows = windows.reshape(len(inputs), groups, -1, *windows.shape[2:]).transpose(1, 0, 3, 4, 2, 5, 6)
    rows = rows.reshape(groups, places, -1)
    return np.asarray(rows.swapaxes(1, 2) @ rows, np.float64)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _array(graph: onnx.GraphProto, name: str) -> npt.NDArray[Any]:
    return np.asarray(numpy_helper.to_array(next(tensor for tensor in graph.initializer if tensor.name == name)))


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Tensor -> its sizes, 0 for a free one."""
    known = onnx.shape_inference.infer_shapes(model).graph.value_info
    return {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in known}
