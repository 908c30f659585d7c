"""How many images a second, how much of it outside of ONNX Runtime, in how much memory; and what does `draft` gain?

Run: `python -m benchmarks.stream [--crops N] [--photos N] [--threads N] [--output FILE]`

Each run is a process of its own, whose most memory is told. Crops are FER-2013's; the photos of the folder come again
and again. A tenth as many images give the memory that more of them must not exceed.
"""

import argparse
import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks._common import OtherLoad, data_folder, header, machine, report, versions
from benchmarks._draft import draft
from fevertools import Analyzer, ImageResult
from fevertools.cli import main as command_line

PACKAGES = ("fevertools", "onnxruntime", "numpy", "opencv-python-headless", "pillow")
SIDE = 48  # pixels of a crop
WARM_UP = 16  # images
SUFFIXES = (".jpg", ".png")
WAYS = {"calls": "`analyze`, one after another", "stream": "`stream`", "command": "`fevertools embed`, CSV"}


@dataclass(frozen=True, slots=True)
class Run:
    """One process."""

    what: str  # "crops" or "photos"
    way: str  # "calls": one `analyze` after another; "stream": `Analyzer.stream`; "command": `fevertools embed`, CSV
    images: int
    threads: int
    folder: str  # with crops.raw, crops/*.png and photos/*


class Inside:
    """Processor seconds inside of ONNX Runtime, all threads together, where each run has one thread."""

    def __init__(self) -> None:
        import onnxruntime  # not at the top, for `table` needs none of it

        self.seconds = 0.0
        self._lock = threading.Lock()
        run = onnxruntime.InferenceSession.run

        def timed(session: Any, *arguments: Any, **options: Any) -> Any:
            start = time.thread_time()
            try:
                return run(session, *arguments, **options)
            finally:
                with self._lock:
                    self.seconds += time.thread_time() - start

        onnxruntime.InferenceSession.run = timed


def sources(run: Run) -> Iterator[Any]:
    """The images of a run, crops as arrays (48, 48), photos as paths; none is kept."""
    if run.what == "photos":
        paths = sorted((Path(run.folder) / "photos").iterdir())
        yield from itertools.islice(itertools.cycle(paths), run.images)
        return
    with (Path(run.folder) / "crops.raw").open("rb") as file:
        for _ in range(run.images):
            yield np.frombuffer(file.read(SIDE * SIDE), np.uint8).reshape(SIDE, SIDE)


def results(run: Run, analyzer: Analyzer, images: Iterable[Any]) -> Iterator[ImageResult]:
    cropped = run.what == "crops"
    if run.way == "stream":
        return analyzer.stream(images, cropped=cropped)
    return (analyzer.analyze(image, cropped=cropped) for image in images)


def by_library(run: Run, inside: Inside) -> dict[str, Any]:
    """Faces and the digest of all that was found, after a warm-up; and the seconds."""
    digest, faces = hashlib.sha256(), 0
    with Analyzer(device="cpu", threads=run.threads) as analyzer:
        for _ in results(run, analyzer, itertools.islice(sources(run), WARM_UP)):
            pass
        inside.seconds = 0.0
        start, spent = time.perf_counter(), time.process_time()
        for result in results(run, analyzer, sources(run)):
            faces += len(result.faces)
            for found in result.faces:
                digest.update(found.face.box.tobytes() + found.face.landmarks.tobytes() + found.embedding.tobytes())
        seconds, busy = time.perf_counter() - start, time.process_time() - spent
    return {"faces": faces, "seconds": seconds, "busy": busy, "digest": digest.hexdigest()}


def by_command(run: Run, inside: Inside) -> dict[str, Any]:
    """The same for the command line: what it takes as a whole, save the start of Python."""
    with tempfile.TemporaryDirectory() as folder:
        if run.what == "crops":
            inputs = [str(Path(run.folder) / "crops"), "--cropped"]
        else:
            inputs = [str(linked(run, Path(folder) / "photos"))]
        output = Path(folder) / "faces.csv"
        start, spent = time.perf_counter(), time.process_time()
        options = ["--threads", str(run.threads), "--device", "cpu", "--quiet", "-o", str(output)]
        if code := command_line(["embed", *inputs, *options]):
            raise SystemExit(f"fevertools embed ended with {code}")
        seconds, busy = time.perf_counter() - start, time.process_time() - spent
        with output.open("rb") as file:
            return {"faces": sum(1 for _ in file) - 1, "seconds": seconds, "busy": busy, "digest": None}


def linked(run: Run, folder: Path) -> Path:
    """A folder in which the photos come again and again under other names."""
    folder.mkdir()
    for number, path in enumerate(sources(run)):
        (folder / f"{number:06}{path.suffix}").symlink_to(path)
    return folder


def child(run: Run) -> None:
    """Do one run, and print its figures."""
    inside = Inside()
    found = (by_command if run.way == "command" else by_library)(run, inside)
    row = {name: value for name, value in asdict(run).items() if name != "folder"} | {
        "faces": found["faces"],
        "seconds": round(found["seconds"], 2),
        "images_per_second": round(run.images / found["seconds"], 1),
        "cores_busy": round(found["busy"] / found["seconds"], 2),
        "outside_percent": round(100 * (1 - inside.seconds / found["busy"]), 1),
        "peak_mib": peak_mib(),
        "digest": found["digest"],
    }
    print(json.dumps(row))


