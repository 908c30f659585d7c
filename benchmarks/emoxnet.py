"""How much faster is EmoXNetLite than EmoXNet on the CPU?

Run: `python -m benchmarks.emoxnet [--runs DIR] [--threads N] [--batch N] [--rounds N] [--output FILE]`

Speed does not depend on the weights: a network whose run is not there is random.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from benchmarks._common import OtherLoad, interleaved, machine, report, summary_ms, versions
from fevertools.session import make_session
from fevertools.train import checkpoint
from fevertools.train.export import OPSET, Served
from fevertools.train.methods.emoxnet import make_emoxnet
from fevertools.train.models import build
from fevertools.train.recipe import load_recipe

SIZE = 48
PACKAGES = ("fevertools", "onnxruntime", "torch", "timm", "numpy")


class Probabilities(nn.Module):
    """uint8 crops (N, 48, 48, 1) -> what is told of them: the first of several outputs is the embedding."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor) -> Tensor:
        output: Tensor = self.network(crops)[1]
        return output


def load(network: nn.Module, run: Path) -> bool:
    """Fill a network with the average of a run; whether there is one."""
    path = run / "checkpoint.safetensors"
    if path.is_file():
        checkpoint.load_weights(network, checkpoint.read(path)[0], "average.", path)
    network.eval().requires_grad_(False)
    return path.is_file()


def exported(network: nn.Module, folder: Path, name: str, threads: int) -> Callable[[np.ndarray], object]:
    """The network in ONNX Runtime, checked against itself."""
    example = torch.randint(0, 256, (2, SIZE, SIZE, 1), dtype=torch.uint8)
    path = folder / f"{name}.onnx"
    program = torch.onnx.export(
        network, (example,), dynamo=True, opset_version=OPSET, verbose=False, optimize=True,
        input_names=["crops"], output_names=["logits"], dynamic_shapes={"crops": {0: "batch"}},
    )  # fmt: skip
    if program is None:
        raise SystemExit(f"{name} could not be exported")
    onnx.save(program.model_proto, path)
    session: onnxruntime.InferenceSession = make_session(path, device="cpu", threads=threads)
    (logits,) = session.run(None, {"crops": example.numpy()})
    np.testing.assert_allclose(logits, network(example).numpy(), rtol=1e-2, atol=1e-2)
    return lambda crops: session.run(None, {"crops": crops})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time EmoXNetLite against EmoXNet.")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of all")
    parser.add_argument("--batch", type=int, default=16, help="faces at a time")
    parser.add_argument("--rounds", type=int, default=7, help="timed runs of each")
    parser.add_argument("--output", type=Path, help="also write the JSON object here")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    crops = np.random.default_rng(0).integers(0, 256, (options.batch, SIZE, SIZE, 1)).astype(np.uint8)
    whole, lite = make_emoxnet(load_recipe("emoxnet_open")), build(load_recipe("emoxnet_lite").model)
    trained = {
        "EmoXNet": load(whole, options.runs / "emoxnet-open"),
        "EmoXNetLite": load(lite, options.runs / "emoxnet-lite"),
    }
    networks = {"EmoXNet": Probabilities(whole), "EmoXNetLite": Probabilities(Served(lite)).eval()}
    with tempfile.TemporaryDirectory() as folder:
        contestants: dict[str, Callable[[], object]] = {}
        for name, network in networks.items():
            session = exported(network, Path(folder), name, options.threads)
            contestants[f"{name}, torch"] = lambda network=network: network(torch.from_numpy(crops))  # type: ignore[misc]
            contestants[f"{name}, ONNX"] = lambda session=session: session(crops)  # type: ignore[misc]
        with torch.inference_mode(), OtherLoad() as others:
            seconds = interleaved(contestants, options.rounds)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    result = {
        "benchmark": "emoxnet",
        "machine": machine(),
        "versions": versions(*PACKAGES),
        "threads": options.threads,
        "batch": options.batch,
        "rounds": options.rounds,
        "cores_busy_with_other_processes": others.cores,
        "trained": trained,
        "parameters": {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()},
        "times": {name: summary_ms(values) for name, values in seconds.items()},
        "images_per_second": {name: round(options.batch / value, 2) for name, value in median.items()},
        "ratio": {
            kind.lower(): round(median[f"EmoXNet, {kind}"] / median[f"EmoXNetLite, {kind}"], 2)
            for kind in ("torch", "ONNX")
        },
    }
    report(result, options.output)


if __name__ == "__main__":
    main()
