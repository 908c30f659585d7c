"""How much faster is the detector than facenet-pytorch's MTCNN on the CPU, for the same faces?

Run: `python -m benchmarks.detection [--photos DIR] [--threads N] [--rounds N] [--peers DIR] [--output FILE]`

Photos at their own size, and some made 0.25 to 12 megapixels large; the preset "fast" and what it loses; and the Haar
cascade of OpenCV, which finds other boxes and no landmarks.
"""

import argparse
import io
import json
import statistics
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from benchmarks._common import OtherLoad, data_folder, header, machine, report, summary_ms, versions
from benchmarks._peer import PEERS, Contestant, PeerError, Worker, in_turn, timed
from benchmarks.end_to_end import overlaps
from fevertools.detector import Detector
from fevertools.types import Face, UInt8Image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facenet_pytorch import MTCNN

SUFFIXES = (".jpg", ".jpeg", ".png")
PACKAGES = ("fevertools", "onnxruntime", "numpy", "opencv-python-headless", "facenet-pytorch", "torch", "torchvision")
MEGAPIXELS = (0.25, 0.5, 1, 2, 4, 12)
SUBJECTS = {
    "no face": ("solvay_1927.jpg", slice(860, None)),  # shoes
    "1 face": ("azure_detection1.jpg", slice(None)),
    "4 faces": ("azure_detection4.jpg", slice(None)),
    "a group": ("solvay_1927.jpg", slice(None)),
}
"""Name -> photo, and the rows of it."""
LFW_IMAGES = 500
SEED = 0
COLUMNS = ("faces", "fevertools ms", "ratio", "`fast` ms", "ratio", "facenet-pytorch ms", "Haar ms")
LEAST_SIDE = 40
"""Pixels of the faces that the preset "fast" is to find."""
LEAST_OVERLAP = 0.5
HAAR = Contestant("OpenCV's Haar cascade", "haar", (), "fer")


@dataclass(frozen=True, slots=True)
class Field:
    """The contestants with so many threads each."""

    exact: Detector
    fast: Detector
    peer: "MTCNN"
    haar: Worker | None


def make_field(threads: int, peers: Path, stack: ExitStack) -> tuple[Field, str | None]:
    """Contestants, and why the cascade is not among them."""
    import torch  # the table is made without it
    from facenet_pytorch import MTCNN

    torch.set_num_threads(threads)
    haar, missing = None, None
    try:
        haar = stack.enter_context(Worker(HAAR, "--threads", str(threads), peers=peers))
        with tempfile.TemporaryDirectory() as folder:
            show(haar, np.zeros((80, 80, 3), np.uint8), Path(folder))
    except PeerError as error:
        haar, missing = None, str(error)
    exact, fast = (Detector(device="cpu", threads=threads, preset=preset) for preset in ("exact", "fast"))
    return Field(exact, fast, MTCNN(keep_all=True), haar), missing


def show(haar: Worker, image: UInt8Image, folder: Path) -> int:
    """Give the cascade a picture; the number of faces that it finds."""
    path = folder / "picture.npy"
    np.save(path, image)
    return int(haar.ask("take", path=str(path)))


def largest_difference(faces: "Sequence[Face]", peer: "MTCNN", image: UInt8Image) -> float:
    """Pixels between our boxes and landmarks and the peer's."""
    boxes, _, landmarks = peer.detect(image.copy(), landmarks=True)
    if len(faces) != (0 if boxes is None else len(boxes)):
        raise SystemExit("the two detectors find different numbers of faces; their times say nothing")
    return max(
        (
            float(max(np.abs(face.box - box).max(), np.abs(face.landmarks - points).max()))
            for face, box, points in zip(faces, boxes if faces else (), landmarks if faces else (), strict=True)
        ),
        default=0.0,
    )


def compare(image: UInt8Image, field: Field, rounds: int, folder: Path) -> dict[str, Any]:
    """Time all on one picture, and check that the exact ones find the same faces."""
    faces = field.exact(image)
    result: dict[str, Any] = {
        "height": image.shape[0],
        "width": image.shape[1],
        "faces": len(faces),
        "largest_difference_px": round(largest_difference(faces, field.peer, image), 5),
        "fast_faces": len(field.fast(image)),
    }
    asks: dict[str, Callable[[], list[float]]] = {
        "fevertools": lambda: timed(lambda: field.exact(image), 1),
        "fast": lambda: timed(lambda: field.fast(image), 1),
        "facenet_pytorch": lambda: timed(lambda: field.peer.detect(image, landmarks=True), 1),
    }
    if field.haar is not None:
        haar = field.haar
        result["haar_faces"] = show(haar, image, folder)
        asks["haar"] = lambda: list(haar.ask("time"))
    told = {name: [second for turn in turns for second in turn] for name, turns in in_turn(asks, rounds, 0.01).items()}
    result |= {name: summary_ms(seconds) for name, seconds in told.items()}
    peer = statistics.median(told["facenet_pytorch"])
    for name, key in (("fevertools", "ratio"), ("fast", "fast_ratio")):
        result[key] = round(peer / statistics.median(told[name]), 2)
    return result


def sized(image: UInt8Image, megapixels: float) -> UInt8Image:
    """The picture in another size."""
    scale = (megapixels * 1e6 / (image.shape[0] * image.shape[1])) ** 0.5
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=way), np.uint8)


