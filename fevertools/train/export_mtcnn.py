"""Write the three bundled MTCNN networks from the weights of facenet-pytorch.

    python -m fevertools.train.export_mtcnn [--output DIR]

The graphs compute what facenet-pytorch's modules compute, arranged for speed on a CPU:

- `(x - 127.5) / 128` is part of the first convolution (none of them pads, so this is exact);
- the two, or three, heads are one; of the two classes only the difference of the logits is kept, whose sigmoid is their
  softmax;
- the weights of the first dense layer are reordered, so that nothing is transposed before it;
- channel counts are multiples of 16 and PReLU is built of convolutions and ReLU, because ONNX Runtime's blocked
  convolutions are several times faster as long as no other operator comes between two of them.

Inputs: "image" (N, 3, H, W) for the first network, "crops" (N, 3, 24, 24) and (N, 3, 48, 48); float32 RGB, 0-255.
Output: "cells" (N, 5, h, w), "faces" (N, 5), "faces" (N, 15): logit, four box offsets, ten landmark fractions.
"""

import argparse
import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fevertools.errors import DataError, MissingExtraError
from fevertools.types import Float32

try:
    import onnx
    import torch
    from onnx import TensorProto, helper, numpy_helper
except ImportError as error:
    raise MissingExtraError("the export needs torch and onnx: pip install fevertools[train]") from error

OPSET = 17
IR_VERSION = 8
BLOCK = 16  # channels of one block of ONNX Runtime's widest convolution kernels
DEFAULT_OUTPUT = Path(__file__).parents[1] / "bundled"

Weights = Mapping[str, Float32]
Index = npt.NDArray[np.intp]


@dataclass
class Graph:
    """An ONNX graph under construction. Every method adds operators and returns the name of their output."""

    nodes: list[Any] = field(default_factory=list)
    tensors: list[Any] = field(default_factory=list)

    def node(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def tensor(self, name: str, values: Float32) -> str:
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name))
        return name

    def conv(self, x: str, name: str, weight: Float32, bias: Float32 | None = None, group: int = 1) -> str:
        inputs = [x, self.tensor(f"{name}.weight", weight)]
        if bias is not None:
            inputs.append(self.tensor(f"{name}.bias", bias))
        return self.node("Conv", inputs, name, group=group)

    def pool(self, x: str, name: str, size: int) -> str:
        return self.node("MaxPool", [x], name, kernel_shape=[size, size], strides=[2, 2], ceil_mode=1)

    def prelu(self, x: str, name: str, slope: Float32) -> str:
        """prelu(x) = x + (1 - slope) relu(-x), with one 1x1 convolution a channel for each factor."""
        channels = len(slope)
        minus = self.conv(x, f"{name}.minus", np.full((channels, 1, 1, 1), -1, np.float32), group=channels)
        below = self.node("Relu", [minus], f"{name}.below")
        factor = (1 - slope).reshape(-1, 1, 1, 1)
        return self.node("Add", [x, self.conv(below, f"{name}.scaled", factor, group=channels)], name)

    def minus_prelu(self, y: str, name: str, slope: Float32) -> str:
        """-prelu(x) of y = -x, which is y - (1 - slope) relu(y): spares the convolution that turns the sign."""
        below = self.node("Relu", [y], f"{name}.below")
        factor = (slope - 1).reshape(-1, 1, 1, 1)
        return self.node("Add", [y, self.conv(below, f"{name}.scaled", factor, group=len(slope))], name)

    def prelu_pool(self, x: str, name: str, slope: Float32) -> str:
        """Max pooling, 2x2, of the PReLU of `len(slope)` channels, for a quarter of the work of PReLU at full size.

        A slope of 0 or more is a rising function, and may follow the pooling. With a slope below 0,
        prelu(x) = max(x, slope x), so both are pooled: see `with_falling`, which makes x. With M the pooled x and P the
        pooled slope x, the result is M + (1 - slope) relu(-M) or M + relu(P - M).
        """
        falling = np.flatnonzero(slope < 0)
        channels = len(slope) + len(falling)
        difference = np.zeros((channels, channels, 1, 1), np.float32)
        factor = np.zeros_like(difference)
        for channel, value in enumerate(slope):
            difference[channel, channel] = -1
            factor[channel, channel] = 1 if value < 0 else 1 - value
        difference[falling, len(slope) + np.arange(len(falling))] = 1
        pooled = self.pool(x, f"{name}.pool", 2)
        below = self.node("Relu", [self.conv(pooled, f"{name}.difference", difference)], f"{name}.below")
        return self.node("Add", [pooled, self.conv(below, f"{name}.scaled", factor)], name)

    def dense(self, x: str, name: str, weight: Float32, bias: Float32) -> str:
        inputs = [x, self.tensor(f"{name}.weight", weight), self.tensor(f"{name}.bias", bias)]
        return self.node("Gemm", inputs, name, transB=1)


