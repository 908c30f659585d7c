"""Inputs made to break things, one by one: bombs, endless sides, single pixels, numbers that are none, crowds."""

import functools
import io
import json
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fevertools import _mtcnn
from fevertools.align import crop_face
from fevertools.detector import Detector
from fevertools.encoder import express
from fevertools.errors import DegenerateFaceError, ImageError, ImageTooLargeError, OptionError, UnsupportedImageError
from fevertools.image import load
from fevertools.labels import EMOTIONS
from fevertools.pipeline import Analyzer
from fevertools.similarity import similarity
from fevertools.types import FaceGeometry
from tests._tiny import LANDMARKS
from tests.reliability.pictures import encode, picture

ROOT = Path(__file__).resolve().parents[2]
GEOMETRY = FaceGeometry(48, 48, tuple(map(tuple, LANDMARKS)))

LOADING = 40
"""Bytes a pixel that `image.load` may need at its most, its result of 3 among them. WebP needs most."""

DETECTING = 48
"""The same of the detector, over what each thread needs."""

A_THREAD = 200
"""MiB that a thread of the detector may need, however large or long the picture is."""

_MEASURE = """
import json, sys, time
import numpy as np
from fevertools.image import load
from fevertools.pipeline import Analyzer
from tests.fuzz import peak
from tests.reliability.pictures import encode, picture

load(encode(picture(), "PNG"))
{prepare}
before, start = peak(), time.process_time()
try:
    found = {expression}
except Exception as error:
    found = [type(error).__name__, str(error)]
print(json.dumps([found, peak() - before, time.process_time() - start]))
"""


