"""Writes the help texts of docs/cli.md. Run: `python docs/help.py`."""

import argparse
import os
import re
from collections.abc import Iterator
from pathlib import Path

from fevertools.cli._parser import make_parser

PAGE = Path(__file__).with_name("cli.md")
WIDTH = 100
"""Columns of the help texts, whatever the terminal has."""


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers of all commands that are run, in order: of one with actions, its actions."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield parser
    for action in below:
        for child in action.choices.values():
            yield from commands(child)


def fill(page: str) -> str:
    """The page with every help text written anew."""
    os.environ["COLUMNS"] = str(WIDTH + 2)  # argparse leaves two columns free
    parser = make_parser()
    parts = [f"## {child.prog}\n\n```text\n{child.format_help()}```\n" for child in (parser, *commands(parser))]
    text = "\n".join(parts)
    return re.sub(
        r"(<!-- begin help -->\n).*(<!-- end help -->)", lambda match: match[1] + text + match[2], page, flags=re.DOTALL
    )


def main() -> None:
    PAGE.write_text(fill(PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
