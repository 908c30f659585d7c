"""The versions of .ci/oldest are those that pyproject.toml promises."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ranges = [*project["dependencies"], *project["optional-dependencies"]["parquet"]]
    lines = (ROOT / ".ci" / "oldest.txt").read_text().splitlines()
    pins = {pin.name: pin for pin in (Requirement(line) for line in lines if not line.startswith("#"))}
    assert set(pins) == {Requirement(text).name for text in ranges}
    for text in ranges:
        wanted = Requirement(text)
        (bound,) = (part.version for part in wanted.specifier if part.operator == ">=")
        (pinned,) = (part.version for part in pins[wanted.name].specifier if part.operator == "==")
        # OpenCV's releases have four numbers: 4.9.0.80 is the first of 4.9.
        assert pinned in SpecifierSet(f"=={bound}.*"), f"{pinned} is not the oldest of {text}"
        assert not set(pinned.removeprefix(bound).split(".")) - {"", "0", "80"}, f"{pinned} is not the oldest of {text}"
