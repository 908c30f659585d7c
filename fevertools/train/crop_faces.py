"""Videos and folders of pictures -> a folder of face crops, by our detector. No labels, no tracks, no names.

A crop is framed as the weights are served. The folder is one that `datasets.faces` reads.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from fevertools.align import crop_face
from fevertools.cli._inputs import SUFFIXES
from fevertools.errors import DataError, DegenerateFaceError, ImageError, OptionError
from fevertools.image import load
from fevertools.manifest import load_manifest
from fevertools.pipeline import Analyzer
from fevertools.train.datasets.framing import served_geometry
from fevertools.types import FaceGeometry, UInt8Image

VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp"})
"""Files of a folder with one of these, in any case, are videos. A file that is named itself needs none."""

FINISHED = "finished.jsonl"
"""In the output folder: first line the options, then a line a finished file. Only hashes stand for files."""

_EVERY = re.compile(r"(\d+)|(\d*\.?\d+)s")
_QUALITY = 95  # of the JPEG files; with full colour resolution the loss stays below the noise of most videos


@dataclass(frozen=True, slots=True)
class CropOptions:
    """How faces are taken."""

    every: str = "1s"  # frames of a video: "10" is each tenth, "0.5s" one each half second
    min_size: int = 40  # pixels; the shorter side of a face's box
    size: int = 140  # pixels; height and width of a crop. 140: DeepFEVER, Fig. 1


@dataclass(frozen=True, slots=True)
class Counts:
    """What a run did."""

    faces: int  # crops written
    files: int  # videos and pictures they come from
    earlier: int  # files that an earlier run had finished
    broken: int  # files that could not be read


def crop_faces(
    inputs: Sequence[Path], output: Path, options: CropOptions | None = None, *, threads: int | None = None
) -> Counts:
    """Write every face of every input as `<output>/<2 digits>/<file>-<frame>-<face>.jpg`, <file> being a hash.

    Files that an earlier run into the same folder finished are skipped; one it was interrupted in is done again. A file
    that cannot be read is told in one line on stderr, to which FFmpeg may add its own.

    Args:
        inputs: videos, pictures, and folders of both, searched with all folders below.
        output: made where it is not there.
        options: None is the defaults.
        threads: threads of the detector; None for one a core.

    Raises:
        DataError: an input is not there, nothing could be read, or the folder was made with other options.
        OptionError: an option is outside what `CropOptions` says.
    """
    options = CropOptions() if options is None else options
    geometry = served_geometry(options.size)
    _step(options.every, 1.0)  # a wrong option is told before any work
    files = _files(inputs, output)
    console = Console(stderr=True)
    finished = _Finished(output, _settings(options, geometry))
    written = done = earlier = broken = 0
    with (
        Analyzer(threads=threads, min_face_size=options.min_size) as analyzer,
        Progress(console=console, disable=not console.is_terminal) as progress,
    ):
        for file in progress.track(files, description="files"):
            key = _key(file)
            if key in finished.keys:
                earlier += 1
                continue
            try:
                crops = _crops(file, analyzer, geometry, options)
                count = sum(_write(crop, output, key, place) for place, crop in crops)
            except (DataError, ImageError) as error:
                broken += 1
                console.print(f"skipped {file}: {error}", markup=False, highlight=False, soft_wrap=True)
                continue
            finished.add(key, count)
            written, done = written + count, done + 1
    if broken and not done + earlier:
        raise DataError(f"none of the {broken} files could be read")
    return Counts(written, done, earlier, broken)


def _files(inputs: Sequence[Path], output: Path) -> list[Path]:
    """Videos and pictures, in the order of the inputs; those of a folder sorted. The output is never its own input."""
    files: dict[Path, None] = {}
    for path in inputs:
        if path.is_dir():
            below = sorted(Path(place, name) for place, _, names in os.walk(path) for name in names)
            files |= dict.fromkeys(file for file in below if file.suffix.lower() in VIDEOS | SUFFIXES)
        elif path.exists():
            files[path] = None
        else:
            raise DataError(f"no video or folder at {path}; check the path")
    kept = [file for file in files if output.resolve() not in file.resolve().parents]
    if not kept:
        raise DataError(f"no videos or pictures in {', '.join(map(str, inputs))}")
    return kept


def _key(file: Path) -> str:
    status = file.stat()
    text = json.dumps([str(file.resolve()), status.st_size, status.st_mtime_ns])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _settings(options: CropOptions, geometry: FaceGeometry) -> dict[str, Any]:
    detector = [file.sha256 for file in load_manifest().entry(None, "detector").files.values()]
    return {"options": asdict(options), "geometry": asdict(geometry), "detector": detector}


def _step(every: str, rate: float) -> int:
    """Frames from one that is looked at to the next."""
    match = _EVERY.fullmatch(every)
    if match is None or float(match[1] or match[2]) == 0:
        raise OptionError(f"every is {every!r}; use a number of frames such as '10', or seconds such as '0.5s'")
    if match[1]:
        return int(match[1])
    if not (math.isfinite(rate) and rate > 0):
        raise DataError("the video does not tell its frame rate; give --every in frames, such as 25")
    return max(1, round(float(match[2]) * rate))


def _frames(file: Path, every: str) -> Iterator[tuple[int, UInt8Image]]:
    """Number and uint8 RGB (H, W, 3) of the frames to look at. A picture has one."""
    if file.suffix.lower() in SUFFIXES:
        yield 0, load(file)
        return
    video = cv2.VideoCapture(str(file))
    try:
        step = _step(every, video.get(cv2.CAP_PROP_FPS)) if video.isOpened() else 1
        number = 0
        while video.grab():
            if number % step == 0:
                decoded, frame = video.retrieve()
                if not decoded:
                    break
                yield number, load(np.asarray(frame, np.uint8), color="bgr")
            number += 1
        if number == 0:
            raise DataError("not a video with a frame that OpenCV can decode")
    finally:
        video.release()


def _crops(
    file: Path, analyzer: Analyzer, geometry: FaceGeometry, options: CropOptions
) -> Iterator[tuple[str, UInt8Image]]:
    """Place within the file, and uint8 RGB (size, size, 3)."""
    for number, picture in _frames(file, options.every):
        for i, face in enumerate(analyzer.detect(picture)):
            if (face.box[2:] - face.box[:2]).min() < options.min_size:
                continue
            try:
                yield f"{number:07}-{i}", crop_face(picture, face.landmarks, geometry)
            except DegenerateFaceError:  # coinciding landmarks: nothing to learn from
                continue


def _write(crop: UInt8Image, output: Path, key: str, place: str) -> int:
    """Write one crop; the number written, 1."""
    folder = output / key[:2]  # a million files in one folder would be slow to list
    folder.mkdir(exist_ok=True)
    Image.fromarray(crop).save(folder / f"{key}-{place}.jpg", quality=_QUALITY, subsampling=0)
    return 1


class _Finished:
    """The list of finished files, appended to as they finish."""

    def __init__(self, output: Path, settings: dict[str, Any]) -> None:
        output.mkdir(parents=True, exist_ok=True)
        self.keys: set[str] = set()
        self._path = output / FINISHED
        header = json.dumps(settings) + "\n"
        text = self._path.read_text("utf-8") if self._path.is_file() else ""
        whole = text[: text.rfind("\n") + 1]  # a killed run may have left half a line
        lines = whole.splitlines(keepends=True) or [header]
        if lines[0] != header:
            raise DataError(f"{output} was made with other options; choose another folder, or those in {self._path}")
        try:
            self.keys.update(json.loads(line)["file"] for line in lines[1:])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self._path} is damaged; delete {output} to start again") from error
        if text != "".join(lines):
            partial = self._path.with_suffix(".partial")
            partial.write_text("".join(lines), "utf-8")
            os.replace(partial, self._path)

    def add(self, key: str, faces: int) -> None:
        """One file is done."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"file": key, "faces": faces}) + "\n")
        self.keys.add(key)
