"""From a photo's file to a vector for each face: how long, how much memory, and how many faces?

Run: `python -m benchmarks.end_to_end [--photos DIR] [--threads N] [--rounds N] [--peers DIR] [--output FILE]`

Each contestant is a process of its own with the same paths, and all take turns, one photo at a time.
"""

import argparse
import functools
import json
import statistics
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._common import data_folder, header, machine, report, versions
from benchmarks._peer import PEERS, Aside, Contestant, PeerError, Worker, digits, in_turn, percentile_ms, ratio

SUFFIXES = (".jpg", ".jpeg", ".png")
PACKAGES = ("fevertools", "onnxruntime", "numpy", "opencv-python-headless", "torch", "facenet-pytorch")
OURS = ("exact", "fast")
REFERENCE = "facenet"
"""Whose boxes tell which faces there are to be found: the detector with the exact results that ours repeats."""
BORROW = ("--mtcnn", "--borrow", sysconfig.get_paths()["purelib"])
CONTESTANTS = {
    "exact": Contestant("fevertools", "ours"),
    "fast": Contestant('fevertools, `preset="fast"`', "ours", ("--preset", "fast")),
    "fast int8": Contestant(
        'fevertools, `preset="fast", precision="int8"`', "ours", ("--preset", "fast", "--precision", "int8")
    ),
    "facenet": Contestant("facenet-pytorch: MTCNN, InceptionResnetV1", "facenet"),
    "fer": Contestant("`fer`: Haar cascade, 7 probabilities", "fer", (), "fer"),
    "fer mtcnn": Contestant("`fer`, `mtcnn=True`, 7 probabilities", "fer", BORROW, "fer"),
}
"""Name in the results file -> who."""
LEAST_OVERLAP = 0.3
"""Intersection over union of two boxes of one face; the cascade draws wider ones than MTCNN."""


