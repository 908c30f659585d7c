"""Everything that becomes an upright RGB array: paths, bytes, file objects, PIL images, arrays. RGB is made only here.

Pillow decodes every format. OpenCV gives the same pixels of a baseline JPEG a little sooner (1632x1224 to RGB on one
core: 10.7 ms against 12.7), but it accepts truncated files and treats CMYK and transparency unlike viewers do.
"""

import importlib
import io
import os
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Final, TypeAlias, cast

import cv2
import numpy as np
from PIL import Image, ImageChops, ImageFile

from fevertools.errors import ImageError, ImageTooLargeError, OptionError, UnreadableImageError, UnsupportedImageError
from fevertools.options import whole
from fevertools.types import Color, UInt8Image

ImageInput: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | UInt8Image"
"""What `load` takes: a path, encoded bytes, a binary file object, a PIL image, or a uint8 array (H, W, 3) or (H, W)."""

DEFAULT_MAX_PIXELS: Final = 200_000_000
"""Width x height above which an image is refused unless the caller allows more."""

# First bytes -> Pillow's reader, imported when first needed. The readers are called by name, not through `Image.open`:
# that would try every plugin on hostile bytes, and emit Pillow's size warning where only `max_pixels` should rule.
_READERS: Final = (
    (re.compile(rb"\xff\xd8\xff"), "JPEG", "JpegImagePlugin", "JpegImageFile"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "PNG", "PngImagePlugin", "PngImageFile"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "WebP", "WebPImagePlugin", "WebPImageFile"),
    (re.compile(rb"GIF8[79]a"), "GIF", "GifImagePlugin", "GifImageFile"),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), "TIFF", "TiffImagePlugin", "TiffImageFile"),
    (re.compile(rb"BM"), "BMP", "BmpImagePlugin", "BmpImageFile"),
)
_FORMATS: Final = ", ".join(name for _, name, _, _ in _READERS)

# What Pillow's parsers and decoders raise on damaged or hostile bytes. Warnings are among them for programs that turn
# warnings into errors.
_DECODE_ERRORS: Final = (
    OSError, SyntaxError, ValueError, TypeError, AttributeError, LookupError, EOFError, ArithmeticError, AssertionError,
    RuntimeError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError, Warning,
)  # fmt: skip

