"""A folder of faces without labels, such as `crop-faces` makes. It stands where the papers have PowderFaces."""

import os
from dataclasses import dataclass
from pathlib import Path

from fevertools.cli._inputs import SUFFIXES
from fevertools.errors import DataError, ImageError
from fevertools.image import load
from fevertools.streaming import read_ahead, worker_pool, workers_of
from fevertools.types import UInt8Image


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """Unlabeled faces. An `UnlabeledSource`."""

    paths: tuple[Path, ...]  # N, sorted
    broken: int  # image files that cannot be decoded, left out

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> UInt8Image:
        """uint8 RGB (H, W, 3), the whole file; sizes may differ."""
        return load(self.paths[index])


def read_faces(folder: Path) -> Faces:
    """Find the images in a folder and all folders below it.

    Every file is decoded once here, so that a broken one is met now and not days into a training.

    Raises:
        DataError: no such folder, or not one readable image in it.
    """
    if not folder.is_dir():
        raise DataError(f"no folder of faces at {folder}; make one with: python -m fevertools.train crop-faces")
    files = sorted(Path(place, name) for place, _, names in os.walk(folder) for name in names)
    images = [path for path in files if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    with worker_pool(workers_of(None)) as pool:
        paths = tuple(path for path, readable in read_ahead(images, _readable, pool=pool) if readable)
    if not paths:
        raise DataError(f"none of the {len(images)} images in {folder} can be read")
    return Faces(paths, len(images) - len(paths))


def _readable(path: Path) -> bool:
    try:
        load(path)
    except ImageError:
        return False
    return True
