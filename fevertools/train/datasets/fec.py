"""Google Facial Expression Comparison: triplets of faces, of which people chose the odd one.

Source: Vemulapalli & Agarwala 2019. The data set is a list of URLs and boxes; the pictures are the user's to download.
"""

import csv
import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from fevertools.errors import DataError
from fevertools.image import load
from fevertools.train.datasets.framing import crop_box
from fevertools.train.losses.fec_triplet import ONE_CLASS, THREE_CLASS, TWO_CLASS
from fevertools.types import Float32, UInt8Image

Split = Literal["train", "test"]
TABLES: dict[str, str] = {
    "train": "faceexp-comparison-data-train-public.csv",
    "test": "faceexp-comparison-data-test-public.csv",
}
MAPPING = "urls.csv"
KINDS = {"ONE_CLASS_TRIPLET": ONE_CLASS, "TWO_CLASS_TRIPLET": TWO_CLASS, "THREE_CLASS_TRIPLET": THREE_CLASS}

# Three times URL and box, the type, then annotator and annotation by turns.
_FACE = 5
_KIND = 3 * _FACE
_ANNOTATIONS = _KIND + 2

# The annotation names the odd face; the two others are the similar pair. Positions 0-2.
_ORDER = {"1": (1, 2, 0), "2": (0, 2, 1), "3": (0, 1, 2)}

_Key = tuple[str, tuple[float, float, float, float]]


@dataclass(frozen=True, slots=True, eq=False)
class Fec:
    """Triplets whose three faces are at hand. A `TripletSource`."""

    paths: tuple[Path, ...]  # of F faces; a picture may hold several
    boxes: Float32  # (F, 4) x1, y1, x2, y2 in fractions of the picture's width and height
    triplets: npt.NDArray[np.int64]  # (T, 4) similar pair, odd face, type: indices of faces and a value of `KINDS`
    margin: float  # see `read_fec`
    missing: int  # faces of agreed triplets without a picture
    skipped: int  # agreed triplets left out because one of their faces is missing
    disputed: int  # triplets left out because fewer than two thirds of the annotators agree

    def __len__(self) -> int:
        return len(self.triplets)

    def triplet(self, index: int) -> tuple[int, int, int, int]:
        """Face indices of the similar pair and of the odd one, and the type, as in `FecTriplet`."""
        first, second, odd, kind = self.triplets[index].tolist()
        return first, second, odd, kind

    def image(self, index: int) -> UInt8Image:
        """uint8 RGB (S, S, 3) of one face: the square around its box and margin; sizes differ."""
        picture = load(self.paths[index])
        height, width = picture.shape[:2]
        box = self.boxes[index] * np.array([width, height, width, height], np.float32)
        return crop_box(picture, box, self.margin)


def read_fec(root: Path, split: Split, images: Path | None = None, *, margin: float = 0.0) -> Fec:
    """Read one split: triplets on whose odd face at least two thirds of the annotators agree, as the paper trains on.

    A picture is looked for anywhere under `images`, in this order:

    1. in `images/urls.csv` (header `url,path`; paths relative to `images`), if there is such a file;
    2. as a file whose name without its suffix is the SHA-1 of the URL, 40 hexadecimal digits;
    3. as a file with the last component of the URL's path as its name, unless several URLs of the list share it.

    A file that does not begin as an image does, such as a page that says that the photo is gone, counts as missing.

    Args:
        root: folder of `faceexp-comparison-data-train-public.csv` and `...-test-public.csv`, or the one above their
            folder `FEC_dataset` or `fec`.
        split: "train" or "test".
        images: folder of the pictures; None is `images` beside the list.
        margin: added around a face's box on each side, as a fraction of its longer side.

    Raises:
        DataError: the list or the folder is not there, or a line of the list or of the mapping is not of its kind.
    """
    folders = (root, root / "FEC_dataset", root / "fec", root / "fec" / "FEC_dataset")
    table = next((folder / TABLES[split] for folder in folders if (folder / TABLES[split]).is_file()), None)
    if table is None:
        raise DataError(f"no {TABLES[split]} in {root}; put it there, and pass --data or set FEVERTOOLS_DATA")
    images = table.parent / "images" if images is None else images
    if not images.is_dir():
        raise DataError(f"no folder of downloaded pictures at {images}")
    keys, triplets, disputed = _read_table(table)
    found = _find({url for url, _ in keys}, images)
    number = np.full(len(keys), -1, np.int64)
    held = [i for i, (url, _) in enumerate(keys) if url in found]
    number[held] = np.arange(len(held))
    agreed = np.array(triplets, np.int64).reshape(-1, 4)
    faces = number[agreed[:, :3]]
    whole = (faces >= 0).all(axis=1)
    return Fec(
        paths=tuple(found[keys[i][0]] for i in held),
        boxes=np.array([keys[i][1] for i in held], np.float32).reshape(-1, 4),
        triplets=np.column_stack([faces, agreed[:, 3]])[whole],
        margin=margin,
        missing=len(keys) - len(held),
        skipped=int((~whole).sum()),
        disputed=disputed,
    )


