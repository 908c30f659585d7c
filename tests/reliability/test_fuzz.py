"""`python -m tests.fuzz`: it finds planted faults of every kind, and none in the package."""

import json
import os
import time

import pytest

pytest.importorskip("resource")  # not on Windows
pytest.importorskip("onnx")

from tests import fuzz

FEW = {"image": 400, "manifest": 300, "triplet": 200, "onnx": 200, "cli": 40}
MANY = {"image": 60_000, "manifest": 4000, "triplet": 2000, "onnx": 2000, "cli": 500}


@pytest.mark.parametrize(
    ("target", "count"), [*FEW.items(), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in MANY.items())]
)
def test_nothing_is_found(target, count, tmp_path):
    # Other cases in the long run than in the short one.
    report = fuzz.fuzz(fuzz.TARGETS[target], seed=len(str(count)), count=count, keep=tmp_path)
    assert not report.failures, [failure["what"] for failure in report.failures[:3]]
    assert report.cases == count == sum(report.outcomes.values())
    # Neither is everything refused, nor do the mutations change nothing.
    assert len(report.outcomes) > 1


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_a_case_is_the_same_again(name):
    first, second = fuzz.TARGETS[name](), fuzz.TARGETS[name]()
    inputs = [fuzz.make(first, 3, case) for case in range(20)]
    assert inputs == [fuzz.make(second, 3, case) for case in range(20)]
    assert inputs != [fuzz.make(second, 4, case) for case in range(20)]
    assert len(set(inputs)) > 15


class _Planted:
    """Some inputs are bad."""

    def __init__(self):
        self.seeds = [b"good"]

    def make(self, rng):
        return b"bad" if rng.random() < 0.2 else b"good"

    def run(self, data):
        if data == b"bad":
            self.fail()
        return "read"


class Raises(_Planted):
    def fail(self):
        raise KeyError("of another tree")


class Dies(_Planted):
    def fail(self):
        os._exit(9)


class Spins(_Planted):
    def fail(self):
        end = time.process_time() + fuzz.SLOW + 0.1
        while time.process_time() < end:
            pass


class Eats(_Planted):
    def fail(self):
        self.eaten = b"x" * ((fuzz.MEMORY + 100) << 20)


class Hangs(_Planted):
    def fail(self):
        time.sleep(1000)


WORDS = {Raises: "of another tree", Dies: "code 9", Spins: "of processor time", Eats: "MiB of memory", Hangs: "nothing"}


@pytest.mark.parametrize("target", WORDS)
def test_a_planted_fault_is_found_and_kept(target, tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "STALL", 3.0 if target is Hangs else fuzz.STALL)
    report = fuzz.fuzz(target, seed=17, count=6, keep=tmp_path / "kept")
    bad = [case for case in range(6) if fuzz.make(target(), 17, case) == b"bad"]
    assert bad == [3]
    assert [failure["case"] for failure in report.failures] == [3]
    assert WORDS[target] in report.failures[0]["what"]
    assert report.cases == 6  # what came after it too
    stem = tmp_path / "kept" / f"{target.__name__}-17-3"
    assert stem.with_suffix(".input").read_bytes() == b"bad"
    assert WORDS[target] in stem.with_suffix(".txt").read_text("utf-8")


class Broken(_Planted):
    def __init__(self):
        super().__init__()
        self.seeds = [b"bad"]

    def fail(self):
        raise KeyError("a target that cannot read its own seeds")


def test_a_target_that_does_not_start_is_no_finding(tmp_path):
    with pytest.raises(RuntimeError, match="Broken cannot be set up"):
        fuzz.fuzz(Broken, count=1, keep=tmp_path)


def test_the_command_counts_in_json(tmp_path, capsys):
    arguments = ["--target", "triplet", "--count", "12", "--seed", "5", "--first", "3", "--keep", str(tmp_path)]
    reports = []
    for _ in range(2):
        assert fuzz.main(arguments) == 0
        reports.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    first, second = reports
    assert (first["cases"], first["seed"], first["first"], first["failures"]) == (12, 5, 3, [])
    assert first["outcomes"] == second["outcomes"]
    assert list(tmp_path.iterdir()) == []


def test_minutes_end_a_run(tmp_path):
    report = fuzz.fuzz(fuzz.TARGETS["triplet"], minutes=0.05, keep=tmp_path)
    assert report.cases > 0
    assert 3 <= report.seconds < 60
