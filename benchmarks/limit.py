"""How near are the networks to what the arithmetic of this machine allows?

Run: `python -m benchmarks.limit [--threads N ...] [--rounds N] [--output FILE]`

The machine's rate is that of its best large matrix product in ONNX Runtime with as many threads; the least possible
time of a network is its multiply-adds divided by that rate.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._common import OtherLoad, header, interleaved, machine, report, versions
from fevertools.encoder import Encoder
from fevertools.manifest import load_manifest
from fevertools.session import make_session
from fevertools.weights import resolve

PACKAGES = ("fevertools", "onnxruntime", "onnx", "numpy")
SIDES = (512, 1024, 2048)
"""Sides of the square matrices whose product tells the rate."""

BATCH = 64
STRIP = (138, 480)  # rows and columns of a part of the pyramid, as the detector cuts it
CROPS = {"rnet": (32, 24), "onet": (8, 48)}  # crops a call, and their side
BUNDLED = Path(__file__).resolve().parents[1] / "fevertools" / "bundled"


@dataclass(frozen=True, slots=True)
class Work:
    """One network and what one call of it computes."""

    title: str
    model: Path
    inputs: np.ndarray[Any, Any]
    units: int  # crops or pixels in `inputs`
    unit: str
    precision: str = "float32"
    weights: str | None = None  # name of an encoder in the manifest


def multiply_adds(model: Path, shape: Sequence[int]) -> int:
    """Multiply-adds of the convolutions and matrix products of an ONNX file for an input of this shape."""
    import onnx

    graph = onnx.load(model)
    for dimension, size in zip(graph.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dimension.dim_value = size
    inferred = onnx.shape_inference.infer_shapes(graph, data_prop=True).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        shapes[value.name] = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
    total = 0
    for node in inferred.node:
        if node.op_type == "Conv":
            total += math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
        elif node.op_type in ("Gemm", "MatMul"):
            first = shapes[node.input[0]]
            transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
            total += math.prod(shapes[node.output[0]]) * (first[-2] if transposed else first[-1])
    return total


def product(precision: str, side: int) -> bytes:
    """An ONNX model that multiplies two square matrices, the second of them a constant as a network's weights are."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    if precision == "float32":
        kind, second = TensorProto.FLOAT, random.standard_normal((side, side)).astype(np.float32)
        node, result = helper.make_node("MatMul", ["a", "b"], ["c"]), TensorProto.FLOAT
    else:
        kind, second = TensorProto.UINT8, random.integers(-127, 128, (side, side)).astype(np.int8)
        node, result = helper.make_node("MatMulInteger", ["a", "b"], ["c"]), TensorProto.INT32
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("a", kind, [side, side])],
        [helper.make_tensor_value_info("c", result, [side, side])],
        [numpy_helper.from_array(second, "b")],
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return bytes(model.SerializeToString())