def _read_table(table: Path) -> tuple[list[_Key], list[tuple[int, int, int, int]], int]:
    """Faces of the agreed triplets, those triplets, and the number of the others."""
    faces: dict[_Key, int] = {}
    triplets, disputed = [], 0
    with table.open(newline="", encoding="utf-8-sig") as file:
        for number, fields in enumerate(csv.reader(file, skipinitialspace=True), start=1):
            if not fields:
                continue
            try:
                keys, kind, order = _read_row(fields)
            except ValueError as error:
                raise DataError(f"{table}, line {number}: {error}") from error
            if order is None:
                disputed += 1
                continue
            first, second, odd = (faces.setdefault(keys[position], len(faces)) for position in order)
            triplets.append((first, second, odd, kind))
    return list(faces), triplets, disputed


def _read_row(fields: list[str]) -> tuple[list[_Key], int, tuple[int, int, int] | None]:
    """Three faces, the type, and positions of similar pair and odd face; None for these where people disagree."""
    annotations = [value for value in fields[_ANNOTATIONS::2] if value]
    if len(fields) <= _ANNOTATIONS or fields[_KIND] not in KINDS or not annotations or set(annotations) - set(_ORDER):
        raise ValueError("not three faces, a triplet type and annotations of 1, 2 or 3")
    keys = []
    for start in range(0, _KIND, _FACE):
        left, right, top, bottom = (float(value) for value in fields[start + 1 : start + _FACE])
        if not (left < right and top < bottom):
            raise ValueError(f"the box {left}, {right}, {top}, {bottom} has no area")
        keys.append((fields[start], (left, top, right, bottom)))
    odd, votes = Counter(annotations).most_common(1)[0]
    return keys, KINDS[fields[_KIND]], _ORDER[odd] if 3 * votes >= 2 * len(annotations) else None


def _find(urls: set[str], images: Path) -> dict[str, Path]:
    """URL -> file, for the pictures that are there."""
    found = _from_mapping(images) if (images / MAPPING).is_file() else {}
    files = {path.name: path for path in sorted(images.rglob("*")) if path.is_file()}
    stems = {path.stem: path for path in files.values()}
    last = {url: url.partition("?")[0].rpartition("/")[2] for url in urls}
    shared = Counter(last.values())
    for url in urls - found.keys():
        digest = hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()
        if digest in stems:
            found[url] = stems[digest]
        elif shared[last[url]] == 1 and last[url] in files:
            found[url] = files[last[url]]
    return {url: path for url, path in found.items() if url in urls and _is_picture(path)}


def _from_mapping(images: Path) -> dict[str, Path]:
    with (images / MAPPING).open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if not {"url", "path"} <= set(rows.fieldnames or ()):
            raise DataError(f"{images / MAPPING} must have the columns url and path")
        return {row["url"]: images / row["path"] for row in rows if row["path"]}


def _is_picture(path: Path) -> bool:
    """Reads the header only: decoding every photo would take longer than an epoch."""
    try:
        with Image.open(path):
            return True
    except (OSError, ValueError, SyntaxError):
        return False
