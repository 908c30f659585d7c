"""Frames -> faces that are followed over time: where source, `Analyzer`, tracker, smoothing and annotation meet."""

import math
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import numpy as np

from fevertools.errors import OptionError, VideoError
from fevertools.options import flag, whole
from fevertools.pipeline import Analyzer, shared_analyzer
from fevertools.streaming import Progress
from fevertools.types import Color, Expression, Face, FaceResult, Float32, UInt8Image
from fevertools.video.annotation import AnnotatedVideo
from fevertools.video.results import TrackedFace, VideoFrame
from fevertools.video.smoothing import Smoother, expression_of
from fevertools.video.sources import Shot, Source, open_source
from fevertools.video.tracker import Tracker

SMOOTHING: Final = 0.5
"""Seconds of smoothing where none are asked for: shorter than most expressions last, longer than a blink."""


@dataclass(frozen=True, slots=True, eq=False)
class EarlierFace:
    """What an earlier run wrote down of one face, enough to go on from."""

    track: int
    face: Face
    expression: Expression  # smoothed
    embedding: Float32 | None  # (D,) smoothed; None where it was not written down


class FaceTracker:
    """Gives the faces of frame after frame their tracks, and smooths what is known of them.

    Args:
        smoothing: seconds, see `Smoother`; 0 for none.

    Raises:
        OptionError: `smoothing` is negative or not finite.
    """

    def __init__(self, smoothing: float = SMOOTHING) -> None:
        number = isinstance(smoothing, int | float | np.integer | np.floating) and not isinstance(smoothing, bool)
        if not number or not 0 <= smoothing < math.inf:
            raise OptionError(f"smoothing is {smoothing!r:.60}; use seconds, 0 for none")
        self._tracker = Tracker()
        self._probabilities, self._embeddings = Smoother(float(smoothing)), Smoother(float(smoothing))

    def update(self, time: float, faces: Sequence[FaceResult]) -> tuple[TrackedFace, ...]:
        """The faces of one more frame, in their order.

        Args:
            time: seconds, more than that of the frame before.
            faces: of the frame.
        """
        tracks = self._tracker.update(time, _boxes([found.face for found in faces]))
        tracked = []
        for track, found in zip(tracks, faces, strict=True):
            raw = np.fromiter(found.expression.probabilities.values(), np.float32)
            smooth = self._probabilities.update(track, time, raw)
            embedding = self._embeddings.update(track, time, found.embedding)
            expression = expression_of(smooth, tuple(found.expression.probabilities))
            tracked.append(TrackedFace(track, found.face, embedding, expression, found))
        self._forget()
        return tuple(tracked)

    def restore(self, time: float, faces: Sequence[EarlierFace]) -> None:
        """Take in a frame that an earlier run tracked, in its order, so that `update` goes on as that run would have.

        Raises:
            VideoError: the tracks are others than these faces would have had here.
        """
        if self._tracker.update(time, _boxes([found.face for found in faces])) != [found.track for found in faces]:
            raise VideoError(f"the faces at {time:.3f} s were tracked in another way; start anew")
        for found in faces:
            probabilities = np.fromiter(found.expression.probabilities.values(), np.float32)
            self._probabilities.put(found.track, time, probabilities)
            if found.embedding is not None:
                self._embeddings.put(found.track, time, found.embedding)
        self._forget()

    def _forget(self) -> None:
        for smoother in (self._probabilities, self._embeddings):
            smoother.keep(self._tracker.alive)


def _boxes(faces: Sequence[Face]) -> Float32:
    return np.array([face.box for face in faces], np.float32).reshape(-1, 4)


