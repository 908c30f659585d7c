"""Ten gray patches of every aligned face: how "Adversarial Feature Distillation" shows faces to its networks.

Section 3.1: MTCNN finds a face, its landmarks align it to 128 x 110, and patches of 112 x 96 are cut from the four
corners and the middle, and mirrored.
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.functional import ten_crop

from fevertools.align import crop_face
from fevertools.errors import DataError, DegenerateFaceError
from fevertools.pipeline import Analyzer
from fevertools.preprocess import to_luminance
from fevertools.streaming import Progress
from fevertools.train.datasets.cropped import Crops, cached_crops
from fevertools.train.datasets.framing import served_geometry
from fevertools.train.datasets.posed import PosedFaces
from fevertools.types import FaceGeometry, UInt8Image

PATCHES = 10


class Sizes(NamedTuple):
    """Heights and widths, pixels."""

    aligned: tuple[int, int]
    patch: tuple[int, int]


def sizes(resolution: int) -> Sizes:
    """Those for patches of a height: 128 x 110 and 112 x 96 for 112, and in proportion for others."""
    aligned, patch = (128, 110), (112, 96)
    return Sizes(*((round(h * resolution / 112), round(w * resolution / 112)) for h, w in (aligned, patch)))


def aligned_geometry(resolution: int) -> FaceGeometry:
    """The framing of aligned faces: the served one, of whose width the sides are cut off.

    So that what a network learns of FER-2013, whose frames are served so, holds for posed faces.
    """
    height, width = sizes(resolution).aligned
    served = served_geometry(height)
    first, second, *others = (((x - 0.5) * height / width + 0.5, y) for x, y in served.landmarks)
    third, fourth, fifth = others
    return dataclasses.replace(served, width=width, landmarks=(first, second, third, fourth, fifth))


def align_frames(frames: UInt8Image, resolution: int) -> UInt8Image:
    """FER-2013's frames in the framing of aligned faces: uint8 (N, H, W) -> (N, *sizes(resolution).aligned)."""
    height, width = sizes(resolution).aligned
    left = (height - width) // 2
    aligned = np.empty((len(frames), height, width), np.uint8)
    for place, frame in enumerate(frames):
        whole = cv2.resize(frame, (height, height), interpolation=cv2.INTER_CUBIC)
        aligned[place] = whole[:, left : left + width]
    return aligned


def crop_posed(faces: PosedFaces, name: str, geometry: FaceGeometry, cache: Path) -> Crops:
    """The face of every photograph, the largest one in it, in RGB. Made once, then read from a file.

    Args:
        faces: of a reader in `datasets.posed`.
        name: of the data set.
        geometry: of the crops.
        cache: folder of the files.

    Raises:
        DataError: no face in any of them, or a file in the cache that is not one of these.
    """
    fingerprint = ["/".join(path.parts[-4:]) for path in faces.paths]  # wherever the data set lies
    return cached_crops(cache, name, geometry, fingerprint, lambda: _crop(faces, name, geometry))


def _crop(faces: PosedFaces, name: str, geometry: FaceGeometry) -> Crops:
    images, rows = [], []
    with Analyzer(device="cpu", max_faces=1) as analyzer, Progress(len(faces), shown=True) as line:
        for row in range(len(faces)):
            picture = faces.image(row)
            for face in analyzer.detect(picture):
                try:
                    images.append(crop_face(picture, face.landmarks, geometry))
                except DegenerateFaceError:  # coinciding landmarks: as good as no face
                    continue
                rows.append(row)
            line.advance()
    if not images:
        raise DataError(f"no face was found in the {len(faces)} photographs of {name}")
    return Crops(np.stack(images), np.array(rows, np.int64), len(faces) - len(rows))


class Patches(Dataset[tuple[Tensor, Tensor]]):
    """Every patch of every face: uint8 (H, W, 1) and the label; item 10 i + k is patch k of face i.

    Patches are in torchvision's order: corners from top left to bottom right, the middle, and the same mirrored.

    Args:
        aligned: uint8 (N, *sizes(resolution).aligned) luminance.
        label: (N,) 0 to C - 1.
        resolution: height of a patch.
    """

    def __init__(self, aligned: UInt8Image, label: np.ndarray, resolution: int) -> None:
        self.aligned, self.label = torch.from_numpy(aligned), torch.from_numpy(label.astype(np.int64))
        self.size = list(sizes(resolution).patch)

    def __len__(self) -> int:
        return PATCHES * len(self.aligned)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        face, place = divmod(index, PATCHES)
        return self.patches(face)[place], self.label[face]

    def patches(self, face: int) -> Tensor:
        """The ten patches of one face: uint8 (10, H, W, 1)."""
        return torch.stack(ten_crop(self.aligned[face][None], self.size))[:, 0, :, :, None]


def gray(crops: Crops) -> UInt8Image:
    """The luminance (N, H, W) of RGB crops."""
    return np.stack([to_luminance(image) for image in crops.images])
