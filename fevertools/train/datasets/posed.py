"""Posed sets recorded in laboratories: CK+, MMI, BU-3DFE, Oulu-CASIA, as "Adversarial Feature Distillation" uses them.

Every reader gives the peak frames of labelled sequences with the subject they show, from which `folds` makes the
subject-independent ten folds.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from fevertools.cli._inputs import SUFFIXES
from fevertools.errors import DataError
from fevertools.image import load
from fevertools.labels import EMOTIONS
from fevertools.types import Float32, UInt8Image

Int64 = npt.NDArray[np.int64]

PEAK_FRAMES = 3
FOLDS = 10


class Item(NamedTuple):
    """One frame."""

    path: Path
    subject: str
    emotion: str  # of `labels.EMOTIONS`


@dataclass(frozen=True, slots=True, eq=False)
class PosedFaces:
    """Labelled photographs of the whole head; faces are yet to be found and aligned. A `LabelledSource`."""

    paths: tuple[Path, ...]  # N
    subject: tuple[str, ...]  # N, as the data set numbers them
    label: Int64  # (N,) index into `labels.EMOTIONS`
    skipped: int  # sequences without a label or without frames, left out

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> UInt8Image:
        """uint8 RGB (H, W, 3)."""
        return load(self.paths[index])

    def target(self, index: int) -> Float32:
        """float32 (8,) one-hot over `labels.EMOTIONS`."""
        return np.asarray(np.eye(len(EMOTIONS))[self.label[index]], np.float32)


def folds(subject: tuple[str, ...]) -> list[tuple[Int64, Int64]]:
    """Ten folds that share no subject: rows to train on and rows to judge, ten times.

    Subjects in ascending order are dealt out in turn, every tenth to the same group: the protocol of Yang et al. 2018
    (DeRL), which the paper says it follows.

    Raises:
        DataError: fewer subjects than folds.
    """
    known = sorted(set(subject))
    if len(known) < FOLDS:
        raise DataError(f"{len(known)} subjects do not make {FOLDS} folds that share none")
    group = np.array([known.index(name) % FOLDS for name in subject])
    return [(np.flatnonzero(group != k), np.flatnonzero(group == k)) for k in range(FOLDS)]


def read_ck_plus(root: Path) -> PosedFaces:
    """CK+: the last three frames of the 327 labelled sequences of 118 subjects. Lucey et al. 2010.

    Args:
        root: holds `cohn-kanade-images/S005/001/S005_001_00000001.png` and
            `Emotion/S005/001/S005_001_00000011_emotion.txt`, one number a file.
    """
    codes = dict(enumerate(("neutral", "anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")))

    def sequences() -> Iterator[tuple[list[Path], str, str | None]]:
        for folder in sorted((root / "cohn-kanade-images").glob("S*/*/")):
            subject = folder.parent.name
            labels = sorted((root / "Emotion" / subject / folder.name).glob("*_emotion.txt"))
            yield frames_of(folder)[-PEAK_FRAMES:], subject, codes[_number(labels[0])] if labels else None

    return _collected("CK+", root, sequences())


def read_oulu_casia(root: Path) -> PosedFaces:
    """Oulu-CASIA: visible light, strong illumination; the last three frames of 480 sequences. Zhao et al. 2011.

    Args:
        root: holds `VL/Strong/P001/Anger/000.jpeg`, itself or in a folder below, such as `OriginalImg`.
    """
    strong = next((path for path in sorted(root.rglob("Strong")) if path.parent.name == "VL"), root / "VL" / "Strong")

    def sequences() -> Iterator[tuple[list[Path], str, str | None]]:
        for folder in sorted(strong.glob("P*/*/")):
            yield frames_of(folder)[-PEAK_FRAMES:], folder.parent.name, _emotion(folder.name)

    return _collected("Oulu-CASIA", root, sequences())


def read_bu3dfe(root: Path) -> PosedFaces:
    """BU-3DFE: texture images of the two highest of four intensities, six expressions of 100 subjects. Yin et al. 2006.

    Args:
        root: holds `F0001/F0001_AN03WH_F2D.bmp`: subject, expression, intensity, ethnic code, kind of image.
    """
    pattern = re.compile(r"[FM]\d{4}_(AN|DI|FE|HA|SA|SU)0[34][A-Z]{2}_F2D\.\w+")

    def sequences() -> Iterator[tuple[list[Path], str, str | None]]:
        for path in sorted(root.glob("[FM][0-9][0-9][0-9][0-9]/*_F2D.*")):
            found = pattern.fullmatch(path.name)
            if found:
                yield [path], path.parent.name, _emotion(found[1])

    return _collected("BU-3DFE", root, sequences())


def read_mmi(root: Path) -> PosedFaces:
    """MMI: three frames from the middle of every sequence with a basic emotion. Valstar & Pantic 2010.

    Args:
        root: holds `Sessions/1/session.xml`, which names subject and emotion, beside a folder of the sequence's frames.
            (MMI comes as videos; `ffmpeg -i S001-001.avi frames/%04d.png` makes such a folder.)
    """
    codes = {"1": "anger", "2": "disgust", "3": "fear", "4": "happiness", "5": "sadness", "6": "surprise"}

    def sequences() -> Iterator[tuple[list[Path], str, str | None]]:
        for session in sorted((root / "Sessions").glob("*/session.xml")):
            try:
                tree = ElementTree.parse(session).getroot()
            except ElementTree.ParseError as error:
                raise DataError(f"{session} is not XML: {error}") from error
            subject = next((s.get("id") for s in tree.iter("subject")), None)
            emotion = next((m.get("value") for m in tree.iter("metatag") if m.get("name") == "Emotion"), None)
            frames = [path for folder in sorted(session.parent.glob("*/")) for path in frames_of(folder)]
            middle = max(0, (len(frames) - PEAK_FRAMES) // 2)
            # Numbers sort as numbers: 2 before 10.
            number = (subject or "").zfill(3)
            yield frames[middle : middle + PEAK_FRAMES], number, codes.get(emotion or "") if subject else None

    return _collected("MMI", root, sequences())


READERS: dict[str, Callable[[Path], PosedFaces]] = {
    "ck+": read_ck_plus,
    "mmi": read_mmi,
    "bu-3dfe": read_bu3dfe,
    "oulu-casia": read_oulu_casia,
}
"""Name -> reader."""

SPELLINGS = {
    "an": "anger", "di": "disgust", "fe": "fear", "ha": "happiness", "sa": "sadness", "su": "surprise",
}  # fmt: skip


def frames_of(folder: Path) -> list[Path]:
    """The image files of a folder, in the order of their names."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")


def _emotion(name: str) -> str | None:
    """The emotion that a folder or a code such as AN begins like."""
    return SPELLINGS.get(name[:2].lower())


def _number(path: Path) -> int:
    """The number in a label file of CK+, such as `   3.0000000e+00`."""
    try:
        value = float(path.read_text("ascii"))
        if value not in range(8):
            raise ValueError(value)
    except ValueError as error:
        raise DataError(f"{path} does not hold a number from 0 to 7") from error
    return int(value)


def _collected(name: str, root: Path, sequences: Iterator[tuple[list[Path], str, str | None]]) -> PosedFaces:
    items: list[Item] = []
    skipped = 0
    for frames, subject, emotion in sequences:
        if emotion is None or not frames:
            skipped += 1
            continue
        items += [Item(path, subject, emotion) for path in frames]
    if not items:
        raise DataError(f"no labelled sequence of {name} in {root}; see the docstring of its reader for the layout")
    label = np.array([EMOTIONS.index(item.emotion) for item in items], np.int64)
    return PosedFaces(tuple(i.path for i in items), tuple(i.subject for i in items), label, skipped)