_URL: Final = re.compile(r"[a-z][a-z0-9+.-]+://|data:", re.IGNORECASE)
_ORIENTATION_TAG: Final = 0x0112
_TRANSPOSE: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURNED: Final = (5, 6, 7, 8)  # orientations that exchange width and height
_MIRRORED: Final = {2: (1, 0), 3: (1, 1), 4: (0, 1), 6: (1, 0), 7: (1, 1), 8: (0, 1)}  # upright axes x, y
_SIXTEEN_BIT_MODES: Final = ("I;16", "I;16B", "I;16L", "I;16N")
_ALPHA_MODES: Final = ("LA", "PA", "RGBA", "RGBa")
_KEYED_MODES: Final = ("1", "L", "P", "RGB")  # may name one colour, or palette entries, as transparent
_COLOR_MODES: Final = ("1", "P", "RGBX", "CMYK", "YCbCr", "HSV")


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An upright picture, perhaps at a fraction of its size: its point p is `factor` * p + `origin` at full size."""

    pixels: UInt8Image  # (H, W, 3) RGB
    factor: int = 1
    origin: tuple[int, int] = (0, 0)  # x, y in pixels at full size, not above 0


def load(image: ImageInput, *, color: Color = "rgb", max_pixels: int = DEFAULT_MAX_PIXELS) -> UInt8Image:
    """Read one image as upright RGB.

    Encoded images are JPEG (CMYK too), PNG, WebP, BMP, TIFF or GIF; an animation or a multi-page file gives its first
    frame. The EXIF orientation is applied, also to a PIL image that still carries the tag (`ImageOps.exif_transpose`
    removes it, so such an image is not turned twice); an unreadable EXIF block counts as upright. Transparency is
    composited on white, which is what viewers show. 16-bit samples keep their high byte. Embedded ICC profiles are
    not applied.

    Args:
        image: a path, encoded bytes, a binary file object (read from its position to its end, left open), a PIL image,
            or a uint8 array (H, W, 3) in the order of `color`, or (H, W) luminance. Never written to.
        color: channel order of an array: "rgb", or "bgr" for OpenCV frames. Everything that is not an array states its
            own order, so `color` is ignored there.
        max_pixels: refuse images of more pixels than this. Checked on the header, before anything is decoded. WebP
            is also refused above Pillow's own limit, 2 * `PIL.Image.MAX_IMAGE_PIXELS` = 179 megapixels.

    Returns:
        uint8 (H, W, 3), C-contiguous. An array that is so already is passed through, not copied; the result may be
        read-only, so copy before writing to it.

    Raises:
        UnreadableImageError: missing, empty, truncated or damaged, or not an image.
        UnsupportedImageError: a type, dtype, shape or pixel mode other than the above, or a URL.
        ImageTooLargeError: more than `max_pixels`.
        OptionError: `color` or `max_pixels` is not one of the documented values.
    """
    return load_reduced(image, 1, color=color, max_pixels=max_pixels).pixels


def load_reduced(
    image: ImageInput, factor: int, *, color: Color = "rgb", max_pixels: int = DEFAULT_MAX_PIXELS
) -> Picture:
    """As `load`, with a JPEG decoded at a fraction of its size, which takes a fraction of the time and the memory.

    Args:
        image, color, max_pixels: as for `load`. `max_pixels` is about the full size.
        factor: 1, 2, 4 or 8: how much smaller each side of a JPEG becomes. Each pixel then is about the mean of those
            that it covers. No other format can be decoded so: its picture has factor 1.

    Raises:
        UnreadableImageError, UnsupportedImageError, ImageTooLargeError, OptionError: as for `load`.
    """
    if not isinstance(color, str) or color not in ("rgb", "bgr"):
        raise OptionError(f"color is {color!r}; use 'rgb', or 'bgr' for OpenCV frames")
    max_pixels = whole(max_pixels, "max_pixels")
    if isinstance(image, np.ndarray):
        return Picture(_from_array(image, color, max_pixels))
    if isinstance(image, Image.Image):
        return Picture(_decode(image, f"PIL image of mode {image.mode}", max_pixels))
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _from_bytes(_copy(image), "image bytes", max_pixels, factor)
    if isinstance(image, (str, os.PathLike)):
        return _from_path(image, max_pixels, factor)
    if callable(getattr(image, "read", None)):
        return _from_bytes(_read(image), f"file object {getattr(image, 'name', '')!r}", max_pixels, factor)
    raise UnsupportedImageError(
        f"cannot read a {type(image).__name__} as an image; pass a path, encoded bytes, a binary file object, "
        "a PIL image, or a uint8 array (H, W, 3)"
    )


def _check_size(width: int, height: int, source: str, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"{source} is {width} x {height} = {width * height} pixels, more than max_pixels={max_pixels}; "
            "make it smaller, or pass a larger max_pixels if you trust it"
        )


# ------------------------------------------------------------------------------------------------------------- arrays


def _from_array(image: UInt8Image, color: Color, max_pixels: int) -> UInt8Image:
    shape = image.shape
    if image.dtype != np.uint8:
        raise UnsupportedImageError(f"the array has dtype {image.dtype}, not uint8; {_dtype_mend(image.dtype)}")
    if image.ndim not in (2, 3) or (image.ndim == 3 and shape[2] != 3):
        raise UnsupportedImageError(f"the array has shape {shape}, not (H, W, 3) or (H, W); {_shape_mend(shape)}")
    if image.size == 0:
        raise UnsupportedImageError(f"the array has shape {shape}, so no pixels; was a crop outside of its image?")
    _check_size(shape[1], shape[0], "the array", max_pixels)
    array = np.ascontiguousarray(image)
    if image.ndim == 2:
        return _gray_to_rgb(array)
    return np.asarray(cv2.cvtColor(array, cv2.COLOR_BGR2RGB), np.uint8) if color == "bgr" else np.asarray(array)


def _dtype_mend(dtype: np.dtype[np.generic]) -> str:
    mends = {
        "f": "scale it to 0-255, round, and convert with .astype(numpy.uint8)",
        "b": "convert a mask with .astype(numpy.uint8) * 255",
        "u": "scale it to 0-255 (16 bits: image >> 8) and convert with .astype(numpy.uint8)",
        "i": "if its values are 0-255, convert with .astype(numpy.uint8)",
        "O": "pass one image, not a sequence of them",
    }
    return mends.get(dtype.kind, "convert it to uint8, values 0-255")


def _shape_mend(shape: tuple[int, ...]) -> str:
    if len(shape) == 1:
        return "if it holds an encoded file, pass image.tobytes()"
    if len(shape) == 4:
        return "pass the images of a batch one at a time"
    if len(shape) == 3 and shape[2] == 4:
        return "drop or composite the alpha channel first, for example image[..., :3]"
    if len(shape) == 3 and shape[2] == 1:
        return "pass image[..., 0]"
    if len(shape) == 3 and shape[0] in (1, 3):
        return "channels come last: pass image.transpose(1, 2, 0), or image[0] for one channel"
    return "pass one image with its channels last"


def _gray_to_rgb(gray: UInt8Image) -> UInt8Image:
    return np.asarray(cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB), np.uint8)  # (H, W) -> (H, W, 3)


# ------------------------------------------------------------------------------------------------------ encoded images


def _from_path(path: str | os.PathLike[str], max_pixels: int, factor: int) -> Picture:
    if isinstance(path, str) and _URL.match(path):
        raise UnsupportedImageError(f"{path[:80]!r} is a URL; download it first and pass its bytes or the saved file")
    name = os.fsdecode(path)
    with _open(name) as file:
        return _from_stream(file, repr(name), max_pixels, factor)


def _open(name: str) -> BinaryIO:
    try:
        return Path(name).open("rb")
    except (OSError, ValueError) as error:  # ValueError: a NUL or a lone surrogate in the name
        if os.path.isdir(name):  # `Path.is_dir` raises on names that are too long
            raise UnreadableImageError(f"{name!r} is a folder; pass the files in it one by one") from error
        if isinstance(error, FileNotFoundError):
            raise UnreadableImageError(f"no such file: {name!r}; check the path") from error
        raise UnreadableImageError(f"cannot open {name!r}: {error}") from error


def _read(file: BinaryIO) -> bytes:
    try:
        data = file.read()
    except (OSError, ValueError) as error:  # ValueError: closed, or text that is not UTF-8
        raise UnreadableImageError(f"cannot read the file object: {error}; open it with mode 'rb'") from error
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise UnsupportedImageError(f"the file object gives {type(data).__name__}, not bytes; open it with mode 'rb'")
    return bytes(data)


def _copy(data: bytes | bytearray | memoryview) -> bytes:
    try:
        return bytes(data)
    except ValueError as error:
        raise UnreadableImageError(f"cannot read the memoryview: {error}; pass it before it is released") from error


def _from_bytes(data: bytes, source: str, max_pixels: int, factor: int) -> Picture:
    return _from_stream(io.BytesIO(data), source, max_pixels, factor)


def _from_stream(stream: IO[bytes], source: str, max_pixels: int, factor: int) -> Picture:
    try:
        header = stream.read(32)
        stream.seek(0)
    except OSError as error:
        raise UnreadableImageError(f"cannot read {source}: {error}") from error
    if not header:
        raise UnreadableImageError(f"{source} is empty (0 bytes); save or fetch it again")
    found = next((entry[1:] for entry in _READERS if entry[0].match(header)), None)
    if found is None:
        raise UnreadableImageError(f"{source} is not an image of a known format; convert it to one of {_FORMATS}")
    name, module, reader = found
    source = f"{source} ({name})"
    if name == "WebP":
        # Pillow allocates the canvas of a WebP as soon as it opens it, and no other format's.
        _check_size(*_webp_size(header), source, max_pixels)
    try:
        opened = getattr(importlib.import_module(f"PIL.{module}"), reader)(stream)
    except _DECODE_ERRORS as error:
        raise _damaged(source, error) from error
    if name == "JPEG" and factor > 1:
        return _decode_reduced(cast(ImageFile.ImageFile, opened), source, max_pixels, factor)
    return Picture(_decode(cast(ImageFile.ImageFile, opened), source, max_pixels))


def _decode_reduced(image: ImageFile.ImageFile, source: str, max_pixels: int, factor: int) -> Picture:
    width, height = image.size
    _check_size(width, height, source, max_pixels)
    # Pillow gives the smallest picture that is not below the size asked for.
    asked = image.draft(None, (max(1, width // factor), max(1, height // factor)))
    factor = 1 if asked is None else round(width / asked[1][2])
    pixels = _decode(image, source, max_pixels)
    orientation = _orientation(image)
    full = np.array((height, width) if orientation in _TURNED else (width, height))
    # The last block of a side may be cut short. Where the side is mirrored, it comes first.
    x, y = (full - factor * np.array(pixels.shape[1::-1])) * _MIRRORED.get(orientation, (0, 0))
    return Picture(pixels, factor, (int(x), int(y)))


def _webp_size(header: bytes) -> tuple[int, int]:
    """Width and height from the first 30 bytes of a WebP file (RFC 9649), or (0, 0) where they do not say."""
    kind = header[12:16]
    if len(header) < 30:
        return 0, 0
    if kind == b"VP8X":
        return int.from_bytes(header[24:27], "little") + 1, int.from_bytes(header[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(header[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", header, 26)
        return width & 0x3FFF, height & 0x3FFF
    return 0, 0


def _damaged(source: str, error: BaseException) -> ImageError:
    if isinstance(error, Image.DecompressionBombError):
        # Readers that ask Pillow's limit by themselves: WebP, and GIF whose frame is larger than its screen.
        return ImageTooLargeError(f"{source}: {error} Make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS")
    reason = str(error) or type(error).__name__
    return UnreadableImageError(f"cannot decode {source}: {reason}; it is damaged or truncated, save or fetch it again")


# ---------------------------------------------------------------------------------------------------------- PIL images


def _decode(image: Image.Image, source: str, max_pixels: int) -> UInt8Image:
    width, height = image.size
    if width == 0 or height == 0:
        raise UnsupportedImageError(f"{source} is {width} x {height}, so it has no pixels; was a crop outside of it?")
    _check_size(width, height, source, max_pixels)
    try:
        _allocate_large_tiff(image)
        image.load()
        return _to_rgb(_upright(image), source)
    except ImageError:
        raise
    except _DECODE_ERRORS as error:
        raise _damaged(source, error) from error


def _allocate_large_tiff(image: Image.Image) -> None:
    """Keep Pillow's own size limit, a process-wide setting, out of the way of `max_pixels`, which was checked already.

    Pillow's TIFF reader checks once more when it allocates the pixels, unless they are there.
    """
    limit, size = Image.MAX_IMAGE_PIXELS, getattr(image, "_tile_size", None)
    if limit is not None and size is not None and size[0] * size[1] > limit and getattr(image, "_im", None) is None:
        image.im = Image.new(image.mode, size).im


def _upright(image: Image.Image) -> Image.Image:
    # The tag is read after decoding: PNG may hold it behind the pixels, and Pillow's TIFF reader turns them by itself.
    method = _TRANSPOSE.get(_orientation(image))
    return image if method is None else image.transpose(method)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none that makes sense."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except _DECODE_ERRORS:
        return 1
    return orientation if isinstance(orientation, int) and orientation in _TRANSPOSE else 1


def _to_rgb(image: Image.Image, source: str) -> UInt8Image:
    mode = image.mode
    # Pillow before 11 opens 16-bit gray PNG as 32-bit integers.
    if mode in _SIXTEEN_BIT_MODES or (mode == "I" and image.format == "PNG"):
        return _gray_to_rgb((np.asarray(image) >> 8).astype(np.uint8))
    if mode in _ALPHA_MODES or (mode in _KEYED_MODES and image.has_transparency_data):
        rgba = image.convert("RGBA")
        canvas = Image.new("RGB", rgba.size, (255, 255, 255))
        canvas.paste(rgba, mask=rgba.getchannel("A"))
        return np.asarray(canvas)
    if mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
        # Pillow takes every CMYK JPEG for Adobe's, which are stored inverted; without the marker they are stored plain.
        image = ImageChops.invert(image)
    if mode == "L":
        return _gray_to_rgb(np.asarray(image))
    if mode in _COLOR_MODES:
        image = image.convert("RGB")
    if image.mode != "RGB":
        raise UnsupportedImageError(f"{source} has pixels of mode {mode}; scale them to 8 bits and pass a uint8 array")
    return np.asarray(image)
