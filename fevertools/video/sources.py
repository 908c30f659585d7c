"""Video files, cameras and iterables of pictures -> frames with their times, one at a time."""

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeAlias

import cv2
import numpy as np

from fevertools.errors import MissingExtraError, OptionError, VideoError
from fevertools.image import ImageInput, load
from fevertools.types import Color, UInt8Image

Timed: TypeAlias = tuple[float, ImageInput]
"""A picture, after the seconds at which it was taken."""

Source: TypeAlias = "str | os.PathLike[str] | int | Iterable[ImageInput | Timed]"
"""A video file, a camera (its number, or the path of its device), or pictures in their order."""

_NO_VIDEOS: Final = frozenset({"tty", "bin", "xbin", "adf", "idf"})
"""Formats of text, which FFmpeg would draw as pictures of a terminal."""


@dataclass(frozen=True, slots=True)
class Shot:
    """One frame of which no picture has been made yet: that takes time, and not every frame is looked at."""

    index: int  # from 0
    time: float  # seconds since the start of the source, more than that of the shot before
    picture: Callable[[], UInt8Image]  # makes it, upright RGB (H, W, 3), before the next shot is asked for


class Shots(Protocol):
    """An open source. Iterated once; a context manager that closes it."""

    frames: int | None  # how many it has, where that is known, or about how many
    seconds: float | None  # how long it is, where that is known
    damaged: int  # parts that could not be decoded so far

    def __iter__(self) -> Iterator[Shot]: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_source(source: Source, *, color: Color = "rgb", rate: float = 30.0) -> Shots:
    """Open a source.

    Args:
        source: see `Source`.
        color: channel order of pictures that are arrays.
        rate: pictures a second, where they come without times.

    Raises:
        VideoError: the file or camera cannot be opened, or holds no video.
        OptionError: the source is a single picture, or none of those of `Source`.
        MissingExtraError: a file, and PyAV is not installed.
    """
    if isinstance(source, int | np.integer) and not isinstance(source, bool):
        return Camera(int(source))
    if isinstance(source, str | os.PathLike):
        name = os.fsdecode(source)
        return Camera(name) if _is_device(name) else VideoFile(name)
    single = isinstance(source, np.ndarray) and (source.ndim < 3 or source.shape[2:] == (3,))
    if single or isinstance(source, bytes | bytearray) or not isinstance(source, Iterable):
        raise OptionError(
            f"cannot take frames from a single {type(source).__name__}; pass a video file, the number of a camera, or "
            "an iterable of pictures"
        )
    return Pictures(source, color, rate)


def _is_device(name: str) -> bool:
    try:
        return stat.S_ISCHR(os.stat(name).st_mode)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return False


