"""Each test that docs/reliability.md names exists, and each fault that is tested is named there."""

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = (TESTS.parent / "docs" / "reliability.md").read_text("utf-8")
FAULTS = ("kills", "disk", "streams", "places", "changes", "pull", "concurrency", "forks")


def defined(path: Path) -> set[str]:
    return set(re.findall(r"^def (test_\w+)\(", path.read_text("utf-8"), re.MULTILINE))


def test_what_is_promised_is_tested() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert named <= set().union(*map(defined, TESTS.rglob("test_*.py")))


def test_what_is_tested_is_promised() -> None:
    for name in FAULTS:
        for test in defined(Path(__file__).with_name(f"test_{name}.py")):
            assert f"`{test}`" in PAGE, test
