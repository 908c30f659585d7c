"""The detector: parity with facenet-pytorch, the arithmetic around the networks, odd images, options, threads."""

import io
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fevertools import _mtcnn
from fevertools.detector import PRESETS, Detector, Preset
from fevertools.errors import OptionError, UnsupportedImageError, WeightsUnavailableError
from fevertools.types import Face, Float32, UInt8Image

PARITY_PX = 0.5
LFW_IMAGES = 200

# facenet-pytorch 2.5.3, MTCNN(keep_all=True).detect(skimage.data.astronaut(), landmarks=True)
GOLDEN_BOX = (181.0514, 62.1561, 267.7473, 172.0502)
GOLDEN_LANDMARKS = (
    (205.0109, 101.7275),
    (246.7626, 103.7141),
    (224.6714, 128.9650),
    (201.7161, 139.2462),
    (245.2655, 141.8570),
)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(device="cpu", threads=2)


@pytest.fixture(scope="module")
def astronaut() -> UInt8Image:
    """NASA portrait, 512 x 512, one face; ships inside the scikit-image wheel."""
    return np.asarray(pytest.importorskip("skimage").data.astronaut())


@pytest.fixture(scope="module")
def crowd(astronaut: UInt8Image) -> UInt8Image:
    """Three faces of three sizes."""
    image = np.zeros((512, 1000, 3), np.uint8)
    image[:, :512] = astronaut
    image[:256, 520:776] = np.asarray(Image.fromarray(astronaut).resize((256, 256)))
    image[:200, 790:990] = np.asarray(Image.fromarray(astronaut).resize((200, 200)))
    return image


def areas(faces: list[Face]) -> list[float]:
    return [float((face.box[2] - face.box[0]) * (face.box[3] - face.box[1])) for face in faces]


def same(first: list[Face], second: list[Face], tolerance: float = 0.0) -> bool:
    return len(first) == len(second) and all(
        np.abs(a.box - b.box).max() <= tolerance
        and np.abs(a.landmarks - b.landmarks).max() <= tolerance
        and abs(a.score - b.score) <= tolerance
        for a, b in zip(first, second, strict=True)
    )


# One known face


def test_astronaut(detector: Detector, astronaut: UInt8Image) -> None:
    (face,) = detector(astronaut)
    assert face.box.dtype == face.landmarks.dtype == np.float32
    np.testing.assert_allclose(face.box, GOLDEN_BOX, atol=0.05)
    np.testing.assert_allclose(face.landmarks, GOLDEN_LANDMARKS, atol=0.05)
    assert face.score > 0.999


