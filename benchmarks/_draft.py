"""What does decoding JPEGs at a fraction of their size gain, and what does it change? A part of `benchmarks.stream`."""

import io
import statistics
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks._common import data_folder, summary_ms
from fevertools import Analyzer, ImageResult

LARGE = 12_000_000  # pixels
LFW = 200  # images, evenly out of all


def draft(photos: Path, threads: int, rounds: int) -> list[dict[str, Any]]:
    """Photos enlarged to LARGE, and LFW's pictures at their own size; halves, and quarters where they are large."""
    large = [enlarged(path) for path in sorted(photos.iterdir()) if path.suffix.lower() in (".jpg", ".png")]
    small = list(lfw())
    sets = (("photos, 12 MP", large, 96), ("photos, 12 MP", large, 192), ("LFW, 250 x 250", small, 96))
    return [
        {"set": name, "images": len(images), "min_face_size": smallest} | compare(images, smallest, threads, rounds)
        for name, images, smallest in sets
    ]


def enlarged(path: Path) -> bytes:
    """A JPEG of LARGE pixels."""
    with Image.open(path) as image:
        scale = (LARGE / (image.width * image.height)) ** 0.5
        large = image.convert("RGB").resize((round(image.width * scale), round(image.height * scale)))
    file = io.BytesIO()
    large.save(file, "JPEG", quality=90)
    return file.getvalue()


def lfw() -> Iterator[bytes]:
    with zipfile.ZipFile(data_folder("lfw") / "lfw_deepfunneled.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        for number in np.linspace(0, len(names) - 1, LFW).astype(int):
            yield archive.read(names[number])


def compare(images: Sequence[bytes], smallest: int, threads: int, rounds: int) -> dict[str, Any]:
    """Seconds an image with and without `draft`, run in turn, and how the results differ."""
    options: dict[str, Any] = {"device": "cpu", "threads": threads, "min_face_size": smallest}
    seconds: dict[str, list[float]] = {"exact": [], "draft": []}
    found: dict[str, list[ImageResult]] = {}
    with Analyzer(**options) as exact, Analyzer(**options, draft=True) as drafted:
        for number in range(rounds + 1):
            for name, analyzer in (("exact", exact), ("draft", drafted)):
                start = time.perf_counter()
                found[name] = list(analyzer.stream(images))
                if number:  # the first is the warm-up
                    seconds[name].append((time.perf_counter() - start) / len(images))
    ratio = statistics.median(seconds["exact"]) / statistics.median(seconds["draft"])
    times = {name: summary_ms(values) for name, values in seconds.items()}
    return {**times, "ratio": round(ratio, 2), **difference(found["exact"], found["draft"], smallest)}


def difference(exact: Sequence[ImageResult], drafted: Sequence[ImageResult], smallest: int) -> dict[str, Any]:
    """Of the faces of `smallest` pixels and more that the exact search finds: how many are there, and how alike."""
    wanted, cosines, labels, landmarks = 0, [], [], []
    for one, other in zip(exact, drafted, strict=True):
        for face in one.faces:
            box = face.face.box
            if min(box[2:] - box[:2]) < smallest:
                continue
            wanted += 1
            twin = max(other.faces, key=lambda twin: overlap(box, twin.face.box), default=None)
            if twin is None or overlap(box, twin.face.box) < 0.5:
                continue
            a, b = face.embedding, twin.embedding
            cosines.append(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
            labels.append(face.expression.label == twin.expression.label)
            moved = np.abs(face.face.landmarks - twin.face.landmarks).mean()
            landmarks.append(float(moved / (box[2] - box[0])))
    return {
        "faces": wanted,
        "found": len(cosines),
        "same_label": sum(labels),
        "cosine_median": round(statistics.median(cosines), 4),
        "cosine_min": round(min(cosines), 4),
        "landmarks_percent_of_width": round(100 * statistics.median(landmarks), 2),
    }


def overlap(one: Any, other: Any) -> float:
    """Intersection over union of two boxes."""
    sides = np.maximum(0, np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]))
    shared = float(sides.prod())
    return shared / float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - shared)
