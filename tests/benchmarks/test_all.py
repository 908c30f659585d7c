"""`python -m benchmarks all`: what runs, and what a failure leaves behind."""

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import curve


def test_every_timing_is_a_module() -> None:
    assert all(importlib.util.find_spec(f"benchmarks.{name}") for name in benchmarks.TIMINGS)


def test_a_failure_is_told_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    ran = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess:
        ran.append(command[2])
        assert command[-1].endswith(f"results/{command[2].removeprefix('benchmarks.')}.json")
        return subprocess.CompletedProcess(command, 1 if command[2] == "benchmarks.limit" else 0)

    monkeypatch.setattr(subprocess, "run", run)
    assert benchmarks.run_all(["detection", "limit", "training"]) == ["limit"]
    assert ran == ["benchmarks.detection", "benchmarks.limit", "benchmarks.training"]
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in told] == ["detection: done", "limit: FAILED", "training: done"]


def test_curve_is_ordered_by_throughput(tmp_path: Path) -> None:
    assert curve.table(tmp_path) == "Nothing has been measured yet."
    networks = [
        {"network": name, "bytes": 7e6, "ferplus8": 85.5, "ferplus8-majority": 89.0, "crops_per_second": speed}
        for name, speed in (("slow", 900.4), ("fast", 2100.0))
    ]
    result = {"networks": networks, "machine": {"processor": "C"}, "threads": 2, "rounds": 9}
    (tmp_path / "curve.json").write_text(json.dumps(result))
    rows = curve.table(tmp_path).splitlines()
    assert rows[2] == "| fast | 2,100 | 85.50 | 89.00 | 7.0 |"
    assert rows[3] == "| slow | 900 | 85.50 | 89.00 | 7.0 |"
