"""What benchmarks and tables share: facts about the machine, versions, a timer that treats its contestants alike."""

import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Contestants = Mapping[str, Callable[[], object]]


def header(*names: str) -> list[str]:
    """The first two lines of a Markdown table."""
    return ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]


def machine() -> dict[str, object]:
    """Processor, its cores, operating system and Python."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def versions(*distributions: str) -> dict[str, str | None]:
    """Installed version of each distribution; None where it is not installed."""
    found: dict[str, str | None] = {}
    for name in distributions:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def interleaved(contestants: Contestants, rounds: int, warmups: int = 1, pause: float = 0.01) -> dict[str, list[float]]:
    """Seconds of each contestant in each round, run in turn (A B A B ...), so that a slow spell hits all alike.

    Idle threads of some libraries spin for a while, so there are `pause` seconds between two runs.
    """
    for _ in range(warmups):
        for run in contestants.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            time.sleep(pause)
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def busy_seconds() -> float | None:
    """Processor seconds that all processes of the machine have used since it started; None where that is unknown."""
    stat = Path("/proc/stat")
    if not stat.is_file():
        return None
    user, nice, system, _idle, _wait, interrupts, soft, *_ = map(int, stat.read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")


class OtherLoad:
    """How many cores other processes kept busy, on average, inside a `with` block.

    A timing taken beside other work says little, so every result carries this.
    """

    cores: float | None = None

    def __enter__(self) -> "OtherLoad":
        self._start = time.perf_counter(), time.process_time(), busy_seconds()
        return self

    def __exit__(self, *error: object) -> None:
        wall, own, before = self._start
        after = busy_seconds()
        if before is not None and after is not None:
            others = (after - before) - (time.process_time() - own)
            self.cores = round(max(0.0, others) / (time.perf_counter() - wall), 2)


def summary_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Median, fastest and slowest, in milliseconds."""
    return {
        "median_ms": round(statistics.median(seconds) * 1e3, 2),
        "min_ms": round(min(seconds) * 1e3, 2),
        "max_ms": round(max(seconds) * 1e3, 2),
    }


def data_folder(name: str) -> Path:
    """A folder of the data that FEVERTOOLS_DATA names, or of `../shared/data` beside the repository."""
    root = os.environ.get("FEVERTOOLS_DATA")
    return (Path(root) if root else Path(__file__).resolve().parents[2] / "shared" / "data") / name


def report(result: Mapping[str, Any], output: Path | None) -> None:
    """Print one JSON object, and write it to a file where one is named."""
    text = json.dumps(result, indent=2)
    print(text)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text + "\n")
