"""The bundled encoders still say what they said when they were released, on whatever ONNX Runtime is installed."""

import json

import numpy as np
import pytest

from fevertools.encoder import Encoder
from fevertools.weights import load_manifest, resolve
from tests.golden import FOLDER, drawn_crops

ENTRIES = [entry for entry in load_manifest().weights.values() if entry.kind == "encoder" and entry.bundled]


def test_there_is_a_default_encoder() -> None:
    assert load_manifest().entry(None, "encoder") in ENTRIES


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_golden_vectors(entry) -> None:
    golden = json.loads((FOLDER / f"{entry.name}.json").read_text())
    assert golden["sha256"] == entry.files["onnx"].sha256, "new weights: run python -m tests.golden"
    encoding = Encoder(entry, resolve(entry), device="cpu").encode(drawn_crops())
    np.testing.assert_allclose(encoding.embeddings, golden["embeddings"], atol=2e-3, rtol=0)
    np.testing.assert_allclose(encoding.logits, golden["logits"], atol=2e-3, rtol=0)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_batching_changes_nothing_visible(entry) -> None:
    crops = np.concatenate([drawn_crops()] * 5)
    one, many = (Encoder(entry, resolve(entry), device="cpu", batch_size=b).encode(crops) for b in (1, 15))
    np.testing.assert_allclose(one.embeddings, many.embeddings, atol=1e-4, rtol=0)
