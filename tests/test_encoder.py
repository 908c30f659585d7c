import copy
import json
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from onnx import TensorProto

from fevertools.encoder import Encoder, express, express_each, softmax
from fevertools.errors import ManifestError, OptionError, WeightsIntegrityError, WeightsUnavailableError
from fevertools.labels import EMOTIONS
from fevertools.manifest import load_manifest
from fevertools.pipeline import Analyzer
from fevertools.weights import resolve
from tests._tiny import DIMENSION, file_entry, manifest_value, reference, write_weights


def make(path, **options):
    entry = load_manifest(path).entry(None, "encoder")
    return Encoder(entry, resolve(entry), device="cpu", **options)


def random_crops(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 48, 48, 1), np.uint8)


@pytest.fixture(scope="module")
def encoder(tiny_weights):
    return make(tiny_weights, threads=1)


def test_it_equals_the_network_in_numpy(encoder):
    crops = random_crops(5)
    encoding = encoder.encode(crops)
    embeddings, logits = reference(crops)
    assert encoding.embeddings.dtype == encoding.logits.dtype == np.float32
    assert np.allclose(encoding.embeddings, embeddings, atol=1e-5)
    assert np.allclose(encoding.logits, logits, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
def test_batches_do_not_show(tiny_weights, batch_size):
    crops = random_crops(7)
    encoding = make(tiny_weights, batch_size=batch_size).encode(crops)
    assert np.allclose(encoding.embeddings, reference(crops)[0], atol=1e-5)


def test_flip_is_the_mean_over_the_mirror_image(tiny_weights):
    crops = random_crops(4)
    encoding = make(tiny_weights, batch_size=3).encode(crops, flip=True)
    plain, mirrored = reference(crops), reference(crops[:, :, ::-1])
    assert np.allclose(encoding.embeddings, (plain[0] + mirrored[0]) / 2, atol=1e-5)
    assert np.allclose(encoding.logits, (plain[1] + mirrored[1]) / 2, atol=1e-5)
    assert not np.allclose(encoding.logits, plain[1], atol=1e-2)


@pytest.mark.parametrize("flip", [False, True])
def test_no_crops_give_empty_arrays(encoder, flip):
    encoding = encoder.encode(random_crops(0), flip=flip)
    assert encoding.embeddings.shape == (0, DIMENSION)
    assert encoding.logits.shape == (0, 8)


def test_threads_share_a_session(encoder):
    crops = [random_crops(6, seed) for seed in range(40)]
    serial = [encoder.encode(c).embeddings for c in crops]
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(lambda c: encoder.encode(c).embeddings, crops))
    assert all(np.array_equal(a, b) for a, b in zip(serial, parallel, strict=True))


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_the_caller_works_too(tiny_weights, count):
    """Where all workers are busy, what was left to them is taken back."""
    encoder = make(tiny_weights, threads=3)
    crops, busy = random_crops(count), threading.Event()
    waiting = [encoder._pool.submit(busy.wait) for _ in range(2)]
    try:
        assert np.array_equal(encoder.encode(crops).embeddings, make(tiny_weights, threads=1).encode(crops).embeddings)
        assert not any(future.done() for future in waiting)
    finally:
        busy.set()


@pytest.mark.parametrize(("threads", "count", "batch_size", "runs"), [(1, 40, 64, [8] * 5), (1, 9, 4, [4, 4, 1]),
    (4, 4, 64, [1] * 4), (4, 6, 64, [2] * 3), (4, 100, 64, [8] * 12 + [4]), (2, 0, 64, [])])  # fmt: skip
def test_crops_are_shared_out(tiny_weights, monkeypatch, threads, count, batch_size, runs):
    """So many that a core's cache holds them, and fewer where otherwise a thread would have none."""
    encoder, taken = make(tiny_weights, threads=threads, batch_size=batch_size), []
    one_run = encoder._one_run
    monkeypatch.setattr(encoder, "_one_run", lambda crops, *rest: taken.append(len(crops)) or one_run(crops, *rest))
    crops = random_crops(count)
    assert np.allclose(encoder.encode(crops).embeddings, reference(crops)[0], atol=1e-5)
    assert sorted(taken, reverse=True) == runs