def overlaps(boxes: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> np.ndarray:
    """Intersection over union of boxes x1, y1, x2, y2: (len(boxes), len(others))."""
    a, b = (np.asarray(some, np.float64).reshape(-1, 4) for some in (boxes, others))
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    area, other = ((some[:, 2:] - some[:, :2]).prod(axis=1) for some in (a, b))
    return np.asarray(shared / (area[:, None] + other - shared))


def matched(boxes: Sequence[Sequence[float]], reference: Sequence[Sequence[float]]) -> int:
    """How many boxes of the reference have a box of their own here, the best pairs first."""
    table, count = overlaps(boxes, reference), 0
    while table.size and table.max() >= LEAST_OVERLAP:
        row, column = np.unravel_index(table.argmax(), table.shape)
        table[row], table[:, column] = 0, 0
        count += 1
    return count


def row(rounds: Mapping[str, Sequence[Sequence[float]]], peak: int) -> dict[str, Any]:
    """Figures of one contestant.

    Args:
        rounds: seconds on each photo, one list a round.
        peak: bytes of memory.
    """
    every = [second for told in rounds.values() for (second,) in told]
    passes = [sum(told) for told in zip(*([s for (s,) in told] for told in rounds.values()), strict=True)]
    speeds = [len(rounds) / seconds for seconds in passes]
    return {
        "images_per_second": {
            "median": digits(statistics.median(speeds)), "min": digits(min(speeds)), "max": digits(max(speeds))
        },
        "p50_ms": percentile_ms(every, 50),
        "p95_ms": percentile_ms(every, 95),
        "passes": passes,
        "peak_bytes": peak,
        "photos_ms": {name: digits(1e3 * statistics.median(s for (s,) in told)) for name, told in rounds.items()},
    }  # fmt: skip


def started(threads: int, peers: Path, photo: Path, stack: ExitStack) -> tuple[dict[str, Worker], dict[str, str]]:
    """Name -> worker that has been through one photo, and why the others are not there."""
    workers, missing = {}, {}
    for name, contestant in CONTESTANTS.items():
        try:
            worker = stack.enter_context(Worker(contestant, "--threads", str(threads), peers=peers))
            worker.ask("photo", path=str(photo))
            workers[name] = worker
        except PeerError as error:
            missing[name] = str(error)
    return workers, missing


def measure(workers: Mapping[str, Worker], paths: Sequence[Path], rounds: int) -> dict[str, dict[str, Any]]:
    """A row of each contestant."""
    boxes: dict[str, dict[str, Any]] = {name: {} for name in workers}
    times: dict[str, dict[str, list[list[float]]]] = {name: {} for name in workers}
    for path in paths:
        for name, worker in workers.items():  # also warms up for photos of this size
            boxes[name][path.name] = worker.ask("photo", path=str(path))["boxes"]
        asks: dict[str, Callable[[], list[float]]] = {
            name: functools.partial(_seconds, worker, path) for name, worker in workers.items()
        }
        for name, told in in_turn(asks, rounds).items():
            times[name][path.name] = told
    rows = {name: row(times[name], worker.ask("peak")) for name, worker in workers.items()}
    for name, found in rows.items():
        found["faces"] = {photo: len(some) for photo, some in boxes[name].items()}
        reference = boxes.get(REFERENCE, {})
        found["faces_of_reference"] = {
            p: matched(some, reference[p]) for p, some in boxes[name].items() if p in reference
        }
        found["times_as_long_as"] = {
            own: ratio([[s] for s in rows[own]["passes"]], [[s] for s in found["passes"]])
            for own in OURS if own in rows and own != name
        }  # fmt: skip
    for found in rows.values():
        del found["passes"]
    return rows


def _seconds(worker: Worker, path: Path) -> list[float]:
    return [worker.ask("photo", path=str(path))["seconds"]]


def table(results: Path) -> str:
    """The comparison on all photos."""
    result = json.loads((results / "end_to_end.json").read_text("utf-8"))
    rows = header(
        "contestant", "photos/s", "p50 ms", "p95 ms", "peak memory MB", "faces", "of those of MTCNN",
        "times fevertools' time", "times that of `fast`",
    )  # fmt: skip
    total = sum(result["contestants"].get(REFERENCE, {}).get("faces", {}).values())
    for name, contestant in CONTESTANTS.items():
        if name not in result["contestants"]:
            continue
        found = result["contestants"][name]
        times = " | ".join(_times(found["times_as_long_as"].get(own)) for own in OURS)
        known = f"{sum(found['faces_of_reference'].values())} of {total}" if found["faces_of_reference"] else ""
        rows.append(
            f"| {contestant.words} | {found['images_per_second']['median']:.1f} | {found['p50_ms']:.0f} "
            f"| {found['p95_ms']:.0f} | {found['peak_bytes'] / 1e6:.0f} | {sum(found['faces'].values())} | {known} "
            f"| {times} |"
        )
    told = (
        f"{result['machine']['processor']}, {result['threads']} threads; {len(result['photos'])} photos, medians of "
        f"{result['rounds']} rounds in turn. `fer` gives no vectors. A face of MTCNN's counts as found where "
        f"the boxes overlap by {LEAST_OVERLAP:.1f} (intersection over union)."
    )
    for name, why in result["missing"].items():
        told += f" Not measured: {CONTESTANTS[name].words} ({why})."
    return "\n".join(rows) + f"\n\n{told}"


def _times(value: Mapping[str, float] | None) -> str:
    return "" if value is None else f"{value['median']:.1f} ({value['min']:.1f} to {value['max']:.1f})"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time the way from a photo to vectors.")
    parser.add_argument("--photos", type=Path, default=data_folder("photos"), help="folder of JPEG and PNG files")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of every contestant")
    parser.add_argument("--rounds", type=int, default=5, help="timed turns of each on each photo")
    parser.add_argument("--peers", type=Path, default=PEERS, help="folder of the environments")
    parser.add_argument("--output", type=Path, help="also write the JSON object here")
    options = parser.parse_args(arguments)

    paths = sorted(path.resolve() for path in options.photos.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise SystemExit(f"no photos in {options.photos}")
    with Aside() as others, ExitStack() as stack:
        workers, missing = started(options.threads, options.peers, paths[0], stack)
        rows = measure(workers, paths, options.rounds)
        stack.close()  # their processor time is known once they have ended
    result = {
        "benchmark": "end_to_end",
        "machine": machine(),
        "versions": versions(*PACKAGES),
        "threads": options.threads,
        "rounds": options.rounds,
        "cores_busy_with_other_processes": others.cores,
        "photos": [path.name for path in paths],
        "missing": missing,
        "contestants": rows,
    }
    report(result, options.output)


if __name__ == "__main__":
    main()