def rate(precision: str, threads: int, rounds: int) -> float:
    """Multiply-adds a second of the best of the matrix products."""
    best = 0.0
    for side in SIDES:
        session = make_session(product(precision, side), device="cpu", threads=threads)
        left = np.ones((side, side), np.float32 if precision == "float32" else np.uint8)
        calls = max(1, 1024**3 // side**3)

        def run(session: Any = session, left: Any = left, calls: int = calls) -> None:
            for _ in range(calls):
                session.run(None, {"a": left})

        seconds = statistics.median(interleaved({"product": run}, rounds)["product"])
        best = max(best, calls * side**3 / seconds)
    return best


def works(manifest: Mapping[str, Any]) -> list[Work]:
    """The networks that ship, each with a typical input."""
    random = np.random.default_rng(0)
    found = []
    default, weights = manifest["default"]["encoder"], manifest["weights"]
    encoders = [name for name, entry in weights.items() if entry["kind"] == "encoder"]
    for name in sorted(encoders, key=lambda name: name != default):
        entry = weights[name]
        side = entry["input"]["height"]
        crops = random.integers(0, 256, (BATCH, side, side, 1)).astype(np.uint8)
        model = BUNDLED / entry["files"]["onnx"]["path"]
        found.append(Work(f"{name}, batch {BATCH}", model, crops, BATCH, "crop", weights=name))
        if "int8" in entry["files"]:
            model = BUNDLED / entry["files"]["int8"]["path"]
            found.append(Work(f"{name} int8, batch {BATCH}", model, crops, BATCH, "crop", "int8", name))
    strip = random.random((1, 3, *STRIP), np.float32) * 255
    found.append(Work("P-Net, one strip", BUNDLED / "mtcnn_pnet.onnx", strip, math.prod(STRIP), "pixel"))
    for network, (count, size) in CROPS.items():
        batch = random.random((count, 3, size, size), np.float32) * 255
        title = {"rnet": "R-Net", "onet": "O-Net"}[network]
        found.append(Work(f"{title}, {count} crops", BUNDLED / f"mtcnn_{network}.onnx", batch, count, "crop"))
    return found


def caller(work: Work, threads: int) -> Callable[[], object]:
    """One call: of an encoder as the package makes it, which cuts batches into runs that fit the cache."""
    if work.weights is not None:
        entry = load_manifest().entry(work.weights, "encoder")
        encoder = Encoder(entry, resolve(entry), precision=work.precision, device="cpu", threads=threads)
        return lambda: encoder.encode(work.inputs)
    session = make_session(work.model, device="cpu", threads=threads)
    feed = {session.get_inputs()[0].name: work.inputs}
    return lambda: session.run(None, feed)


def table(results: Path) -> str:
    """Share of the machine's rate that each network reaches."""
    result = json.loads((results / "limit.json").read_text())
    rows = header("network", "threads", "multiply-adds", "least time", "measured", "share of the limit %")
    for row in result["networks"]:
        scale, unit = (1e9, "ns") if row["unit"] == "pixel" else (1e3, "ms")
        rows.append(
            f"| {row['network']} | {row['threads']} | {row['multiply_adds'] / 1e6:,.4g} M a {row['unit']} "
            f"| {row['least_seconds'] * scale:.3g} {unit} | {row['seconds'] * scale:.3g} {unit} "
            f"| {100 * row['share']:.0f} |"
        )
    rates = "; ".join(
        f"{precision} {', '.join(f'{value / 1e9:.0f} on {threads}' for threads, value in by_threads.items())}"
        for precision, by_threads in result["multiply_adds_per_second"].items()
    )
    return (
        "\n".join(rows)
        + f"\n\n{result['machine']['processor']}. Billions of multiply-adds a second of its best matrix product in "
        f"ONNX Runtime, by threads: {rates}."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure how near the networks are to the machine's limit.")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="CPU threads")
    parser.add_argument("--rounds", type=int, default=15, help="timed runs of each")
    parser.add_argument("--output", type=Path, help="also write the JSON object here")
    options = parser.parse_args(arguments)
    manifest = json.loads((BUNDLED.parents[1] / "weights_manifest.json").read_text(encoding="utf-8"))
    ours = works(manifest)
    rates: dict[str, dict[str, float]] = {}
    networks = []
    with OtherLoad() as others:
        for precision in sorted({work.precision for work in ours}):
            rates[precision] = {str(n): round(rate(precision, n, options.rounds)) for n in options.threads}
        for threads in options.threads:
            timed = interleaved({work.title: caller(work, threads) for work in ours}, options.rounds, warmups=2)
            for work in ours:
                per_unit = multiply_adds(work.model, work.inputs.shape) / work.units
                seconds = statistics.median(timed[work.title]) / work.units
                least = per_unit / rates[work.precision][str(threads)]
                networks.append(
                    {
                        "network": work.title, "precision": work.precision, "threads": threads, "unit": work.unit,
                        "multiply_adds": round(per_unit), "least_seconds": least, "seconds": seconds,
                        "share": round(least / seconds, 4),
                    }
                )  # fmt: skip
    result = {
        "benchmark": "limit",
        "machine": machine(),
        "versions": versions(*PACKAGES),
        "rounds": options.rounds,
        "cores_busy_with_other_processes": others.cores,
        "multiply_adds_per_second": rates,
        "networks": networks,
    }
    report(result, options.output)


if __name__ == "__main__":
    main()
