"""How many faces a second does the network embed, and what do the networks manage that others ship or wrap?

Run: `python -m benchmarks.embedding [--threads N ...] [--rounds N] [--peers DIR] [--output FILE]`

The network alone: every contestant has its input ready, in the size and form that it takes. Each is a process of its
own, and all take turns. `python -m benchmarks.setup_peers` makes the environments once.
"""

import argparse
import functools
import itertools
import json
import math
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks._common import header, machine, report, versions
from benchmarks._peer import PEERS, Aside, Contestant, PeerError, Worker, digits, in_turn, percentile_ms, ratio

PACKAGES = ("fevertools", "onnxruntime", "numpy", "torch", "timm", "facenet-pytorch")
OURS = ("float32", "int8")
CONTESTANTS = {
    "float32": Contestant("fevertools", "ours"),
    "int8": Contestant('fevertools, `precision="int8"`', "ours", ("--precision", "int8")),
    "efficientnet": Contestant("EfficientNet-B0, 224 x 224 (EmotiEffLib's default), ONNX Runtime", "efficientnet"),
    "facenet": Contestant("facenet-pytorch's InceptionResnetV1, 160 x 160, PyTorch", "facenet"),
    "fer": Contestant("`fer`, 64 x 64, as it calls its network (TFLite)", "fer", (), "fer", ("TFLite, face by face",)),
    "fer keras": Contestant("`fer`, `use_tflite=False`, as it calls its network", "fer", (), "fer", ("Keras, called",)),
    "fer fastest": Contestant("the network of `fer`, the fastest way in TensorFlow", "fer", (), "fer"),
}
"""Name in the results file -> who."""
BATCHES = (1, 8, 64)
TURN, MOST_CALLS, LATENCIES = 0.15, 200, 20
"""Seconds of one turn, calls in it, and the least calls where each one's time is told."""


def fastest(worker: Worker, ways: Sequence[str], batch: int) -> tuple[str, float]:
    """The quickest way by the median of one turn, and its seconds of one call."""
    seconds = {}
    for way in ways:
        _, second = worker.ask("crops", way=way, batch=batch, calls=2)  # the first call may build something
        seconds[way] = second
        if len(ways) > 1:
            turn = worker.ask("crops", way=way, batch=batch, calls=calls(second, batch))
            seconds[way] = statistics.median(turn)
    way = min(seconds, key=seconds.__getitem__)
    return way, seconds[way]


def calls(seconds: float, batch: int) -> int:
    """How many calls of so many seconds make up one turn."""
    return max(LATENCIES if batch == 1 else 1, min(MOST_CALLS, math.ceil(TURN / seconds)))


