"""What a server serves, and the limits that it holds its clients to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fevertools.errors import OptionError
from fevertools.options import whole

_COUNTS: Final = ("max_bytes", "max_pixels", "max_faces", "queue", "batch")
_SECONDS: Final = ("timeout", "body_timeout")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The choices of one server.

    Its memory is at most `queue` * `max_bytes`, and for each of the two pictures that are looked at at once 48 bytes a
    pixel of `max_pixels` and 200 MiB.

    Raises:
        OptionError: a limit is no whole number above 0, or a time is no number of seconds above 0.
    """

    weights: str | Path | None = None  # as for `Analyzer`
    precision: str = "float32"  # as for `Analyzer`
    device: str = "auto"  # as for `Analyzer`
    threads: int | None = None  # of one run of a network; None leaves it to ONNX Runtime
    preset: str = "exact"  # of the detector, as for `Analyzer`
    min_face_size: int | None = None  # smallest face to look for, pixels; None is the preset's
    max_bytes: int = 10 * 2**20  # of one body
    max_pixels: int = 25_000_000  # of one picture
    max_faces: int = 64  # only so many of the largest faces of a picture
    timeout: float = 30.0  # seconds from a body that is whole to its answer
    body_timeout: float = 10.0  # seconds from the head of a request to the end of its body
    queue: int = 64  # requests that are being read, wait or are worked on
    batch: int = 32  # faces in one run of the encoder; 1 gives each request a run of its own
    cache_dir: str | Path | None = None  # of the Hugging Face Hub; None is the library's own
    local_files_only: bool = False  # never use the network, only what is bundled or cached

    def __post_init__(self) -> None:
        for name in _COUNTS:
            whole(getattr(self, name), name)
        if self.min_face_size is not None:
            whole(self.min_face_size, "min_face_size")
        for name in _SECONDS:
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 < value < float("inf"):
                raise OptionError(f"{name} is {value!r:.60}; use a number of seconds above 0")
