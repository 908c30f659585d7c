"""python -m tests.fuzz: mutated images, manifests, side files and command lines, for a minute or for hours.

Each case is made from the seed and its number alone, so that any of them can be made again: `--seed S --first N
--count 1`. The cases run in a process of their own, whose death is one more thing that can be found. What is found is
kept in a folder, and the last line on stdout is a JSON object that counts everything.
"""

import argparse
import json
import multiprocessing
import random
import resource
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from tests.reliability import targets
from tests.reliability.targets import Target

TARGETS: Final[Mapping[str, type[Target]]] = {
    "image": targets.ImageTarget,
    "manifest": targets.ManifestTarget,
    "triplet": targets.TripletTarget,
    "onnx": targets.OnnxTarget,
    "cli": targets.CommandTarget,
}

SLOW: Final = 2.0
"""Seconds of processor time that one case may take."""

STALL: Final = 60.0
"""Seconds without a case after which the process is ended; generous, for the machine may be busy."""

START: Final = 300.0
"""Seconds that the process may take to begin."""

MEMORY: Final = 256
"""MiB that the resident memory of the process may grow, over what its first cases take."""

ADDRESSES: Final = 8192
"""MiB of address space that the process may add; only there so that a fault cannot take the machine along."""

_MEGABYTE: Final = 1024**2


@dataclass(slots=True)
class Report:
    """What a run found."""

    target: str
    seed: int
    first: int
    cases: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)  # "read", or the error of ours that refused the input
    slowest_case: int = -1
    slowest_s: float = 0.0  # of processor time
    memory_mib: int = 0  # growth of the resident memory
    seconds: float = 0.0  # by the clock
    failures: list[dict[str, Any]] = field(default_factory=list)  # {"case": number, "what": text}

    def add(self, case: int, outcome: str, seconds: float, memory: int, problem: str | None) -> None:
        """Count one case."""
        self.cases += 1
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        self.memory_mib = max(self.memory_mib, memory)
        if seconds > self.slowest_s:
            self.slowest_case, self.slowest_s = case, round(seconds, 3)
        if problem is not None:
            self.failures.append({"case": case, "what": problem})


def fuzz(
    target: type[Target],
    *,
    seed: int = 0,
    first: int = 0,
    count: int | None = None,
    minutes: float | None = None,
    keep: Path,
) -> Report:
    """Run cases `first`, `first` + 1 and so on of a target.

    Args:
        target: what is fuzzed.
        seed: of all cases.
        first: number of the first case.
        count: how many; None for as many as fit in the time.
        minutes: how long; None for as long as the count takes.
        keep: folder for the inputs that failed, made if need be.

    Returns:
        The counts. A case fails that raises what is no error of ours, ends the process, takes more than SLOW or STALL
        or MEMORY, or gives a result that the target calls wrong.
    """
    report = Report(target.__name__, seed, first)
    start = time.monotonic()
    until = None if minutes is None else time.time() + 60 * minutes
    stop = None if count is None else first + count
    case, kept = first, 0
    while case != stop and (until is None or time.time() < until):
        case = _supervise(report, target, case, stop, until)
        while kept < len(report.failures):
            _keep(keep, target, seed, report.failures[kept])
            kept += 1
    report.seconds = round(time.monotonic() - start, 1)
    return report


def _supervise(report: Report, target: type[Target], first: int, stop: int | None, until: float | None) -> int:
    """One process, until it is done or dead; the number of the case to go on with.

    Raises:
        RuntimeError: the target cannot be set up, or refuses its own seeds.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    worker = context.Process(target=_work, args=(sender, target, report.seed, first, stop, until), daemon=True)
    worker.start()
    sender.close()
    case, ready, problem = first, False, f"nothing for {STALL} s"
    try:
        while receiver.poll(STALL if ready else START):
            message = receiver.recv()
            if message == "done":
                worker.join()
                return case
            if message == "ready":
                ready = True
                continue
            report.add(case, *message)
            case += 1
    except EOFError:
        worker.join()
        problem = f"the process ended with code {worker.exitcode}"
    worker.kill()
    worker.join()
    if not ready:
        raise RuntimeError(f"{target.__name__} cannot be set up: {problem}")
    report.add(case, "lost", 0.0, 0, problem)
    return case + 1


def _work(
    sender: Connection, target: type[Target], seed: int, first: int, stop: int | None, until: float | None
) -> None:
    """Run cases and tell of each, between the words "ready" and "done"."""
    _limit_addresses()
    runner = target()
    for data in runner.seeds:  # what loads on first use is no case's own
        runner.run(data)
    base = most = peak()
    sender.send("ready")
    case = first
    while case != stop and (until is None or time.time() < until):
        data = make(runner, seed, case)
        start = time.process_time()
        outcome, problem = _run(runner, data)
        seconds = time.process_time() - start
        if problem is None and seconds > SLOW:
            problem = f"{seconds:.1f} s of processor time"
        before, most = most, peak()
        if problem is None and most > before and most - base > MEMORY:
            problem = f"{most - base} MiB of memory"
        sender.send((outcome, seconds, most - base, problem))
        case += 1
    sender.send("done")


def make(target: Target, seed: int, case: int) -> bytes:
    """The input of one case."""
    return target.make(random.Random(f"{seed} {case}"))


def _run(target: Target, data: bytes) -> tuple[str, str | None]:
    """The outcome, and what is wrong with it."""
    try:
        return target.run(data), None
    except Exception:  # noqa: BLE001 - to catch what nobody thought of is the point
        return "failed", traceback.format_exc()


def peak() -> int:
    """The most resident memory that this process has had, MiB."""
    # Linux counts that of the parent in ru_maxrss, so that what a large parent starts seems to need nothing more.
    with suppress(OSError):
        status = Path("/proc/self/status").read_text("ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) // 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // _MEGABYTE


def _limit_addresses() -> None:
    with suppress(OSError, ValueError):  # where /proc or the limit is not there, the resident memory is still measured
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        limit = pages * resource.getpagesize() + ADDRESSES * _MEGABYTE
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _keep(folder: Path, target: type[Target], seed: int, failure: Mapping[str, Any]) -> None:
    """The input and what was wrong, in files named by target, seed and case."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{target.__name__}-{seed}-{failure['case']}"
    stem.with_suffix(".input").write_bytes(make(target(), seed, failure["case"]))
    stem.with_suffix(".txt").write_text(failure["what"], "utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. 0 where nothing was found, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", choices=TARGETS, default="image", help="what is fuzzed (default: image)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, metavar="M", help="how long (default: 1, if no --count is given)")
    length.add_argument("--count", type=int, metavar="N", help="how many cases")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of all cases (default: 0)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first case (default: 0)")
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"), help="folder for failing inputs")
    options = parser.parse_args(arguments)
    minutes = 1.0 if options.minutes is None and options.count is None else options.minutes
    report = fuzz(
        TARGETS[options.target],
        seed=options.seed,
        first=options.first,
        count=options.count,
        minutes=minutes,
        keep=options.keep,
    )
    for failure in report.failures:
        failure["what"] = failure["what"].splitlines()[-1]  # the whole of it is in the folder
    print(json.dumps(asdict(report)))
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
