import gc
import io
import itertools
import os
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("onnx")

from fevertools import pipeline
from fevertools.align import crop_face
from fevertools.errors import (
    DeviceUnavailableError,
    FevertoolsError,
    ImageError,
    OptionError,
    UnknownWeightsError,
    UnreadableImageError,
    WeightsIntegrityError,
)
from fevertools.image import Picture, load, load_reduced
from fevertools.labels import EMOTIONS
from fevertools.manifest import Manifest, load_manifest
from fevertools.pipeline import LOOK_AHEAD, Analyzer, shared_analyzer
from fevertools.preprocess import fit_crop, to_luminance
from fevertools.streaming import READ_AHEAD, Progress
from fevertools.types import Face
from tests._tiny import DIMENSION, HEAD, reference, reference_similarity, write_weights
from tests.cli.conftest import ROOT

FACE = np.array([[40, 52], [63, 51], [52, 66], [43, 79], [60, 80]], np.float32)


class FakeDetector:
    """As many faces as the first pixel says, each a little further to the right."""

    made = 0

    def __init__(self, **options):
        type(self).made += 1
        self.options = options
        time.sleep(0.05)  # long enough for a second thread to come in

    def __call__(self, image):
        return [
            Face(np.array([20 + i, 20, 80 + i, 95], np.float32), 0.9, FACE + np.float32([i, 0]))
            for i in range(int(image[0, 0, 0]))
        ]


@pytest.fixture
def detector(monkeypatch):
    monkeypatch.setattr(FakeDetector, "made", 0)
    monkeypatch.setattr(pipeline, "Detector", FakeDetector)
    return FakeDetector


@pytest.fixture
def analyzer(tiny_weights, detector):
    with Analyzer(tiny_weights, device="cpu", threads=1) as made:
        yield made


def picture(faces, seed=0):
    image = np.random.default_rng(seed).integers(0, 256, (120, 130, 3), np.uint8)
    image[0, 0] = faces
    return image


def expected(image, analyzer):
    """Embeddings and logits by the parts, without the Analyzer."""
    crops = [crop_face(image, face.landmarks, analyzer.entry.geometry) for face in FakeDetector()(image)]
    return reference(np.stack([to_luminance(crop)[:, :, None] for crop in crops]))


def test_one_image_goes_through_all_parts(analyzer):
    image = picture(3)
    embeddings, logits = expected(image, analyzer)
    result = analyzer.analyze(image)
    assert result.source is image
    assert result.error is None
    assert np.allclose([face.embedding for face in result.faces], embeddings, atol=1e-5)
    assert [face.expression.label for face in result.faces] == [EMOTIONS[i] for i in logits.argmax(1)]
    assert np.array_equal(result.faces[2].face.landmarks, FACE + np.float32([2, 0]))
    assert np.array_equal(analyzer.embed(image), [face.embedding for face in result.faces])
    assert analyzer.embed(image).dtype == np.float32
    assert analyzer.classify(image) == [face.expression for face in result.faces]
    assert len(analyzer.detect(image)) == 3


def test_bgr_is_turned(analyzer):
    image = picture(2)
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    assert np.array_equal(analyzer.embed(bgr, color="bgr"), analyzer.embed(image))
    assert not np.allclose(analyzer.embed(bgr), analyzer.embed(image), atol=1e-3)


def test_no_face_is_no_error(analyzer):
    image = picture(0)
    assert analyzer.embed(image).shape == (0, DIMENSION)
    assert analyzer.embed(image).dtype == np.float32
    assert analyzer.classify(image) == []
    assert analyzer.analyze(image).faces == ()
    assert analyzer.detect(image) == []


def test_cropped_is_the_whole_image_without_detection(analyzer, detector):
    image = picture(3)
    (face,) = analyzer.analyze(image, cropped=True).faces
    assert np.array_equal(face.face.box, [0, 0, 130, 120])
    assert face.face.score == 1.0
    assert np.allclose(face.face.landmarks, analyzer.entry.geometry.template() * [130 / 48, 120 / 48], atol=1e-4)
    crop = to_luminance(fit_crop(image, analyzer.entry.geometry))
    assert np.allclose(face.embedding, reference(crop[None, :, :, None])[0][0], atol=1e-5)
    list(analyzer.stream([image] * 3, cropped=True))
    assert detector.made == 0


