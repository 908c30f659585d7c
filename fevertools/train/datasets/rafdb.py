"""RAF-DB, its seven basic emotions on aligned faces. Li et al. 2017."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from fevertools.errors import DataError
from fevertools.image import load
from fevertools.labels import EMOTIONS
from fevertools.types import Float32, UInt8Image

Split = Literal["train", "test"]
TABLE = Path("EmoLabel", "list_patition_label.txt")  # spelled so by its authors
IMAGES = Path("Image", "aligned")

# RAF-DB numbers its classes from 1.
CODES: dict[str, str] = {
    "1": "surprise",
    "2": "fear",
    "3": "disgust",
    "4": "happiness",
    "5": "sadness",
    "6": "anger",
    "7": "neutral",
}


@dataclass(frozen=True, slots=True, eq=False)
class RafDb:
    """Labelled faces in RAF-DB's own alignment. A `LabelledSource`."""

    paths: tuple[Path, ...]  # N
    label: npt.NDArray[np.int64]  # (N,) index into `labels.EMOTIONS`
    missing: int  # listed faces without an image file, left out

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> UInt8Image:
        """uint8 RGB (100, 100, 3)."""
        return load(self.paths[index])

    def target(self, index: int) -> Float32:
        """float32 (8,) one-hot over `labels.EMOTIONS`; RAF-DB has no contempt."""
        return np.asarray(np.eye(len(EMOTIONS))[self.label[index]], np.float32)


def read_rafdb(root: Path, split: Split) -> RafDb:
    """Read one split: 12,271 faces for training, 3,068 for testing in the whole data set.

    Args:
        root: the folder that holds `EmoLabel/list_patition_label.txt` (lines such as `train_00001.jpg 5`) and
            `Image/aligned/train_00001_aligned.jpg`, or has it as a subfolder `basic`, `rafdb` or `rafdb/basic`.
        split: the beginning of the file names.

    Raises:
        DataError: the list is not there, or has a line that is not of this kind.
    """
    folders = (root, root / "basic", root / "rafdb", root / "rafdb" / "basic")
    folder = next((folder for folder in folders if (folder / TABLE).is_file()), None)
    if folder is None:
        raise DataError(f"no RAF-DB in {root}: put EmoLabel and Image there, and pass --data or set FEVERTOOLS_DATA")
    paths, label, missing = [], [], 0
    for number, line in enumerate((folder / TABLE).read_text("utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        name, _, code = line.strip().partition(" ")
        kind = name.partition("_")[0]
        if code not in CODES or kind not in ("train", "test"):
            raise DataError(f"{folder / TABLE}, line {number}: {line!r} is not like 'train_00001.jpg 5'")
        if kind != split:
            continue
        path = folder / IMAGES / f"{Path(name).stem}_aligned.jpg"
        if not path.is_file():
            missing += 1
            continue
        paths.append(path)
        label.append(EMOTIONS.index(CODES[code]))
    return RafDb(tuple(paths), np.array(label, np.int64), missing)
