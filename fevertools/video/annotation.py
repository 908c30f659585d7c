"""A video with boxes, labels and a time line of the expressions below the picture."""

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Protocol, Self

import numpy as np

from fevertools._canvas import LEAST_TEXT, length, write
from fevertools.drawing import COLORS, Expressed, draw_labels
from fevertools.errors import OptionError, VideoError
from fevertools.types import UInt8Image
from fevertools.video.sources import import_av

CODECS: Final = MappingProxyType(
    {
        ".mp4": ("libx264", "mpeg4"),
        ".m4v": ("libx264", "mpeg4"),
        ".mov": ("libx264", "mpeg4"),
        ".mkv": ("libx264", "mpeg4"),
        ".webm": ("libvpx-vp9", "libvpx"),
    }
)
"""Suffix -> encoders, the first of which that is there is taken."""

_OPTIONS: Final = MappingProxyType(
    {
        "libx264": {"crf": "20", "preset": "veryfast"},
        "mpeg4": {"qscale": "4"},
        "libvpx-vp9": {"crf": "32", "b": "0", "deadline": "realtime", "cpu-used": "8", "row-mt": "1"},
        "libvpx": {"crf": "16", "b": "2M", "deadline": "realtime", "cpu-used": "8"},
    }
)
_TICK: Final = Fraction(1, 60_000)  # seconds; a whole number of them is a frame of every usual rate, NTSC's too
_WINDOW: Final = 30.0  # seconds in the time line, where the length of the source is unknown
_LANES: Final = 4
_QUIET: Final = 1.0  # seconds after which the lane of a face that has gone is free
_GROUND: Final = 28  # grey level of an empty lane


class Followed(Expressed, Protocol):
    """A face with its track: `TrackedFace`, or one that an earlier run wrote down."""

    @property
    def track(self) -> int: ...