def test_options_reach_the_detector(tiny_weights, detector):
    options = {"min_face_size": 33, "thresholds": (0.5, 0.6, 0.7), "max_faces": 2, "largest": True}
    analyzer = Analyzer(tiny_weights, device="cpu", threads=3, **options)
    analyzer.detect(picture(1))
    got = analyzer._made_detector(alone=True, factor=1).options
    assert options | {"preset": "exact", "device": "cpu", "threads": 3, "providers": None} == {
        k: v for k, v in got.items() if k != "models"
    }
    assert {role: path.name for role, path in got["models"].items()} == {
        "pnet": "mtcnn_pnet.onnx",
        "rnet": "mtcnn_rnet.onnx",
        "onet": "mtcnn_onet.onnx",
    }


def test_flip_and_batch_size_reach_the_encoder(tiny_weights, detector):
    image = picture(1)
    crop = to_luminance(fit_crop(image, Analyzer(tiny_weights).entry.geometry))[None, :, :, None]
    flipped = (reference(crop)[0] + reference(crop[:, :, ::-1])[0]) / 2
    assert np.allclose(Analyzer(tiny_weights, flip=True).embed(image, cropped=True), flipped, atol=1e-5)
    analyzer = Analyzer(tiny_weights, batch_size=2)
    assert np.allclose(analyzer.embed(picture(5)), expected(picture(5), analyzer)[0], atol=1e-5)
    assert analyzer._made_encoder().batch_size == 2


def test_coinciding_landmarks_fall_back_to_the_box(analyzer, monkeypatch):
    image = picture(1)
    box = np.array([30, 25, 78, 73], np.float32)  # 48 x 48, so its content is the crop itself
    point = Face(box, 0.9, np.full((5, 2), 50, np.float32))
    monkeypatch.setattr(FakeDetector, "__call__", lambda *_: [point])
    (face,) = analyzer.analyze(image).faces
    assert face.face is point
    crop = to_luminance(image[25:73, 30:78])[None, :, :, None]
    assert np.allclose(face.embedding, reference(crop)[0][0], atol=2e-3)


def test_parts_are_made_once_and_shared_by_threads(analyzer, detector, monkeypatch):
    made = []
    encoder = pipeline.Encoder
    monkeypatch.setattr(pipeline, "Encoder", lambda *a, **k: made.append(1) or encoder(*a, **k))
    images = [picture(i % 4, seed=i) for i in range(64)]
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(analyzer.analyze, images))
    assert (detector.made, len(made)) == (1, 1)
    for image, result in zip(images, parallel, strict=True):
        again = analyzer.analyze(image)
        assert [f.expression for f in result.faces] == [f.expression for f in again.faces]
        assert all(np.array_equal(a.embedding, b.embedding) for a, b in zip(result.faces, again.faces, strict=True))


def test_similarity_is_on_the_head_where_there_is_one(triplet_weights, tiny_weights):
    a, b = reference(np.stack([picture(1, seed)[:48, :48, :1] for seed in (1, 2)]))[0].astype(np.float32)
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    with Analyzer(triplet_weights) as analyzer:
        assert analyzer.similarity(a, b) == pytest.approx(reference_similarity(a, b), abs=1e-6)
        assert analyzer.similarity(a, b, metric="triplet") == analyzer.similarity(a, b)
        assert analyzer.similarity(a, b, metric="cosine") == pytest.approx(cosine, abs=1e-6)
        assert abs(reference_similarity(a, b) - cosine) > 0.05
        assert np.allclose(analyzer.similarity([a, b], a), [1, reference_similarity(a, b)], atol=1e-6)
        with pytest.raises(OptionError, match=r"5 dimensions.*takes 16.*whose weights made them"):
            analyzer.similarity(np.ones(5), np.ones(5))
        with pytest.raises(OptionError, match="'dot'; known: triplet, cosine"):
            analyzer.similarity(a, b, metric="dot")
        assert analyzer._encoders == {}
    with Analyzer(tiny_weights) as analyzer:
        assert analyzer.similarity(a, b) == pytest.approx(cosine, abs=1e-6)
        assert analyzer.similarity(a, b, metric="cosine") == analyzer.similarity(a, b)
        with pytest.raises(OptionError, match=r"tiny has no triplet head; weights that have one: .*metric='cosine'"):
            analyzer.similarity(a, b, metric="triplet")


