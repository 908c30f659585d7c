"""AffectNet in the layouts of its original release and of its later distribution. Mollahosseini et al. 2017.

Faces are framed by five points taken from the 68 landmarks that come with the data, not by the face box: a box says
little about where the eyes lie in it, while the five points give the very framing that the weights are served.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from fevertools.align import crop_face
from fevertools.errors import DataError
from fevertools.image import load
from fevertools.labels import EMOTIONS
from fevertools.types import FaceGeometry, Float32, UInt8Image

Split = Literal["train", "validation"]
TABLES: dict[str, str] = {"train": "training.csv", "validation": "validation.csv"}
FOLDERS: dict[str, str] = {"train": "train_set", "validation": "val_set"}
IMAGES = "Manually_Annotated_Images"
COLUMNS = (
    "subDirectory_filePath", "face_x", "face_y", "face_width", "face_height",
    "facial_landmarks", "expression", "valence", "arousal",
)  # fmt: skip

# AffectNet's own order. The codes that follow, 8 None, 9 Uncertain and 10 No-Face, are no emotions.
CODES = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
LAST_CODE = 10

# The points of `labels.LANDMARKS` as means of the 68: lids of the eye on the left of the picture and of that on the
# right, tip of the nose, corners of the mouth.
FIVE = (slice(36, 42), slice(42, 48), slice(30, 31), slice(48, 49), slice(54, 55))


@dataclass(frozen=True, slots=True, eq=False)
class AffectNet:
    """Labelled faces, framed. A `LabelledSource`."""

    paths: tuple[Path, ...]  # N
    label: npt.NDArray[np.int64]  # (N,) index into `labels.EMOTIONS`
    landmarks: Float32  # (N, 5, 2) pixels, order of `labels.LANDMARKS`
    geometry: FaceGeometry
    missing: int  # faces of the chosen classes that are left out: no image file, or no 68 landmarks

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> UInt8Image:
        """uint8 RGB (geometry.height, geometry.width, 3)."""
        return crop_face(load(self.paths[index]), self.landmarks[index], self.geometry)

    def target(self, index: int) -> Float32:
        """float32 (8,) one-hot over `labels.EMOTIONS`, also where only seven classes were chosen."""
        return np.asarray(np.eye(len(EMOTIONS))[self.label[index]], np.float32)


@dataclass(frozen=True, slots=True)
class _Row:
    """One annotation, whatever its layout."""

    path: Path
    code: int
    points: str | Path  # "x;y;x;y;...", or the .npy file of the same numbers


def read_affectnet(root: Path, split: Split, geometry: FaceGeometry, *, classes: Literal[7, 8] = 8) -> AffectNet:
    """Read one split.

    Two layouts are known, in `root` or in a subfolder `affectnet`:

    - original release: `Manually_Annotated_Images`, and `training.csv` and `validation.csv` beside it or in
      `Manually_Annotated_file_lists`; all of it also inside `Manually_Annotated`. A header line may be absent.
    - later distribution: `train_set` and `val_set`, each with `images/ID.jpg` and `annotations/ID_exp.npy`,
      `ID_lnd.npy` (the arousal and valence files are not read).

    Args:
        root: the folder.
        split: its validation split is the one on which papers report.
        geometry: framing and size of the faces, such as `framing.served_geometry(140)`.
        classes: 8, or 7 without contempt.

    Raises:
        DataError: neither layout is there, or a file is not what its name says.
    """
    paths, label, landmarks, missing = [], [], [], 0
    for row in _rows(root, split):
        if row.code >= classes:  # contempt is the last emotion
            continue
        points = _five(row.points)
        if points is None or not row.path.is_file():
            missing += 1
            continue
        paths.append(row.path)
        label.append(EMOTIONS.index(CODES[row.code]))
        landmarks.append(points)
    stacked = np.array(landmarks, np.float32).reshape(-1, 5, 2)
    return AffectNet(tuple(paths), np.array(label, np.int64), stacked, geometry, missing)


def _rows(root: Path, split: Split) -> Iterator[_Row]:
    for folder in (root, root / "affectnet"):
        if (folder / FOLDERS[split] / "annotations").is_dir():
            return _from_arrays(folder / FOLDERS[split])
        places = (folder, folder / "Manually_Annotated")
        images = next((place / IMAGES for place in places if (place / IMAGES).is_dir()), None)
        tables = (place / lists / TABLES[split] for place in places for lists in (".", "Manually_Annotated_file_lists"))
        table = next((table for table in tables if table.is_file()), None)
        if images is not None and table is not None:
            return _from_table(table, images)
    raise DataError(
        f"no AffectNet {split} split in {root}: put {IMAGES} with {TABLES[split]}, or {FOLDERS[split]} with images and "
        "annotations there, and pass --data or set FEVERTOOLS_DATA"
    )


def _from_table(table: Path, images: Path) -> Iterator[_Row]:
    with table.open(newline="", encoding="utf-8-sig") as file:
        for number, fields in enumerate(csv.reader(file), start=1):
            if not fields or fields[0] == COLUMNS[0]:
                continue
            if len(fields) != len(COLUMNS):
                raise DataError(f"{table}, line {number}: {len(fields)} fields, not {', '.join(COLUMNS)}")
            row = dict(zip(COLUMNS, fields, strict=True))
            code = _code(row["expression"], f"{table}, line {number}")
            yield _Row(images / row["subDirectory_filePath"], code, row["facial_landmarks"])


def _from_arrays(folder: Path) -> Iterator[_Row]:
    annotations = folder / "annotations"
    for file in sorted(annotations.glob("*_exp.npy")):
        name = file.name.removesuffix("_exp.npy")
        try:
            # The number is stored as text of one or two digits.
            value = str(np.load(file, allow_pickle=False).item())
        except (ValueError, OSError, EOFError) as error:
            raise DataError(f"{file} is not an expression code: {error}") from error
        yield _Row(folder / "images" / f"{name}.jpg", _code(value, str(file)), annotations / f"{name}_lnd.npy")


def _code(text: str, where: str) -> int:
    if not text.isdecimal() or int(text) > LAST_CODE:
        raise DataError(f"{where}: expression {text!r} is not a code from 0 to {LAST_CODE}")
    return int(text)


def _five(points: str | Path) -> Float32 | None:
    """Five points (5, 2) of 68; None where there are not 68, or where they show no face."""
    try:
        if isinstance(points, Path):
            numbers = np.load(points, allow_pickle=False).astype(np.float32)
        else:
            numbers = np.array(points.split(";"), np.float32)
        all_68 = numbers.reshape(68, 2)
    except (ValueError, OSError, EOFError):
        return None
    five = np.stack([all_68[which].mean(axis=0) for which in FIVE])
    return five if np.isfinite(five).all() and np.ptp(five, axis=0).max() > 0 else None
