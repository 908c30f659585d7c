import inspect

import numpy as np
import pytest

pytest.importorskip("onnx")

import fevertools
from fevertools import pipeline
from fevertools.errors import OptionError, UnknownWeightsError, UnreadableImageError
from fevertools.manifest import load_manifest
from tests._tiny import DIMENSION, reference, reference_similarity

PUBLIC = {
    "detect",
    "embed",
    "classify",
    "similarity",
    "Analyzer",
    "Face",
    "Expression",
    "FaceResult",
    "ImageResult",
    "FevertoolsError",
    "errors",
    "EMOTIONS",
    "__version__",
}


@pytest.fixture(autouse=True)
def _own_analyzers(monkeypatch):
    monkeypatch.setattr(pipeline, "_shared", type(pipeline._shared)())


def crop(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (48, 48), np.uint8)


def test_public_names():
    assert set(fevertools.__all__) == PUBLIC
    assert all(hasattr(fevertools, name) for name in PUBLIC)
    assert fevertools.__version__.count(".") == 2


@pytest.mark.parametrize("name", ["detect", "embed", "classify", "similarity", "Analyzer"])
def test_everything_called_is_documented(name):
    text = inspect.getdoc(getattr(fevertools, name))
    assert "Example:" in text
    assert ">>> " in text


def test_embed_and_similarity(tiny_weights):
    vectors = np.concatenate(
        [fevertools.embed(crop(seed), weights=str(tiny_weights), cropped=True, device="cpu") for seed in range(2)]
    )
    expected = reference(np.stack([crop(0), crop(1)])[..., None])[0]
    assert vectors.shape == (2, DIMENSION)
    assert vectors.dtype == np.float32
    assert np.allclose(vectors, expected, atol=1e-5)
    cosine = expected[0] @ expected[1] / np.linalg.norm(expected[0]) / np.linalg.norm(expected[1])
    assert fevertools.similarity(vectors[0], vectors[1], weights=tiny_weights) == pytest.approx(cosine, abs=1e-5)
    assert fevertools.similarity(vectors[0], vectors[1], metric="cosine") == pytest.approx(cosine, abs=1e-5)


def test_similarity_uses_the_head_of_the_default_weights(tiny_weights, triplet_weights, monkeypatch):
    default = load_manifest(triplet_weights)
    monkeypatch.setattr(pipeline, "load_manifest", lambda path=None: load_manifest(path) if path else default)
    a, b = np.random.default_rng(3).normal(size=(2, DIMENSION)).astype(np.float32)
    expected = pytest.approx(reference_similarity(a, b), abs=1e-6)
    assert fevertools.similarity(a, b) == fevertools.similarity(a, b, metric="triplet") == expected
    assert fevertools.similarity(a, b, weights=tiny_weights) == fevertools.similarity(a, b, metric="cosine") != expected
    fevertools.embed(crop(), cropped=True)
    assert len(pipeline._shared) == 2  # one each of the default and the tiny weights
    with pytest.raises(OptionError, match=r"24 dimensions.*Analyzer whose weights made them"):
        fevertools.similarity(np.ones(24), np.ones(24))


def test_classify(tiny_weights):
    (expression,) = fevertools.classify(crop(), weights=tiny_weights, cropped=True)
    logits = reference(crop()[None, :, :, None])[1][0]
    assert expression.label == fevertools.EMOTIONS[logits.argmax()]
    weights = np.exp(logits)
    assert np.allclose(list(expression.probabilities.values()), weights / weights.sum(), atol=1e-5)


def test_calls_share_one_analyzer(tiny_weights):
    fevertools.embed(crop(), weights=tiny_weights, cropped=True)
    fevertools.classify(crop(), weights=tiny_weights, cropped=True)
    assert len(pipeline._shared) == 1


def test_without_faces(tiny_weights):
    blank = np.zeros((50, 60, 3), np.uint8)
    assert fevertools.detect(blank) == []
    assert fevertools.embed(blank, weights=tiny_weights).shape == (0, DIMENSION)
    assert fevertools.classify(blank, weights=tiny_weights) == []


def test_errors_come_from_the_tree(tiny_weights):
    with pytest.raises(UnreadableImageError):
        fevertools.detect(b"nothing")
    with pytest.raises(UnknownWeightsError, match="'nothing'; known"):
        fevertools.embed(crop(), weights="nothing", cropped=True)
    with pytest.raises(OptionError, match="no device named 'abacus'"):
        fevertools.embed(crop(), weights=tiny_weights, cropped=True, device="abacus")
    with pytest.raises(OptionError, match="min_face_size"):
        fevertools.detect(crop(), min_face_size=-1)
    with pytest.raises(OptionError, match="thresholds"):
        fevertools.detect(crop(), thresholds=[0.5])
    with pytest.raises(OptionError, match="color"):
        fevertools.detect(crop(), color="grb")


@pytest.mark.data
def test_detect_takes_its_options(data_root):
    photo = data_root / "photos" / "solvay_1927.jpg"
    faces = fevertools.detect(photo)
    assert len(faces) >= 28
    sides = [np.sqrt(np.prod(face.box[2:] - face.box[:2])) for face in faces]
    assert sides == sorted(sides, reverse=True)
    (largest,) = fevertools.detect(photo, largest=True)
    assert np.array_equal(largest.box, faces[0].box)
    assert len(fevertools.detect(photo, max_faces=3)) == 3
    large = fevertools.detect(photo, min_face_size=80, thresholds=[0.6, 0.7, 0.9])
    assert len(large) < len(faces)