def test_weights_with_a_head_are_named(tiny_weights, triplet_weights, monkeypatch):
    own, tiny = load_manifest(), load_manifest(triplet_weights).named("tiny")
    manifest = Manifest(own.default, {"mtcnn": own.named("mtcnn"), "first": tiny, "second": tiny})
    monkeypatch.setattr(pipeline, "load_manifest", lambda path=None: manifest if path is None else load_manifest(path))
    with pytest.raises(OptionError, match=r"tiny has no triplet head; weights that have one: first, second\."):
        Analyzer(tiny_weights).similarity(np.ones(DIMENSION), np.ones(DIMENSION), metric="triplet")


def test_the_head_is_read_once_at_first_use(triplet_weights, monkeypatch):
    read = []
    load_head = pipeline.load_head
    monkeypatch.setattr(pipeline, "load_head", lambda *a, **k: read.append(time.sleep(0.05)) or load_head(*a, **k))
    analyzer = Analyzer(triplet_weights)
    vectors = np.random.default_rng(0).normal(size=(3, DIMENSION))
    analyzer.similarity(vectors, vectors, metric="cosine")
    assert read == []
    with ThreadPoolExecutor(8) as pool:
        tables = list(pool.map(lambda _: analyzer.similarity(vectors, vectors), range(16)))
    assert len(read) == 1
    assert all(np.array_equal(table, tables[0]) for table in tables)
    analyzer.close()
    for metric in (None, "triplet", "cosine"):
        with pytest.raises(FevertoolsError, match="closed; make a new one"):
            analyzer.similarity(vectors, vectors, metric=metric)


def test_a_broken_head_is_not_passed_over(tmp_path):
    analyzer = Analyzer(write_weights(tmp_path, head=HEAD))
    np.save(tmp_path / "tiny-triplet.npy", HEAD + 1)
    with pytest.raises(WeightsIntegrityError, match="SHA-256"):
        analyzer.similarity(np.ones(DIMENSION), np.ones(DIMENSION))


def test_a_closed_analyzer_says_so(tiny_weights, detector):
    analyzer = Analyzer(tiny_weights)
    with analyzer:
        stream = analyzer.stream([picture(1)] * 50)
        next(stream)
    analyzer.close()
    image = picture(1)
    for use in (analyzer.detect, analyzer.embed, analyzer.classify, analyzer.analyze, analyzer.stream):
        with pytest.raises(FevertoolsError, match="closed; make a new one"):
            use([image] if use == analyzer.stream else image)
    with pytest.raises(FevertoolsError, match="closed"):
        analyzer.embed(image, cropped=True)
    with pytest.raises(FevertoolsError, match="closed"):
        list(stream)
    with pytest.raises(FevertoolsError, match="closed"), analyzer:
        pass


def test_unknown_weights_are_refused_at_once():
    with pytest.raises(UnknownWeightsError, match="'nothing'"):
        Analyzer("nothing")
    with pytest.raises(UnknownWeightsError, match="'mtcnn'"):
        Analyzer("mtcnn")


@pytest.mark.parametrize("batch_size", [0, 1.5, True])
def test_other_batch_sizes_are_refused_at_once(batch_size):
    with pytest.raises(OptionError, match="batch_size"):
        Analyzer(batch_size=batch_size)


