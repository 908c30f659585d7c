"""What does a faster encoder cost in accuracy? Throughput against PublicTest accuracy of several trained networks.

Run: `python -m benchmarks.curve TITLE=FILE ... [--threads N] [--rounds N] [--output FILE]`, where FILE is a checkpoint
of a student or classifier, or an ONNX file such as those that ship.

PublicTest, because this curve is what choices are made from.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._common import OtherLoad, data_folder, header, interleaved, machine, report, versions
from fevertools.session import make_session

if TYPE_CHECKING:  # the table needs no torch
    from fevertools.train.datasets.ferplus import FerPlus

PACKAGES = ("fevertools", "onnxruntime", "numpy", "torch")
PROTOCOLS = ("ferplus8", "ferplus8-majority")
BATCH = 64


def graph(path: Path, data: "FerPlus", folder: Path) -> Path:
    """The ONNX file of a network, as it would ship."""
    from fevertools.train.export import load_student, release, to_onnx

    if path.suffix == ".onnx":
        return path
    student, recipe = load_student(path)
    exported = folder / f"{path.parent.name}.onnx"
    to_onnx(release(student, data, recipe.data.protocol), recipe.model.crop, exported)
    return exported


def accuracies(session: Any, data: "FerPlus") -> dict[str, float]:
    """Accuracy on PublicTest, percent, by protocol."""
    from fevertools.train.datasets.ferplus import SPLITS, select

    rows = np.flatnonzero(data.split == SPLITS["validation"])
    crops = data.images[rows][..., None]
    name = session.get_inputs()[0].name
    logits = np.concatenate(
        [session.run(["logits"], {name: crops[i : i + BATCH]})[0] for i in range(0, len(crops), BATCH)]
    )
    found = {}
    for protocol in PROTOCOLS:
        chosen = select(data, protocol, "validation")
        right = logits[np.searchsorted(rows, chosen.rows)].argmax(axis=1) == chosen.target.argmax(axis=1)
        found[protocol] = round(100 * float(right.mean()), 2)
    return found


def table(results: Path) -> str:
    """Networks by throughput."""
    path = results / "curve.json"
    if not path.is_file():
        return "Nothing has been measured yet."
    result = json.loads(path.read_text())
    rows = header("network", "crops/s", *(f"{name} %" for name in PROTOCOLS), "file MB")
    for row in sorted(result["networks"], key=lambda row: -row["crops_per_second"]):
        cells = " | ".join(f"{row[name]:.2f}" for name in PROTOCOLS)
        rows.append(f"| {row['network']} | {row['crops_per_second']:,.0f} | {cells} | {row['bytes'] / 1e6:.1f} |")
    return (
        "\n".join(rows) + f"\n\nPublicTest, one view; batch {BATCH}, {result['threads']} threads of "
        f"{result['machine']['processor']}, medians of {result['rounds']} runs in turn."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Accuracy against throughput of several networks.")
    parser.add_argument("networks", nargs="+", metavar="TITLE=FILE")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--rounds", type=int, default=9, help="timed runs of each")
    parser.add_argument("--output", type=Path, help="also write the JSON object here")
    options = parser.parse_args(arguments)
    files = {title: Path(file) for title, _, file in (item.partition("=") for item in options.networks)}
    from fevertools.train.datasets.ferplus import read_ferplus

    data = read_ferplus(data_folder(""))
    crops = np.random.default_rng(0).integers(0, 256, (BATCH, 48, 48, 1)).astype(np.uint8)
    networks: list[dict[str, Any]] = []
    contestants: dict[str, Callable[[], object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for title, file in files.items():
            model = graph(file, data, Path(folder))
            session = make_session(model, device="cpu", threads=options.threads)
            feed = {session.get_inputs()[0].name: crops}
            contestants[title] = lambda session=session, feed=feed: session.run(["embedding", "logits"], feed)  # type: ignore[misc]
            networks.append({"network": title, "bytes": model.stat().st_size, **accuracies(session, data)})
        with OtherLoad() as others:
            seconds = interleaved(contestants, options.rounds)
    for row in networks:
        row["crops_per_second"] = round(BATCH / statistics.median(seconds[row["network"]]), 1)
    result = {
        "benchmark": "curve",
        "machine": machine(),
        "versions": versions(*PACKAGES),
        "threads": options.threads,
        "rounds": options.rounds,
        "cores_busy_with_other_processes": others.cores,
        "networks": networks,
    }
    report(result, options.output)


if __name__ == "__main__":
    main()
