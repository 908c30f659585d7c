"""How many requests a second does the server answer, how soon, and what is sharing runs of the encoder worth?

Run: `python -m benchmarks.serve [--threads N] [--rounds N] [--requests N] [--seconds N] [--output FILE]`

The server is a process of its own; this one asks it over the loopback interface, each client one request at a time.
"""

import argparse
import http.client
import io
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks._common import OtherLoad, header, machine, report, versions

PACKAGES = ("fevertools", "onnxruntime", "numpy", "opencv-python-headless", "starlette", "uvicorn")
CLIENTS = (1, 8)
BATCHES = (32, 1)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one measurement."""

    rounds: int  # times that each server is asked in turn
    requests: int  # most requests of one round
    seconds: float  # longest time of one round


def loads() -> dict[str, tuple[str, bytes]]:
    """Name -> path and body: one framed face, and a photo of one person, 512 x 512."""
    from skimage import data

    astronaut = Image.fromarray(data.astronaut())
    face = astronaut.crop((168, 62, 280, 174)).resize((96, 96)).convert("L")
    return {
        "framed face": ("/v1/embed?cropped=true", encode(face, "PNG")),
        "photo": ("/v1/embed", encode(astronaut, "JPEG")),
    }


def encode(image: Image.Image, form: str) -> bytes:
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


@contextmanager
def server(batch: int, threads: int) -> Iterator[int]:
    """The port of a server in a process of its own."""
    command = [sys.executable, "-m", "fevertools", "serve", "--port", "0", "--device", "cpu"]
    options = ["--batch", str(batch), "--threads", str(threads)]
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        told = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+);", told)
        if not found:
            raise SystemExit(f"the server did not start: {told}")
        try:
            yield int(found[1])
        finally:
            process.terminate()


def ask(port: int, path: str, body: bytes, most: int, until: float) -> list[float]:
    """Seconds of each of one client's requests."""
    seconds: list[float] = []
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as client:
        while len(seconds) < most and time.perf_counter() < until:
            start = time.perf_counter()
            client.request("POST", path, body, {"Content-Type": "application/octet-stream"})
            answer = client.getresponse()
            faces = len(json.loads(answer.read()).get("faces", ()))
            if answer.status != 200 or faces != 1:
                raise SystemExit(f"{path}: status {answer.status}, {faces} faces; the times say nothing")
            seconds.append(time.perf_counter() - start)
    return seconds


def counted(port: int) -> tuple[float, float]:
    """Runs of the encoder so far, and faces in them."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as client:
        client.request("GET", "/metrics")
        text = client.getresponse().read().decode()
    runs, faces = (
        re.search(rf"^fevertools_batch_faces_{name} (\S+)$", text, re.MULTILINE) for name in ("count", "sum")
    )
    assert runs is not None
    assert faces is not None
    return float(runs[1]), float(faces[1])


def measure(ports: Mapping[int, int], load: tuple[str, bytes], clients: int, limits: Limits) -> list[dict[str, Any]]:
    """Requests a second, and their times, with so many clients, for each `--batch`.

    The servers are asked in turn (A B A B ...), so that a slow spell of the machine hits all alike.
    """
    times: dict[int, list[float]] = {batch: [] for batch in ports}
    walls = dict.fromkeys(ports, 0.0)
    for port in ports.values():
        ask(port, *load, 3, math.inf)
    before = {batch: counted(port) for batch, port in ports.items()}
    for _ in range(limits.rounds):
        for batch, port in ports.items():
            start = time.perf_counter()
            with ThreadPoolExecutor(clients) as pool:
                arguments = (port, *load, limits.requests // clients, start + limits.seconds)
                work = [pool.submit(ask, *arguments) for _ in range(clients)]
                times[batch] += [second for asked in work for second in asked.result()]
            walls[batch] += time.perf_counter() - start
    rows = []
    for batch, port in ports.items():
        runs, faces = (after - earlier for after, earlier in zip(counted(port), before[batch], strict=True))
        cuts = statistics.quantiles(times[batch], n=20, method="inclusive")
        rows.append(
            {
                "clients": clients,
                "batch": batch,
                "requests": len(times[batch]),
                "requests_per_second": round(len(times[batch]) / walls[batch], 1),
                "p50_ms": round(cuts[9] * 1e3, 1),
                "p95_ms": round(cuts[18] * 1e3, 1),
                "faces_per_run": round(faces / runs, 2),
            }
        )
    return rows


def served() -> float:
    """Processor seconds of the servers that have ended."""
    spent = os.times()
    return spent.children_user + spent.children_system


def table(results: Path) -> str:
    """The table of the measurement."""
    result = json.loads((results / "serve.json").read_text("utf-8"))
    rows = header("request", "clients", "`--batch`", "requests/s", "p50 ms", "p95 ms", "faces a run")
    rows += [
        f"| {row['load']} | {row['clients']} | {row['batch']} | {row['requests_per_second']:.0f} | {row['p50_ms']:.1f} "
        f"| {row['p95_ms']:.1f} | {row['faces_per_run']:.1f} |"
        for row in sorted(result["rows"], key=lambda row: (row["load"], row["clients"], row["batch"]))
    ]
    facts = result["machine"]
    told = (
        f"{facts['processor']}, {facts['cores']} cores, shared by server and clients; `--threads {result['threads']}`; "
        f"servers with and without shared runs asked in turn, {result['rounds']} times; other processes kept "
        f"{result['cores_busy_with_other_processes']:.1f} cores busy. One face a "
        "request; `--batch 1` shares no runs."
    )
    return "\n".join(rows) + f"\n\n{told}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time the server under one and eight clients.")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of one run of a network")
    parser.add_argument("--rounds", type=int, default=4, help="times that each server is asked in turn")
    parser.add_argument("--requests", type=int, default=200, help="most requests of one round")
    parser.add_argument("--seconds", type=float, default=1.0, help="longest time of one round")
    parser.add_argument("--output", type=Path, help="also write the JSON object here")
    options = parser.parse_args(arguments)

    limits = Limits(options.rounds, options.requests, options.seconds)
    rows, start, before = [], time.perf_counter(), served()
    with OtherLoad() as others, ExitStack() as servers:
        ports = {batch: servers.enter_context(server(batch, options.threads)) for batch in BATCHES}
        for name, load in loads().items():
            for clients in CLIENTS:
                rows += [{"load": name, **row} for row in measure(ports, load, clients, limits)]
        servers.close()  # their processor time is known once they have ended
    own = (served() - before) / (time.perf_counter() - start)
    result = {
        "benchmark": "serve",
        "machine": machine(),
        "versions": versions(*PACKAGES),
        "threads": options.threads,
        "rounds": options.rounds,
        "cores_busy_with_other_processes": None if others.cores is None else round(max(0.0, others.cores - own), 2),
        "rows": rows,
    }
    report(result, options.output)


if __name__ == "__main__":
    main()
