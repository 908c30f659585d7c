"""JPEGs decoded at a fraction of their size: the same points, the same refusals, and only where faces stay large."""

import io

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx")

from fevertools import pipeline
from fevertools._draft import draft_factor
from fevertools.errors import ImageTooLargeError, OptionError, UnreadableImageError
from fevertools.image import load, load_reduced
from fevertools.pipeline import Analyzer
from fevertools.types import Face

HEIGHT, WIDTH = 333, 461  # neither is whole in eighths


def spot(x, y):
    """A white disc on black, whose centre is known."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return np.where((columns - x) ** 2 + (rows - y) ** 2 < 30**2, 255, 0).astype(np.uint8)


def jpeg(image, orientation=1, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(file, "JPEG", quality=95, exif=exif, **options)
    return file.getvalue()


def centre(pixels):
    """x, y of the white, in continuous coordinates."""
    weight = pixels[..., 0].astype(float)
    rows, columns = np.mgrid[: weight.shape[0], : weight.shape[1]] + 0.5
    return np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_points_are_where_they_are_at_full_size(orientation, factor):
    data = jpeg(spot(70, 290), orientation)
    whole = load(data)
    reduced = load_reduced(data, factor)
    assert reduced.factor == factor
    sides = [-(-side // factor) for side in whole.shape[:2]]
    assert reduced.pixels.shape == (*sides, 3)
    assert reduced.pixels.flags.c_contiguous
    at_full_size = factor * centre(reduced.pixels) + reduced.origin
    assert np.abs(at_full_size - centre(whole)).max() < 0.25


def test_only_mirrored_sides_have_an_origin():
    origins = {o: load_reduced(jpeg(spot(70, 90), o), 8).origin for o in range(1, 9)}
    # 461 is 58 blocks of 8 less 3 pixels, 333 is 42 less 3.
    assert origins == {
        1: (0, 0), 2: (-3, 0), 3: (-3, -3), 4: (0, -3), 5: (0, 0), 6: (-3, 0), 7: (-3, -3), 8: (0, -3)
    }  # fmt: skip


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_every_kind_of_jpeg_is_reduced(mode, progressive):
    smooth = np.repeat(np.linspace(0, 255, 256)[None], 128, axis=0)
    image = Image.fromarray(smooth.astype(np.uint8)).convert("RGB").convert(mode)
    data = jpeg(image, progressive=progressive)
    whole, reduced = load(data), load_reduced(data, 4)
    means = whole.reshape(32, 4, 64, 4, 3).mean(axis=(1, 3))
    assert reduced.factor == 4
    assert np.abs(reduced.pixels - means).max() < 4


@pytest.mark.parametrize("form", ["PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_other_formats_stay_as_they_are(form):
    file = io.BytesIO()
    Image.fromarray(spot(100, 100)).save(file, form)
    reduced = load_reduced(file.getvalue(), 8)
    assert (reduced.factor, reduced.origin) == (1, (0, 0))
    assert np.array_equal(reduced.pixels, load(file.getvalue()))


def test_what_a_caller_has_opened_is_not_touched():
    data = jpeg(spot(100, 100))
    opened = Image.open(io.BytesIO(data))
    for image in (opened, spot(100, 100), np.dstack([spot(100, 100)] * 3)):
        reduced = load_reduced(image, 4)
        assert reduced.factor == 1
        assert reduced.pixels.shape == (HEIGHT, WIDTH, 3)
    assert opened.size == (WIDTH, HEIGHT)


def test_files_are_reduced_as_bytes_are(tmp_path):
    data = jpeg(spot(100, 100), 6)
    (tmp_path / "x.jpg").write_bytes(data)
    expected = load_reduced(data, 2)
    with (tmp_path / "x.jpg").open("rb") as file:
        for source in (tmp_path / "x.jpg", str(tmp_path / "x.jpg"), file):
            found = load_reduced(source, 2)
            assert np.array_equal(found.pixels, expected.pixels)
            assert (found.factor, found.origin) == (expected.factor, expected.origin)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 9), (7, 2), (8, 8), (17, 1)])
def test_tiny_jpegs_keep_a_pixel(width, height):
    data = jpeg(np.full((height, width), 200, np.uint8), 3)
    reduced = load_reduced(data, 8)
    assert reduced.factor in (1, 2, 4, 8)
    assert reduced.pixels.shape == (-(-height // reduced.factor), -(-width // reduced.factor), 3)


def test_the_limit_is_about_the_full_size():
    data = jpeg(spot(100, 100))
    load_reduced(data, 8, max_pixels=HEIGHT * WIDTH)
    with pytest.raises(ImageTooLargeError, match=f"{WIDTH} x {HEIGHT}"):
        load_reduced(data, 8, max_pixels=HEIGHT * WIDTH - 1)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_damage_is_found_at_any_size(factor):
    data = jpeg(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), np.uint8))
    for end in range(3, len(data) - 2, len(data) // 40):
        with pytest.raises(UnreadableImageError):
            load_reduced(data[:end], factor)


# ------------------------------------------------------------------------------------------------------------ Analyzer


@pytest.mark.parametrize(
    ("smallest", "factor"), [(4, 1), (20, 1), (95, 1), (96, 2), (191, 2), (192, 4), (383, 4), (384, 8), (5000, 8)]
)
def test_the_smallest_face_keeps_48_pixels(smallest, factor):
    assert draft_factor(smallest) == factor


class FakeDetector:
    """One face at the same place of whatever picture it is shown."""

    def __init__(self, **options):
        self.smallest = options["min_face_size"]

    def __call__(self, pixels):
        landmarks = np.array([[40, 42], [63, 41], [52, 56], [43, 69], [60, 70]], np.float32)
        return [Face(np.array([20, 10, 80, 85], np.float32), float(self.smallest), landmarks)]


@pytest.fixture
def detector(monkeypatch):
    monkeypatch.setattr(pipeline, "Detector", FakeDetector)


@pytest.mark.parametrize(("smallest", "factor"), [(20, 1), (100, 2), (200, 4)])
def test_faces_are_told_at_full_size(tiny_weights, detector, smallest, factor):
    data = jpeg(spot(200, 150), 3)
    with Analyzer(tiny_weights, device="cpu", min_face_size=smallest, draft=True) as analyzer:
        (face,) = analyzer.detect(data)
        (found,) = analyzer.analyze(data).faces
        (streamed,) = next(analyzer.stream([data])).faces
        (of_pixels,) = analyzer.detect(load(data))
    picture = load_reduced(data, factor)
    # The detector's points are pixel centres counted from 1, so they lie half a pixel ahead: of the small picture.
    box = factor * (np.array([20, 10, 80, 85]) - 0.5) + 0.5 + np.tile(picture.origin, 2)
    assert picture.factor == factor
    for one in (face, found.face, streamed.face):
        assert np.allclose(one.box, box, atol=1e-4)
        assert np.allclose(one.landmarks[2], factor * (np.array([52, 56]) - 0.5) + 0.5 + picture.origin, atol=1e-4)
        assert one.score == smallest // factor
        assert one.box.dtype == one.landmarks.dtype == np.float32
    assert np.array_equal(found.embedding, streamed.embedding)
    assert np.array_equal(of_pixels.box, [20, 10, 80, 85])
    assert of_pixels.score == smallest


def test_without_draft_nothing_is_reduced(tiny_weights, detector):
    with Analyzer(tiny_weights, device="cpu", min_face_size=400) as analyzer:
        (face,) = analyzer.detect(jpeg(spot(200, 150)))
    assert np.array_equal(face.box, [20, 10, 80, 85])
    assert face.score == 400


def test_cropped_images_are_not_reduced(tiny_weights):
    data = jpeg(spot(200, 150))
    with (
        Analyzer(tiny_weights, device="cpu", min_face_size=400, draft=True) as draft,
        Analyzer(tiny_weights, device="cpu") as plain,
    ):
        assert np.array_equal(draft.embed(data, cropped=True), plain.embed(data, cropped=True))
        assert np.array_equal(draft.analyze(data, cropped=True).faces[0].face.box, [0, 0, WIDTH, HEIGHT])


def test_other_values_are_refused():
    with pytest.raises(OptionError, match="draft"):
        Analyzer(draft="yes")
    with pytest.raises(OptionError, match="min_face_size"):
        Analyzer(draft=True, min_face_size="96").detect(jpeg(spot(100, 100)))


@pytest.mark.data
def test_a_photo_gives_nearly_the_same_face(data_root):
    """The exact figures are in benchmarks/results/stream.json."""
    photo = load(data_root / "photos" / "astronaut.png")
    data = jpeg(photo, subsampling=0)
    with (
        Analyzer(device="cpu", threads=1, min_face_size=96) as exact,
        Analyzer(device="cpu", threads=1, min_face_size=96, draft=True) as draft,
    ):
        (one,), (other,) = exact.analyze(data).faces, draft.analyze(data).faces
    width = one.face.box[2] - one.face.box[0]
    assert np.abs(other.face.landmarks - one.face.landmarks).max() < 0.05 * width
    assert np.abs(other.face.box - one.face.box).max() < 0.1 * width
    cosine = one.embedding @ other.embedding / np.linalg.norm(one.embedding) / np.linalg.norm(other.embedding)
    assert cosine > 0.97