def fold_normalisation(weight: Float32, bias: Float32) -> tuple[Float32, Float32]:
    """Make a convolution that expects (x - 127.5) / 128 take x."""
    return weight / np.float32(128), bias - weight.sum((1, 2, 3)) * np.float32(127.5 / 128)


def pad_channels(array: Float32, *counts: int) -> Float32:
    """Zeros behind the leading axes, up to `counts`."""
    return np.pad(array, [(0, counts[i] - size if i < len(counts) else 0) for i, size in enumerate(array.shape)])


def with_falling(weight: Float32, bias: Float32, slope: Float32) -> tuple[Float32, Float32]:
    """A convolution whose channels of negative slope come a second time, multiplied by it: see `Graph.prelu_pool`."""
    falling = slope < 0
    factor: Float32 = slope[falling]
    return (
        np.concatenate([weight, weight[falling] * factor[:, None, None, None]]),
        np.concatenate([bias, bias[falling] * factor]),
    )


def merge_heads(weights: Weights, classes: str, *others: str) -> tuple[Float32, Float32]:
    """Weight and bias of one layer: difference of the two class logits, then the other heads."""
    merged = []
    for kind in ("weight", "bias"):
        pair = weights[f"{classes}.{kind}"]
        merged.append(np.concatenate([pair[1:] - pair[:1], *(weights[f"{name}.{kind}"] for name in others)]))
    return merged[0], merged[1]