def test_an_error_in_a_worker_reaches_the_caller(tiny_weights, monkeypatch):
    encoder = make(tiny_weights, threads=2)
    one_run, here = encoder._one_run, threading.get_ident()

    def fail_elsewhere(crops, *rest):
        if threading.get_ident() != here:
            raise WeightsIntegrityError("elsewhere")
        time.sleep(0.05)  # so that the other gets some
        return one_run(crops, *rest)

    monkeypatch.setattr(encoder, "_one_run", fail_elsewhere)
    with pytest.raises(WeightsIntegrityError, match="elsewhere"):
        encoder.encode(random_crops(32))


def test_the_precision_chooses_the_graph(int8_weights):
    crops = random_crops(3)
    for precision, factor in (("float32", 1), ("int8", 2)):
        embeddings = make(int8_weights, precision=precision).encode(crops).embeddings
        assert np.allclose(embeddings, factor * reference(crops)[0], atol=1e-5)


def test_an_analyzer_reads_the_graph_of_its_precision_alone(tmp_path):
    manifest = write_weights(tmp_path, int8=True)
    (tmp_path / "tiny.onnx").unlink()
    crop = random_crops(1)[0, :, :, 0]
    with Analyzer(manifest, precision="int8", device="cpu") as analyzer:
        assert np.allclose(analyzer.embed(crop, cropped=True), 2 * reference(crop[None, ..., None])[0], atol=1e-5)
    with Analyzer(manifest, device="cpu") as analyzer, pytest.raises(WeightsUnavailableError, match="missing"):
        analyzer.embed(crop, cropped=True)


def test_weights_without_that_precision_say_so(tiny_weights):
    with pytest.raises(OptionError, match="tiny has no int8 graph; it has: float32"):
        make(tiny_weights, precision="int8")
    with Analyzer(tiny_weights, precision="int8") as analyzer, pytest.raises(OptionError, match="no int8 graph"):
        analyzer.embed(random_crops(1)[0, :, :, 0], cropped=True)
    with pytest.raises(OptionError, match="no precision named 'float16'; known: float32, int8"):
        Analyzer(tiny_weights, precision="float16")


@pytest.mark.parametrize(
    "crops",
    [
        np.zeros((2, 48, 48), np.uint8),
        np.zeros((2, 1, 48, 48), np.uint8),
        np.zeros((2, 47, 48, 1), np.uint8),
        np.zeros((2, 48, 48, 3), np.uint8),
        np.zeros((2, 48, 48, 1), np.float32),
    ],
)
def test_other_crops_are_refused(encoder, crops):
    with pytest.raises(OptionError, match=r"uint8 \(N, 48, 48, 1\), got"):
        encoder.encode(crops)


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, True, "8"])
def test_other_batch_sizes_are_refused(tiny_weights, batch_size):
    with pytest.raises(OptionError, match="batch_size"):
        make(tiny_weights, batch_size=batch_size)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ({"size": 24}, r"crops tensor\(uint8\) \[N, 24, 24, 1\] where .* crops tensor\(uint8\) \[N, 48, 48, 1\]"),
        ({"dimension": 12}, r"embedding tensor\(float\) \[N, 12\] where .* \[N, 16\]"),
        ({"input_name": "image"}, "image .* where .* crops"),
        ({"input_type": TensorProto.FLOAT}, r"tensor\(float\) .* where .*tensor\(uint8\)"),
    ],
)
def test_a_graph_that_differs_from_its_entry_is_refused(tmp_path, graph, message):
    with pytest.raises(WeightsIntegrityError, match=message):
        make(write_weights(tmp_path, **graph))


def test_a_detector_is_no_encoder():
    entry = load_manifest().entry(None, "detector")
    with pytest.raises(ManifestError, match="an encoder is needed"):
        Encoder(entry, resolve(entry))


def test_numbers_that_are_not_finite_are_refused(tiny_weights, monkeypatch):
    encoder = make(tiny_weights)
    monkeypatch.setattr(encoder, "_run", lambda crops: [np.full((len(crops), DIMENSION), np.nan), np.zeros((1, 8))])
    with pytest.raises(WeightsIntegrityError, match="not finite"):
        encoder.encode(random_crops(1))


