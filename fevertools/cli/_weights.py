"""fevertools weights list|verify|pull|path."""

import argparse
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from fevertools.cli._parser import FAILED, FINE
from fevertools.errors import WeightsError, WeightsUnavailableError
from fevertools.manifest import ROLES, Manifest, WeightsEntry, load_manifest
from fevertools.weights import resolve


def weights(options: argparse.Namespace) -> int:
    """`fevertools weights`."""
    return _ACTIONS[options.action](options, load_manifest())


def _list(options: argparse.Namespace, manifest: Manifest) -> int:
    lines = [("NAME", "VERSION", "KIND", "SIZE", "FROM", "LICENCE", "TITLE")]
    for name, entry in sorted(manifest.weights.items()):
        size = sum(entry.files[role].size for role in ROLES[entry.kind][0])
        mark = " (default)" if name in manifest.default.values() else ""
        place = "package" if entry.bundled else f"{entry.hub.repo_id}" if entry.hub else "-"
        lines.append((name + mark, entry.version, entry.kind, _megabytes(size), place, entry.licence, entry.title))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return FINE


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _verify(options: argparse.Namespace, manifest: Manifest) -> int:
    entries = [manifest.named(name) for name in options.names] or [*manifest.weights.values()]
    code = FINE
    for entry in entries:
        try:
            resolve(entry, local_files_only=True)
        except WeightsUnavailableError as error:
            # Weights that nobody has fetched are not broken, unless just these were asked for, or the wheel has them.
            if entry.bundled or options.names:
                code = _failed(entry, str(error))
            else:
                print(f"{entry.name}: not here; fevertools weights pull {entry.name}")
        except WeightsError as error:
            code = _failed(entry, str(error))
        else:
            print(f"{entry.name}: ok")
    return code


def _failed(entry: WeightsEntry, text: str) -> int:
    print(f"{entry.name}: BROKEN: {text}", file=sys.stderr)
    return FAILED


def _pull(options: argparse.Namespace, manifest: Manifest) -> int:
    for entry in [manifest.named(name) for name in options.names]:
        for path in resolve(entry).values():
            print(path)
    return FINE


def _path(options: argparse.Namespace, manifest: Manifest) -> int:
    for entry in [manifest.named(name) for name in options.names]:
        for path in resolve(entry, local_files_only=True).values():
            print(path)
    return FINE


_ACTIONS: Final[Mapping[str, Callable[[argparse.Namespace, Manifest], int]]] = MappingProxyType(
    {"list": _list, "verify": _verify, "pull": _pull, "path": _path}
)
