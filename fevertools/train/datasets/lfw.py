"""Labeled Faces in the Wild, deep-funneled, with emotion labels and the pairs of View 2.

Sources: Huang et al. 2007 (LFW), Huang et al. 2012 (deep funneling). People are anonymous group numbers here: they keep
folds disjoint and measure how much of the person an embedding leaks. Names stay inside this reader.
"""

import contextlib
import csv
import functools
import hashlib
import json
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fevertools.align import crop_face
from fevertools.errors import DataError, DegenerateFaceError
from fevertools.image import load
from fevertools.labels import EMOTIONS
from fevertools.pipeline import Analyzer
from fevertools.preprocess import to_luminance
from fevertools.streaming import Progress
from fevertools.train.datasets.cropped import Crops, cached_crops
from fevertools.train.datasets.framing import central_face
from fevertools.types import FaceGeometry, UInt8Image

Int64 = npt.NDArray[np.int64]

ARCHIVE = "lfw_deepfunneled.zip"
FOLDERS = ("lfw-deepfunneled", "lfw_deepfunneled")
LABELS = "lfw_expression_labels.csv"
PAIRS = "pairs.txt"

_FILE = re.compile(r"(?:.*/)?([^/]+)/\1_(\d{4})\.jpg")


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """The images that have an emotion label."""

    rows: Int64  # (L,) image indices, ascending
    label: Int64  # (L,) index into `labels.EMOTIONS`


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """The pairs of View 2, in the order of their file: ten folds of as many same as different pairs."""

    index: Int64  # (P, 2) image indices
    same: npt.NDArray[np.bool_]  # (P,) whether both images show one person


class Lfw:
    """The images, in the order of people and numbers. An `UnlabeledSource`; processes may share one.

    Args:
        root: a folder with `lfw_deepfunneled.zip`, or with the extracted folder `lfw-deepfunneled` (a folder a person).
            Both are also looked for in a subfolder `lfw`. The tables lie beside them.

    Raises:
        DataError: neither is there, or it holds no images.
    """

    def __init__(self, root: Path) -> None:
        self._place = _find(root)
        keys = {}
        for name in _names(self._place):
            match = _FILE.fullmatch(name)
            if match is not None:
                keys[match[1], int(match[2])] = name
        if not keys:
            raise DataError(f"no images like <person>/<person>_0001.jpg in {self._place}")
        self._index = {key: i for i, key in enumerate(sorted(keys))}
        self._files = [keys[key] for key in self._index]
        people = [person for person, _ in self._index]
        self.person: Int64 = np.unique(people, return_inverse=True)[1].astype(np.int64)
        """(N,) group number of each image: equal for images of one person, 0 to the number of people - 1."""

    def __len__(self) -> int:
        return len(self._files)

    def image(self, index: int) -> UInt8Image:
        """uint8 RGB (250, 250, 3): the whole frame, of which the face takes the middle."""
        if self._place.is_dir():
            return load((self._place / self._files[index]).read_bytes())
        return load(_archive(self._place, os.getpid()).read(self._files[index]))

    def labels(self) -> Labels:
        """Emotion labels, from `lfw_expression_labels.csv` (file, emotion, ...); rows without an emotion are left out.

        Raises:
            DataError: the file is missing, or holds an emotion or image that is not known.
        """
        found = {}
        path = self._table(LABELS)
        with path.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                match = _FILE.fullmatch(row.get("file") or "")
                emotion = row.get("emotion")
                if emotion == "":
                    continue
                if match is None or emotion not in EMOTIONS:
                    raise DataError(f"{path}, line {number}: not an image and one of {', '.join(EMOTIONS)}")
                found[self._row((match[1], match[2]), path, number)] = EMOTIONS.index(emotion)
        rows = np.array(sorted(found), np.int64)
        return Labels(rows, np.array([found[row] for row in rows], np.int64))

    def pairs(self) -> Pairs:
        """Pairs of View 2, from `pairs.txt`: a header of folds and pairs a fold, then person i j, or person i person j.

        Raises:
            DataError: the file is missing, cut off, or names images that are not there.
        """
        path = self._table(PAIRS)
        header, *lines = [line.split() for line in path.read_text("utf-8").splitlines()] or [[]]
        if len(header) != 2 or not "".join(header).isdecimal() or 2 * int(header[0]) * int(header[1]) != len(lines):
            raise DataError(f"{path}: its first line does not announce its {len(lines)} pairs; fetch it again")
        index, same = [], []
        for number, fields in enumerate(lines, start=2):
            if len(fields) not in (3, 4):
                raise DataError(f"{path}, line {number}: not a person and two numbers, nor two persons and numbers")
            images = (fields[0], fields[1]), (fields[0] if len(fields) == 3 else fields[2], fields[-1])
            index.append([self._row(image, path, number) for image in images])
            same.append(len(fields) == 3)
        return Pairs(np.array(index, np.int64).reshape(-1, 2), np.array(same, np.bool_))

    def fingerprint(self) -> str:
        """SHA-256 of the list of images, hexadecimal; the same for an archive and what is extracted from it."""
        return hashlib.sha256(json.dumps(list(self._index)).encode()).hexdigest()

    def _table(self, name: str) -> Path:
        path = self._place.parent / name
        if not path.is_file():
            raise DataError(f"{path} is missing; put {name} beside {self._place.name}")
        return path

    def _row(self, image: tuple[str, str], path: Path, line: int) -> int:
        try:
            return self._index[image[0], int(image[1])]
        except (KeyError, ValueError):
            # `from None`: the cause would carry the name.
            raise DataError(f"{path}, line {line}: no such image in {self._place}") from None


