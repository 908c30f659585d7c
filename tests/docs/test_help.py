"""The help texts of docs/cli.md are those of the program."""

import sys

import pytest

from fevertools.cli import _MODULES
from tests.docs._load import DOCS, load

pytestmark = pytest.mark.skipif(sys.version_info >= (3, 13), reason="Python 3.13 lays help texts out in another way")


@pytest.fixture(scope="module")
def page():
    return (DOCS / "cli.md").read_text("utf-8")


def test_the_page_is_up_to_date(page):
    assert load("help").fill(page) == page, "out of date: run python docs/help.py"


def test_every_command_has_its_help(page):
    for command in _MODULES:
        assert f"\n## fevertools {command}" in page
        assert f"\nusage: fevertools {command} " in page


def test_what_somebody_wrote_into_it_is_noticed(page):
    before, begin, after = page.partition("<!-- begin help -->")
    changed = before + begin + after.replace("--resume", "--go-on")
    assert changed != page
    assert load("help").fill(changed) == page
