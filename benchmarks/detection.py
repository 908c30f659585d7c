"""How much faster is the detector than facenet-pytorch's MTCNN on the CPU, for the same faces?

Run: `python -m benchmarks.detection [--photos DIR] [--threads N] [--rounds N] [--output FILE]`
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from facenet_pytorch import MTCNN
from PIL import Image

from benchmarks._common import OtherLoad, data_folder, interleaved, machine, report, summary_ms, versions
from fevertools.detector import Detector
from fevertools.types import UInt8Image

SUFFIXES = (".jpg", ".jpeg", ".png")
PACKAGES = ("fevertools", "onnxruntime", "numpy", "opencv-python-headless", "facenet-pytorch", "torch", "torchvision")


def compare(image: UInt8Image, ours: Detector, peer: MTCNN, rounds: int) -> dict[str, object]:
    """Time both on one photo, and check that they find the same faces."""
    faces = ours(image)
    boxes, _, landmarks = peer.detect(image, landmarks=True)
    if len(faces) != (0 if boxes is None else len(boxes)):
        raise SystemExit("the two detectors find different numbers of faces; their times say nothing")
    furthest = max(
        (
            float(max(np.abs(face.box - box).max(), np.abs(face.landmarks - points).max()))
            for face, box, points in zip(faces, boxes if faces else (), landmarks if faces else (), strict=True)
        ),
        default=0.0,
    )
    seconds = interleaved({"ours": lambda: ours(image), "peer": lambda: peer.detect(image, landmarks=True)}, rounds)
    ratio = statistics.median(seconds["peer"]) / statistics.median(seconds["ours"])
    return {
        "height": image.shape[0],
        "width": image.shape[1],
        "faces": len(faces),
        "largest_difference_px": round(furthest, 5),
        "fevertools": summary_ms(seconds["ours"]),
        "facenet_pytorch": summary_ms(seconds["peer"]),
        "ratio": round(ratio, 2),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time face detection against facenet-pytorch.")
    parser.add_argument("--photos", type=Path, default=data_folder("photos"), help="folder of JPEG and PNG files")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of both")
    parser.add_argument("--rounds", type=int, default=7, help="timed runs of each on each photo")
    parser.add_argument("--output", type=Path, help="also write the JSON object here")
    options = parser.parse_args(arguments)

    paths = sorted(path for path in options.photos.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise SystemExit(f"no photos in {options.photos}")
    torch.set_num_threads(options.threads)
    ours = Detector(device="cpu", threads=options.threads)
    peer = MTCNN(keep_all=True)
    photos = {}
    with OtherLoad() as others:
        for path in paths:
            image = np.array(Image.open(path).convert("RGB"))
            photos[path.name] = compare(image, ours, peer, options.rounds)
    result = {
        "benchmark": "detection",
        "machine": machine(),
        "versions": versions(*PACKAGES),
        "threads": options.threads,
        "rounds": options.rounds,
        "cores_busy_with_other_processes": others.cores,
        "photos": photos,
        "median_ratio": round(statistics.median(float(str(photo["ratio"])) for photo in photos.values()), 2),
    }
    report(result, options.output)


if __name__ == "__main__":
    main()