def test_landmarks_are_left_eye_first(detector: Detector, astronaut: UInt8Image) -> None:
    (face,) = detector(astronaut)
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < nose[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


# Parity with facenet-pytorch


def assert_parity(detector: Detector, peer: Any, image: UInt8Image, name: str) -> int:
    boxes, scores, landmarks = peer.detect(image.copy(), landmarks=True)
    faces = detector(image)
    count = 0 if boxes is None else len(boxes)
    assert len(faces) == count, name
    for i, face in enumerate(faces):
        np.testing.assert_allclose(face.box, boxes[i].astype(np.float32), atol=PARITY_PX, err_msg=name)
        np.testing.assert_allclose(face.landmarks, landmarks[i].astype(np.float32), atol=PARITY_PX, err_msg=name)
        assert face.score == pytest.approx(float(scores[i]), abs=1e-4), name
    return count


@pytest.fixture(scope="module")
def peer() -> Any:
    return pytest.importorskip("facenet_pytorch", exc_type=ImportError).MTCNN(keep_all=True)


def test_parity_on_three_faces(detector: Detector, peer: Any, crowd: UInt8Image) -> None:
    assert assert_parity(detector, peer, crowd, "crowd") == 3


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("shrink", [1, 2])
def test_parity_on_photos(detector: Detector, peer: Any, data_root: Path, shrink: int) -> None:
    found = 0
    paths = sorted((data_root / "photos").glob("*.[jp][pn]g"))
    for path in paths:
        photo = Image.open(path).convert("RGB")
        photo = photo.resize((photo.width // shrink, photo.height // shrink), Image.Resampling.BILINEAR)
        found += assert_parity(detector, peer, np.asarray(photo), path.name)
    assert len(paths) >= 7
    assert found >= 35


def lfw_images(data_root: Path, count: int) -> Iterator[tuple[str, UInt8Image]]:
    with zipfile.ZipFile(data_root / "lfw" / "lfw_deepfunneled.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        for name in names[:: len(names) // count][:count]:
            yield name, np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB"))


@pytest.mark.slow
@pytest.mark.data
def test_parity_on_lfw(detector: Detector, peer: Any, data_root: Path) -> None:
    images = list(lfw_images(data_root, LFW_IMAGES))
    found = sum(assert_parity(detector, peer, image, name) for name, image in images)
    assert len(images) == LFW_IMAGES
    assert found >= LFW_IMAGES


# Adaptive average pooling


def slow_area(image: UInt8Image, height: int, width: int) -> Float32:
    out = np.empty((3, height, width), np.float32)
    for y in range(height):
        for x in range(width):
            rows = slice(y * image.shape[0] // height, -(-(y + 1) * image.shape[0] // height))
            columns = slice(x * image.shape[1] // width, -(-(x + 1) * image.shape[1] // width))
            out[:, y, x] = image[rows, columns].astype(np.float64).mean((0, 1))
    return out


def whole(level: _mtcnn.Level) -> _mtcnn.Strip:
    return _mtcnn.Strip(level, 0, level.height, 0, level.width)


@pytest.mark.parametrize(
    ("height", "width", "scale"),
    [(97, 61, 0.6), (97, 61, 0.21), (331, 450, 0.03), (300, 260, 0.045), (40, 30, 1.7), (64, 48, 0.5), (700, 36, 0.34)],
)
def test_area_resize_is_adaptive_average_pooling(height: int, width: int, scale: float) -> None:
    image = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    table = _mtcnn.SumTable(image)
    level = _mtcnn.make_level(height, width, scale)
    assert (level.height, level.width) == (int(height * scale + 1), int(width * scale + 1))
    out = _mtcnn.area_resize(table, whole(level))[0]
    np.testing.assert_allclose(out, slow_area(image, level.height, level.width), atol=1e-4)
    part = _mtcnn.area_resize(table, _mtcnn.Strip(level, 3, level.height - 1, 2, level.width - 2))[0]
    np.testing.assert_array_equal(part, out[:, 3:-1, 2:-2])


def test_area_crops_are_adaptive_average_pooling() -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (420, 500, 3), np.uint8)
    boxes = [(0, 0, 500, 420), (3, 7, 4, 8), (10, 20, 34, 44), (499, 0, 500, 420), (100, 50, 131, 99)]
    for group in (boxes, boxes[1:3]):  # wide sums, narrow sums
        out = _mtcnn.area_crops(_mtcnn.SumTable(image), np.array(group, np.int32), 24)
        for crop, (x1, y1, x2, y2) in zip(out, group, strict=True):
            np.testing.assert_allclose(crop, slow_area(image[y1:y2, x1:x2], 24, 24), atol=1e-4)


def test_area_resize_against_torch() -> None:
    torch = pytest.importorskip("torch")
    image = np.random.default_rng(2).integers(0, 256, (231, 310, 3), np.uint8)
    planes = torch.as_tensor(image).permute(2, 0, 1)[None].float()
    for scale in (0.6, 0.425, 0.058):
        level = _mtcnn.make_level(231, 310, scale)
        ours = _mtcnn.area_resize(_mtcnn.SumTable(image), whole(level))
        theirs = torch.nn.functional.adaptive_avg_pool2d(planes, (level.height, level.width)).numpy()
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_sums_may_wrap_around() -> None:
    # 255 * 3000 * 3000 is above 2 ** 31.
    image = np.full((3000, 3000, 3), 255, np.uint8)
    table = _mtcnn.SumTable(image)
    for scale in (0.3, 0.01):
        level = _mtcnn.make_level(3000, 3000, scale)
        out = _mtcnn.area_resize(table, _mtcnn.Strip(level, level.height - 12, level.height, 0, level.width))
        np.testing.assert_allclose(out, 255, rtol=1e-6)


@pytest.mark.parametrize("height", [1, 63, 64, 65, 200])
def test_bands_join_to_one_table(height: int) -> None:
    image = np.random.default_rng(height).integers(0, 256, (height, 50, 3), np.uint8)

    def backwards(work: Any, items: Any) -> list[Any]:
        return [work(item) for item in reversed(items)][::-1]

    expected = np.pad(image.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0), (0, 0)))
    for share in (map, backwards):
        words, kind = _mtcnn.SumTable(image, share).fitting(1)
        np.testing.assert_array_equal(words.view(kind).reshape(height + 1, 51, 4)[..., :3], expected % (1 << 16))


# Strips


@pytest.mark.parametrize("height", [20, 21, 331, 511, 512, 513])
@pytest.mark.parametrize("scale", [0.6, 0.1])  # both ways of summing
def test_strips_give_the_cells_of_the_whole_level(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, height: int, scale: float
) -> None:
    monkeypatch.setattr(_mtcnn, "_STRIP_ROWS", 30)
    monkeypatch.setattr(_mtcnn, "_STRIP_COLUMNS", 24)
    image = np.random.default_rng(height).integers(0, 256, (height, 150, 3), np.uint8)
    table = _mtcnn.SumTable(image)
    level = _mtcnn.make_level(height, 150, scale)
    if min(level.height, level.width) < 12:
        return
    expected = detector._pnet.run(None, {"image": _mtcnn.area_resize(table, whole(level))})[0][0]
    assert expected.shape[1:] == level.cells
    seen = np.zeros(level.cells, int)
    for strip in _mtcnn.strips(level):
        assert strip.bottom - strip.top <= 40
        assert strip.right - strip.left <= 34
        cells = detector._pnet.run(None, {"image": _mtcnn.area_resize(table, strip)})[0][0]
        place = np.s_[
            strip.top // 2 : strip.top // 2 + cells.shape[1], strip.left // 2 : strip.left // 2 + cells.shape[2]
        ]
        np.testing.assert_allclose(cells, expected[:, *place], atol=1e-4)
        seen[place] += 1
    assert (seen == 1).all()


def test_the_size_of_strips_changes_no_face(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, crowd: UInt8Image
) -> None:
    expected = detector(crowd)
    monkeypatch.setattr(_mtcnn, "_STRIP_ROWS", 40)
    monkeypatch.setattr(_mtcnn, "_STRIP_COLUMNS", 50)
    assert same(detector(crowd), expected, tolerance=1e-3)


def test_decoding_keeps_the_raster_order_and_the_offsets() -> None:
    cells = np.full((5, 3, 4), -9, np.float32)
    cells[:, 2, 1] = [3, 0.1, 0.2, 0.3, 0.4]
    cells[:, 0, 3] = [0.5, 1, 2, 3, 4]
    found = _mtcnn.decode_cells(cells, 0.5, 0.6)
    # Corners of the cell (0, 3) in the level: 6, 0 and 18, 12; counted from 1, and divided by the scale.
    np.testing.assert_allclose(found[0], [14, 2, 36, 24, 1 / (1 + np.exp(-0.5)), 1, 2, 3, 4], rtol=1e-6)
    np.testing.assert_allclose(found[1], [6, 10, 28, 32, 1 / (1 + np.exp(-3)), 0.1, 0.2, 0.3, 0.4], rtol=1e-6)
    assert len(_mtcnn.decode_cells(cells, 0.5, 0.9)) == 1


# Suppression


def slow_suppress(boxes: Float32, scores: Float32, threshold: float, of_smaller: bool) -> list[int]:
    extra = 1 if of_smaller else 0
    order = sorted(range(len(boxes)), key=lambda i: (-scores[i], -i if of_smaller else i))
    kept: list[int] = []
    for i in order:
        x1, y1, x2, y2 = boxes[i].astype(float)
        area = (x2 - x1 + extra) * (y2 - y1 + extra)
        for j in kept:
            u1, v1, u2, v2 = boxes[j].astype(float)
            other = (u2 - u1 + extra) * (v2 - v1 + extra)
            shared = max(0, min(x2, u2) - max(x1, u1) + extra) * max(0, min(y2, v2) - max(y1, v1) + extra)
            whole = min(area, other) if of_smaller else area + other - shared
            if whole and shared / whole > threshold:
                break
        else:
            kept.append(i)
    return kept


@pytest.mark.parametrize("of_smaller", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 127, 128, 129, 700])
@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_suppress_is_greedy(count: int, threshold: float, of_smaller: bool) -> None:
    rng = np.random.default_rng(count)
    # Whole coordinates in a small frame and few scores: many overlaps, ties, equal and empty boxes.
    first = rng.integers(0, 60, (count, 2))
    boxes = np.concatenate([first, first + rng.integers(0, 25, (count, 2))], axis=1).astype(np.float32)
    scores = (rng.integers(0, 50, count) / 50).astype(np.float32)
    kept = _mtcnn.suppress(boxes, scores, threshold, of_smaller=of_smaller)
    assert kept.tolist() == slow_suppress(boxes, scores, threshold, of_smaller)


def test_suppress_against_torchvision() -> None:
    torch = pytest.importorskip("torch")
    ops = pytest.importorskip("torchvision").ops
    rng = np.random.default_rng(5)
    first = rng.random((900, 2)) * 300
    boxes = np.concatenate([first, first + 10 + rng.random((900, 2)) * 60], axis=1).astype(np.float32)
    scores = rng.random(900).astype(np.float32)
    kept = ops.nms(torch.as_tensor(boxes), torch.as_tensor(scores), 0.5).numpy()
    np.testing.assert_array_equal(_mtcnn.suppress(boxes, scores, 0.5), kept)


@pytest.mark.parametrize("ratio", [1.0, 1.1, 1.2, 1.41, 2.0])  # areas from 1 to 4, of which some are below 1 / 0.7
@pytest.mark.parametrize("within", [0.5, 0.9])
def test_levels_are_suppressed_as_one(ratio: float, within: float) -> None:
    rng = np.random.default_rng(7)
    levels = []
    for side in (20, 20 * ratio, 20 * ratio**2):
        first = rng.integers(0, 90, (60, 2))
        boxes = np.concatenate([first, first + round(side), rng.integers(0, 30, (60, 1)) / 30], axis=1)
        boxes = boxes.astype(np.float32)
        levels.append(boxes[_mtcnn.suppress(boxes[:, :4], boxes[:, 4], within)])
    levels.append(np.empty((0, 5), np.float32))
    boxes = np.concatenate(levels)
    expected = _mtcnn.suppress(boxes[:, :4], boxes[:, 4], 0.7)
    assert (len(expected) < len(boxes)) == (ratio < 1.2 or within > 0.7)
    np.testing.assert_array_equal(_mtcnn.suppress_levels(levels, within, 0.7), expected)


# Odd images


@pytest.mark.parametrize(
    "shape",
    [(0, 0), (0, 50), (1, 1), (1, 5000), (5000, 1), (13, 13), (19, 19), (20, 20), (13, 5000), (5000, 13)],
    ids=str,
)
def test_small_and_thin_images_have_no_faces(detector: Detector, shape: tuple[int, int]) -> None:
    assert detector(np.full((*shape, 3), 128, np.uint8)) == []


def test_thin_images_that_are_searched_have_no_faces(detector: Detector) -> None:
    search = Detector(device="cpu", threads=1, min_face_size=12)
    for shape in ((13, 5000), (5000, 13), (12, 12)):
        assert search(np.full((*shape, 3), 90, np.uint8)) == []


@pytest.mark.parametrize("value", [0, 255])
def test_flat_images_have_no_faces(detector: Detector, value: int) -> None:
    assert detector(np.full((300, 400, 3), value, np.uint8)) == []


def test_noise_has_no_faces(detector: Detector) -> None:
    assert detector(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)) == []


def test_views_are_read_as_they_look(detector: Detector, astronaut: UInt8Image) -> None:
    mirrored = astronaut[:, ::-1]
    assert same(detector(mirrored), detector(mirrored.copy()))
    assert len(detector(mirrored)) == 1
    frozen = astronaut.copy()
    frozen.flags.writeable = False
    assert same(detector(frozen), detector(astronaut))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((50, 50), np.uint8),
        np.zeros((50, 50, 4), np.uint8),
        np.zeros((50, 50, 3), np.float32),
        "photo.jpg",
        None,
    ],
    ids=["gray", "rgba", "float", "path", "none"],
)
def test_other_inputs_are_errors(detector: Detector, image: Any) -> None:
    with pytest.raises(UnsupportedImageError, match="uint8 RGB"):
        detector(image)


