"""Does a face keep its track, also behind another that crosses it, and how many frames a second is that?

Heads cut out of the photos move over a background, so that the truth is known. Each clip is written to a file and
followed by `fevertools.video.track`, and by the nearest thing without motion: each box goes to the last box that it
overlaps most.

Run: `python -m benchmarks.video [--photos DIR] [--threads N] [--output FILE]`
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks._clip import Actor, Moment, head, judge, line, play, write
from benchmarks._common import OtherLoad, data_folder, header, machine, report, versions
from fevertools import Analyzer
from fevertools.image import load
from fevertools.types import Float32, UInt8Image
from fevertools.video import track
from fevertools.video.tracker import distance_iou

HEIGHT, WIDTH, SIDE = 540, 960, 150
PACKAGES = ("fevertools", "onnxruntime", "numpy", "opencv-python-headless", "av")
PHOTOS = ("astronaut.png", "azure_detection1.jpg", "azure_detection2.jpg", "azure_detection3.jpg")
Tracks = list[list[tuple[int, Float32]]]


def heads(folder: Path, analyzer: Analyzer) -> list[UInt8Image]:
    """The head of the largest face of each photo: uint8 (SIDE, SIDE, 3)."""
    photos = [load(folder / name) for name in PHOTOS]
    return [head(photo, analyzer.detect(photo)[0], SIDE) for photo in photos]


def clips(people: Sequence[UInt8Image], background: UInt8Image) -> dict[str, tuple[list[Moment], int]]:
    """Name -> the clip, and every how many frames it is analysed."""
    even, varying = np.arange(0, 3, 1 / 30), np.cumsum(np.random.default_rng(1).uniform(0.01, 0.14, 40))
    apart = [
        Actor(picture, line((30 + 230 * place, 30 if place % 2 else 350), (60, 80 if place % 2 else -80)))
        for place, picture in enumerate(people)
    ]
    first, second = people[:2]
    cross = [Actor(first, line((760, 200), (-240, 0))), Actor(second, line((40, 190), (240, 0)))]
    slow = [Actor(first, line((452, 200), (-20, 0))), Actor(second, line((348, 190), (20, 0)))]
    return {
        "four people, apart": (list(play(apart, background, even)), 1),
        "two cross, half a second hidden": (list(play(cross, background, even)), 1),
        "the same, every third frame": (list(play(cross, background, even)), 3),
        "the same, frames 10 to 140 ms apart": (list(play(cross, background, varying)), 1),
        "two cross slowly, over a second hidden": (list(play(slow, background, np.arange(0, 5, 1 / 15))), 1),
    }


def last_box(boxes: Sequence[Sequence[Float32]]) -> Tracks:
    """Each box has the track of the last box that it overlaps most, of those seen in the frame before."""
    tracks, last, count = [], {}, 0
    for frame in boxes:
        known = dict(last)
        found: list[tuple[int, Float32]] = []
        for box in frame:
            affinity = {number: distance_iou(other[None], box[None])[0, 0] for number, other in known.items()}
            number = max(affinity, key=affinity.__getitem__, default=0)
            if not number or affinity[number] < 0:
                count += 1
                number = count
            known.pop(number, None)
            found.append((number, box))
        last = dict(found) or last
        tracks.append(found)
    return tracks


def measure(moments: Sequence[Moment], every: int, analyzer: Analyzer, folder: Path) -> dict[str, Any]:
    """Both on one clip."""
    path = folder / "clip.mp4"
    write(path, moments)
    start = time.perf_counter()
    frames = list(track(path, analyzer, every=every))
    seconds = time.perf_counter() - start
    seen = moments[::every]
    tracks = [[(face.track, face.face.box) for face in frame.faces] for frame in frames]
    boxes = [[box for _, box in found] for found in tracks]
    return {
        "frames": len(moments),
        "analysed": len(seen),
        "people": len(moments[0].centres),
        "fevertools": judge(seen, tracks, SIDE / 2),
        "last_box": judge(seen, last_box(boxes), SIDE / 2),
        "frames_per_second": round(len(moments) / seconds, 1),
    }


def table(results: Path) -> str:
    """The table of docs/video.md."""
    result = json.loads((results / "video.json").read_text("utf-8"))
    rows = header(
        "clip", "people", "tracks", "of nobody", "faces followed %", "switches", "by the last box", "frames/s"
    )
    for name, clip in result["clips"].items():
        own = clip["fevertools"]
        rows.append(
            f"| {name} | {clip['people']} | {own['tracks']} | {own['strays']} | {100 * own['followed']:.1f} "
            f"| {own['switches']} | {clip['last_box']['switches']} | {clip['frames_per_second']:.0f} |"
        )
    told = (
        f"{result['width']} x {result['height']} pixels; {result['machine']['processor']}, {result['threads']} "
        f"threads, {result['cores_busy_with_other_processes']} cores busy with other work. *By the last box* are the "
        "switches where each box goes to the last box that it overlaps most."
    )
    return "\n".join(rows) + f"\n\n{told}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Follow heads whose ways are known.")
    parser.add_argument("--photos", type=Path, default=data_folder("photos"), help=f"folder of {', '.join(PHOTOS)}")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of the networks")
    parser.add_argument("--output", type=Path, help="also write the JSON object here")
    options = parser.parse_args(arguments)

    blurred = cv2.GaussianBlur(load(options.photos / "solvay_1927.jpg"), (0, 0), 25)
    background = np.asarray(cv2.resize(blurred, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), np.uint8)
    with (
        Analyzer(device="cpu", threads=options.threads) as analyzer,
        tempfile.TemporaryDirectory() as folder,
        OtherLoad() as others,
    ):
        made = clips(heads(options.photos, analyzer), background)
        measured = {name: measure(moments, every, analyzer, Path(folder)) for name, (moments, every) in made.items()}
    result = {
        "benchmark": "video",
        "machine": machine(),
        "versions": versions(*PACKAGES),
        "threads": options.threads,
        "width": WIDTH,
        "height": HEIGHT,
        "cores_busy_with_other_processes": others.cores,
        "clips": measured,
    }
    report(result, options.output)


if __name__ == "__main__":
    main()