def measured(expression, prepare=""):
    """Its value or error, MiB that it needed and seconds of processor time, in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-c", _MEASURE.format(expression=expression, prepare=prepare)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return json.loads(run.stdout)


# --------------------------------------------------------------------------------------------------------------- bombs


def png(width, height, bits=1, color_type=0, rows=b"", **chunks):
    """A PNG that announces so many pixels, whatever is behind it."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    between = b"".join(chunk(name.encode(), data) for name, data in chunks.items())
    parts = (chunk(b"IHDR", header), between, chunk(b"IDAT", rows or zlib.compress(b"")), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def zeros(count):
    """So many zero bytes, compressed a thousandfold."""
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    parts = [packer.compress(block) for _ in range(count >> 20)]
    return b"".join((*parts, packer.compress(bytes(count % (1 << 20))), packer.flush()))


def gif(width, height):
    data = bytearray(encode(picture().quantize(4), "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def tiff(width, height):
    """The sizes in the directory changed, with one strip that claims them all."""
    data = encode(picture(24, 16), "TIFF")
    return data.replace(struct.pack("<HHII", 256, 4, 1, 24), struct.pack("<HHII", 256, 4, 1, width)).replace(
        struct.pack("<HHII", 257, 4, 1, 16), struct.pack("<HHII", 257, 4, 1, height)
    )


def webp(width, height):
    """A lossless WebP whose header announces so much."""
    data = bytearray(encode(picture(), "WEBP", lossless=True))
    bits = (width - 1) | (height - 1) << 14
    data[21:25] = struct.pack("<I", int.from_bytes(data[21:25], "little") & 0xF0000000 | bits)
    return bytes(data)


def webp_canvas(width, height):
    """An extended WebP: a canvas, and a small picture on it."""
    picture_chunk = encode(picture(), "WEBP")[12:]
    sides = b"".join((side - 1).to_bytes(3, "little") for side in (width, height))
    canvas = b"VP8X" + struct.pack("<II", 10, 0) + sides
    return b"RIFF" + struct.pack("<I", 4 + len(canvas) + len(picture_chunk)) + b"WEBP" + canvas + picture_chunk


def bmp(width, height):
    data = bytearray(encode(picture(), "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def jpeg(width, height):
    data = bytearray(encode(picture(), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


BOMBS = {
    "png": lambda: png(30_000, 30_000, rows=zeros(30_000 * 3751)),
    "png color": lambda: png(20_000, 20_000, 8, 2, rows=zeros(1 << 26)),
    "png sides": lambda: png(2**31 - 1, 2**31 - 1),
    "gif": lambda: gif(65_535, 65_535),
    "tiff": lambda: tiff(100_000, 100_000),
    "tiff sides": lambda: tiff(2**31 - 1, 2**31 - 1),
    "webp": lambda: webp(16_384, 16_384),
    "webp canvas": lambda: webp_canvas(16_384, 16_384),
    "webp sides": lambda: webp_canvas(2**24, 2**24),
    "bmp": lambda: bmp(50_000, 50_000),
    "bmp upside down": lambda: bmp(50_000, -50_000),
    "jpeg": lambda: jpeg(65_500, 65_500),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_by_its_header(name, tmp_path):
    (tmp_path / "bomb").write_bytes(BOMBS[name]())
    (error, text), memory, seconds = measured(f"load({str(tmp_path / 'bomb')!r}).shape")
    assert error == "ImageTooLargeError", text
    assert memory <= 8
    assert seconds < 1


# Within the limit of pixels, with something else without end.
HIDDEN = {
    "more pixels than the header says": lambda: png(8, 8, rows=zeros(1 << 28)),
    "text": lambda: png(8, 8, rows=zeros(16), zTXt=b"Comment\0\0" + zeros(1 << 28)),
    "profile": lambda: png(8, 8, rows=zeros(16), iCCP=b"profile\0\0" + zeros(1 << 28)),
    "frames": lambda: encode(
        Image.new("P", (8, 8)), "GIF", save_all=True, append_images=[Image.new("P", (8, 8), i) for i in range(2000)]
    ),
    "pages": lambda: encode(
        Image.new("L", (8, 8)), "TIFF", save_all=True, append_images=[Image.new("L", (8, 8))] * 500
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_is_packed_beside_the_pixels_is_not_unpacked(name, tmp_path):
    (tmp_path / "bomb").write_bytes(HIDDEN[name]())
    found, memory, seconds = measured(f"load({str(tmp_path / 'bomb')!r}).shape")
    assert found in ([8, 8, 3], ["UnreadableImageError", found[1]])
    assert memory <= 80  # Pillow unpacks texts up to 64 MiB in all
    assert seconds < 2


WIDE = {
    "png": ("RGBA", "PNG", {"compress_level": 1}),
    "gif": ("P", "GIF", {"transparency": 2}),
    "tiff": ("CMYK", "TIFF", {"compression": "tiff_lzw", "tiffinfo": {0x0112: 5}}),
    "webp": ("RGBA", "WEBP", {"quality": 5, "method": 0}),
    "jpeg": ("CMYK", "JPEG", {"progressive": True}),
    "bmp": ("RGBA", "BMP", {}),
}


@pytest.mark.parametrize("name", WIDE)
def test_memory_of_loading_is_bounded_by_the_pixels(name, tmp_path):
    mode, image_format, options = WIDE[name]
    image = picture(250, 200).resize((2500, 2000))
    image = image.quantize(16) if mode == "P" else image.convert(mode)
    (tmp_path / "large").write_bytes(encode(image, image_format, **options))
    found, memory, _ = measured(f"load({str(tmp_path / 'large')!r}).shape")
    assert sorted(found) == [3, 2000, 2500]
    assert memory * 2**20 <= LOADING * 2500 * 2000


# --------------------------------------------------------------------------------------------------------------- sides

LONG = 65_535


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize(("width", "height"), [(LONG, 2), (2, LONG)])
def test_the_longest_sides_are_read(image_format, width, height):
    rows = (np.arange(width * height) % 251).astype(np.uint8).reshape(height, width)
    found = load(encode(Image.fromarray(rows), image_format))
    np.testing.assert_array_equal(found, np.repeat(rows[:, :, None], 3, axis=2))


@pytest.mark.parametrize("shape", [(3, LONG), (LONG, 3), (1, 1_000_000), (1_000_000, 1)])
def test_a_long_crop_is_embedded_as_what_it_shrinks_to(tiny_weights, shape):
    with Analyzer(tiny_weights, threads=1) as analyzer:
        ramp = np.linspace(0, 255, max(shape)).round().astype(np.uint8)
        image = np.broadcast_to(ramp if shape[1] > shape[0] else ramp[:, None], shape)
        short = np.linspace(2.65, 252.35, 48).round().astype(np.uint8)  # means of 48 equal parts of the ramp
        square = np.broadcast_to(short if shape[1] > shape[0] else short[:, None], (48, 48))
        np.testing.assert_allclose(analyzer.embed(image, cropped=True), analyzer.embed(square, cropped=True), atol=0.02)


@pytest.mark.parametrize("shape", [(60, LONG), (LONG, 60)])
def test_memory_of_detection_is_bounded_on_a_long_picture(shape):
    prepare = "analyzer = Analyzer(threads=2); analyzer.detect(np.zeros((40, 40), np.uint8))"
    noise = f"np.random.default_rng(0).integers(0, 256, {shape}, np.uint8)"
    found, memory, seconds = measured("len(analyzer.detect(image))", f"{prepare}; image = {noise}")
    assert found == 0
    assert memory * 2**20 <= DETECTING * shape[0] * shape[1] + 2 * (A_THREAD << 20)
    assert seconds < 60


def test_long_strips_give_the_same_faces(face, monkeypatch):
    # Three faces, of which one lies on the border between two strips.
    image = np.full((160, 30_000, 3), 90, np.uint8)
    border = round(_mtcnn._STRIP_COLUMNS / 0.6)
    for left in (5_000, border - 60, 29_800):
        image[20:140, left : left + 120] = face(120)
    with_strips = Detector()(image)
    monkeypatch.setattr(_mtcnn, "_STRIP_COLUMNS", 1 << 30)
    without = Detector()(image)
    assert len(without) == 3
    by_left = [sorted(found, key=lambda face: face.box[0]) for found in (with_strips, without)]
    for one, other in zip(*by_left, strict=True):
        np.testing.assert_allclose(one.box, other.box, atol=1e-2)
        np.testing.assert_allclose(one.landmarks, other.landmarks, atol=1e-2)


# -------------------------------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "GIF", "TIFF", "WEBP", "JPEG"])
def test_one_pixel(tiny_weights, image_format):
    data = encode(Image.new("RGB", (1, 1), (200, 200, 200)), image_format)
    assert load(data).shape == (1, 1, 3)
    with Analyzer(tiny_weights) as analyzer:
        assert analyzer.detect(data) == []
        # A pixel is a crop of one colour.
        expected = analyzer.embed(np.full((48, 48), load(data)[0, 0, 0], np.uint8), cropped=True)
        np.testing.assert_allclose(analyzer.embed(data, cropped=True), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2, 3), (11, 500), (500, 11, 3), (19, 19, 3)])
def test_too_small_for_a_face(shape):
    with Analyzer() as analyzer:
        assert analyzer.detect(np.full(shape, 128, np.uint8)) == []
        assert analyzer.classify(np.full(shape, 128, np.uint8)) == []


# ------------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none(tiny_weights, value):
    with pytest.raises(UnsupportedImageError, match="scale it to 0-255"):
        load(np.full((40, 40, 3), value, np.float32))
    for vectors in (np.array([1, value]), np.array([[0, 1], [value, 1]])):
        with pytest.raises(OptionError, match="not finite"):
            similarity(vectors, np.ones(2))
        with pytest.raises(OptionError, match="not finite"):
            similarity(np.ones((3, 2)), vectors)
    landmarks = GEOMETRY.template()
    landmarks[3, 1] = value
    with pytest.raises(DegenerateFaceError, match="not finite"):
        crop_face(np.zeros((40, 40), np.uint8), landmarks, GEOMETRY)
    for options in ({"thresholds": (0.6, value, 0.7)}, {"factor": value}, {"min_face_size": value}):
        with pytest.raises(OptionError, match="use "):
            Detector(**options)


@pytest.mark.parametrize(("rows", "columns"), [((10**7, 10**6), (1, 10**6)), ((10**6, 2), (10**6, 2))])
def test_more_embeddings_than_memory_holds(rows, columns):
    a, b = (np.lib.stride_tricks.as_strided(np.ones(1, np.float32), shape, (0, 0)) for shape in (rows, columns))
    with pytest.raises(OptionError, match="compare in parts"):
        similarity(a, b)


def test_the_largest_logits_are_probabilities():
    expression = express(np.array([3e38, -3e38, 0, 3e38, -0.0, 1e-45, 1, 2], np.float32), EMOTIONS)
    assert expression.label == "neutral"
    assert [expression.probabilities[label] for label in EMOTIONS] == [0.5, 0, 0, 0.5, 0, 0, 0, 0]
    assert expression.entropy == pytest.approx(np.log(2))


# -------------------------------------------------------------------------------------------------------------- crowds


@pytest.fixture(scope="session")
def face(data_root):
    """Side -> the face of a photo, so many pixels wide and high."""
    photo = load(data_root / "photos" / "astronaut.png")

    @functools.cache
    def resize(side):
        return np.asarray(Image.fromarray(photo[30:210, 135:315]).resize((side, side), Image.Resampling.LANCZOS))

    return resize


@pytest.mark.slow
@pytest.mark.data
def test_a_thousand_faces(face):
    crowd = np.tile(face(72), (25, 40, 1))  # 1800 x 2880 pixels
    with Analyzer(threads=2) as analyzer:
        analyzer.detect(np.zeros((64, 64), np.uint8))
        start = time.process_time()
        result = analyzer.analyze(crowd)
        seconds = time.process_time() - start
    found = np.array([entry.face.box for entry in result.faces])
    centres = (found[:, :2] + found[:, 2:]) / 2
    tiles = {(int(x // 72), int(y // 72)) for x, y in centres}
    assert len(tiles) >= 990
    assert len(found) <= 1010  # and none twice
    vectors = np.stack([entry.embedding for entry in result.faces])
    assert vectors.shape == (len(found), 256)
    # They all show the same face.
    assert np.median(similarity(vectors, vectors[500])) > 0.9
    assert seconds < 120


@pytest.mark.slow
@pytest.mark.data
def test_memory_of_a_thousand_faces(face, tmp_path):
    Image.fromarray(np.tile(face(72), (25, 40, 1))).save(tmp_path / "crowd.bmp")
    prepare = "analyzer = Analyzer(threads=2); analyzer.embed(picture(64, 64))"
    found, memory, _ = measured(f"analyzer.embed({str(tmp_path / 'crowd.bmp')!r}).shape", prepare)
    assert found[0] >= 990
    assert memory * 2**20 <= (DETECTING + 13) * 1800 * 2880 + 2 * (A_THREAD << 20)


PATTERNS = {
    "noise": lambda: np.random.default_rng(1).integers(0, 256, (700, 700, 3), np.uint8),
    "stripes": lambda: np.broadcast_to((np.arange(700) % 2 * 255).astype(np.uint8)[:, None], (700, 700, 3)),
    "blocks": lambda: np.kron(np.random.default_rng(2).integers(0, 256, (88, 88, 3), np.uint8), np.ones((8, 8, 1)))
    .astype(np.uint8),
}  # fmt: skip


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_do_not_flood_the_later_stages(name):
    detector = Detector(threads=1)
    start = time.process_time()
    found = detector(np.ascontiguousarray(PATTERNS[name]()))
    assert time.process_time() - start < 2
    assert len(found) < 5


def test_a_stream_of_bombs_goes_on(tiny_weights):
    images = [BOMBS["gif"](), np.full((48, 48), 90, np.uint8), BOMBS["webp canvas"](), b"", io.BytesIO(b"BM")]
    with Analyzer(tiny_weights) as analyzer:
        results = list(analyzer.stream(images, cropped=True))
    assert [len(result.faces) for result in results] == [0, 1, 0, 0, 0]
    assert [type(result.error) for result in results[::2]] == [
        ImageTooLargeError,
        ImageTooLargeError,
        type(results[4].error),
    ]
    assert all(isinstance(results[i].error, ImageError) for i in (0, 2, 3, 4))