def row(name: str, way: str, batch: int, rounds: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Figures of one contestant from the seconds of its calls in each round."""
    every = [second for told in rounds for second in told]
    speeds = [batch / statistics.median(told) for told in rounds]
    return {
        "contestant": name,
        "way": way,
        "batch": batch,
        "calls": len(every),
        "crops_per_second": {
            "median": digits(statistics.median(speeds)), "min": digits(min(speeds)), "max": digits(max(speeds))
        },
        "p50_ms": percentile_ms(every, 50),
        "p95_ms": percentile_ms(every, 95),
    }  # fmt: skip


def started(
    threads: int, scratch: str, peers: Path, stack: ExitStack
) -> tuple[dict[str, tuple[Worker, list[str]]], dict[str, str]]:
    """Name -> worker that has run once and its ways, and why the others are not there."""
    workers: dict[tuple[str, ...], Worker] = {}
    ready: dict[str, tuple[Worker, list[str]]] = {}
    missing: dict[str, str] = {}
    for name, contestant in CONTESTANTS.items():
        key = (contestant.module, *contestant.arguments)
        more = ("--scratch", scratch) if contestant.module == "efficientnet" else ()
        try:
            if key not in workers:
                worker = Worker(contestant, "--threads", str(threads), *more, peers=peers)
                workers[key] = stack.enter_context(worker)
            ways = list(contestant.ways or workers[key].ask("ways"))
            workers[key].ask("crops", way=ways[0], batch=1, calls=1)
            ready[name] = workers[key], ways
        except PeerError as error:
            missing[name] = str(error)
    return ready, missing


def measure(ready: dict[str, tuple[Worker, list[str]]], batch: int, rounds: int) -> Iterator[dict[str, Any]]:
    """A row of each contestant, with how many times as long it takes as ours."""
    asks: dict[str, Callable[[], list[float]]] = {}
    ways = {}
    for name, (worker, choice) in ready.items():
        ways[name], seconds = fastest(worker, choice, batch)
        asks[name] = functools.partial(worker.ask, "crops", way=ways[name], batch=batch, calls=calls(seconds, batch))
    told = in_turn(asks, rounds)
    for name, seconds_told in told.items():
        against = {own: ratio(told[own], seconds_told) for own in OURS if own in told and name not in OURS}
        yield {**row(name, ways[name], batch, seconds_told), "times_as_long_as": against}


def table(results: Path) -> str:
    """The comparison: latency of one face and faces a second."""
    result = json.loads((results / "embedding.json").read_text("utf-8"))
    rows = header(
        "threads", "network", "one face, p50 ms", "p95 ms", "crops/s, batch 8", "crops/s, batch 64", "its spread",
        "times fevertools' time", "with int8",
    )  # fmt: skip
    cells = {(cell["threads"], cell["contestant"], cell["batch"]): cell for cell in result["rows"]}
    for threads, name in itertools.product(result["threads"], CONTESTANTS):
        if (threads, name, 64) not in cells:
            continue
        one, eight, many = (cells[threads, name, batch] for batch in BATCHES)
        speed = many["crops_per_second"]
        times = " | ".join(_times(many["times_as_long_as"].get(own)) for own in OURS)
        rows.append(
            f"| {threads} | {CONTESTANTS[name].words} | {one['p50_ms']:.1f} | {one['p95_ms']:.1f} "
            f"| {eight['crops_per_second']['median']:,.0f} | {speed['median']:,.0f} "
            f"| {speed['min']:,.0f} to {speed['max']:,.0f} | {times} |"
        )
    return "\n".join(rows) + f"\n\n{_told(result)}"


def _times(value: dict[str, float] | None) -> str:
    return "" if value is None else f"{value['median']:.3g} ({value['min']:.3g} to {value['max']:.3g})"


def _told(result: dict[str, Any]) -> str:
    """What stands under the table."""
    told = (
        f"{result['machine']['processor']}; medians of {result['rounds']} rounds in turn; the last two columns are at "
        "batch 64, above 1 where fevertools is the faster one, in brackets the extremes of the rounds. Weights other "
        "than fevertools' and `fer`'s are random, which does not change the time."
    )
    used = sorted({cell["way"] for cell in result["rows"] if cell["contestant"] == "fer fastest"})
    told += f" The fastest ways of `fer`'s network: {', '.join(used)}." if used else ""
    for name, why in result["missing"].items():
        told += f" Not measured: {CONTESTANTS[name].words} ({why})."
    return told


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time networks on framed faces.")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="CPU threads of every contestant")
    parser.add_argument("--rounds", type=int, default=4, help="turns of each")
    parser.add_argument("--peers", type=Path, default=PEERS, help="folder of the environments")
    parser.add_argument("--output", type=Path, help="also write the JSON object here")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    with Aside() as others, tempfile.TemporaryDirectory() as scratch:
        for threads in options.threads:
            with ExitStack() as stack:
                ready, absent = started(threads, scratch, options.peers, stack)
                missing |= absent
                for batch in BATCHES:
                    rows += [{"threads": threads, **found} for found in measure(ready, batch, options.rounds)]
    result = {
        "benchmark": "embedding",
        "machine": machine(),
        "versions": versions(*PACKAGES),
        "threads": options.threads,
        "rounds": options.rounds,
        "cores_busy_with_other_processes": others.cores,
        "missing": missing,
        "rows": rows,
    }
    report(result, options.output)


if __name__ == "__main__":
    main()
