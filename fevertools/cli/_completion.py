"""fevertools completion: a script with which a shell completes commands, options and files."""

import argparse
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from fevertools.cli._parser import FINE, make_parser
from fevertools.errors import MissingExtraError

_FILES: Final = ("A", "B", "DIR_OR_CSV", "FILE", "INPUT", "OUT", "PROBE")
_FOLDERS: Final = ("DIR",)


def completion(options: argparse.Namespace) -> int:
    """`fevertools completion`."""
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise MissingExtraError('completion needs shtab: pip install "fevertools[completion]"') from error
    parser = make_parser()
    kinds: Mapping[str, object] = MappingProxyType(
        dict.fromkeys(_FILES, shtab.FILE) | dict.fromkeys(_FOLDERS, shtab.DIRECTORY)
    )
    for action in _actions(parser):
        if isinstance(action.metavar, str) and action.metavar in kinds:
            vars(action)["complete"] = kinds[action.metavar]  # where shtab looks for it
    print(shtab.complete(parser, options.shell))
    return FINE


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of a parser and of all its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from _actions(child)
