"""Faces -> small pictures that a page holds in itself."""

import base64
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from typing import Final

import cv2
import numpy as np

from fevertools._report.faces import Rows, Run
from fevertools.align import crop_face
from fevertools.errors import DegenerateFaceError, ImageError
from fevertools.image import load
from fevertools.streaming import read_ahead, worker_pool, workers_of
from fevertools.types import Color, FaceGeometry, UInt8Image

HEIGHT: Final = 64
"""Of a picture, pixels. Its framing is that of the crop which the network read."""

_QUALITY: Final = 75  # of WebP: a face takes about 1 KB


def pictures(run: Run, rows: Rows, geometry: FaceGeometry, color: Color) -> list[str | None]:
    """Read the images of some faces again, each once, and cut the faces out.

    Args:
        run: all faces.
        rows: ascending.
        geometry: the framing of the weights.
        color: channel order of arrays.

    Returns:
        A data URI (WebP) for each row; None where the image cannot be read any more.
    """
    small = replace(geometry, height=HEIGHT, width=max(1, round(HEIGHT * geometry.width / geometry.height)))

    def cut(group: tuple[int, list[int]]) -> Iterable[str | None]:
        image, members = group
        try:
            picture = load(run.sources[image], color=color)
        except ImageError:
            return [None] * len(members)
        return [_picture(picture, run, row, small) for row in members]

    with worker_pool(workers_of(None)) as pool:
        return [picture for _, group in read_ahead(_by_image(run, rows), cut, pool=pool) for picture in group]


def _by_image(run: Run, rows: Rows) -> Iterator[tuple[int, list[int]]]:
    for image, members in groupby(rows.tolist(), lambda row: int(run.image[row])):
        yield image, list(members)


def _picture(picture: UInt8Image, run: Run, row: int, geometry: FaceGeometry) -> str | None:
    try:
        return data_uri(crop_face(picture, run.landmarks[row], geometry))
    except DegenerateFaceError:
        return None


def data_uri(crop: UInt8Image) -> str:
    """One picture, uint8 (H, W, 3) RGB, as WebP in text."""
    _, data = cv2.imencode(".webp", np.ascontiguousarray(crop[:, :, ::-1]), [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])
    return f"data:image/webp;base64,{base64.b64encode(data.tobytes()).decode('ascii')}"