class TimeLine:
    """Stripes of label colours, one lane a face: as high as each label is probable, from left to right in time.

    Four faces have a lane at a time, the first come; the lane of one that has gone is given to the next. The window
    is the whole source, or its last 30 seconds where its length is unknown.

    Args:
        width: of the picture, pixels.
        height: of the picture, pixels.
        seconds: length of the source, or None.
    """

    def __init__(self, width: int, height: int, seconds: float | None) -> None:
        self._text = max(LEAST_TEXT, round(min(height / 45, width / 60)))
        self._lane = 2 * self._text
        self._legend = _legend(width, self._text)
        self._window, self._begin = max(seconds or _WINDOW, 1e-3), 0.0
        self._lanes = np.full((_LANES, self._lane, width, 3), _GROUND, np.uint8)
        self._tracks: list[int | None] = [None] * _LANES
        self._seen = [-np.inf] * _LANES
        self._last = 0  # column up to which the lanes are painted

    @property
    def height(self) -> int:
        """Rows of the whole strip."""
        return _LANES * (self._lane + 1) + len(self._legend)

    def add(self, time: float, faces: Sequence[Followed]) -> UInt8Image:
        """Paint up to this time, and give the strip: uint8 RGB, (height, width, 3)."""
        width = self._lanes.shape[2]
        column = int((time - self._begin) / self._window * width)
        if column >= width:  # a longer source than was known: a quarter of the window goes out at the left
            shift = column - width + width // 4 + 1
            self._lanes = np.roll(self._lanes, -shift, axis=2)
            self._lanes[:, :, max(width - shift, 0) :] = _GROUND
            self._begin += shift / width * self._window
            self._last, column = max(self._last - shift, 0), max(column - shift, 0)
        columns = slice(self._last, column + 1)
        for face in faces:
            lane = self._lane_of(face.track, time)
            if lane is not None:
                self._lanes[lane, :, columns] = self._stack(face)[:, None]
        self._last = column + 1
        return self._strip(column, time)

    def _lane_of(self, track: int, time: float) -> int | None:
        if track in self._tracks:
            lane = self._tracks.index(track)
        else:
            free = [lane for lane in range(_LANES) if time - self._seen[lane] > _QUIET]
            if not free:
                return None
            lane = free[0]
            self._tracks[lane] = track
        self._seen[lane] = time
        return lane

    def _stack(self, face: Followed) -> UInt8Image:
        """One column: uint8 (lane height, 3), the most of it in the colour of the most probable label."""
        probabilities = face.expression.probabilities
        ends = np.rint(np.cumsum(list(probabilities.values())) * self._lane).astype(int)
        colors = np.array([COLORS.get(label, (255, 255, 255)) for label in probabilities], np.uint8)
        # From below upward, in the order of the labels.
        return colors[np.searchsorted(ends[:-1], np.arange(self._lane), side="right")][::-1]

    def _strip(self, column: int, time: float) -> UInt8Image:
        width = self._lanes.shape[2]
        rows = np.zeros((_LANES, self._lane + 1, width, 3), np.uint8)
        rows[:, 1:] = self._lanes
        rows[:, :, min(column + 1, width - 1)] = 255  # where it is
        for row, track, seen in zip(rows, self._tracks, self._seen, strict=True):
            if track is not None and time - seen <= _QUIET:
                number = f"#{track}"
                right = column + 4 + length(number, self._text) < width
                x = column + 4 if right else column - 2 - length(number, self._text)
                write(row, number, x, self._text // 2 + 1, self._text)
        legend = self._legend.copy()
        write(legend, f"{int(time // 60)}:{time % 60:04.1f}", self._text // 2, self._text // 2, self._text)
        return np.concatenate([rows.reshape(-1, width, 3), legend])


def _legend(width: int, text: int) -> UInt8Image:
    """Names of the colours, in as many rows as they need, the first of which begins with room for a clock."""
    row, pad = 2 * text, text
    entries, x, y = [], pad // 2 + length("00:00.0", text) + pad, text // 2
    for label in COLORS:
        wide = text + 3 + length(label, text) + pad
        if x + wide > width and x > pad // 2:
            x, y = pad // 2, y + row
        entries.append((label, x, y))
        x += wide
    drawn = np.zeros((y + row - text // 2, width, 3), np.uint8)
    for label, x, y in entries:
        drawn[y : y + text, x : x + text] = COLORS[label]
        write(drawn, label, x + text + 3, y, text)
    return drawn


class AnnotatedVideo:
    """Writes the frames that are added, each at its time. A context manager: what is there at its end is a whole file.

    The picture has the boxes of `draw_labels`, the track and the label above each, and `TimeLine` below it. There is
    no sound. Nothing is written where no frame was added.

    Args:
        path: with one of CODECS as its suffix.
        seconds: length of the source, or None.

    Raises:
        OptionError: another suffix, or a folder that is not there.
        MissingExtraError: PyAV is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], seconds: float | None = None) -> None:
        self._path, self._seconds = Path(path), seconds
        if self._path.suffix.lower() not in CODECS:
            raise OptionError(f"cannot write the video {self._path}; use one of the suffixes {', '.join(CODECS)}")
        if not self._path.parent.is_dir():
            raise OptionError(f"there is no folder {self._path.parent}; make it first")
        self._av = import_av()
        # Under a hidden name first, so that no half video is ever found under its own.
        self._temporary = self._path.with_name(f".{os.getpid()}.tmp{self._path.suffix.lower()}")
        self._container: Any = None
        self._stream: Any = None
        self._line: TimeLine | None = None
        self._size = (0, 0)  # height, width of the first picture
        self._ticks = -1

    def add(self, time: float, picture: UInt8Image, faces: Sequence[Followed]) -> None:
        """Draw and write one frame.

        Args:
            time: seconds, more than that of the frame before.
            picture: uint8 RGB, (H, W, 3); one of another size than the first is cut, or stands on black ground.
            faces: in pixels of the picture.

        Raises:
            VideoError: the encoder cannot write such a picture, or there is no room for it.
        """
        if self._line is None:
            self._line = TimeLine(picture.shape[1], picture.shape[0], self._seconds)
            self._size = picture.shape[:2]
        marked = draw_labels(picture, faces, [f"#{face.track}" for face in faces])
        drawn = np.concatenate([_fitted(marked, *self._size), self._line.add(time, faces)])
        # Encoders of video halve the resolution of colours, so they take even sizes only.
        even = np.pad(drawn, ((0, drawn.shape[0] % 2), (0, drawn.shape[1] % 2), (0, 0)), mode="edge")
        self._ticks = max(round(time / _TICK), self._ticks + 1)
        try:
            if self._container is None:
                self._open(*even.shape[:2])
            frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
            frame.pts, frame.time_base = self._ticks, _TICK
            self._container.mux(self._stream.encode(frame))
        except (self._av.FFmpegError, OSError, ValueError) as error:
            raise self._failed(error) from error

    def _open(self, height: int, width: int) -> None:
        codec = next(
            (name for name in CODECS[self._path.suffix.lower()] if name in self._av.codecs_available),
            CODECS[self._path.suffix.lower()][0],
        )
        self._container = self._av.open(str(self._temporary), "w")
        self._stream = self._container.add_stream(codec, rate=30, options=dict(_OPTIONS[codec]))
        self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, "yuv420p"
        self._stream.codec_context.time_base = _TICK

    def close(self) -> None:
        """Write what the encoder still holds, and give the file its name.

        Raises:
            VideoError: it cannot be written.
        """
        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            try:
                container.mux(self._stream.encode(None))
            finally:
                container.close()
            os.replace(self._temporary, self._path)
        except (self._av.FFmpegError, OSError, ValueError) as error:
            raise self._failed(error) from error
        finally:
            self._temporary.unlink(missing_ok=True)

    def _failed(self, error: Exception) -> VideoError:
        return VideoError(f"cannot write {self._path}: {error}; is there room, and does another suffix work?")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _fitted(picture: UInt8Image, height: int, width: int) -> UInt8Image:
    """The picture cut, or put on black ground, to this size."""
    if picture.shape[:2] == (height, width):
        return picture
    fitted = np.zeros((height, width, 3), np.uint8)
    part = picture[:height, :width]
    fitted[: part.shape[0], : part.shape[1]] = part
    return fitted