def follow(
    shots: Iterable[Shot],
    analyze: Callable[[UInt8Image], Sequence[FaceResult]],
    tracker: FaceTracker,
    *,
    every: int = 1,
    film: AnnotatedVideo | None = None,
    earlier: Iterable[Sequence[EarlierFace]] = (),
) -> Generator[VideoFrame | None, None, None]:
    """Analyze and track every n-th shot.

    Args:
        shots: of one source.
        analyze: picture, uint8 RGB (H, W, 3) -> its faces.
        tracker: that has seen nothing yet.
        every: 1 for all shots.
        film: where the frames are drawn.
        earlier: for each of the first frames the faces that an earlier run found in it. They are not analyzed again,
            but tracks and smoothing go on from them, and they are drawn.

    Yields:
        One VideoFrame a frame; None for one that an earlier run has done.

    Raises:
        VideoError: the earlier run was over another video.
    """
    before = iter(earlier)
    for shot in shots:
        if shot.index % every:
            continue
        done = next(before, None)
        if done is not None:
            tracker.restore(shot.time, done)
            if film is not None:
                film.add(shot.time, shot.picture(), done)
            yield None
            continue
        picture = shot.picture()
        frame = VideoFrame(shot.index, shot.time, tracker.update(shot.time, analyze(picture)))
        if film is not None:
            film.add(shot.time, picture, frame.faces)
        yield frame
    if next(before, None) is not None:
        raise VideoError("the earlier run went further than this video does; start anew")


def track(
    source: Source,
    analyzer: Analyzer | None = None,
    *,
    every: int = 1,
    smoothing: float = SMOOTHING,
    cropped: bool = False,
    color: Color = "rgb",
    rate: float = 30.0,
    annotate: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Generator[VideoFrame, None, None]:
    """Follow the faces of a video, and smooth their expressions and embeddings over time.

    Frames are read, analyzed and given back one at a time, in flat memory. A face keeps its track while it is seen at
    least once a second, by where it is and how it moves, also behind another face that crosses it; one that comes back
    later, or after a cut, is a new track: who somebody is plays no part.

    Args:
        source: the path of a video file (extra `video`); a camera: its number from 0, or the path of its device; or an
            iterable of what `image.load` takes, or of pairs of seconds and that.
        analyzer: weights and options; None takes the package's default.
        every: analyze each n-th frame only.
        smoothing: seconds of the exponential mean; what was seen so long ago weighs 1/e. 0 for none.
        cropped: every frame is one face, framed as the weights expect; nothing is detected.
        color: channel order of frames that are arrays, "rgb", or "bgr" for those of OpenCV.
        rate: frames a second of an iterable without times.
        annotate: also write the analyzed frames as a video, with boxes, labels and a time line (extra `video`). It is
            whole when the generator ends or is closed.
        progress: show a line on stderr, if that is a terminal.

    Yields:
        One VideoFrame for each analyzed frame, also where it shows no face.

    Raises:
        VideoError: the source cannot be opened, has no frame, or the annotated video cannot be written.
        ImageError: a picture of an iterable cannot be read.
        OptionError: an argument is outside what is documented here.
        MissingExtraError: PyAV is needed, and not installed.
        WeightsError: a network's files are missing or broken.

    Example:
        >>> for frame in fevertools.video.track("clip.mp4", every=2):
        ...     for face in frame.faces:
        ...         print(f"{frame.time:.2f}", face.track, face.expression.label)
    """
    every, cropped = whole(every, "every"), flag(cropped, "cropped")
    tracker = FaceTracker(smoothing)
    used = shared_analyzer(weights=None, device="auto") if analyzer is None else analyzer
    with ExitStack() as stack:
        shots = stack.enter_context(open_source(source, color=color, rate=rate))
        film = None if annotate is None else stack.enter_context(AnnotatedVideo(annotate, shots.seconds))
        total = None if shots.frames is None else -(-shots.frames // every)
        line = stack.enter_context(Progress(total, shown=progress, unit="frames"))

        def analyze(picture: UInt8Image) -> Sequence[FaceResult]:
            return used.analyze(picture, cropped=cropped).faces

        for frame in follow(shots, analyze, tracker, every=every, film=film):
            line.advance()
            if frame is not None:
                yield frame
