"""What is named on the command line -> paths of images, one at a time."""

import glob
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

SUFFIXES: Final = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"}
)
"""Files of a folder with one of these, in any case, are images. A file that is named itself needs none."""

_MAGIC: Final = re.compile(r"[*?\[]")

Problem: TypeAlias = Callable[[str], None]
"""Told of every input that gives no image; may raise."""


@dataclass(frozen=True, slots=True)
class Input:
    """One image to read."""

    path: str  # as named, or the named folder joined with the way below it
    name: str  # the way below the named folder, or the file's own name: where a copy of it may be put


def expand(arguments: Iterable[str], problem: Problem) -> Iterator[Input]:
    """Images of files, folders, patterns and `-`, in the order named; each path once.

    Lazy: a folder is listed when it is reached. Only a pattern is searched as a whole before its first image, so that
    its images are sorted. Links to folders are not followed below a named folder, so no loop can catch the search.

    Args:
        arguments: names; "-" reads further names, one a line, from stdin.
        problem: called for each name that gives no image, and each folder that cannot be read. A missing file is not
            one of those: it is passed on, for the reader of images to refuse.
    """
    seen: set[str] = set()
    for argument in arguments:
        for image in _listed(problem) if argument == "-" else _named(argument, problem):
            if image.path not in seen:
                seen.add(image.path)
                yield image


def _listed(problem: Problem) -> Iterator[Input]:
    """The paths on stdin. Taken literally: a file may be called `a[1].jpg`."""
    if sys.stdin is None:
        problem("stdin is closed, so no list came from there")
        return
    for line in sys.stdin.buffer:
        path = os.fsdecode(line.rstrip(b"\r\n"))
        if path:
            yield from _path(path, problem)


def _named(argument: str, problem: Problem) -> Iterator[Input]:
    if os.path.exists(argument) or not _MAGIC.search(argument):
        yield from _path(argument, problem)
        return
    suffix = os.path.splitext(argument)[1]
    # *.dat asks for just that; photos/* for images.
    any_file = bool(suffix) and not _MAGIC.search(suffix)
    try:
        matches = sorted(glob.iglob(argument, recursive=True))
    except RecursionError:
        problem(f"the folders of {argument!r} are nested too deep for a pattern; name the folder itself")
        return
    found = False
    for match in matches:
        if os.path.isdir(match):
            images = _walk(match, problem)
        else:
            images = iter([Input(match, os.path.basename(match))] if any_file or _is_image(match) else [])
        for image in images:
            found = True
            yield image
    if not found:
        problem(f"no image matches {argument!r}")


def _path(path: str, problem: Problem) -> Iterator[Input]:
    if not os.path.isdir(path):
        yield Input(path, os.path.basename(path))
        return
    found = False
    for image in _walk(path, problem):
        found = True
        yield image
    if not found:
        problem(f"no image in the folder {path!r}")


def _walk(folder: str, problem: Problem) -> Iterator[Input]:
    # A stack and not a call a level: folders may be nested deeper than calls.
    levels, start = [_entries(folder, problem)], len(os.path.join(folder, ""))
    while levels:
        entry = next(levels[-1], None)
        if entry is None:
            levels.pop()
        elif entry.is_dir(follow_symlinks=False):
            levels.append(_entries(entry.path, problem))
        # A broken link is an image that fails, not one that was never there.
        elif _is_image(entry.name) and (entry.is_file() or entry.is_symlink()):
            yield Input(entry.path, entry.path[start:])


def _entries(folder: str, problem: Problem) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as listing:
            return iter(sorted((e for e in listing if not e.name.startswith(".")), key=lambda e: e.name))
    except OSError as error:
        problem(f"cannot list the folder {folder!r}: {error.strerror}")
        return iter(())


def _is_image(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in SUFFIXES
