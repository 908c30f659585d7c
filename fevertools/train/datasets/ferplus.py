"""FER-2013 with FER+ votes: reading, protocols and twins.

Sources: Goodfellow et al. 2013 (FER-2013), Barsoum et al. 2016 (FER+).
"""

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from fevertools.errors import DataError
from fevertools.labels import EMOTIONS, EMOTIONS_7, FERPLUS_VOTES
from fevertools.types import Float32

Split = Literal["train", "validation", "test"]
SPLITS: dict[str, int] = {"train": 0, "validation": 1, "test": 2}
USAGES = {"Training": 0, "PublicTest": 1, "PrivateTest": 2}
SIZE = 48
PROTOCOLS = ("ferplus8", "ferplus8-majority", "ferplus7")

# Where a face stands in its frame: median MTCNN landmarks of 275 training images, fractions of width and height.
LANDMARKS = ((0.319, 0.395), (0.693, 0.390), (0.504, 0.603), (0.350, 0.790), (0.657, 0.792))

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FerPlus:
    """FER-2013 in the row order of its CSV, with the FER+ votes of the same rows."""

    images: npt.NDArray[np.uint8]  # (R, 48, 48)
    split: npt.NDArray[np.uint8]  # (R,) values of `SPLITS`
    label: npt.NDArray[np.uint8]  # (R,) index into `labels.FER2013`
    votes: npt.NDArray[np.uint8]  # (R, 10) in the order of `labels.FERPLUS_VOTES`
    twin: Int64  # (R,) row of the first pixel-identical image; itself where it is the first


@dataclass(frozen=True, slots=True)
class Protocol:
    """The rows of one protocol and their vote distributions."""

    rows: Int64  # (N,) rows of `FerPlus`, ascending
    target: Float32  # (N, C) vote distribution over the C classes, rows sum to 1


def default_data_root() -> Path:
    """The data folder: `FEVERTOOLS_DATA`, else `../shared/data`."""
    return Path(os.environ.get("FEVERTOOLS_DATA", "../shared/data"))


def read_ferplus(root: Path) -> FerPlus:
    """Read FER-2013 and FER+ from a folder.

    Either `fer2013.npz` (arrays images, usage, label, ferplus_votes, optionally dup_of), or the original `fer2013.csv`
    (emotion, pixels, Usage) with FER+'s `fer2013new.csv`. Both are also looked for in a subfolder `fer2013`.

    Raises:
        DataError: neither is there, or a file is not what its name says.
    """
    for folder in (root, root / "fer2013"):
        if (folder / "fer2013.npz").is_file():
            return _read_npz(folder / "fer2013.npz")
        if (folder / "fer2013.csv").is_file():
            if not (folder / "fer2013new.csv").is_file():
                raise DataError(f"{folder} has fer2013.csv but not fer2013new.csv, the FER+ votes")
            return _read_csv(folder / "fer2013.csv", folder / "fer2013new.csv")
    raise DataError(
        f"no FER-2013 in {root}: put fer2013.npz, or fer2013.csv and fer2013new.csv there, "
        "and pass --data or set FEVERTOOLS_DATA"
    )


def _read_npz(path: Path) -> FerPlus:
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = {name: data[name] for name in ("images", "usage", "label", "ferplus_votes")}
    except (KeyError, ValueError, OSError) as error:
        raise DataError(f"{path} is not a FER-2013 archive: {error}") from error
    return _checked(arrays["images"], arrays["usage"], arrays["label"], arrays["ferplus_votes"], path)


def _read_csv(fer: Path, ferplus: Path) -> FerPlus:
    """Rows of the two files correspond one to one; the FER+ file's header names its vote columns."""
    images, usage, label = [], [], []
    with fer.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            try:
                pixels = np.array(row["pixels"].split(), np.uint8)
                images.append(pixels.reshape(SIZE, SIZE))
                usage.append(USAGES[row["Usage"].strip()])
                label.append(int(row["emotion"]))
            except (KeyError, ValueError, OverflowError, AttributeError) as error:
                raise DataError(f"{fer}, line {number}: {error!r}") from error
    votes = []
    with ferplus.open(newline="", encoding="utf-8") as file:
        # The published header is: Usage, Image name, neutral, happiness, ..., contempt, unknown, NF.
        for number, fields in enumerate(csv.reader(file), start=1):
            if number == 1:
                continue
            try:
                votes.append([int(v or 0) for v in fields[2 : 2 + len(FERPLUS_VOTES)]])
            except ValueError as error:
                raise DataError(f"{ferplus}, line {number}: {error}") from error
    if len(votes) != len(images):
        raise DataError(f"{ferplus} has {len(votes)} rows and {fer} {len(images)}; they must correspond row by row")
    return _checked(np.array(images), np.array(usage), np.array(label), np.array(votes), fer)


def _checked(images: np.ndarray, usage: np.ndarray, label: np.ndarray, votes: np.ndarray, path: Path) -> FerPlus:
    n = len(images)
    shapes = (images.shape == (n, SIZE, SIZE), usage.shape == (n,), label.shape == (n,), votes.shape == (n, 10))
    if n == 0 or not all(shapes) or images.dtype != np.uint8:
        raise DataError(f"{path}: expected images uint8 (R, 48, 48) and usage, label, ferplus_votes of the same length")
    return FerPlus(images, usage.astype(np.uint8), label.astype(np.uint8), votes.astype(np.uint8), find_twins(images))


def find_twins(images: npt.NDArray[np.uint8]) -> Int64:
    """Row of the first pixel-identical image of every row: int64 (R,)."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(image.tobytes(), row) for row, image in enumerate(images)], np.int64)


def select(data: FerPlus, protocol: str, split: Split) -> Protocol:
    """Rows and targets of one protocol and split.

    - ferplus8: votes of 1 or less are dropped; rows whose top vote of all ten columns is an emotion.
    - ferplus8-majority: of those, rows whose top vote has more than half of what remains (the FER+ authors' rule).
    - ferplus7: ferplus8 without contempt, target over the first seven labels.

    Raises:
        DataError: unknown protocol.
    """
    if protocol not in PROTOCOLS:
        raise DataError(f"unknown protocol {protocol!r}; known: {', '.join(PROTOCOLS)}")
    votes = np.where(data.votes <= 1, 0, data.votes).astype(np.float32)
    top = votes.argmax(axis=1)
    keep = (data.split == SPLITS[split]) & (top < len(EMOTIONS)) & (votes.max(axis=1) > 0)
    if protocol == "ferplus8-majority":
        keep &= votes.max(axis=1) > 0.5 * votes.sum(axis=1)
    classes = len(EMOTIONS_7 if protocol == "ferplus7" else EMOTIONS)
    if protocol == "ferplus7":
        keep &= top != EMOTIONS.index("contempt")
    rows = np.flatnonzero(keep)
    target = votes[rows, :classes]
    return Protocol(rows, (target / target.sum(axis=1, keepdims=True)).astype(np.float32))


def without_evaluated_twins(data: FerPlus, rows: Int64) -> Int64:
    """Mask (N,) of the rows whose twin group touches neither the validation nor the test split. For training rows."""
    evaluated = np.unique(data.twin[data.split != SPLITS["train"]])
    return np.asarray(~np.isin(data.twin[rows], evaluated))


def without_earlier_twin(data: FerPlus, rows: Int64) -> Int64:
    """Mask (N,) of the rows that have no pixel-identical image in an earlier split. For evaluated rows."""
    first_split = data.split[data.twin[rows]]
    return np.asarray(first_split >= data.split[rows])