def rounded_up(channels: int) -> int:
    return -(-channels // BLOCK) * BLOCK


def proposal_graph(weights: Weights) -> Graph:
    """P-Net: (N, 3, H, W) -> cells (N, 5, h, w), stride 2."""
    graph = Graph()
    slope = weights["prelu1.weight"]
    first = with_falling(*fold_normalisation(weights["conv1.weight"], weights["conv1.bias"]), slope)
    width = len(first[1])  # 10 channels and 6 of negative slope: just one block
    x = graph.prelu_pool(graph.conv("image", "conv1", *first), "prelu1", slope)
    # From here on everything has the other sign.
    x = graph.conv(x, "conv2", -pad_channels(weights["conv2.weight"], BLOCK, width), -weights["conv2.bias"])
    x = graph.minus_prelu(x, "prelu2", weights["prelu2.weight"])
    x = graph.conv(x, "conv3", weights["conv3.weight"], -weights["conv3.bias"])
    # The last PReLU is part of the heads: W prelu(-x) = -W x + W (1 - slope) relu(x).
    below = graph.node("Relu", [x], "prelu3.below")
    heads, bias = merge_heads(weights, "conv4_1", "conv4_2")
    scaled = heads * (1 - weights["prelu3.weight"])[:, None, None]
    graph.node("Add", [graph.conv(x, "cells.above", -heads, bias), graph.conv(below, "cells.below", scaled)], "cells")
    return graph


def first_pooled(graph: Graph, weights: Weights, pool: int) -> tuple[str, Index]:
    """First convolution, PReLU and pooling of R-Net or O-Net; the channels of the result, in their order.

    One block of channels of slope 0 or more comes first: a rising function may follow the pooling, at a quarter of the
    work.
    """
    weight, bias = fold_normalisation(weights["conv1.weight"], weights["conv1.bias"])
    slope = weights["prelu1.weight"]
    order = np.argsort(slope < 0, kind="stable")
    rising, other = order[:BLOCK], order[BLOCK:]

    def conv(channels: Index, name: str) -> str:
        return graph.conv("crops", name, pad_channels(weight[channels], BLOCK), pad_channels(bias[channels], BLOCK))

    after = graph.prelu(graph.pool(conv(rising, "conv1.rising"), "pool1.rising", pool), "prelu1.rising", slope[rising])
    before = graph.prelu(conv(other, "conv1.other"), "prelu1.other", pad_channels(slope[other], BLOCK))
    return graph.node("Concat", [after, graph.pool(before, "pool1.other", pool)], "pool1", axis=1), order


def crop_graph(weights: Weights, pools: Sequence[int], side: int, heads: Sequence[str]) -> Graph:
    """R-Net or O-Net: (N, 3, size, size) -> faces (N, 5 or 15).

    Args:
        weights: convolutions conv1, conv2 ..., one dense layer of the next number, then the heads.
        pools: size of the pooling after each convolution but the last.
        side: pixels of the last feature map.
        heads: names of the heads, classes first.
    """
    graph = Graph()
    x, order = first_pooled(graph, weights, pools[0])
    before, last = 2 * BLOCK, len(pools) + 1
    for number in range(2, last + 1):
        weight, bias = weights[f"conv{number}.weight"], weights[f"conv{number}.bias"]
        if number == 2:
            weight = weight[:, order]
        channels = rounded_up(len(bias))
        x = graph.conv(x, f"conv{number}", pad_channels(weight, channels, before), pad_channels(bias, channels))
        x = graph.prelu(x, f"prelu{number}", pad_channels(weights[f"prelu{number}.weight"], channels))
        if number < last:
            x = graph.pool(x, f"pool{number}", pools[number - 1])
        before = channels
    dense = last + 1
    weight = weights[f"dense{dense}.weight"]
    # facenet-pytorch flattens (N, W, H, C); this graph flattens (N, C, H, W).
    weight = weight.reshape(len(weight), side, side, before).transpose(0, 3, 2, 1).reshape(len(weight), -1)
    x = graph.dense(graph.node("Flatten", [x], "flat"), f"dense{dense}", weight, weights[f"dense{dense}.bias"])
    x = graph.node("PRelu", [x, graph.tensor(f"prelu{dense}.slope", weights[f"prelu{dense}.weight"])], f"prelu{dense}")
    graph.dense(x, "faces", *merge_heads(weights, *heads))
    return graph


def finish(graph: Graph, name: str, input_shape: Sequence[str | int], output_shape: Sequence[str | int]) -> bytes:
    """Check the graph and serialise it; the same graph gives the same bytes."""
    first, last = graph.nodes[0].input[0], graph.nodes[-1].output[0]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            name,
            [helper.make_tensor_value_info(first, TensorProto.FLOAT, list(input_shape))],
            [helper.make_tensor_value_info(last, TensorProto.FLOAT, list(output_shape))],
            graph.tensors,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="fevertools",
    )
    helper.set_model_props(
        model,
        {
            "source": f"facenet-pytorch {importlib.metadata.version('facenet-pytorch')}, MTCNN {name}",
            "licence": "MIT, Copyright (c) 2019 Timothy Esler; see MTCNN_LICENSE",
        },
    )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def read_weights() -> dict[str, dict[str, Float32]]:
    """Weights of P-, R- and O-Net from the installed facenet-pytorch, by network and parameter name.

    Raises:
        MissingExtraError: facenet-pytorch is not installed.
        DataError: it is installed without its weight files.
    """
    spec = importlib.util.find_spec("facenet_pytorch")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("the export needs facenet-pytorch: pip install --no-deps facenet-pytorch==2.5.3")
    # The files alone, since importing the package would import all that its other models need.
    folder = Path(next(iter(spec.submodule_search_locations))) / "data"
    networks = {}
    for name in ("pnet", "rnet", "onet"):
        path = folder / f"{name}.pt"
        if not path.is_file():
            raise DataError(f"facenet-pytorch has no weight file {path}; install facenet-pytorch==2.5.3 anew")
        state = torch.load(path, map_location="cpu", weights_only=True)
        networks[name] = {key: value.numpy() for key, value in state.items()}
    return networks


def export() -> dict[str, bytes]:
    """The three networks as ONNX files, by file name."""
    weights = read_weights()
    rnet = crop_graph(weights["rnet"], (3, 3), 3, ("dense5_1", "dense5_2"))
    onet = crop_graph(weights["onet"], (3, 3, 2), 3, ("dense6_1", "dense6_2", "dense6_3"))
    return {
        "mtcnn_pnet.onnx": finish(
            proposal_graph(weights["pnet"]), "pnet", ("N", 3, "H", "W"), ("N", 5, "rows", "columns")
        ),
        "mtcnn_rnet.onnx": finish(rnet, "rnet", ("N", 3, 24, 24), ("N", 5)),
        "mtcnn_onet.onnx": finish(onet, "onet", ("N", 3, 48, 48), ("N", 15)),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write the bundled MTCNN networks from facenet-pytorch's weights.")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="folder (default: the bundled files)")
    output: Path = parser.parse_args(arguments).output
    output.mkdir(parents=True, exist_ok=True)
    for name, data in export().items():
        (output / name).write_bytes(data)
        print(f"{output / name}: {len(data)} bytes")


if __name__ == "__main__":
    main()