def two_a_crop(model):
    """Pools each crop to twice the numbers that the matrix takes, and so gives two rows for it."""
    pool = next(node for node in model.graph.node if node.op_type == "AveragePool")
    for attribute in pool.attribute:
        attribute.ints[:] = [8, 4]


def four_to_one(model):
    """Takes four crops for one large one."""
    planes = next(item for item in model.graph.initializer if item.name == "planes")
    planes.CopyFrom(onnx.numpy_helper.from_array(np.array([-1, 1, 96, 96], np.int64), "planes"))


def test_a_graph_with_a_broken_name_is_refused(tmp_path):
    manifest = write_weights(tmp_path)
    model = onnx.load(tmp_path / "tiny.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "axis"
    data = model.SerializeToString()
    assert data.count(b"axis") == 1
    (tmp_path / "tiny.onnx").write_bytes(data.replace(b"axis", b"\xfe\xff\xfe\xff"))
    manifest.write_text(json.dumps(manifest_value(file_entry(tmp_path / "tiny.onnx"))), "utf-8")
    with pytest.raises(WeightsIntegrityError, match="not UTF-8"):
        make(manifest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (two_a_crop, r"tiny gives \[\(4, 16\), \(4, 8\)\] for 2 crops, not \[\(2, 16\), \(2, 8\)\]"),
        (four_to_one, "ONNX Runtime cannot run tiny: .*smaller batch_size"),
    ],
)
def test_a_graph_that_fails_when_it_runs(tmp_path, change, message):
    manifest = write_weights(tmp_path)
    model = onnx.load(tmp_path / "tiny.onnx")
    change(model)
    onnx.save(model, tmp_path / "tiny.onnx")
    manifest.write_text(json.dumps(manifest_value(file_entry(tmp_path / "tiny.onnx"))), "utf-8")
    with pytest.raises(WeightsIntegrityError, match=f"(?s){message}"):
        make(manifest, threads=1).encode(random_crops(2))


def test_softmax_closed_forms():
    assert np.allclose(softmax(np.log([[1.0, 2.0, 5.0]])), [[0.125, 0.25, 0.625]], atol=1e-15)
    assert np.array_equal(softmax(np.array([1e30, 0, -1e30], np.float32)), [1, 0, 0])
    assert softmax(np.zeros((2, 3, 4), np.float32)).dtype == np.float64


def test_expression_closed_forms():
    uniform = express(np.full(8, 3.5, np.float32), EMOTIONS)
    assert uniform.entropy == pytest.approx(math.log(8), abs=1e-12)
    assert uniform.label == "neutral"

    certain = express(np.eye(8)[6] * 1e4, EMOTIONS)
    assert certain.label == "fear"
    assert certain.probabilities["fear"] == 1.0
    assert math.copysign(1, certain.entropy) == 1
    assert certain.entropy == 0

    p = np.array([0.5, 0.25, 0.125, 0.125 / 5, 0.125 / 5, 0.125 / 5, 0.125 / 5, 0.125 / 5])
    mixed = express(np.log(p) + 40, EMOTIONS)
    assert tuple(mixed.probabilities) == EMOTIONS
    assert np.allclose(list(mixed.probabilities.values()), p, atol=1e-12)
    assert sum(mixed.probabilities.values()) == pytest.approx(1, abs=1e-12)
    assert mixed.entropy == pytest.approx(-(p * np.log(p)).sum(), abs=1e-12)
    assert copy.deepcopy(mixed) == mixed  # results cross to other processes


def test_many_faces_are_expressed_as_each_by_itself():
    logits = np.random.default_rng(0).normal(0, 4, (133, 8)).astype(np.float32)
    logits[5] = np.eye(8)[3] * 1e4
    logits[6] = 0
    assert express_each(logits, EMOTIONS) == [express(row, EMOTIONS) for row in logits]
    assert express_each(np.empty((0, 8), np.float32), EMOTIONS) == []


def test_the_number_of_labels_must_fit():
    with pytest.raises(ValueError, match="zip"):
        express(np.zeros(7), EMOTIONS)