class _Open:
    """What the three sources share."""

    frames: int | None = None
    seconds: float | None = None
    damaged: int = 0

    def close(self) -> None:
        """Give the file or the camera back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class VideoFile(_Open):
    """The first video stream of a file, by PyAV: its frames in the order in which they are shown.

    Times are those of the container, pts * time_base, less the start of the stream: also where the rate varies. A
    frame without one, or one that goes back, comes one nominal interval after the frame before it. The rotation that
    phones write is applied. Parts that cannot be decoded are left out, and counted in `damaged`.
    """

    def __init__(self, name: str) -> None:
        self._av = import_av()
        self._name = name
        try:
            # "file:": what looks like a URL is a file name too; nothing is fetched, whatever a playlist in it says.
            self._container: Any = self._av.open(f"file:{name}", options={"protocol_whitelist": "file"})
        except (self._av.FFmpegError, OSError, ValueError) as error:
            raise VideoError(_why(name, error)) from error
        best = self._container.streams.best("video")
        if best is None or self._container.format.name in _NO_VIDEOS:
            self._container.close()
            raise VideoError(f"{name!r} holds no video; pictures are for detect, embed and classify")
        self._stream: Any = best
        self._stream.thread_type = "AUTO"
        rate = self._stream.average_rate or self._stream.guessed_rate
        self._interval = float(1 / rate) if rate else 1 / 30
        if self._stream.duration is not None:
            self.seconds = float(self._stream.duration * self._stream.time_base)
        elif self._container.duration is not None:
            self.seconds = self._container.duration / self._av.time_base
        about = None if self.seconds is None else round(self.seconds / self._interval)
        self.frames: int | None = self._stream.frames or about or None
        self.damaged: int = 0

    def __iter__(self) -> Iterator[Shot]:
        start, last, index = self._stream.start_time, -self._interval, -1
        for index, frame in enumerate(self._decoded()):
            start = frame.pts if start is None else start
            seconds = None if frame.pts is None else float((frame.pts - start) * frame.time_base)
            last = seconds if seconds is not None and seconds > last else last + self._interval
            yield Shot(index, last, partial(_upright, frame))
        if index < 0:
            raise VideoError(f"{self._name!r} has no frame that can be decoded; it is damaged or truncated")

    def _decoded(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except self._av.FFmpegError:
                self.damaged += 1
                return
            try:
                frames = packet.decode()
            except self._av.FFmpegError:
                self.damaged += 1
                continue
            yield from frames

    def close(self) -> None:
        self._container.close()


def _why(name: str, error: Exception) -> str:
    if os.path.isdir(name):
        return f"{name!r} is a folder; name a video file in it"
    if not os.path.exists(name):
        return f"no such file: {name!r}; check the path"
    return f"cannot open {name!r} as a video: {getattr(error, 'strerror', None) or error}; it is none, or is damaged"


def _upright(frame: Any) -> UInt8Image:
    picture = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4  # counter-clockwise, as those of NumPy
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else np.asarray(picture)


class Camera(_Open):
    """A camera, by OpenCV, which knows those of every system by number. Times are those at which a frame came in."""

    def __init__(self, device: int | str) -> None:
        self._device = device
        self._capture = cv2.VideoCapture(device)
        if not self._capture.isOpened():
            raise VideoError(f"cannot open the camera {device!r}; is it connected, and not in use by another program?")
        # Of what came in while a frame was analysed, only the newest is of use.
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)

    def __iter__(self) -> Iterator[Shot]:
        index, first = 0, 0.0
        while self._capture.grab():
            now = time.monotonic()
            first = first or now
            yield Shot(index, now - first, self._picture)
            index += 1
        if index == 0:
            raise VideoError(f"the camera {self._device!r} gives no frame; is it in use by another program?")

    def _picture(self) -> UInt8Image:
        whole, frame = self._capture.retrieve()
        if not whole:
            raise VideoError(f"the camera {self._device!r} gave a frame that cannot be decoded; connect it anew")
        return load(np.asarray(frame, np.uint8), color="bgr")

    def close(self) -> None:
        self._capture.release()


class Pictures(_Open):
    """Pictures in their order: what `image.load` takes, or pairs of seconds and that."""

    def __init__(self, pictures: "Iterable[ImageInput | Timed]", color: Color, rate: float) -> None:
        self._pictures, self._color, self._rate = pictures, color, rate
        if isinstance(pictures, Sized):
            self.frames: int | None = len(pictures)
        if isinstance(pictures, Sequence | np.ndarray) and len(pictures):
            last = pictures[-1]
            self.seconds: float | None = float(last[0]) if isinstance(last, tuple) else len(pictures) / rate

    def __iter__(self) -> Iterator[Shot]:
        last: float | None = None
        for index, picture in enumerate(self._pictures):
            seconds, image = picture if isinstance(picture, tuple) else (index / self._rate, picture)
            if last is not None and not seconds > last:
                raise OptionError(f"picture {index} is of {seconds} s, and the one before it of {last} s; sort them")
            last = float(seconds)
            yield Shot(index, last, partial(load, image, color=self._color))
        if last is None:
            raise VideoError("no picture came from the iterable")


def import_av() -> Any:
    """The module `av`.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise MissingExtraError('video files need PyAV: pip install "fevertools[video]"') from error
    return av