# Options


def test_faces_come_largest_first(detector: Detector, crowd: UInt8Image) -> None:
    faces = detector(crowd)
    assert len(faces) == 3
    assert areas(faces) == sorted(areas(faces), reverse=True)


def test_largest_and_max_faces(detector: Detector, crowd: UInt8Image) -> None:
    faces = detector(crowd)
    assert same(Detector(device="cpu", threads=1, largest=True)(crowd), faces[:1])
    assert same(Detector(device="cpu", threads=1, max_faces=2)(crowd), faces[:2])
    assert same(Detector(device="cpu", threads=1, max_faces=9)(crowd), faces)


def test_min_face_size(crowd: UInt8Image) -> None:
    assert len(Detector(device="cpu", threads=1, min_face_size=100)(crowd)) < 3
    assert Detector(device="cpu", threads=1, min_face_size=513)(crowd) == []


def test_pyramid_scales() -> None:
    # Sides 60, 30 and 15 after the first scale of 12 / 20; 7.5 is below the window.
    assert _mtcnn.pyramid_scales(100, 400, 20, 0.5) == pytest.approx([0.6, 0.3, 0.15])
    assert _mtcnn.pyramid_scales(20, 400, 20, 0.5) == pytest.approx([0.6])
    assert _mtcnn.pyramid_scales(19, 400, 20, 0.5) == []


