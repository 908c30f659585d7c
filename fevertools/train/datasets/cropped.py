"""Faces cut out of larger pictures once, and read from a file from then on."""

import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fevertools.errors import DataError
from fevertools.manifest import load_manifest
from fevertools.types import FaceGeometry, UInt8Image


@dataclass(frozen=True, slots=True, eq=False)
class Crops:
    """Faces in the framing of a network."""

    images: UInt8Image  # (N, H, W) luminance, or (N, H, W, 3) RGB
    rows: npt.NDArray[np.int64]  # (N,) image indices, ascending
    missing: int  # images without a face


def cached_crops(
    cache: Path, name: str, geometry: FaceGeometry, fingerprint: object, make: Callable[[], Crops]
) -> Crops:
    """Read crops from the file of this detector, geometry and set of images; make them where there is none.

    Args:
        cache: folder of the files.
        name: what their names begin with.
        geometry: of the crops.
        fingerprint: JSON value, another one for other images.
        make: finds and cuts out the faces.

    Raises:
        DataError: a file that is not one of these.
    """
    detector = [file.sha256 for file in load_manifest().entry(None, "detector").files.values()]
    key = hashlib.sha256(json.dumps([detector, asdict(geometry), fingerprint]).encode()).hexdigest()
    path = cache / f"{name}-{geometry.height}x{geometry.width}-{key[:16]}.npz"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        _save(path, make())
    try:
        with np.load(path, allow_pickle=False) as data:
            return Crops(data["images"], data["rows"], int(data["missing"]))
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a file of crops; delete it, so that it is made again") from error


def _save(path: Path, crops: Crops) -> None:
    """A reader sees the whole file or none."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, images=crops.images, rows=crops.rows, missing=crops.missing)
    os.replace(partial, path)