# --- stream


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_stream_equals_one_by_one_and_keeps_order(tiny_weights, detector, batch_size):
    images = [picture(i * 7 % 5, seed=i) for i in range(45)]
    with Analyzer(tiny_weights, device="cpu", batch_size=batch_size) as analyzer:
        results = list(analyzer.stream(iter(images)))
        assert all(result.source is image for result, image in zip(results, images, strict=True))
        for image, result in zip(images, results, strict=True):
            embeddings = analyzer.embed(image)
            assert len(result.faces) == len(embeddings) == image[0, 0, 0]
            for face, embedding in zip(result.faces, embeddings, strict=True):
                assert np.allclose(face.embedding, embedding, atol=1e-5)


@pytest.mark.parametrize("threads", [2, 4])
def test_images_side_by_side_give_the_same_bits_in_order(tiny_weights, detector, threads):
    images = [picture(i * 7 % 5, seed=i) for i in range(60)]
    images[20] = b"broken"

    def facts(results):
        return [
            [(face.face.box.tobytes(), face.embedding.tobytes(), face.expression) for face in result.faces]
            for result in results
        ]

    with Analyzer(tiny_weights, device="cpu", threads=1) as analyzer:
        serial = facts(analyzer.stream(images))
        crops = facts(analyzer.stream(images[:20], cropped=True))
    with Analyzer(tiny_weights, device="cpu", threads=threads) as analyzer:
        results = list(analyzer.stream(images))
        assert facts(results) == serial
        assert all(result.source is image for result, image in zip(results, images, strict=True))
        assert facts(analyzer.stream(images[:20], cropped=True)) == crops


def test_workers_of_a_stream_have_one_thread_each(tiny_weights, detector):
    with Analyzer(tiny_weights, device="cpu", threads=3) as analyzer:
        stream = analyzer.stream(picture(1, seed=i) for i in itertools.count())
        next(stream)
        assert len(working_threads()) == 3
        assert [made.options["threads"] for made in analyzer._detectors.values()] == [1]
        assert list(analyzer._encoders) == [1]
        stream.close()
        analyzer.embed(picture(1))  # alone, so with all threads
        assert [made.options["threads"] for made in analyzer._detectors.values()] == [1, 3]
        assert list(analyzer._encoders) == [1, 3]


def test_one_image_has_all_threads(tiny_weights, detector):
    with Analyzer(tiny_weights, device="cpu", threads=3) as analyzer:
        for images in ([picture(1)], (picture(1) for _ in range(1))):
            assert len(list(analyzer.stream(images))) == 1
        assert [made.options["threads"] for made in analyzer._detectors.values()] == [3]
        assert list(analyzer._encoders) == [3]


def test_a_gpu_is_shared_by_the_workers(tiny_weights, detector, monkeypatch):
    """Its memory is not taken twice."""
    monkeypatch.setattr(pipeline, "runs_on_cpu", lambda device, providers: False)
    with Analyzer(tiny_weights, device="cpu", threads=2) as analyzer:
        list(analyzer.stream([picture(1)] * 3))
        analyzer.embed(picture(1))
        assert list(analyzer._encoders) == [2]
        assert detector.made == 1


THREADS = """
import os, sys, threading
import numpy as np
import fevertools

def tasks():
    return len(os.listdir("/proc/self/task"))

crops = np.random.default_rng(0).integers(0, 256, (200, 90, 80), np.uint8)
before, most, lock = tasks(), 0, threading.Lock()

def run(cropped):
    global most
    with fevertools.Analyzer(device="cpu", threads=1) as analyzer:
        for _ in analyzer.stream(crops[: 200 if cropped else 40], cropped=cropped):
            with lock:
                most = max(most, tasks())

own = [threading.Thread(target=run, args=(i % 2 == 0,)) for i in range(4)]
for thread in own: thread.start()
for thread in own: thread.join()
print(most - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="reads /proc")
def test_four_analyzers_of_one_thread_have_four_workers():
    """Threads of any library count: their callers', and one worker for each."""
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=True, cwd=ROOT)
    assert 4 < int(done.stdout) <= 8


