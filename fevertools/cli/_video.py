"""fevertools video: the faces of a video, followed over time, as a table and as an annotated video."""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from fevertools.cli._commands import (
    analyzer_of,
    expression_cells,
    face_cells,
    metadata_of,
    shows_progress,
    tell,
)
from fevertools.cli._output import Sink, open_sink
from fevertools.cli._parser import FAILED, FINE
from fevertools.cli._rows import Column, Record, columns, floats, printable
from fevertools.errors import OptionError, VideoError
from fevertools.labels import EMOTIONS
from fevertools.manifest import load_manifest
from fevertools.pipeline import Analyzer
from fevertools.streaming import Progress
from fevertools.types import Expression, Face, FaceResult, UInt8Image
from fevertools.video.annotation import AnnotatedVideo
from fevertools.video.results import VideoFrame
from fevertools.video.sources import Camera, Shots, VideoFile, open_source
from fevertools.video.tracking import EarlierFace, FaceTracker, follow


def video(options: argparse.Namespace) -> int:
    """`fevertools video`."""
    _check_film(options)
    with ExitStack() as stack:
        analyzer = stack.enter_context(analyzer_of(options))
        shots = stack.enter_context(open_source(_source(options.input)))
        if options.resume and isinstance(shots, Camera):
            raise OptionError("a camera cannot be resumed, for what it saw is gone; start anew with --overwrite")
        wanted = _columns(analyzer.entry.dimension if options.embeddings else 0)
        sink = stack.enter_context(open_sink(options, wanted, _metadata(options, analyzer), stoppable=True))
        film = None
        if options.annotate is not None:
            film = stack.enter_context(AnnotatedVideo(options.annotate, shots.seconds))
        try:
            return _run(options, analyzer, shots, sink, film)
        except KeyboardInterrupt:
            sink.stop()
            raise


def _source(name: str) -> str | int:
    return int(name) if name.isascii() and name.isdigit() and not os.path.exists(name) else name


def _check_film(options: argparse.Namespace) -> None:
    if options.annotate is None or not os.path.exists(options.annotate):
        return
    if os.path.exists(options.input) and os.path.samefile(options.annotate, options.input):
        raise OptionError(f"{options.annotate} is the input; name another file with --annotate")
    if not (options.overwrite or options.resume):
        raise OptionError(f"{options.annotate} exists; name another with --annotate, or replace it with --overwrite")


def _columns(dimension: int) -> tuple[Column, ...]:
    source, face, *others = columns("classify")
    embedding = columns("embed", dimension)[-1:] if dimension else ()
    timed = Column("frame", "int32"), Column("time", "float64")
    return (source, *timed, face, Column("track", "int32"), *others, *embedding)


def _metadata(options: argparse.Namespace, analyzer: Analyzer) -> dict[str, Any]:
    names = (
        "precision", "flip", "cropped", "preset", "min_face_size", "max_faces", "largest", "every", "smooth",
        "embeddings",
    )  # fmt: skip
    return {
        **metadata_of("video", analyzer.entry, options, *names),
        "detector": metadata_of("detect", load_manifest().entry(None, "detector"), options)["weights"],
        # Not its SHA-256: a resumed run should not first read gigabytes.
        "video": {"source": printable(options.input), "bytes": _size(options.input)},
    }


def _size(name: str) -> int | None:
    return os.path.getsize(name) if os.path.isfile(name) else None


@dataclass(slots=True)
class _Counts:
    frames: int = 0
    earlier: int = 0  # of the frames, those of the run that is gone on with
    faces: int = 0
    tracks: int = 0

    def add(self, tracks: Iterable[int], *, earlier: bool = False) -> None:
        found = list(tracks)
        self.frames += 1
        self.earlier += earlier
        self.faces += len(found)
        self.tracks = max(self.tracks, *found, 0)

    def __str__(self) -> str:
        done = f" ({self.earlier} of them by an earlier run)" if self.earlier else ""
        return f"{self.frames} frames{done}, {self.faces} faces, {self.tracks} tracks"


def _run(options: argparse.Namespace, analyzer: Analyzer, shots: Shots, sink: Sink, film: AnnotatedVideo | None) -> int:
    counts = _Counts()
    sink.met(options.input)

    def analyze(picture: UInt8Image) -> Sequence[FaceResult]:
        return analyzer.analyze(picture, cropped=options.cropped).faces

    tracker, total = FaceTracker(options.smooth), None if shots.frames is None else -(-shots.frames // options.every)
    followed = follow(shots, analyze, tracker, every=options.every, film=film, earlier=_earlier(sink, counts))
    try:
        with closing(followed) as frames, Progress(total, shown=shows_progress(options), unit="frames") as line:
            for frame in frames:
                if frame is not None:
                    sink.write(_record(options, frame))
                    counts.add(face.track for face in frame.faces)
                line.advance()
                if shots.damaged and options.on_error == "raise":
                    raise VideoError(f"{printable(options.input)} has damaged parts; --on-error skip leaves them out")
    except KeyboardInterrupt:
        if not isinstance(shots, Camera):  # which has no other end
            raise
    sink.commit()
    problems = _problems(options, shots, counts)
    for problem in problems:
        tell(options, f"{printable(options.input)}: {problem}")
    if not options.quiet:
        print(f"fevertools: {counts}", file=sys.stderr)
    return FAILED if problems else FINE


def _problems(options: argparse.Namespace, shots: Shots, counts: _Counts) -> list[str]:
    problems = [f"{shots.damaged} damaged parts were left out"] if shots.damaged else []
    # Sound may be longer than the picture, so a little is no loss.
    if isinstance(shots, VideoFile) and shots.frames is not None and counts.frames * options.every < 0.8 * shots.frames:
        problems.append(f"about {shots.frames} frames were promised; is the file cut off?")
    return problems


def _record(options: argparse.Namespace, frame: VideoFrame) -> Record:
    faces = []
    for found in frame.faces:
        cells = {"frame": frame.index, "time": frame.time, "track": found.track}
        cells |= face_cells(found.face) | expression_cells(found.expression)
        faces.append(cells | ({"embedding": floats(found.embedding)} if options.embeddings else {}))
    return {"source": options.input, "faces": faces, "error": None}


def _earlier(sink: Sink, counts: _Counts) -> Iterator[Sequence[EarlierFace]]:
    """The faces of each frame that an earlier run has done."""
    for record in sink.kept():
        counts.add((cells["track"] for cells in record["faces"]), earlier=True)
        yield [_earlier_face(cells) for cells in record["faces"]]


def _earlier_face(cells: dict[str, Any]) -> EarlierFace:
    face = Face(np.array(cells["box"], np.float32), cells["score"], np.array(cells["landmarks"], np.float32))
    probabilities = dict(zip(EMOTIONS, cells["probabilities"], strict=True))
    embedding = np.array(cells["embedding"], np.float32) if "embedding" in cells else None
    return EarlierFace(cells["track"], face, Expression(cells["label"], probabilities, cells["entropy"]), embedding)
