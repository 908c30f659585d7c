"""`fevertools.image`: known pixels through every format, orientation, and every way an image can be wrong."""

import io
import os
import random
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image, ImageOps

from fevertools.errors import (
    ImageError,
    ImageTooLargeError,
    OptionError,
    UnreadableImageError,
    UnsupportedImageError,
)
from fevertools.image import DEFAULT_MAX_PIXELS, load

HEIGHT, WIDTH = 32, 64


def blocks() -> np.ndarray:
    """Four flat quadrants: no flip or turn looks like another, and all 8x8 blocks of a JPEG are flat."""
    image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    image[: HEIGHT // 2, : WIDTH // 2] = (200, 40, 40)
    image[: HEIGHT // 2, WIDTH // 2 :] = (40, 180, 60)
    image[HEIGHT // 2 :, : WIDTH // 2] = (50, 60, 210)
    image[HEIGHT // 2 :, WIDTH // 2 :] = (230, 230, 90)
    return image


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, shape or (HEIGHT, WIDTH, 3), np.uint8)


def encode(image: np.ndarray | Image.Image, image_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(file, image_format, **options)
    return file.getvalue()


def png(bits: int, color_type: int, rows: list[bytes], width: int, **chunks: bytes) -> bytes:
    """A PNG written chunk by chunk, for what Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, len(rows), bits, color_type, 0, 0, 0)
    between = b"".join(chunk(name.encode(), data) for name, data in chunks.items())
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + between + pixels + chunk(b"IEND", b"")


def assert_rgb(result: np.ndarray, expected: np.ndarray, tolerance: int = 0) -> None:
    assert result.dtype == np.uint8
    assert result.shape == expected.shape
    assert result.flags.c_contiguous
    assert np.abs(result.astype(int) - expected.astype(int)).max() <= tolerance


def gray_as_rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[:, :, None], 3, axis=2)


# ------------------------------------------------------------------------------------------------------------ formats

EIGHT_BIT = [
    # format, options, largest error allowed
    ("PNG", {}, 0),
    ("BMP", {}, 0),
    ("TIFF", {}, 0),
    ("TIFF", {"compression": "tiff_lzw"}, 0),
    ("TIFF", {"compression": "tiff_adobe_deflate"}, 0),
    ("WEBP", {"lossless": True}, 0),
    ("JPEG", {"quality": 95, "subsampling": 0}, 3),
    ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}, 3),
    ("GIF", {}, 0),  # four colours fit any palette
]


@pytest.mark.parametrize(("image_format", "options", "tolerance"), EIGHT_BIT)
def test_formats_give_the_pixels_that_were_written(image_format: str, options: dict, tolerance: int) -> None:
    assert_rgb(load(encode(blocks(), image_format, **options)), blocks(), tolerance)


@pytest.mark.parametrize("image_format", ["JPEG", "WEBP"])
def test_subsampled_chroma_away_from_edges(image_format: str) -> None:
    result = load(encode(blocks(), image_format, quality=90))
    assert_rgb(result[8::16, 16::32].copy(), blocks()[8::16, 16::32], 5)


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "BMP"])
def test_gray_gives_three_equal_channels(image_format: str) -> None:
    gray = noise(HEIGHT, WIDTH)
    assert_rgb(load(encode(gray, image_format)), gray_as_rgb(gray))


def test_gray_jpeg() -> None:
    gray = np.full((16, 16), 77, np.uint8)
    assert_rgb(load(encode(gray, "JPEG", quality=95)), gray_as_rgb(gray), 1)


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "BMP"])
def test_bilevel_is_black_and_white(image_format: str) -> None:
    gray = np.where(noise(HEIGHT, WIDTH) > 127, 255, 0).astype(np.uint8)
    assert_rgb(load(encode(Image.fromarray(gray).convert("1"), image_format)), gray_as_rgb(gray))


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_sixteen_bit_gray_keeps_the_high_byte(image_format: str) -> None:
    gray = noise(HEIGHT, WIDTH)
    wide = gray.astype(np.uint16) * 257
    assert_rgb(load(encode(wide, image_format)), gray_as_rgb(gray))
    assert_rgb(load(Image.fromarray(wide)), gray_as_rgb(gray))
    assert_rgb(load(Image.fromarray(wide.astype(">u2"))), gray_as_rgb(gray))


def test_sixteen_bit_gray_png_as_older_pillow_opens_it() -> None:
    gray = noise(HEIGHT, WIDTH)
    picture = Image.fromarray(gray.astype(np.int32) * 257)
    picture.format = "PNG"
    assert_rgb(load(picture), gray_as_rgb(gray))


def test_sixteen_bit_color_png() -> None:
    image = noise()
    rows = [row.astype(">u2").tobytes() for row in image.astype(np.uint16) * 257]
    assert_rgb(load(png(16, 2, rows, WIDTH)), image)


def test_alpha_is_composited_on_white() -> None:
    rgba = np.zeros((1, 4, 4), np.uint8)
    rgba[0] = [(10, 20, 30, 255), (10, 20, 30, 0), (0, 100, 200, 51), (0, 0, 0, 128)]
    # color * alpha + 255 * (1 - alpha): 51 is a fifth of 255
    expected = np.array([[(10, 20, 30), (255, 255, 255), (204, 224, 244), (127, 127, 127)]], np.uint8)
    for source in (encode(rgba, "PNG"), encode(rgba, "TIFF"), Image.fromarray(rgba)):
        assert_rgb(load(source), expected)
    assert_rgb(load(encode(rgba, "WEBP", lossless=True, exact=True)), expected)


def test_gray_with_alpha_is_composited_on_white() -> None:
    gray_alpha = np.array([[(100, 255), (100, 0), (100, 51)]], np.uint8)
    expected = gray_as_rgb(np.array([[100, 255, 224]], np.uint8))
    assert_rgb(load(encode(gray_alpha, "PNG")), expected)


def test_palette_and_its_transparent_entry() -> None:
    indices = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    palette = np.array([(9, 8, 7), (200, 100, 50), (1, 2, 3)], np.uint8)
    picture = Image.fromarray(indices, "P")
    picture.putpalette(palette.tobytes())
    on_white = palette.copy()
    on_white[1] = 255
    for image_format in ("PNG", "GIF"):
        assert_rgb(load(encode(picture, image_format)), palette[indices])
        assert_rgb(load(encode(picture, image_format, transparency=1)), on_white[indices])
    # tRNS with one alpha per palette entry: 51 is a fifth
    fifth = palette.copy()
    fifth[1] = (244, 224, 214)
    assert_rgb(load(encode(picture, "PNG", transparency=bytes([255, 51, 255]))), fifth[indices])


def test_transparent_color_of_rgb_png() -> None:
    image = np.array([[(1, 2, 3), (4, 5, 6)]], np.uint8)
    data = png(8, 2, [image.tobytes()], 2, tRNS=struct.pack(">3H", 4, 5, 6))
    assert_rgb(load(data), np.array([[(1, 2, 3), (255, 255, 255)]], np.uint8))


def without_adobe_marker(jpeg: bytes) -> bytes:
    start = jpeg.index(b"\xff\xee")
    length = struct.unpack_from(">H", jpeg, start + 2)[0]
    assert jpeg[start + 4 : start + 9] == b"Adobe"
    return jpeg[:start] + jpeg[start + 2 + length :]


def test_cmyk_jpeg_of_adobe_and_plain() -> None:
    # Flat colours on whole 8x8 blocks survive JPEG almost exactly. RGB = (255 - ink) * (255 - black) / 255.
    inks = np.array([(0, 0, 0, 0), (255, 0, 0, 0), (0, 51, 204, 0), (0, 0, 0, 255), (51, 102, 0, 51)], np.uint8)
    colors = np.array([(255, 255, 255), (0, 255, 255), (255, 204, 51), (0, 0, 0), (163, 122, 204)], np.uint8)
    cmyk, expected = (np.repeat(np.repeat(table[None], 8, 0), 8, 1) for table in (inks, colors))
    adobe = encode(Image.fromarray(cmyk, "CMYK"), "JPEG", quality=100)  # Pillow writes the marker, and inverted inks
    assert_rgb(load(adobe), expected, 3)
    plain = without_adobe_marker(encode(Image.fromarray(255 - cmyk, "CMYK"), "JPEG", quality=100))
    assert_rgb(load(plain), expected, 3)
    assert_rgb(load(encode(Image.fromarray(cmyk, "CMYK"), "TIFF")), expected, 1)


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "TIFF", "PNG"])
def test_first_frame_of_many(image_format: str) -> None:
    first, second = (Image.fromarray(image) for image in (blocks(), blocks()[::-1].copy()))
    options = {"lossless": True} if image_format == "WEBP" else {}
    data = encode(first, image_format, save_all=True, append_images=[second], **options)
    assert_rgb(load(data), blocks())


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "RGBX"])
def test_pil_color_spaces(mode: str) -> None:
    assert_rgb(load(Image.fromarray(blocks()).convert(mode)), blocks(), 4)


# -------------------------------------------------------------------------------------------------------- orientation

UPRIGHT = {
    # EXIF 2.32, tag 274: what the stored rows and columns are -> how to see them upright
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: np.rot90(a, 2),
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}
ORIENTED_FORMATS = {"JPEG": ({"quality": 95, "subsampling": 0}, 3), "PNG": ({}, 0), "WEBP": ({"lossless": True}, 0)}


def oriented(image_format: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(blocks(), image_format, exif=exif, **ORIENTED_FORMATS[image_format][0])


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("image_format", ORIENTED_FORMATS)
def test_exif_orientation(image_format: str, orientation: int, tmp_path: Path) -> None:
    data = oriented(image_format, orientation)
    path = tmp_path / "photo"
    path.write_bytes(data)
    expected = np.ascontiguousarray(UPRIGHT[orientation](blocks()))
    for source in (data, path, str(path), io.BytesIO(data), Image.open(io.BytesIO(data))):
        assert_rgb(load(source), expected, ORIENTED_FORMATS[image_format][1])


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_tiff_orientation_is_applied_once(orientation: int) -> None:
    data = encode(blocks(), "TIFF", tiffinfo={0x0112: orientation})
    expected = np.ascontiguousarray(UPRIGHT[orientation](blocks()))
    assert_rgb(load(data), expected)
    assert_rgb(load(Image.open(io.BytesIO(data))), expected)


def test_pil_image_is_not_turned_twice() -> None:
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(oriented("PNG", 6))))
    assert_rgb(load(picture), np.ascontiguousarray(UPRIGHT[6](blocks())))
    opened = Image.open(io.BytesIO(oriented("PNG", 6)))
    assert_rgb(load(opened), load(opened))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("exif", [b"Exif\0\0", b"II*\0", b"II*\0\xff\xff\xff\xff", b"\xff" * 40])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_unreadable_exif_counts_as_upright(image_format: str, exif: bytes) -> None:
    options, tolerance = ORIENTED_FORMATS[image_format]
    assert_rgb(load(encode(blocks(), image_format, exif=exif, **options)), blocks(), tolerance)


# ------------------------------------------------------------------------------------------------------ ways to pass it


def test_bytes_and_views_and_files(tmp_path: Path) -> None:
    image = noise()
    data = encode(image, "PNG")
    path = tmp_path / "face with spaces é.png"
    path.write_bytes(data)
    sources = (data, bytearray(data), memoryview(data), memoryview(b"".join(bytes([b, 0]) for b in data))[::2])
    for source in (*sources, str(path), path, Image.fromarray(image)):
        assert_rgb(load(source), image)


def test_file_object_is_read_from_its_position_and_stays_open(tmp_path: Path) -> None:
    image = noise()
    file = io.BytesIO(b"header" + encode(image, "PNG"))
    file.seek(6)
    assert_rgb(load(file), image)
    assert not file.closed
    path = tmp_path / "image.png"
    path.write_bytes(encode(image, "PNG"))
    with path.open("rb") as opened:
        assert_rgb(load(opened), image)
        assert not opened.closed


def test_file_object_that_cannot_seek() -> None:
    image = noise()
    reading, writing = os.pipe()
    with open(writing, "wb") as sink:
        sink.write(encode(image, "PNG"))
    with open(reading, "rb") as pipe:
        assert_rgb(load(pipe), image)


def test_rgb_array_passes_through() -> None:
    image = noise()
    assert np.shares_memory(load(image), image)
    assert_rgb(load(image), image)


def test_bgr_and_gray_and_strided_arrays_leave_the_input_as_it_was() -> None:
    image = noise()
    cases = [
        (image, "bgr", image[..., ::-1]),
        (image[..., ::-1], "bgr", image),
        (image[::2, ::-3], "rgb", image[::2, ::-3]),
        (image[:, :, 0], "rgb", gray_as_rgb(image[:, :, 0])),
        (image[:, :, 0], "bgr", gray_as_rgb(image[:, :, 0])),
    ]
    before = image.copy()
    image.flags.writeable = False
    for array, color, expected in cases:
        assert_rgb(load(array, color=color), expected)
    np.testing.assert_array_equal(image, before)


def test_color_is_ignored_for_what_states_its_own() -> None:
    data = encode(noise(), "PNG")
    assert_rgb(load(data, color="bgr"), noise())
    assert_rgb(load(Image.fromarray(noise()), color="bgr"), noise())


def test_threads_give_the_same_pixels() -> None:
    sources = [oriented("JPEG", 6), encode(noise(), "PNG"), encode(blocks(), "GIF"), encode(noise(), "WEBP")]
    expected = [load(source) for source in sources]
    failures: list[int] = []

    def work(seed: int) -> None:
        order = random.Random(seed)
        for _ in range(40):
            i = order.randrange(len(sources))
            if not np.array_equal(load(sources[i]), expected[i]):
                failures.append(i)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# -------------------------------------------------------------------------------------------------------- pixel limit


def header_only_png(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def webp_of_claimed_size(kind: bytes, size: bytes) -> bytes:
    return b"RIFF\xff\0\0\0WEBP" + kind + b"\xff\0\0\0" + size.ljust(30, b"\0")


LARGE = {
    "png": (header_only_png(65535, 65535) + b"\0\0\0\0IDAT5\xaf\x06\x1e", "65535 x 65535 = 4294836225"),
    "webp extended": (webp_of_claimed_size(b"VP8X", b"\0" * 4 + b"\xfe\xff\0\xfe\xff\0"), "65535 x 65535"),
    "webp lossless": (webp_of_claimed_size(b"VP8L", b"\x2f" + b"\xff\xff\xff\x0f"), "16384 x 16384"),
    "webp lossy": (webp_of_claimed_size(b"VP8 ", b"\0\0\0\x9d\x01\x2a\xff\x3f\xff\x3f"), "16383 x 16383"),
    "gif": (b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;", "65535 x 65535"),
    "bmp": (b"BM" + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, 65535, 65535, 1, 24, *[0] * 6), "65535 x"),
}


@pytest.mark.parametrize("name", LARGE)
def test_decompression_bomb_is_refused_on_its_header(name: str) -> None:
    data, fragment = LARGE[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageTooLargeError, match=fragment) as caught:
            load(data)
    assert f"max_pixels={DEFAULT_MAX_PIXELS}" in str(caught.value)


@pytest.mark.parametrize("kind", ["array", "gray", "png", "webp", "pil"])
def test_max_pixels_is_inclusive(kind: str) -> None:
    image = noise()
    makers = {
        "array": lambda: image,
        "gray": lambda: image[:, :, 0],
        "png": lambda: encode(image, "PNG"),
        "webp": lambda: encode(image, "WEBP"),
        "pil": lambda: Image.fromarray(image),
    }
    assert load(makers[kind](), max_pixels=HEIGHT * WIDTH).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(ImageTooLargeError, match=r"64 x 32 = 2048 pixels, more than max_pixels=2047"):
        load(makers[kind](), max_pixels=HEIGHT * WIDTH - 1)


@pytest.mark.parametrize(("image_format", "options", "tolerance"), [row for row in EIGHT_BIT if row[0] != "WEBP"])
def test_limit_of_pillow_does_not_rule(
    image_format: str, options: dict, tolerance: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode(blocks(), image_format, **options)
    oriented_tiff = encode(blocks(), "TIFF", tiffinfo={0x0112: 6})
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)  # warns above 1 pixel, refuses above 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_rgb(load(data), blocks(), tolerance)
        assert_rgb(load(oriented_tiff), np.ascontiguousarray(UPRIGHT[6](blocks())))


@pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 13, reason="older Pillow does not ask its limit for WebP")
def test_webp_above_the_limit_of_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(blocks(), "WEBP", lossless=True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", HEIGHT * WIDTH - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_rgb(load(data), blocks())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    with pytest.raises(ImageTooLargeError, match="MAX_IMAGE_PIXELS"):
        load(data)


@pytest.mark.parametrize("value", [0, -1, 1.5, "many", None])
def test_max_pixels_is_checked(value: object) -> None:
    with pytest.raises(OptionError, match="max_pixels is"):
        load(noise(), max_pixels=value)


@pytest.mark.parametrize("value", ["RGB", "gray", None, ["rgb"]])
def test_color_is_checked(value: object) -> None:
    with pytest.raises(OptionError, match="use 'rgb', or 'bgr'"):
        load(noise(), color=value)


# ---------------------------------------------------------------------------------------------------------- bad inputs

TRUNCATED = [
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("PNG", {}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
    ("GIF", {}),
    ("BMP", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(("image_format", "options"), TRUNCATED)
def test_truncated(image_format: str, options: dict, share: float) -> None:
    data = encode(noise(64, 64, 3), image_format, **options)
    cut = data[: int(len(data) * share)]
    with pytest.raises(UnreadableImageError, match="truncated"):
        load(cut)
    with pytest.raises(UnreadableImageError, match="truncated"):
        load(io.BytesIO(cut))


def closed_file() -> io.BytesIO:
    file = io.BytesIO(b"x")
    file.close()
    return file


def closed_picture() -> Image.Image:
    picture = Image.open(io.BytesIO(encode(noise(), "PNG")))
    picture.close()
    return picture


def truncated_picture() -> Image.Image:
    return Image.open(io.BytesIO(encode(noise(64, 64, 3), "PNG")[:-4000]))


BAD = {
    # name: (input, error, fragment of the message)
    "empty bytes": (lambda: b"", UnreadableImageError, "is empty"),
    "empty file object": (lambda: io.BytesIO(), UnreadableImageError, "is empty"),
    "text": (lambda: b"<html>not found</html>", UnreadableImageError, "JPEG, PNG, WebP, GIF, TIFF, BMP"),
    "magic only": (lambda: b"\x89PNG\r\n\x1a\n", UnreadableImageError, "cannot decode image bytes (PNG)"),
    "webp magic only": (lambda: b"RIFF\0\0\0\0WEBP", UnreadableImageError, "cannot decode image bytes (WebP)"),
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n", UnreadableImageError, "known format"),
    "missing": (lambda: "no/such/face.png", UnreadableImageError, "no such file: 'no/such/face.png'"),
    "empty name": (lambda: "", UnreadableImageError, ""),
    "nul in name": (lambda: "a\0b.png", UnreadableImageError, "cannot open"),
    "long name": (lambda: "a" * 5000, UnreadableImageError, "cannot open"),
    "url": (lambda: "https://example.org/face.jpg", UnsupportedImageError, "download it first"),
    "data url": (lambda: "data:image/png;base64,AAAA", UnsupportedImageError, "download it first"),
    "closed file": (closed_file, UnreadableImageError, "closed file"),
    "text file": (lambda: io.StringIO("face"), UnsupportedImageError, "mode 'rb'"),
    "closed picture": (closed_picture, UnreadableImageError, "PIL image"),
    "truncated picture": (truncated_picture, UnreadableImageError, "truncated"),
    "empty picture": (lambda: Image.new("RGB", (0, 5)), UnsupportedImageError, "no pixels"),
    "float picture": (lambda: Image.new("F", (4, 4)), UnsupportedImageError, "mode F"),
    "int picture": (lambda: Image.new("I", (4, 4)), UnsupportedImageError, "mode I"),
    "float tiff": (lambda: encode(Image.new("F", (4, 4)), "TIFF"), UnsupportedImageError, "mode F"),
    "none": (lambda: None, UnsupportedImageError, "NoneType"),
    "number": (lambda: 3, UnsupportedImageError, "int"),
    "list": (lambda: [[0, 1]], UnsupportedImageError, "list"),
    "class": (lambda: Image.Image, UnsupportedImageError, "type"),
    "float array": (lambda: np.zeros((4, 4, 3)), UnsupportedImageError, "scale it to 0-255"),
    "bool array": (lambda: np.zeros((4, 4), bool), UnsupportedImageError, "* 255"),
    "uint16 array": (lambda: np.zeros((4, 4, 3), np.uint16), UnsupportedImageError, ">> 8"),
    "int array": (lambda: np.zeros((4, 4, 3), np.int64), UnsupportedImageError, ".astype(numpy.uint8)"),
    "object array": (lambda: np.array([None, 1]), UnsupportedImageError, "dtype object"),
    "string array": (lambda: np.array(["a"]), UnsupportedImageError, "not uint8"),
    "no rows": (lambda: np.zeros((0, 4, 3), np.uint8), UnsupportedImageError, "no pixels"),
    "no columns": (lambda: np.zeros((4, 0), np.uint8), UnsupportedImageError, "no pixels"),
    "rgba array": (lambda: np.zeros((4, 4, 4), np.uint8), UnsupportedImageError, "image[..., :3]"),
    "one channel": (lambda: np.zeros((4, 4, 1), np.uint8), UnsupportedImageError, "image[..., 0]"),
    "channels first": (lambda: np.zeros((3, 9, 9), np.uint8), UnsupportedImageError, "transpose(1, 2, 0)"),
    "batch": (lambda: np.zeros((2, 9, 9, 3), np.uint8), UnsupportedImageError, "one at a time"),
    "encoded array": (lambda: np.zeros(9, np.uint8), UnsupportedImageError, "tobytes()"),
    "scalar array": (lambda: np.array(3, np.uint8), UnsupportedImageError, "one image"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    make, error, fragment = BAD[name]
    with pytest.raises(error) as caught:
        load(make())
    assert fragment in str(caught.value)
    assert isinstance(caught.value, ImageError)


def test_folder_and_empty_file(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="is a folder; pass the files"):
        load(tmp_path)
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(UnreadableImageError, match=r"empty\.jpg.* is empty"):
        load(tmp_path / "empty.jpg")


@pytest.mark.filterwarnings("ignore")
def test_mutated_bytes_only_raise_our_errors() -> None:
    small = blocks()[8:24, 24:40]
    exif = Image.Exif()
    exif[0x0112] = 6
    seeds = [
        encode(small, "JPEG", exif=exif),
        encode(Image.fromarray(small).convert("CMYK"), "JPEG", progressive=True),
        encode(small, "PNG", exif=exif),
        encode(Image.fromarray(small).quantize(4), "PNG", transparency=1),
        encode(small, "WEBP", exif=exif),
        encode(np.dstack([small, small[..., :1]]), "WEBP", lossless=True),
        encode(small, "BMP"),
        encode(Image.fromarray(small).quantize(4), "GIF", transparency=1),
        encode(small, "TIFF", tiffinfo={0x0112: 8}),
        encode(small, "TIFF", compression="tiff_lzw"),
    ]
    rng = random.Random(20240607)
    refused = 0
    for i in range(2000):
        data = bytearray(seeds[i % len(seeds)])
        for _ in range(rng.choice((1, 2, 8))):
            data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        if rng.random() < 0.2:
            del data[rng.randrange(len(data)) :]
        try:
            result = load(data, max_pixels=1_000_000)
        except ImageError:
            refused += 1
        else:
            assert result.ndim == 3
            assert result.shape[2] == 3
    assert 200 < refused < 1950