def test_few_pixels_are_searched_at_once(tiny_weights, detector, monkeypatch):
    """Two pictures of 15,600 pixels fit into the room for 40,000, three do not."""
    monkeypatch.setattr(pipeline, "_PIXELS_AT_ONCE", 40_000)
    most, running, lock = 0, 0, threading.Lock()
    find = FakeDetector.__call__

    def slow(self, image):
        nonlocal most, running
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return find(self, image)

    monkeypatch.setattr(FakeDetector, "__call__", slow)
    with Analyzer(tiny_weights, device="cpu", threads=4) as analyzer:
        assert len(list(analyzer.stream(picture(1, seed=i) for i in range(24)))) == 24
    assert most == 2


def test_faces_of_several_images_share_a_run(analyzer, monkeypatch):
    runs = []
    encode = pipeline.Encoder.encode
    monkeypatch.setattr(
        pipeline.Encoder, "encode", lambda self, crops, **k: runs.append(len(crops)) or encode(self, crops, **k)
    )
    list(analyzer.stream(picture(2, seed=i) for i in range(40)))
    assert runs == [2 * LOOK_AHEAD, 2 * LOOK_AHEAD, 2 * (40 - 2 * LOOK_AHEAD)]


def test_stream_reads_no_further_than_it_says(analyzer):
    read = 0

    def source():
        nonlocal read
        for i in itertools.count():
            read += 1
            yield picture(1, seed=i)

    stream = analyzer.stream(source())
    assert read == 0
    for given in range(1, 60):
        next(stream)
        assert read <= given + 2 * (LOOK_AHEAD + READ_AHEAD)
    stream.close()


def test_stream_keeps_few_pictures(analyzer, monkeypatch):
    alive, most = [], 0

    def counting_load(image, factor, **options):
        nonlocal most
        loaded = load_reduced(image, factor, **options).pixels.copy()
        alive.append(weakref.ref(loaded))
        gc.collect()
        most = max(most, sum(ref() is not None for ref in alive))
        return Picture(loaded)

    monkeypatch.setattr(pipeline, "load_reduced", counting_load)
    assert len(list(analyzer.stream(picture(1, seed=i) for i in range(80)))) == 80
    assert most == 1  # for each worker


def working_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fevertools-worker")]


def test_closing_early_stops_the_threads(analyzer):
    stream = analyzer.stream(picture(1, seed=i) for i in itertools.count())
    next(stream)
    assert working_threads()
    stream.close()
    assert not working_threads()


def test_a_finished_or_failed_stream_leaves_no_threads(analyzer):
    list(analyzer.stream([picture(1)]))
    assert not working_threads()
    with pytest.raises(ImageError):
        list(analyzer.stream([picture(1), b"broken"], on_error="raise"))
    assert not working_threads()


def test_a_broken_image_is_skipped_with_its_error(analyzer, tmp_path):
    missing = tmp_path / "missing.png"
    images = [picture(1), b"not an image", picture(2), missing, np.zeros((4, 4, 7), np.uint8), picture(1)]
    results = list(analyzer.stream(images))
    assert [len(result.faces) for result in results] == [1, 0, 2, 0, 0, 1]
    assert [type(result.error).__name__ for result in results] == [
        "NoneType",
        "UnreadableImageError",
        "NoneType",
        "UnreadableImageError",
        "UnsupportedImageError",
        "NoneType",
    ]
    assert results[3].source is missing
    # Frames would keep the bytes that could not be read.
    assert results[1].error.__traceback__ is None


def test_raise_gives_what_came_before_first(analyzer):
    results = []
    with pytest.raises(UnreadableImageError):
        results.extend(analyzer.stream([picture(1), picture(2), b"broken", picture(1)], on_error="raise"))
    assert [len(result.faces) for result in results] == [1, 2]


@pytest.mark.parametrize("count", [0, 3, LOOK_AHEAD + 3])
def test_a_failing_source_gives_what_came_before_first(analyzer, count):
    def source():
        for i in range(count):
            yield picture(1, seed=i)
        raise KeyError("the caller's own")

    results = []
    with pytest.raises(KeyError, match="own"):
        results.extend(analyzer.stream(source()))
    assert [len(result.faces) for result in results] == [1] * count
    assert not working_threads()


