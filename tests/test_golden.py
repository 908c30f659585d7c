"""The bundled encoders still say what they said when they were released, on whatever ONNX Runtime is installed."""

import json

import numpy as np
import pytest

pytest.importorskip("onnx")  # which makes the tiny weights

from fevertools.encoder import Encoder
from fevertools.manifest import PRECISIONS
from fevertools.pipeline import Analyzer
from fevertools.weights import load_manifest, resolve
from tests._tiny import HEAD, reference
from tests.golden import drawn_crops, path_of, vectors

# Integers are equal on every machine, but the enlargement before them is not to the last bit, and one step of an
# activation more or less goes on from layer to layer.
TOLERANCES = {"float32": 2e-3, "int8": 5e-2}
ENTRIES = [entry for entry in load_manifest().weights.values() if entry.kind == "encoder" and entry.bundled]


def test_there_is_a_default_encoder() -> None:
    assert load_manifest().entry(None, "encoder") in ENTRIES


GRAPHS = [(entry, name) for entry in ENTRIES for name, role in PRECISIONS.items() if role in entry.files]


@pytest.mark.parametrize(("entry", "precision"), GRAPHS, ids=lambda value: getattr(value, "name", value))
def test_golden_vectors(entry, precision) -> None:
    golden = json.loads(path_of(entry, precision).read_text())
    sha256 = entry.files[PRECISIONS[precision]].sha256
    assert golden["sha256"] == sha256, "new weights: run python -m tests.golden"
    found = vectors(entry, precision)
    assert found.keys() == golden.keys() - {"sha256"}
    tolerance = TOLERANCES[precision]
    for name, array in found.items():
        np.testing.assert_allclose(array, golden[name], atol=tolerance, rtol=0, err_msg=name)
    unit = np.array([output / np.linalg.norm(output) for output in golden.get("triplet", golden["embeddings"])])
    shown = Analyzer(entry.name).similarity(found["embeddings"], found["embeddings"])
    np.testing.assert_allclose(shown, unit @ unit.T, atol=tolerance, rtol=0)


def test_the_default_weights_have_both_precisions_which_are_alike() -> None:
    entry = load_manifest().entry(None, "encoder")
    exact, fast = (vectors(entry, precision) for precision in ("float32", "int8"))
    a, b = exact["embeddings"], fast["embeddings"]
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert 0.99 < cosine.min() < 1
    assert exact["logits"].argmax(1).tolist() == fast["logits"].argmax(1).tolist()
    x = np.concatenate([a, b])
    similarity = Analyzer(entry.name).similarity(x, x)
    assert np.diagonal(similarity, len(a)).min() > 0.98  # on the triplet head too


def test_the_triplet_output_is_among_them(triplet_weights) -> None:
    found = vectors(load_manifest(triplet_weights).named("tiny"))
    embeddings, logits = reference(drawn_crops())
    np.testing.assert_allclose(found["embeddings"], embeddings, atol=1e-5)
    np.testing.assert_allclose(found["logits"], logits, atol=1e-5)
    outputs = [HEAD[:, :-1] @ embedding + HEAD[:, -1] for embedding in embeddings]
    np.testing.assert_allclose(found["triplet"], outputs, atol=1e-5)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_batching_changes_nothing_visible(entry) -> None:
    crops = np.concatenate([drawn_crops()] * 5)
    one, many = (Encoder(entry, resolve(entry), device="cpu", batch_size=b).encode(crops) for b in (1, 15))
    np.testing.assert_allclose(one.embeddings, many.embeddings, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("entry", "precision"), GRAPHS, ids=lambda value: getattr(value, "name", value))
def test_threads_change_no_bit(entry, precision) -> None:
    crops = np.concatenate([drawn_crops(), 255 - drawn_crops()] * 3)
    first, *others = (
        Encoder(entry, resolve(entry), precision=precision, device="cpu", threads=threads).encode(crops, flip=True)
        for threads in (1, 2, 5)
    )
    for other in others:
        assert np.array_equal(other.embeddings, first.embeddings)
        assert np.array_equal(other.logits, first.logits)


@pytest.mark.parametrize(("entry", "precision"), GRAPHS, ids=lambda value: getattr(value, "name", value))
def test_maps_add_up_to_the_logits(entry, precision) -> None:
    """Their mean over the places is the logit, up to a constant of the label, whatever the arithmetic before them."""
    encoder = Encoder(entry, resolve(entry), precision=precision, device="cpu")
    constant = encoder.encode(drawn_crops()).logits - encoder.maps(drawn_crops()).mean(axis=(2, 3))
    np.testing.assert_allclose(constant, np.broadcast_to(constant[:1], constant.shape), atol=1e-3)
