"""Where the network looked: maps that add up to the logits, and weights that have none or lie about theirs."""

import json

import numpy as np
import pytest

from fevertools import EMOTIONS, Analyzer
from fevertools.encoder import Encoder
from fevertools.errors import OptionError, WeightsIntegrityError
from fevertools.manifest import load_manifest
from fevertools.preprocess import enlarge
from fevertools.types import FaceGeometry
from fevertools.weights import resolve

pytest.importorskip("onnx")

from tests._tiny import reference_maps, write_weights

CROPS = np.random.default_rng(0).integers(0, 256, (5, 48, 48, 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("maps"), maps=True)


@pytest.fixture
def encoder(weights):
    entry = load_manifest(weights).entry(None, "encoder")
    return Encoder(entry, resolve(entry), device="cpu", batch_size=2)


def test_maps_add_up_to_the_logits(encoder):
    maps, logits = encoder.maps(CROPS), encoder.encode(CROPS).logits
    np.testing.assert_allclose(maps, reference_maps(CROPS), atol=1e-4)
    np.testing.assert_allclose(maps.mean(axis=(2, 3)), logits, atol=1e-4)
    assert encoder.maps(CROPS[:0]).shape[:2] == (0, 8)
    with pytest.raises(OptionError, match="crops must be"):
        encoder.maps(CROPS[:, :24])


def test_explains_a_face(weights):
    with Analyzer(weights, device="cpu") as analyzer:
        (found,) = analyzer.explain(CROPS[0, :, :, 0], cropped=True)
        (expression,) = analyzer.classify(CROPS[0, :, :, 0], cropped=True)
    assert found.expression == expression
    np.testing.assert_array_equal(found.crop, CROPS[0, :, :, 0])
    assert tuple(found.maps) == EMOTIONS
    assert {shown.shape for shown in found.maps.values()} == {(48, 48)}
    heat = found.heat()
    assert (heat.min(), heat.max()) == (0, 1)
    np.testing.assert_array_equal(heat, found.heat(expression.label))
    # The middle of each block has the value of the block.
    block = reference_maps(CROPS[:1])[0, EMOTIONS.index("fear")]
    np.testing.assert_allclose(found.maps["fear"][3:45:8, 3:45:8], block, atol=0.2 * np.abs(block).max())


def test_a_flat_map_has_no_heat(weights):
    with Analyzer(weights, device="cpu") as analyzer:
        (found,) = analyzer.explain(np.full((48, 48), 7, np.uint8), cropped=True)
    assert found.heat("anger").shape == (48, 48)


def test_no_face_no_explanation(weights):
    with Analyzer(weights, device="cpu") as analyzer:
        assert analyzer.explain(np.zeros((64, 64, 3), np.uint8)) == []


def test_weights_without_maps_say_so(tiny_weights):
    with Analyzer(tiny_weights, device="cpu") as analyzer, pytest.raises(OptionError, match="no class activation maps"):
        analyzer.explain(CROPS[0, :, :, 0], cropped=True)


@pytest.mark.parametrize("promised", [True, False])
def test_a_graph_that_is_not_as_its_manifest_says(tmp_path, promised):
    path = write_weights(tmp_path, maps=not promised)
    manifest = json.loads(path.read_text())
    outputs = manifest["weights"]["tiny"]["outputs"]
    outputs.pop("maps", None)
    if promised:
        outputs["maps"] = 8
    path.write_text(json.dumps(manifest))
    entry = load_manifest(path).entry(None, "encoder")
    with pytest.raises(WeightsIntegrityError, match="maps"):
        Encoder(entry, resolve(entry), device="cpu")


def test_enlarge_keeps_what_is_even():
    geometry = FaceGeometry(10, 20, ((0, 0),) * 5)
    maps = np.stack([np.full((3, 3), 2.5), np.arange(9.0).reshape(3, 3)]).astype(np.float32)
    found = enlarge(maps, geometry)
    assert (found.shape, found.dtype) == ((2, 10, 20), np.float32)
    np.testing.assert_allclose(found[0], 2.5, rtol=1e-5)
    assert found[1, 0, 0] < found[1, 5, 10] < found[1, -1, -1]