def test_the_source_is_iterated_in_the_callers_thread(analyzer):
    def source():
        for i in range(30):
            assert threading.current_thread() is threading.main_thread()
            yield picture(1, seed=i)

    assert len(list(analyzer.stream(source()))) == 30


def test_empty_stream(analyzer):
    assert list(analyzer.stream([])) == []


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ("photo.jpg", {}, "use analyze"),
        (b"bytes", {}, "use analyze"),
        (7, {}, "use analyze"),
        (np.zeros((9, 9, 3), np.uint8), {}, "is one image"),
        (np.zeros((9, 9), np.uint8), {}, "is one image"),
        ([], {"on_error": "ignore"}, "on_error"),
    ],
)
def test_stream_refuses_at_the_call(analyzer, images, options, message):
    with pytest.raises(OptionError, match=message):
        analyzer.stream(images, **options)


def test_a_stack_of_crops_is_a_stream(analyzer):
    assert len(list(analyzer.stream(np.zeros((5, 48, 48), np.uint8), cropped=True))) == 5


# --- progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_shown_on_a_terminal_only(analyzer, monkeypatch):
    images = [picture(1)] * 3
    for shown, stream, expected_text in ((True, Terminal(), "3/3 images"), (False, Terminal(), ""), (True, None, "")):
        monkeypatch.setattr(sys, "stderr", stream)
        list(analyzer.stream(images, progress=shown))
        if stream is not None:
            text = stream.getvalue()
            assert (expected_text in text) if expected_text else text == ""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    list(analyzer.stream(images, progress=True))
    assert sys.stderr.getvalue() == ""


def test_progress_tells_rate_and_time_left():
    line = Progress(1000, shown=False)
    for _ in range(128):
        line.advance()
    assert line.line(4.0) == "  128/1000 images  32.0/s  27 s left"
    unknown = Progress(None, shown=False)
    unknown.advance()
    assert unknown.line(0.5) == "    1 images  2.0/s"


# --- the shared Analyzers


def test_shared_analyzers_are_few_and_kept(detector, monkeypatch):
    monkeypatch.setattr(pipeline, "_shared", type(pipeline._shared)())
    first = shared_analyzer(min_face_size=20)
    assert shared_analyzer(min_face_size=20) is first
    others = [shared_analyzer(min_face_size=size) for size in (30, 40, 50)]
    assert shared_analyzer(min_face_size=20) is first  # used last, so it stays
    shared_analyzer(min_face_size=60)
    assert shared_analyzer(min_face_size=20) is first
    assert shared_analyzer(min_face_size=30) is not others[0]
    assert len(pipeline._shared) == 4
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: shared_analyzer(min_face_size=70), range(32)))) == 1


# --- with the real detector


@pytest.mark.data
def test_a_photo_goes_through_the_real_parts(tiny_weights, data_root):
    path = data_root / "photos" / "astronaut.png"
    with Analyzer(tiny_weights, device="cpu") as analyzer:
        (face,) = analyzer.detect(path)
        assert np.allclose(face.box, [181, 62, 268, 172], atol=3)
        (result,) = analyzer.analyze(path).faces
        crop = to_luminance(crop_face(load(path), face.landmarks, analyzer.entry.geometry))
        assert np.allclose(result.embedding, reference(crop[None, :, :, None])[0][0], atol=1e-5)
        assert analyzer.embed(np.zeros((60, 60, 3), np.uint8)).shape == (0, DIMENSION)


def test_providers_reach_both_networks(tiny_weights):
    analyzer = Analyzer(tiny_weights, providers=["NoSuchExecutionProvider"])
    with pytest.raises(DeviceUnavailableError, match="NoSuchExecutionProvider"):
        analyzer.detect(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(DeviceUnavailableError, match="NoSuchExecutionProvider"):
        analyzer.embed(np.zeros((64, 64, 3), np.uint8), cropped=True)