def lfw_images(count: int) -> Iterator[UInt8Image]:
    """So many pictures of LFW, the same every time."""
    with zipfile.ZipFile(data_folder("lfw") / "lfw_deepfunneled.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        for number in sorted(np.random.default_rng(SEED).choice(len(names), count, replace=False)):
            yield np.asarray(Image.open(io.BytesIO(archive.read(names[number]))).convert("RGB"))


def recall(images: Iterator[UInt8Image], field: Field) -> dict[str, float]:
    """Of the faces that the exact one finds, those of LEAST_SIDE pixels and more that the fast one finds too."""
    faces = found = more = 0
    for image in images:
        exact, fast = ([face.box.tolist() for face in detector(image)] for detector in (field.exact, field.fast))
        table = overlaps(exact, fast)
        large = [index for index, box in enumerate(exact) if min(box[2] - box[0], box[3] - box[1]) >= LEAST_SIDE]
        faces += len(large)
        found += int((table[large].max(axis=1, initial=0) >= LEAST_OVERLAP).sum())
        more += int((table.max(axis=0, initial=0) < LEAST_OVERLAP).sum())
    return {"faces": faces, "found": found, "percent": round(100 * found / max(1, faces), 2), "more": more}


def measure(photos: Mapping[str, UInt8Image], options: argparse.Namespace) -> dict[str, Any]:
    """Everything but what surrounds it."""
    result: dict[str, Any] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        field, result["haar_missing"] = make_field(options.threads, options.peers, stack)
        result["photos"] = {name: compare(image, field, options.rounds, folder) for name, image in photos.items()}
        result["sizes"] = [
            {"subject": subject, "megapixels": megapixels}
            | compare(sized(photos[name][rows], megapixels), field, max(1, options.rounds // 3), folder)
            for subject, (name, rows) in SUBJECTS.items()
            if name in photos
            for megapixels in options.megapixels
        ]
        result["recall"] = {
            "photos": recall(iter(photos.values()), field),
            "lfw": recall(lfw_images(options.lfw_images), field),
        }
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        field, _ = make_field(1, options.peers, stack)
        chosen = {name for name, _ in SUBJECTS.values()}
        result["one_thread"] = {
            name: compare(image, field, max(1, options.rounds // 2), folder)
            for name, image in photos.items()
            if name in chosen
        }
    for key, name in (("median_ratio", "ratio"), ("median_fast_ratio", "fast_ratio")):
        result[key] = round(statistics.median(photo[name] for photo in result["photos"].values()), 2)
    return result


def table(results: Path) -> str:
    """Photos at their own size, and recall."""
    result = json.loads((results / "detection.json").read_text("utf-8"))
    rows = header("photo", "size", "threads", *COLUMNS)
    for threads, photos in ((result["threads"], result["photos"]), (1, result["one_thread"])):
        rows += [
            f"| {name} | {photo['width']} x {photo['height']} | {threads} | {_cells(photo)} |"
            for name, photo in photos.items()
        ]
    losses = [
        f"{100 - figures['percent']:.1f} % of {figures['faces']} faces of {words}"
        for words, figures in (("the photos", result["recall"]["photos"]), ("LFW", result["recall"]["lfw"]))
    ]
    told = (
        f"{result['machine']['processor']}, medians of {result['rounds']} runs in turn; other processes, with the "
        f"cascade, kept {result['cores_busy_with_other_processes']:.1f} cores busy. Median ratio of the photos: "
        f"{result['median_ratio']}, and {result['median_fast_ratio']} of `fast`, which loses {' and '.join(losses)} "
        f"among those of {LEAST_SIDE} pixels and more that the exact preset finds."
    )
    if result["haar_missing"]:
        told += f" The Haar cascade was left out: {result['haar_missing']}."
    return "\n".join(rows) + f"\n\n{told}"


def sizes_table(results: Path) -> str:
    """Pictures made smaller and larger."""
    result = json.loads((results / "detection.json").read_text("utf-8"))
    rows = header("picture", "megapixels", *COLUMNS)
    rows += [f"| {row['subject']} | {row['megapixels']} | {_cells(row)} |" for row in result["sizes"]]
    return "\n".join(rows) + f"\n\n{result['threads']} threads, medians of {result['size_rounds']} runs in turn."


def _cells(row: Mapping[str, Any]) -> str:
    haar = f"{row['haar']['median_ms']:.0f} ({row['haar_faces']} boxes)" if "haar" in row else ""
    return (
        f"{row['faces']} | {row['fevertools']['median_ms']:.0f} | {row['ratio']:.1f} | {row['fast']['median_ms']:.0f} "
        f"| {row['fast_ratio']:.1f} | {row['facenet_pytorch']['median_ms']:.0f} | {haar}"
    )


def main(arguments: "Sequence[str] | None" = None) -> None:
    parser = argparse.ArgumentParser(description="Time face detection against facenet-pytorch.")
    parser.add_argument("--photos", type=Path, default=data_folder("photos"), help="folder of JPEG and PNG files")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of all")
    parser.add_argument("--rounds", type=int, default=9, help="timed runs of each on each photo; a third on the sizes")
    parser.add_argument("--megapixels", type=float, nargs="*", default=MEGAPIXELS, help="sizes to make")
    parser.add_argument("--lfw-images", type=int, default=LFW_IMAGES, help="pictures of LFW for the recall")
    parser.add_argument("--peers", type=Path, default=PEERS, help="folder of the environments of peers")
    parser.add_argument("--output", type=Path, help="also write the JSON object here")
    options = parser.parse_args(arguments)

    paths = sorted(path for path in options.photos.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise SystemExit(f"no photos in {options.photos}")
    photos = {path.name: np.array(Image.open(path).convert("RGB")) for path in paths}
    with OtherLoad() as others:
        measured = measure(photos, options)
    result = {
        "benchmark": "detection",
        "machine": machine(),
        "versions": versions(*PACKAGES),
        "threads": options.threads,
        "rounds": options.rounds,
        "size_rounds": max(1, options.rounds // 3),
        "cores_busy_with_other_processes": others.cores,
        **measured,
    }
    report(result, options.output)


if __name__ == "__main__":
    main()
