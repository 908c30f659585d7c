"""Where annotated pictures go: --draw and --explain."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import cv2

from fevertools.cli._inputs import Input
from fevertools.errors import OptionError
from fevertools.types import UInt8Image

WRITABLE: Final = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""Suffixes of pictures that can be written."""


def save(picture: UInt8Image, path: Path) -> None:
    """Write a picture; the suffix of the path chooses the format.

    Args:
        picture: uint8 RGB, (H, W, 3).
        path: with one of WRITABLE as its suffix.

    Raises:
        OptionError: another suffix, or a picture larger than the format allows.
        OSError: the file cannot be written.
    """
    if path.suffix.lower() not in WRITABLE:
        raise OptionError(f"cannot draw to {path}; use one of the suffixes {', '.join(WRITABLE)}")
    try:
        whole, data = cv2.imencode(path.suffix.lower(), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise OptionError(f"cannot draw to {path}: {error.err}; use another suffix, such as .png") from error
    if not whole:
        raise OptionError(f"cannot draw to {path}; use another suffix, such as .png")
    # Under a short and hidden name first, so that no half picture is ever found under its own.
    temporary = path.with_name(f".{os.getpid()}.tmp")
    try:
        # Not cv2.imwrite, which cannot open every file name on Windows.
        temporary.write_bytes(data.tobytes())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class Gallery:
    """The albums that are asked for; false where there are none.

    Args:
        options: of the command, with or without `draw` and `explain`.

    Raises:
        OptionError: one of them cannot be written.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        targets = {name: target for name in ("draw", "explain") if (target := vars(options).get(name)) is not None}
        self._albums = {
            name: Album(
                target,
                option=f"--{name}",
                single=len(options.inputs) == 1 and os.path.isfile(options.inputs[0]),
                replace=options.overwrite or options.resume,
            )
            for name, target in targets.items()
        }

    def __bool__(self) -> bool:
        return bool(self._albums)

    def enlist(self, image: Input) -> None:
        """To be told of every input, done or not, so that a resumed run finds the same names."""
        for album in self._albums.values():
            album.enlist(image)

    def add(self, name: str, source: str, draw: Callable[[], UInt8Image]) -> None:
        """Write what `draw` makes of one input, uint8 RGB, where the option `--NAME` is given."""
        if name in self._albums:
            self._albums[name].add(source, draw())


class Album:
    """The pictures that one option asks for.

    Args:
        target: a file, where one file is drawn; else a folder, made if need be, that keeps the names below the inputs.
        option: what named the target.
        single: one file is named as the only input.
        replace: write over pictures that are there.

    Raises:
        OptionError: the target cannot be written, or is there and may not be replaced.
    """

    def __init__(self, target: str, *, option: str, single: bool, replace: bool) -> None:
        self._target, self._option, self._replace = Path(target), option, replace
        self._single = single and not self._target.is_dir()
        self._used: set[str] = set()
        self._places: dict[str, Path] = {}
        if self._single and self._target.suffix.lower() not in WRITABLE:
            raise OptionError(f"cannot draw to {target}; use one of the suffixes {', '.join(WRITABLE)}")
        if self._single:
            self._check(self._target)
        elif self._target.exists() and not self._target.is_dir():
            raise OptionError(f"{target} is a file; to draw several pictures, name a folder")

    def enlist(self, image: Input) -> None:
        """Choose the file of an input."""
        self._places[image.path] = self._place(image.name)

    def _place(self, name: str) -> Path:
        """The file for an input of this name. Names that come twice get a number, in the order of the inputs."""
        if self._single:
            return self._target
        stem, suffix = Path(name).with_suffix(""), Path(name).suffix
        suffix = suffix if suffix.lower() in WRITABLE else f"{suffix}.png"
        number, unique = 1, f"{stem}{suffix}"
        while unique.casefold() in self._used:
            number += 1
            unique = f"{stem}-{number}{suffix}"
        self._used.add(unique.casefold())
        return self._target / unique

    def add(self, source: str, drawn: UInt8Image) -> None:
        """Write what was drawn of one input, uint8 RGB.

        Raises:
            OptionError: a file is there and may not be replaced, or it is the input itself.
        """
        place = self._places.pop(source)
        if place.exists() and place.samefile(source):
            raise OptionError(
                f"drawing to {place} would replace the input; name another file or folder with {self._option}"
            )
        self._check(place)
        if not self._single:
            place.parent.mkdir(parents=True, exist_ok=True)
        save(drawn, place)

    def _check(self, place: Path) -> None:
        if place.exists() and not self._replace:
            raise OptionError(f"{place} exists; name another with {self._option}, or replace it with --overwrite")
