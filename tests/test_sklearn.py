"""The scikit-learn door: a transformer for images, the linear probe, and probes in files."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fevertools import Analyzer
from fevertools.errors import DataError, ImageError, OptionError
from tests._tiny import DIMENSION, write_weights

sklearn = pytest.importorskip("sklearn", reason="needs the extra `sklearn`")
pytest.importorskip("skops", reason="needs the extra `sklearn`")

from sklearn.base import clone  # noqa: E402
from sklearn.exceptions import SkipTestWarning  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils import estimator_checks as checks  # noqa: E402
from sklearn.utils.estimator_checks import check_estimator  # noqa: E402

from fevertools.sklearn import ExpressionEmbedder, LinearProbe, load_probe, save_probe  # noqa: E402

RNG = np.random.default_rng(0)
CROPS = RNG.integers(0, 256, (24, 48, 48)).astype(np.uint8)
CROPS[::2] //= 2
LABEL = np.where(np.arange(24) % 2, "light", "dark")


@pytest.fixture
def embedder(tiny_weights):
    return ExpressionEmbedder(tiny_weights, cropped=True, device="cpu", threads=1)


def test_embeddings_are_those_of_the_analyzer(embedder, tiny_weights):
    vectors = embedder.fit_transform(list(CROPS))
    with Analyzer(tiny_weights, device="cpu") as analyzer:
        np.testing.assert_allclose(vectors[3], analyzer.embed(CROPS[3], cropped=True)[0], rtol=1e-5)
    assert (vectors.shape, vectors.dtype) == ((24, DIMENSION), np.float32)
    assert embedder.transform([]).shape == (0, DIMENSION)


def test_in_a_pipeline(embedder):
    own = make_pipeline(embedder, LinearProbe()).fit(list(CROPS), LABEL)
    assert (own.predict(list(CROPS)) == LABEL).all()
    assert own.predict_proba(list(CROPS)).shape == (24, 2)


def test_clone_and_parameters(embedder):
    twin = clone(embedder.set_params(missing="drop", batch_size=7))
    assert twin.get_params() == embedder.get_params()
    assert twin.get_params()["batch_size"] == 7


@pytest.mark.parametrize("backend", ["pandas", "polars"])
def test_set_output(embedder, backend):
    library = pytest.importorskip(backend)
    frame = embedder.set_output(transform=backend).fit_transform(list(CROPS))
    assert isinstance(frame, library.DataFrame)
    assert list(frame.columns)[:2] == ["e0", "e1"]
    assert frame.shape == (24, DIMENSION)


def test_images_without_a_face(embedder):
    images = [CROPS[0], b"no image", CROPS[1]]
    vectors = embedder.fit(images).transform(images)
    assert np.isnan(vectors).all(axis=1).tolist() == [False, True, False]
    assert embedder.set_params(missing="drop").transform(images).shape == (2, DIMENSION)
    assert embedder.embed(images)[1].tolist() == [True, False, True]
    with pytest.raises(ImageError):
        embedder.set_params(missing="raise").transform(images)
    dark = ExpressionEmbedder(embedder.weights, device="cpu", missing="raise")
    with pytest.raises(DataError, match="no face in image 0"):
        dark.transform([np.zeros((64, 64, 3), np.uint8)])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"missing": "guess"}, "missing"), ({"batch_size": 0}, "batch_size"), ({"flip": 2}, "flip")],
)
def test_parameters_are_checked_at_fit(tiny_weights, options, message):
    with pytest.raises(OptionError, match=message):
        ExpressionEmbedder(tiny_weights, **options).fit([])


def test_one_image_is_no_sequence(embedder):
    with pytest.raises(OptionError, match="list"):
        embedder.transform("photo.jpg")


def vectors(count=200, classes=3, seed=1):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, count)
    return rng.normal(size=(count, 8)) + 1.5 * np.eye(8)[label], label


def test_probe_is_the_logistic_regression_of_the_papers():
    features, label = vectors()
    probe = LinearProbe().fit(features, label)
    scaler = StandardScaler().fit(features)
    reference = LogisticRegression(C=10_000, max_iter=1000).fit(scaler.transform(features), label)
    np.testing.assert_allclose(probe.predict_proba(features), reference.predict_proba(scaler.transform(features)))
    assert probe.classes_.tolist() == [0, 1, 2]


def test_balanced_classes_weigh_the_same():
    features, label = vectors(600, 2)
    rare = np.flatnonzero((label == 0) | (np.arange(600) % 12 == 0))
    plain, even = (LinearProbe(1.0, balanced=b).fit(features[rare], label[rare]) for b in (False, True))
    fresh, truth = vectors(400, 2, seed=2)
    recall = [(probe.predict(fresh[truth == 1]) == 1).mean() for probe in (plain, even)]
    assert recall[1] > recall[0] + 0.02


def test_calibration_brings_confidence_to_accuracy():
    """Eight noisy dimensions and few faces: the weak penalty of the papers is far too sure."""
    rng = np.random.default_rng(3)
    label = rng.integers(0, 2, 120)
    features = rng.normal(size=(120, 40)) + 0.4 * np.eye(40)[label]
    fresh_label = rng.integers(0, 2, 2000)
    fresh = rng.normal(size=(2000, 40)) + 0.4 * np.eye(40)[fresh_label]
    gaps = []
    for calibration in (None, "sigmoid", "isotonic"):
        probe = LinearProbe(calibration=calibration).fit(features, label)
        accuracy = (probe.predict(fresh) == fresh_label).mean()
        gaps.append(probe.predict_proba(fresh).max(axis=1).mean() - accuracy)
    assert gaps[0] > 0.15
    assert max(abs(gaps[1]), abs(gaps[2])) < 0.1
    with pytest.raises(OptionError, match="calibration"):
        LinearProbe(calibration="magic").fit(features, label)


def test_streams():
    features, label = vectors(3000)
    probe = LinearProbe(C=1.0)
    for start in range(0, 3000, 100):
        probe.partial_fit(features[start : start + 100], label[start : start + 100], classes=[0, 1, 2])
    fresh, truth = vectors(500, seed=2)
    whole = LinearProbe(C=1.0).fit(features, label)
    assert (probe.predict(fresh) == truth).mean() > (whole.predict(fresh) == truth).mean() - 0.03
    with pytest.raises(OptionError, match="classes"):
        LinearProbe().partial_fit(features, label)
    with pytest.raises(OptionError, match="balance"):
        LinearProbe(balanced=True).partial_fit(features, label, classes=[0, 1, 2])


def test_probe_passes_the_checks_of_scikit_learn():
    check_estimator(LinearProbe())


def test_embedder_passes_the_checks_that_images_allow(tiny_weights):
    """scikit-learn has no images to feed: it refuses by the tag, and what needs no input is checked one by one."""
    embedder = ExpressionEmbedder(tiny_weights, cropped=True)
    with pytest.warns(SkipTestWarning, match="requires input"):
        results = check_estimator(embedder, on_fail="raise")
    assert {result["status"] for result in results} <= {"passed", "skipped"}
    for check in (
        checks.check_parameters_default_constructible, checks.check_get_params_invariance, checks.check_set_params,
        checks.check_no_attributes_set_in_init, checks.check_estimator_repr, checks.check_estimator_cloneable,
    ):  # fmt: skip
        check("ExpressionEmbedder", clone(embedder))


def test_probe_goes_through_a_file(tiny_weights, tmp_path):
    features, label = vectors()
    entry = Analyzer(tiny_weights).entry
    kinds = ({}, {"calibration": "sigmoid"}, {"calibration": "isotonic"}, {"balanced": True})
    for probe in (LinearProbe(**options) for options in kinds):
        probe.fit(features, label)
        save_probe(probe, tmp_path / "p.skops", entry)
        again = load_probe(tmp_path / "p.skops", entry)
        np.testing.assert_array_equal(again.predict_proba(features), probe.predict_proba(features))
    stream = LinearProbe().partial_fit(features, label, classes=[0, 1, 2])
    save_probe(stream, tmp_path / "p.skops", entry)
    again = load_probe(tmp_path / "p.skops", entry)
    np.testing.assert_array_equal(again.predict(features), stream.predict(features))
    again.partial_fit(features, label)  # and goes on
    (tmp_path / "other").mkdir()
    manifest = write_weights(tmp_path / "other")
    manifest.write_text(manifest.read_text().replace('"version": "1"', '"version": "2"'))
    with pytest.raises(OptionError, match="embeddings of"):
        load_probe(tmp_path / "p.skops", Analyzer(manifest).entry)


def test_files_that_are_no_probe(tmp_path):
    import skops.io

    class_of_ours = tmp_path / "x.skops"
    class_of_ours.write_bytes(b"junk")
    with pytest.raises(DataError, match="not a probe"):
        load_probe(class_of_ours)
    skops.io.dump({"probe": 1}, class_of_ours)
    with pytest.raises(DataError, match="not a probe"):
        load_probe(class_of_ours)
    with zipfile.ZipFile(class_of_ours) as archive:
        schema = json.loads(archive.read("schema.json"))
    text = json.dumps(schema).replace('"dict"', '"system"').replace('"builtins"', '"os"')
    with zipfile.ZipFile(class_of_ours, "w") as archive:
        archive.writestr("schema.json", text)
    with pytest.raises(DataError):
        load_probe(class_of_ours)
    with pytest.raises(DataError):
        load_probe(Path("missing.skops"))