def crop_lfw(root: Path, geometry: FaceGeometry, cache: Path, *, threads: int | None = None) -> Crops:
    """The faces of all images, found by our detector and framed as users get them. Made once, then read from a file.

    In each image the largest face that covers the middle is taken; images without one are left out. A first run over
    all 13,233 images takes about a quarter of an hour on one core.

    Args:
        root: see `Lfw`.
        geometry: framing and size of the crops, such as `framing.served_geometry(48)`.
        cache: folder of the files. Their names tell detector, geometry and images apart.
        threads: threads of the detector; None for one a core.

    Raises:
        DataError: no LFW in `root`, or a file in the cache that is not one of these.
    """
    source = Lfw(root)
    return cached_crops(cache, "lfw", geometry, source.fingerprint(), lambda: _crop(source, geometry, threads))


def _crop(source: Lfw, geometry: FaceGeometry, threads: int | None) -> Crops:
    images, rows = [], []
    with Analyzer(device="cpu", threads=threads) as analyzer, Progress(len(source), shown=True) as line:
        for row in range(len(source)):
            picture = source.image(row)
            face = central_face(analyzer.detect(picture), *picture.shape[:2])
            if face is not None:
                with contextlib.suppress(DegenerateFaceError):  # coinciding landmarks: as good as no face
                    images.append(to_luminance(crop_face(picture, face.landmarks, geometry)))
                    rows.append(row)
            line.advance()
    stack = np.array(images, np.uint8).reshape(-1, geometry.height, geometry.width)
    return Crops(stack, np.array(rows, np.int64), len(source) - len(rows))


def _find(root: Path) -> Path:
    for folder in (root, root / "lfw"):
        if (folder / ARCHIVE).is_file():
            return folder / ARCHIVE
        for name in FOLDERS:
            if (folder / name).is_dir():
                return folder / name
    raise DataError(
        f"no LFW in {root}: put {ARCHIVE}, or the folder {FOLDERS[0]} extracted from it, there, "
        "and pass --data or set FEVERTOOLS_DATA"
    )


def _names(place: Path) -> list[str]:
    if place.is_dir():
        return [path.relative_to(place).as_posix() for path in place.rglob("*.jpg")]
    return _archive(place, os.getpid()).namelist()


@functools.cache
def _archive(path: Path, process: int) -> zipfile.ZipFile:
    """The open archive of this process: a forked one must not share its parent's position in the file."""
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} is not a zip archive: {error}; fetch it again") from error
