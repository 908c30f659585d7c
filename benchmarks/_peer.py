"""Contestants in processes of their own, which may have other environments: one JSON object a line, over pipes.

A script of `benchmarks.peers` names its tasks and calls `answer`; a benchmark holds it as a `Worker` and asks. Times
are those that the worker took itself. The standard library alone is imported here: peers' environments have no more.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks._common import OtherLoad

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / ".peers"
"""Where `benchmarks.setup_peers` makes the environments."""


class PeerError(Exception):
    """A contestant cannot run here; the message says why."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One row of a comparison."""

    words: str  # in tables
    module: str  # of `benchmarks.peers`
    arguments: tuple[str, ...] = ()
    environment: str | None = None  # of `benchmarks.setup_peers`; None: the one of this process
    ways: tuple[str, ...] = ()  # which of those that its script has; none: the fastest of all


def answer(tasks: Mapping[str, Callable[..., object]]) -> None:
    """The worker's side: do what each line of stdin asks, until it ends."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no reply
    for line in sys.stdin:
        request = json.loads(line)
        replies.write(json.dumps(tasks[request.pop("task")](**request)) + "\n")


def timed(run: Callable[[], object], calls: int) -> list[float]:
    """Seconds of each call."""
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds


def peak_bytes() -> int:
    """Most memory that this process had at once."""
    import resource  # not on Windows

    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else 1024 * kilobytes


class Worker:
    """A contestant's process.

    Args:
        contestant: which.
        arguments: more of them for its script, after its own.
        peers: folder of the environments.

    Raises:
        PeerError: its environment is not there.
    """

    def __init__(self, contestant: Contestant, *arguments: str, peers: Path = PEERS) -> None:
        python = Path(sys.executable)
        if contestant.environment is not None:
            python = peers.resolve() / contestant.environment / "bin" / "python"
        if not python.is_file():
            raise PeerError("its environment is not there; run `python -m benchmarks.setup_peers`")
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [str(python), "-m", f"benchmarks.peers.{contestant.module}", *contestant.arguments, *arguments],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True,
        )  # fmt: skip

    def ask(self, task: str, **arguments: object) -> Any:
        """What the worker answers.

        Raises:
            PeerError: it ended instead; the message is the last line that it wrote.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"task": task, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            self._said.seek(0)
            lines = self._said.read().strip().splitlines()
            raise PeerError(f"ended by signal {-code}" if code < 0 else lines[-1] if lines else f"ended with {code}")
        return json.loads(line)

    def close(self) -> None:
        """End the process and wait for it."""
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def in_turn(
    asks: Mapping[str, Callable[[], list[float]]], rounds: int, pause: float = 0.05
) -> dict[str, list[list[float]]]:
    """Seconds that each contestant told, in each round, in turn (A B A B ...), so that a slow spell hits all alike.

    Idle threads of some libraries spin for a while, so there are `pause` seconds between two turns.
    """
    told: dict[str, list[list[float]]] = {name: [] for name in asks}
    for _ in range(rounds):
        for name, ask in asks.items():
            time.sleep(pause)
            told[name].append(ask())
    return told


def ratio(ours: Sequence[Sequence[float]], peer: Sequence[Sequence[float]]) -> dict[str, float]:
    """How many times as long the peer takes: the median over the rounds, the least and the largest.

    Args:
        ours: seconds of the calls of each round.
        peer: of the same number of rounds; the number of calls may differ.
    """
    each = [statistics.median(theirs) / statistics.median(own) for own, theirs in zip(ours, peer, strict=True)]
    return {"median": digits(statistics.median(each)), "min": digits(min(each)), "max": digits(max(each))}


def digits(value: float, count: int = 3) -> float:
    """Rounded to so many significant digits."""
    return float(f"{value:.{count}g}") if math.isfinite(value) else value


def percentile_ms(seconds: Sequence[float], percent: int) -> float:
    """A percentile, in milliseconds."""
    cuts = statistics.quantiles([*seconds, *seconds] if len(seconds) < 2 else seconds, n=100, method="inclusive")
    return digits(cuts[percent - 1] * 1e3)


class Aside(OtherLoad):
    """`OtherLoad` that does not count the workers that ended inside the block."""

    def __enter__(self) -> Self:
        self._before = _children()
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        if self.cores is not None:
            own = (_children() - self._before) / (time.perf_counter() - self._start[0])
            self.cores = round(max(0.0, self.cores - own), 2)


def _children() -> float:
    """Processor seconds of the child processes that have ended."""
    spent = os.times()
    return spent.children_user + spent.children_system
