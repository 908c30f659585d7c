"""EfficientNet-B0 at 224 x 224 in ONNX Runtime: what EmotiEffLib runs by default, with random weights."""

import argparse
import os
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported

import numpy as np
import onnxruntime

from benchmarks._peer import answer, peak_bytes, timed

SIDE, CLASSES = 224, 8


def export(path: Path) -> None:
    """Write the network, 16 MB."""
    import timm
    import torch

    network = timm.create_model("tf_efficientnet_b0", pretrained=False, num_classes=CLASSES).eval()
    program = torch.onnx.export(
        network, (torch.zeros(2, 3, SIDE, SIDE),), dynamo=True, verbose=False, optimize=True,
        input_names=["images"], dynamic_shapes={"x": {0: "batch"}},
    )  # fmt: skip
    assert program is not None
    program.save(str(path), external_data=False)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--scratch", type=Path, required=True, help="folder for the exported network")
    options = parser.parse_args()
    path = options.scratch / "efficientnet-b0.onnx"
    if not path.is_file():
        export(path)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).random((64, 3, SIDE, SIDE), np.float32)

    def crops(way: str, batch: int, calls: int) -> list[float]:
        return timed(lambda: session.run(None, {"images": images[:batch]}), calls)

    answer({"ways": lambda: ["InferenceSession.run"], "crops": crops, "peak": peak_bytes})


if __name__ == "__main__":
    main()
