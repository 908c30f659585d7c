"""Every Python block of README and docs runs, and so does every shell block that has a command of fevertools.

The blocks of a page run in their order, share their names, and find what `conftest.py` puts there. One that cannot run
here stands behind `<!-- skip: next "why" -->`.
"""

import os
import subprocess
import sys
import unittest
from pathlib import Path

import pytest

pytest.importorskip("sybil", reason="needs the extra `dev`")

from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "cards").glob("*.md"))]


def run_shell(example):
    """A block with a command of ours, in bash, up to the first that fails; other blocks, and pip, are for people."""
    lines = [line for line in example.parsed.splitlines() if not line.startswith("pip ")]
    if not any(line.startswith("fevertools ") for line in lines):
        return
    programs = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
        env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, f"{example.path}, line {example.line}:\n{run.stdout}{run.stderr}"


def examples(page):
    parsers = [PythonCodeBlockParser(), CodeBlockParser("sh", run_shell), SkipParser()]
    return Sybil(parsers).parse(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_examples_of_a_page_run(page, taken_for_granted):
    document = examples(page)
    document.namespace.update(taken_for_granted)
    for example in document.examples():
        try:
            example.evaluate()
        except unittest.SkipTest as skipped:  # this block, not the page
            print(f"{page.name}, line {example.line}: skipped: {skipped}")


def test_a_broken_example_is_found(tmp_path, taken_for_granted):
    for language, source in (("python", "import fevertools as ft\nft.detct"), ("sh", "fevertools detct | cat")):
        page = tmp_path / f"{language}.md"
        page.write_text(f"Like this:\n\n```{language}\n{source}\n```\n", "utf-8")
        (example,) = examples(page).examples()
        with pytest.raises((AttributeError, AssertionError), match="detct"):
            example.evaluate()
