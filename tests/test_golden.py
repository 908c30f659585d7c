"""The bundled encoders still say what they said when they were released, on whatever ONNX Runtime is installed."""

import json

import numpy as np
import pytest

pytest.importorskip("onnx")  # which makes the tiny weights

from fevertools.encoder import Encoder
from fevertools.pipeline import Analyzer
from fevertools.weights import load_manifest, resolve
from tests._tiny import HEAD, reference
from tests.golden import FOLDER, drawn_crops, vectors

ENTRIES = [entry for entry in load_manifest().weights.values() if entry.kind == "encoder" and entry.bundled]


def test_there_is_a_default_encoder() -> None:
    assert load_manifest().entry(None, "encoder") in ENTRIES


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_golden_vectors(entry) -> None:
    golden = json.loads((FOLDER / f"{entry.name}.json").read_text())
    assert golden["sha256"] == entry.files["onnx"].sha256, "new weights: run python -m tests.golden"
    found = vectors(entry)
    assert found.keys() == golden.keys() - {"sha256"}
    for name, array in found.items():
        np.testing.assert_allclose(array, golden[name], atol=2e-3, rtol=0, err_msg=name)
    unit = np.array([output / np.linalg.norm(output) for output in golden.get("triplet", golden["embeddings"])])
    shown = Analyzer(entry.name).similarity(found["embeddings"], found["embeddings"])
    np.testing.assert_allclose(shown, unit @ unit.T, atol=2e-3, rtol=0)


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
