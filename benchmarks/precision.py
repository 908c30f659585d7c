"""float32 against int8 of the shipped weights: crops a second, latency of one crop, and what int8 costs in accuracy.

Both run in turn (A B A B) through `Encoder`, as users run them. Accuracy and cosine are of PublicTest, the split on
which everything was chosen; those of PrivateTest are in `accuracy-deepfever-s-int8.json`. Needs the extra `train`:

    python -m benchmarks.precision --output benchmarks/results/precision.json
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._common import OtherLoad, data_folder, header, interleaved, machine, report, versions

PRECISIONS = ("float32", "int8")
BATCHES = (1, 8, 64)
PACKAGES = ("fevertools", "onnxruntime", "numpy")
PROTOCOL = "ferplus8"


def table(results: Path) -> str:
    """Throughput, latency of one crop and accuracy of both."""
    result = json.loads((results / "precision.json").read_text())
    rows = header(
        "threads", *(f"batch {batch}: float32, int8, ratio" for batch in BATCHES),
        "one crop, p50 / p95 ms: float32", "int8",
    )  # fmt: skip
    for threads, batches in result["throughput"].items():
        cells = [
            ", ".join((*(f"{batches[str(batch)][name]['crops_per_second']:,.0f}" for name in PRECISIONS),
                       f"{batches[str(batch)]['ratio']:.2f}"))
            for batch in BATCHES
        ]  # fmt: skip
        cells += [f"{batches['1'][name]['p50_ms']:.2f} / {batches['1'][name]['p95_ms']:.2f}" for name in PRECISIONS]
        rows.append(f"| {threads} | {' | '.join(cells)} |")
    accuracy = result["accuracy"]
    figures = ", ".join(f"{accuracy[name]:.2f} % ({name})" for name in PRECISIONS)
    cosine = accuracy["fidelity"]
    return "\n".join(rows) + (
        f"\n\n{result['machine']['processor']}, int8 instructions: {', '.join(result['int8_instructions']) or 'none'}; "
        f"crops a second through `Encoder`, medians. {PROTOCOL} of PublicTest: {figures}; cosine of the two embeddings "
        f"of a face: mean {cosine['cosine_mean']:.4f}, first percentile {cosine['cosine_percentile_1']:.4f}, least "
        f"{cosine['cosine_min']:.4f}; the same label: {cosine['same_label']:.2f} %."
    )


def throughput(threads: int, rounds: int) -> dict[str, Any]:
    """Of both precisions, for each batch."""
    from fevertools.encoder import Encoder
    from fevertools.weights import load_manifest, resolve

    entry = load_manifest().entry(None, "encoder")
    files = resolve(entry)
    encoders = {
        name: Encoder(entry, files, precision=name, device="cpu", threads=threads, batch_size=max(BATCHES))
        for name in PRECISIONS
    }
    crops = np.random.default_rng(0).integers(0, 256, (max(BATCHES), 48, 48, 1), np.uint8)
    found: dict[str, Any] = {}
    for batch in BATCHES:
        runs = {name: partial(encoder.encode, crops[:batch]) for name, encoder in encoders.items()}
        # As long for a small batch as for a large one.
        seconds = interleaved(runs, rounds * max(BATCHES) // max(batch, 8), warmups=3, pause=0.002)
        figures: dict[str, Any] = {name: _figures(batch, times) for name, times in seconds.items()}
        ratio = figures["int8"]["crops_per_second"] / figures["float32"]["crops_per_second"]
        found[str(batch)] = {**figures, "ratio": round(ratio, 2)}
    return found


def _figures(batch: int, seconds: Sequence[float]) -> Mapping[str, float]:
    median = statistics.median(seconds)
    return {
        "crops_per_second": round(batch / median, 1),
        "p50_ms": round(1e3 * median, 3),
        "p95_ms": round(1e3 * float(np.percentile(seconds, 95)), 3),
        "runs": len(seconds),
    }


def accuracy(root: Path) -> dict[str, Any]:
    """Accuracy of both on PublicTest, and how near they are."""
    from fevertools.manifest import load_manifest
    from fevertools.train.datasets.ferplus import read_ferplus
    from fevertools.train.evaluate.command import EvaluateOptions, Subject, ferplus, fidelity

    data, name = read_ferplus(root), load_manifest().entry(None, "encoder").name
    subjects = {p: Subject(name, data, "validation", EvaluateOptions(precision=p)) for p in PRECISIONS}
    return {
        p: ferplus(subject)["PublicTest"]["single"][PROTOCOL]["all"]["accuracy"] for p, subject in subjects.items()
    } | fidelity(subjects["int8"])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time and judge the int8 graph against the float32 one.")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=25, help="timed runs of each at the largest batch")
    parser.add_argument("--data", type=Path, default=data_folder(""), help="data folder with FER-2013")
    parser.add_argument("--output", type=Path, help="also write the JSON object here")
    options = parser.parse_args(arguments)
    from fevertools.session import int8_instructions

    with OtherLoad() as others:
        speed = {str(threads): throughput(threads, options.rounds) for threads in options.threads}
    result = {
        "benchmark": "precision",
        "machine": machine(),
        "int8_instructions": int8_instructions() or (),
        "versions": versions(*PACKAGES),
        "rounds": options.rounds,
        "cores_busy_with_other_processes": others.cores,
        "throughput": speed,
        "accuracy": accuracy(options.data),
    }
    report(result, options.output)


if __name__ == "__main__":
    main()