def test_options_mean_what_they_mean_in_facenet_pytorch(crowd: UInt8Image) -> None:
    options: dict[str, Any] = {"min_face_size": 40, "thresholds": (0.7, 0.8, 0.9), "factor": 0.8}
    peer = pytest.importorskip("facenet_pytorch", exc_type=ImportError).MTCNN(keep_all=True, **options)
    assert assert_parity(Detector(device="cpu", threads=2, **options), peer, crowd, "crowd") >= 1


@pytest.mark.parametrize(
    "options",
    [
        {"min_face_size": 3},
        {"min_face_size": 20.0},
        {"min_face_size": True},
        {"thresholds": (0.6, 0.7)},
        {"thresholds": (0.6, 0.7, 1.0)},
        {"thresholds": (0.0, 0.7, 0.7)},
        {"thresholds": (0.6, float("nan"), 0.7)},
        {"factor": 1.0},
        {"factor": 0},
        {"factor": "0.7"},
        {"max_faces": 0},
        {"max_faces": 1.0},
        {"threads": 0},
        {"preset": "quick"},
        {"preset": None},
        {"preset": "fast", "min_face_size": 3},
        {"models": {"pnet": Path("pnet.onnx")}},
    ],
    ids=str,
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        Detector(device="cpu", **options)


def test_a_missing_model_file_is_named(tmp_path: Path) -> None:
    models = {name: tmp_path / f"{name}.onnx" for name in ("pnet", "rnet", "onet")}
    with pytest.raises(WeightsUnavailableError, match="pnet"):
        Detector(device="cpu", models=models)


# Determinism and threads


def test_the_same_image_gives_the_same_bits(detector: Detector, crowd: UInt8Image) -> None:
    first = detector(crowd)
    assert all(same(detector(crowd), first) for _ in range(3))
    assert same(Detector(device="cpu", threads=1)(crowd), first)
    assert same(Detector(device="cpu", threads=5)(crowd), first)


@pytest.mark.data
def test_threads_change_no_bit_of_photos(data_root: Path) -> None:
    photo = np.asarray(Image.open(data_root / "photos" / "solvay_1927.jpg").convert("RGB"))
    first = Detector(device="cpu", threads=1)(photo)
    assert len(first) >= 25
    for threads in (2, 3, 8):
        assert same(Detector(device="cpu", threads=threads)(photo), first)


def test_one_thread_is_the_callers(crowd: UInt8Image) -> None:
    before = set(threading.enumerate())
    Detector(device="cpu", threads=1)(crowd)
    assert set(threading.enumerate()) <= before
    detector = Detector(device="cpu", threads=3)
    detector(crowd)
    assert len(set(threading.enumerate()) - before) <= 2  # the caller is the third


def test_a_caller_does_not_wait_for_helpers_that_are_busy_elsewhere(crowd: UInt8Image) -> None:
    detector = Detector(device="cpu", threads=2)
    expected = detector(crowd)
    release = threading.Event()
    assert detector._pool is not None
    busy = detector._pool.submit(release.wait)
    try:
        assert same(detector(crowd), expected)
        assert not busy.done()
    finally:
        release.set()


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_of_any_piece_reaches_the_caller(threads: int) -> None:
    detector = Detector(device="cpu", threads=threads)
    done = []

    def work(item: int) -> int:
        if item == 3:
            raise ZeroDivisionError
        done.append(item)
        return item

    assert detector._share(work, [5, 6, 7]) == [5, 6, 7]
    with pytest.raises(ZeroDivisionError):
        detector._share(work, list(range(1000)))
    count = len(done)
    assert detector._share(work, []) == []
    assert len(done) == count  # nothing goes on behind the caller's back


def test_threads_share_a_detector(detector: Detector, crowd: UInt8Image, astronaut: UInt8Image) -> None:
    images = [crowd, astronaut, crowd[:, ::-1], astronaut[:300]] * 3
    alone = [detector(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(detector, images))
    assert all(same(a, b) for a, b in zip(alone, together, strict=True))


# Presets


def test_a_preset_gives_what_is_not_given(crowd: UInt8Image) -> None:
    fast = PRESETS["fast"]
    assert PRESETS["exact"] == Preset(20, (0.6, 0.7, 0.7), 0.709)
    options: dict[str, Any] = {
        "min_face_size": fast.min_face_size,
        "thresholds": fast.thresholds,
        "factor": fast.factor,
    }
    expected = Detector(device="cpu", threads=1, **options)(crowd)
    assert same(Detector(device="cpu", threads=1, preset="fast")(crowd), expected)
    usual: dict[str, Any] = {"min_face_size": 20, "thresholds": (0.6, 0.7, 0.7), "factor": 0.709}
    found = Detector(device="cpu", threads=1, preset="fast", **usual)(crowd)  # explicit values win
    assert same(found, Detector(device="cpu", threads=1)(crowd))
    assert not same(found, expected)


@pytest.mark.data
def test_fast_finds_nearly_all_larger_faces_of_photos(data_root: Path, detector: Detector) -> None:
    fast = Detector(device="cpu", threads=2, preset="fast")
    total = found = 0
    for path in sorted((data_root / "photos").iterdir()):
        photo = np.asarray(Image.open(path).convert("RGB"))
        boxes = np.array([face.box for face in fast(photo)]).reshape(-1, 4)
        large = [face.box for face in detector(photo) if (face.box[2:] - face.box[:2]).min() >= 40]
        total += len(large)
        found += sum(overlap(box, boxes).max(initial=0) >= 0.5 for box in large)
    assert total >= 30
    assert found >= 0.97 * total


def overlap(box: Float32, boxes: Float32) -> Float32:
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = np.maximum(sides, 0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    ratio: Float32 = shared / ((box[2:] - box[:2]).prod() + areas - shared)
    return ratio


# Export


def test_the_bundled_files_are_what_the_export_writes() -> None:
    export = pytest.importorskip("fevertools.train.export_mtcnn", exc_type=ImportError)
    pytest.importorskip("facenet_pytorch", exc_type=ImportError)
    for name, data in export.export().items():
        assert (export.DEFAULT_OUTPUT / name).read_bytes() == data, name


def test_the_export_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    export = pytest.importorskip("fevertools.train.export_mtcnn", exc_type=ImportError)
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(export.MissingExtraError, match="facenet-pytorch"):
        export.read_weights()