def peak_mib() -> int | None:
    """The most that this process has held; None where the system does not tell. `getrusage` counts its parent too."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.is_file() else None
    return round(int(found[1]) / 1024) if found else None


def measure(run: Run) -> dict[str, Any]:
    """One run in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.stream", "--run", json.dumps(asdict(run))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    row: dict[str, Any] = json.loads(done.stdout)
    return row


def write_sources(folder: Path, count: int, photos: Path) -> None:
    """crops.raw, crops/*.png and photos/*."""
    with np.load(data_folder("fer2013") / "fer2013.npz") as archive:
        crops = np.resize(archive["images"], (count, SIDE, SIDE))
    (folder / "crops.raw").write_bytes(crops.tobytes())
    (folder / "crops").mkdir()
    for number, crop in enumerate(crops):
        Image.fromarray(crop).save(folder / "crops" / f"{number:06}.png", compress_level=1)
    (folder / "photos").mkdir()
    for path in sorted(photos.iterdir()):
        if path.suffix.lower() in SUFFIXES:
            (folder / "photos" / path.name).symlink_to(path.resolve())


def plan(crops: int, photos: int, threads: int) -> Iterator[tuple[str, str, int, int]]:
    """What, way, images and threads of each run."""
    for what, count in (("crops", crops), ("photos", photos)):
        yield what, "calls", max(WARM_UP, count // 5), threads
        for number in sorted({1, threads}):
            yield what, "stream", count, number
        yield what, "stream", max(WARM_UP, count // 10), threads
        yield what, "command", count, threads


def same_bits(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether all streams of the same images gave the same results."""
    digests: dict[tuple[str, int], set[str]] = {}
    for row in rows:
        if row["way"] == "stream":
            digests.setdefault((row["what"], row["images"]), set()).add(row["digest"])
    return all(len(found) == 1 for found in digests.values())


def table(results: Path) -> str:
    """Throughput and memory, and what `draft` gains and changes."""
    result = json.loads((results / "stream.json").read_text("utf-8"))
    rows = header("images", "way", "threads", "images/s", "faces/s", "cores busy", "outside ONNX Runtime %", "peak MiB")
    rows += [
        f"| {row['images']:,} {row['what']} | {WAYS[row['way']]} | {row['threads']} | {row['images_per_second']:.0f} "
        f"| {row['faces'] / row['seconds']:.0f} | {row['cores_busy']:.2f} | {row['outside_percent']:.0f} "
        f"| {row['peak_mib']} |"
        for row in result["rows"]
    ]
    names = ("JPEGs", "`min_face_size`", "exact ms", "draft ms", "ratio", "faces found again", "same label")
    drafts = header(*names, "cosine: median", "least")
    drafts += [
        f"| {row['set']} | {row['min_face_size']} | {row['exact']['median_ms']:.1f} | {row['draft']['median_ms']:.1f} "
        f"| {row['ratio']:.2f} | {row['found']} of {row['faces']} | {row['same_label']} | {row['cosine_median']:.3f} "
        f"| {row['cosine_min']:.3f} |"
        for row in result["draft"]
    ]
    facts = result["machine"]
    told = (
        f"{facts['processor']}, {facts['cores']} cores; each run a process of its own, one after another; other "
        f"processes kept {result['cores_busy_with_other_processes']:.1f} cores busy. Streams of the same images gave "
        f"{'the same bits' if result['same_bits'] else 'DIFFERENT BITS'} with any number of threads."
    )
    return "\n".join([*rows, "", told, "", *drafts])


def served() -> float:
    """Processor seconds of the runs that have ended."""
    spent = os.times()
    return spent.children_user + spent.children_system


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Many images: images a second, memory, and what draft decoding gains.")
    parser.add_argument("--crops", type=int, default=10_000, help="framed faces of FER-2013")
    parser.add_argument("--photos", type=int, default=200, help="photos, those of the folder again and again")
    parser.add_argument("--folder", type=Path, default=data_folder("photos"), help="with JPEG and PNG files")
    parser.add_argument("--threads", type=int, default=2, help="most CPU threads")
    parser.add_argument("--rounds", type=int, default=3, help="timed runs with and without draft, in turn")
    parser.add_argument("--output", type=Path, help="also write the JSON object here")
    parser.add_argument("--run", help=argparse.SUPPRESS)  # one run, in a process of its own
    options = parser.parse_args(arguments)
    if options.run:
        child(Run(**json.loads(options.run)))
        return

    rows, start, before = [], time.perf_counter(), served()
    with OtherLoad() as others, tempfile.TemporaryDirectory() as folder:
        write_sources(Path(folder), options.crops, options.folder)
        for what, way, images, threads in plan(options.crops, options.photos, options.threads):
            rows.append(measure(Run(what, way, images, threads, folder)))
        drafts = draft(options.folder, options.threads, options.rounds)
    own = (served() - before) / (time.perf_counter() - start)
    result = {
        "benchmark": "stream",
        "machine": machine(),
        "versions": versions(*PACKAGES),
        "threads": options.threads,
        "cores_busy_with_other_processes": None if others.cores is None else round(max(0.0, others.cores - own), 2),
        "same_bits": same_bits(rows),
        "rows": [{name: value for name, value in row.items() if name != "digest"} for row in rows],
        "draft": drafts,
    }
    report(result, options.output)


if __name__ == "__main__":
    main()
