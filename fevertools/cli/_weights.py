"""fevertools weights list|verify|pull|path."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from fevertools.cli._parser import FAILED, FINE
from fevertools.errors import WeightsError, WeightsUnavailableError
from fevertools.hub import CacheOptions
from fevertools.manifest import WeightsEntry, load_manifest
from fevertools.weights import find, locate, resolve


def weights(options: argparse.Namespace) -> int:
    """`fevertools weights`."""
    return _ACTIONS[options.action](options)


def _list(options: argparse.Namespace) -> int:
    cache: CacheOptions = {"cache_dir": options.cache_dir, "local_files_only": options.local_files_only}
    manifest = load_manifest() if options.source is None else locate(options.source, **cache)[0]
    lines = [("NAME", "VERSION", "KIND", "SIZE", "FROM", "LICENCE", "TITLE")]
    for name, entry in sorted(manifest.weights.items()):
        size = sum(entry.files[role].size for role in entry.served)
        mark = " (default)" if name in manifest.default.values() else ""
        place = f"{entry.hub.repo_id}@{entry.hub.revision}" if entry.hub and not entry.bundled else "here"
        lines.append((name + mark, entry.version, entry.kind, _megabytes(size), place, entry.licence, entry.title))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return FINE


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _verify(options: argparse.Namespace) -> int:
    cache: CacheOptions = {"cache_dir": options.cache_dir, "local_files_only": True}
    entries = [find(name, **cache) for name in options.names] or [*load_manifest().weights.values()]
    code = FINE
    for entry in entries:
        try:
            resolve(entry, **cache)
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


def _pull(options: argparse.Namespace) -> int:
    return _show(options.names, {"cache_dir": options.cache_dir, "force_download": options.force})


def _path(options: argparse.Namespace) -> int:
    return _show(options.names, {"cache_dir": options.cache_dir, "local_files_only": True})


def _show(names: Sequence[str], cache: CacheOptions) -> int:
    for entry in [find(name, **cache) for name in names]:
        for path in resolve(entry, **cache).values():
            print(path)
    return FINE


_ACTIONS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = MappingProxyType(
    {"list": _list, "verify": _verify, "pull": _pull, "path": _path}
)
